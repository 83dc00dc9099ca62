"""Messages to the octets of ZMTP, and the plainest of them back: what of the engine has no state.

::

    message = *( frame with more ) frame without more
    frame   = flags size body                        one octet of size up to 255, else eight
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

__all__ = [
    "THREE_SHORT_BYTES",
    "Frame",
    "Frames",
    "Pieces",
    "command",
    "encode",
    "encode_behind",
    "encode_small",
    "encode_vector",
    "ready_property",
    "three_short",
]

Frame: TypeAlias = "bytes | bytearray | memoryview"
Frames: TypeAlias = "list[Frame]"

MORE: Final = 0x01
LONG: Final = 0x02
COMMAND: Final = 0x04

SMALL_BYTES: Final = 32 * 1024  # a message up to this size is copied into one piece: one send
DIRECT_BYTES: Final = 8192  # a frame of this size or more is sent from, and received into, memory of its own
THREE_SHORT_BYTES: Final = 3 * 255  # what three short frames have at the most
JOINED_BYTES: Final = 4096  # neighbouring pieces of a frame up to this size are copied together

_SHORT_LAST = tuple(bytes((0, size)) for size in range(256))
_SHORT_MORE = tuple(bytes((MORE, size)) for size in range(256))


class Pieces:
    """A frame to be sent whose octets lie in several places, so that nobody has to copy them together.

    Never small: what is, is joined at once.

    Attributes:
        pieces: the octets, in order.
    """

    __slots__ = ("_size", "pieces")

    def __init__(self, pieces: Sequence[Frame]) -> None:
        self.pieces = tuple(pieces)
        self._size = sum(map(len, self.pieces))

    @classmethod
    def of(cls, parts: Iterable[Frame]) -> Frame | Pieces:
        """A frame of ``parts``; those that are short are copied together."""
        pieces: list[Frame] = []
        short: list[Frame] = []
        for part in parts:
            if len(part) <= JOINED_BYTES:
                short.append(part)
                continue
            if short:
                pieces.append(b"".join(short))
                short = []
            pieces.append(part)
        if short:
            pieces.append(b"".join(short))
        if sum(map(len, pieces)) <= SMALL_BYTES:
            return b"".join(pieces)
        return pieces[0] if len(pieces) == 1 else cls(pieces)

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)


def encode(frames: Sequence[Frame]) -> bytes:
    """The octets of one message, in one piece. For small messages: everything is copied."""
    parts: list[Frame] = []
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        size = len(frame)
        if size < 256:
            parts.append(_SHORT_MORE[size] if index < last else _SHORT_LAST[size])
        else:
            parts.append(_long_header(size, MORE if index < last else 0))
        parts.append(frame)
    return b"".join(parts)


def encode_small(frames: Sequence[Frame]) -> bytes | None:
    """The octets of one message, in one piece, where it is small; None: it is not, use ``encode_vector``."""
    if len(frames) == 3:  # most often a call or its answer, of three short frames
        first, second, third = frames
        a, b, c = len(first), len(second), len(third)
        if a < 256 and b < 256 and c < 256:
            return b"".join((_SHORT_MORE[a], first, _SHORT_MORE[b], second, _SHORT_LAST[c], third))
    return encode(frames) if sum(map(len, frames)) <= SMALL_BYTES else None


def encode_behind(head: bytes, second: bytes, third: Frame) -> bytes | None:
    """The octets of a message of three frames, of which ``head`` is the first with its header; None: one is not short.

    For the messages of which most are sent: their first frame never changes.
    """
    a, b = len(second), len(third)
    return b"".join((head, _SHORT_MORE[a], second, _SHORT_LAST[b], third)) if a < 256 and b < 256 else None


def encode_vector(frames: Sequence[Frame | Pieces]) -> list[Frame]:
    """The octets of one message as buffers for ``sendmsg``: long frames are not copied, short ones are joined."""
    vector: list[Frame] = []
    small: list[Frame] = []
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        more = MORE if index < last else 0
        size = len(frame)
        small.append(bytes((more, size)) if size < 256 else _long_header(size, more))
        if isinstance(frame, Pieces):
            vector.append(b"".join(small))
            vector.extend(frame.pieces)
        elif size < DIRECT_BYTES:
            small.append(frame)
            continue
        else:
            vector.append(b"".join(small))
            vector.append(frame)
        small = []
    if small:
        vector.append(b"".join(small))
    return vector


def command(name: bytes, body: bytes) -> bytes:
    """The octets of one command."""
    content = bytes((len(name),)) + name + body
    if len(content) < 256:
        return bytes((COMMAND, len(content))) + content
    return bytes((COMMAND | LONG,)) + len(content).to_bytes(8, "big") + content


def ready_property(name: bytes, value: bytes) -> bytes:
    """The octets of one property in a READY command."""
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def _long_header(size: int, flags: int) -> bytes:
    return bytes((flags | LONG,)) + size.to_bytes(8, "big")


def three_short(data: bytes, position: int, end: int, messages: list[Frames]) -> int:
    """Takes messages of three short frames, as most calls and answers are, until something else comes.

    Returns the position of that.
    """
    while end - position >= 6 and data[position] == MORE:
        first = position + 2 + data[position + 1]
        if first + 1 >= end or data[first] != MORE:
            break
        second = first + 2 + data[first + 1]
        if second + 1 >= end or data[second]:
            break
        third = second + 2 + data[second + 1]
        if third > end:
            break
        messages.append([data[position + 2 : first], data[first + 2 : second], data[second + 2 : third]])
        position = third
    return position
