"""Relayed messages without a state: their limits, and what is read of them (PROTOCOL.md, sections 7.41 and 8.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgpack

from ..errors import RemoteProtocolError
from . import codec
from .codes import Code
from .fields import FIELDS_BYTES_MAX, FRAMES_MAX, U64, Frame
from .framing import LONG, MORE, Frames
from .messages import Kind

__all__ = [
    "BEGINNINGS",
    "CALL_WINDOW",
    "ENDING",
    "FINAL",
    "FIRST_CREDIT",
    "PART_BYTES_MAX",
    "WHOLE_BYTES_MAX",
    "WHOLE_FRAMES_MAX",
    "BadPart",
    "beginning_of",
    "call_of",
    "final",
    "frames_of",
    "opening_of",
    "read_credit",
    "read_part",
    "room_for",
    "route_of",
]

WHOLE_BYTES_MAX: Final = 128 * 1024  # octets of all frames of a message that is relayed as it is
WHOLE_FRAMES_MAX: Final = FRAMES_MAX - 2  # a RELAY has a preamble and fields of its own
PART_BYTES_MAX: Final = 128 * 1024
FIRST_CREDIT: Final = PART_BYTES_MAX  # octets of a call's parts that may leave before any CREDIT has come
CALL_WINDOW: Final = 1 << 20  # octets of a call's parts that a receiver lets be under way

BEGINNINGS: Final = frozenset({Kind.REQUEST, Kind.BATCH, Kind.STREAM})  # the messages with which a call begins
# The answers after which a call is over.
FINAL: Final = frozenset({Kind.REPLY, Kind.ERROR, Kind.RESULTS})
_HEAD: Final = bytes((MORE, codec.PREAMBLE_BYTES))  # of a preamble that is not the last frame
ENDING: Final = FINAL | {Kind.CANCEL}


class BadPart(RemoteProtocolError):
    """A PART that does not fit what has come of its call, or announces a message that is too large.

    Attributes:
        call_id: its call.
    """

    def __init__(self, text: str, code: Code, call_id: int) -> None:
        super().__init__(text, code)
        self.call_id = call_id


def final(preamble: Frame) -> bool:
    """Whether a message with this preamble is the last of its call."""
    return len(preamble) == codec.PREAMBLE_BYTES and preamble[4] in FINAL


def room_for(payload_bytes: int) -> int:
    """Octets in ZMTP of a message with so much payload, at the most."""
    return payload_bytes + codec.PREAMBLE_BYTES + FIELDS_BYTES_MAX + 9 * FRAMES_MAX


def route_of(connection: bytes) -> bytes:
    """The fields of a RELAY for the client of that connection."""
    return bytes(msgpack.packb((connection,)))


def read_part(frames: Sequence[Frame]) -> tuple[int, int, int, Frame]:
    """Call id, offset, size and piece of a PART.

    Raises:
        RemoteProtocolError: it is malformed.
    """
    values = codec.decode_fields(frames[1])[:3]
    if len(values) != 3 or any(type(value) is not int or not 0 <= value <= U64 for value in values):
        raise RemoteProtocolError("the fields of a PART are three integers", Code.MALFORMED)
    call_id, offset, size = values
    if len(frames) != 3 or not 0 < len(frames[2]) <= PART_BYTES_MAX or offset + len(frames[2]) > size:
        text = f"a PART carries one frame of 1..{PART_BYTES_MAX} octets, within the size of its message"
        raise BadPart(text, Code.MALFORMED, call_id)
    return call_id, offset, size, frames[2]


def read_credit(packed: Frame) -> tuple[int, int]:
    """Items and octets of a CREDIT.

    Raises:
        RemoteProtocolError: it is malformed.
    """
    _, items, octets, *_ = (*codec.decode_fields(packed), 0, 0)
    if any(type(value) is not int or not 0 <= value <= U64 for value in (items, octets)):
        raise RemoteProtocolError("the fields of a CREDIT are integers", Code.MALFORMED)
    return items, octets


def opening_of(piece: Frame) -> tuple[bytes, bytes]:
    """Preamble and fields of the message whose first piece this is.

    Raises:
        RemoteProtocolError: it does not begin with them.
    """
    if type(piece) is bytes and piece[:2] == _HEAD and len(piece) > 20 and piece[18] <= MORE:  # most often
        stop = 20 + piece[19]
        if stop <= len(piece):
            return piece[2:18], piece[20:stop]
    view = memoryview(piece)
    position, found = 0, []
    for _ in range(2):
        head, stop, _flags = _frame_at(view, position)
        found.append(bytes(view[head:stop]))
        position = stop
    return found[0], found[1]


def beginning_of(piece: Frame, call_id: int, run_id: bytes) -> tuple[Kind, list[Any]]:
    """Kind and fields of the message that begins a call, of which this is the first piece.

    Raises:
        RemoteProtocolError: it begins no call, or another one.
    """
    opening, packed = opening_of(piece)
    fields = codec.decode_fields(packed)
    kind = codec.read_preamble(opening, run_id)
    if kind not in BEGINNINGS or fields[:1] != [call_id]:
        raise RemoteProtocolError("the parts of a message that begins no call", Code.MALFORMED)
    return kind, fields


def frames_of(octets: memoryview) -> Frames:
    """The frames of a message from its ZMTP encoding, without a copy.

    Raises:
        RemoteProtocolError: it is not one whole message.
    """
    frames: Frames = []
    position, more = 0, MORE
    while more:
        head, stop, flags = _frame_at(octets, position)
        frames.append(octets[head:stop] if stop - head >= 256 else bytes(octets[head:stop]))
        position, more = stop, flags & MORE
        if len(frames) > FRAMES_MAX:
            raise RemoteProtocolError(f"a message of more than {FRAMES_MAX} frames", Code.MALFORMED)
    if position == len(octets):
        return frames
    raise RemoteProtocolError("octets behind the last frame of a message in parts", Code.MALFORMED)


def _frame_at(octets: memoryview, position: int) -> tuple[int, int, int]:
    """Where the body of a frame begins and ends, and its flags."""
    start = octets[position : position + 9]
    flags = start[0] if len(start) >= 2 else 0xFF
    if flags > (MORE | LONG) or (flags & LONG and len(start) < 9):
        raise RemoteProtocolError("a message in parts does not hold whole frames", Code.MALFORMED)
    size, head = (int.from_bytes(start[1:9], "big"), 9) if flags & LONG else (start[1], 2)
    head += position
    if head + size > len(octets):
        raise RemoteProtocolError("a message in parts does not hold whole frames", Code.MALFORMED)
    return head, head + size, flags


def call_of(frames: Sequence[Frame]) -> int:
    """The call that a message of the query plane belongs to: always its first field.

    Raises:
        RemoteProtocolError: it names none.
    """
    values = codec.decode_fields(frames[1]) if len(frames) > 1 else []
    if not values or type(values[0]) is not int:
        raise RemoteProtocolError("the first field is not a call id", Code.MALFORMED)
    return int(values[0])
