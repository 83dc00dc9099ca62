"""Memory that one side of a connection lends to the other, where both are on one host (PROTOCOL.md, section 6.5).

Three commands of ZMTP, which only a peer that has offered the property in its READY is ever sent: MEMORY says where the
octets of frames of the next message are, RELEASE gives slots back, FORGET says that slots are no more. This file knows
the octets alone; what memory is, is the business of ``net``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from ..errors import RemoteProtocolError
from .codes import Code
from .framing import Frames, command

__all__ = ["COMMANDS", "PROPERTY", "SLOTS_MAX", "Place", "Shared", "lent", "memory_octets", "offer", "offered", "put"]

PROPERTY: Final = b"X-SPS-Memory"
MEMORY: Final = b"MEMORY"
RELEASE: Final = b"RELEASE"
FORGET: Final = b"FORGET"
COMMANDS: Final = frozenset({MEMORY, RELEASE, FORGET})

SLOTS_MAX: Final = 64  # that one side lends over one connection: each is a mapping, and at both ends a descriptor
_OFFER = struct.Struct("!Q")
_HEAD = struct.Struct("!IQ")  # slot, its octets
_PLACE = struct.Struct("!BQQ")  # index of a frame, where its octets begin, how many there are
_SLOT = struct.Struct("!I")

Place = tuple[int, int, int]
Lent = list[tuple[int, memoryview]]


class Shared(Protocol):
    """What an engine asks of the owner of mappings.

    Attributes:
        bytes_max: octets of the other side's memory that this side is ready to map.
    """

    bytes_max: int

    def borrow(self, slot: int, size: int) -> memoryview:
        """The whole of a slot of the other side; RemoteProtocolError: there is none such."""

    def returned(self, slots: Sequence[int]) -> None:
        """The other side uses these slots of ours no longer."""

    def forget(self, slots: Sequence[int]) -> None:
        """The other side has given up these slots of its own, which we had returned."""


def offer(shared: Shared) -> bytes:
    """The value of the property."""
    return _OFFER.pack(shared.bytes_max)


def offered(value: bytes) -> int:
    """How many octets the other side is ready to map; 0: it has not said, or what it has said means nothing."""
    return int.from_bytes(value, "big") if len(value) == _OFFER.size else 0


def memory_octets(slot: int, size: int, places: Iterable[Place]) -> bytes:
    """The command that puts octets of a slot in place of empty frames of the next message."""
    return command(MEMORY, _HEAD.pack(slot, size) + b"".join(_PLACE.pack(*place) for place in places))


def release_octets(slots: Iterable[int]) -> bytes:
    """The command that gives slots of the other side back."""
    return command(RELEASE, b"".join(map(_SLOT.pack, slots)))


def forget_octets(slots: Iterable[int]) -> bytes:
    """The command that says that slots of this side are no more."""
    return command(FORGET, b"".join(map(_SLOT.pack, slots)))


def lent(shared: Shared, name: bytes, body: bytes, before: Lent | None) -> Lent | None:
    """Takes one command. Returns what is lent for the next message, with what was lent ``before``.

    Raises:
        RemoteProtocolError: malformed, or about memory that is not there.
    """
    if name == MEMORY:
        if before is not None:
            raise _malformed("MEMORY came twice for one message")
        return _memory(shared, body)
    if len(body) % _SLOT.size or len(body) > SLOTS_MAX * _SLOT.size:
        raise _malformed(f"{name.decode()} with {len(body)} octets")
    slots = [slot for (slot,) in _SLOT.iter_unpack(body)]
    if name == RELEASE:
        shared.returned(slots)
    else:
        shared.forget(slots)
    return before


def put(frames: Frames, places: Lent, bytes_max: int) -> Frames:
    """Puts what was lent in the place of the empty frames of a message that is whole.

    Raises:
        RemoteProtocolError: there is no such frame, it is not empty, or the message is over its limit now.
    """
    for index, octets in places:
        if index >= len(frames) or len(frames[index]):
            raise _malformed(f"MEMORY names frame {index}, which is not there, or not empty")
        frames[index] = octets
    total = sum(map(len, frames))
    if total > bytes_max:
        raise RemoteProtocolError(f"a message of {total} octets, the limit is {bytes_max}", Code.TOO_LARGE)
    return frames


def _memory(shared: Shared, body: bytes) -> Lent:
    if len(body) <= _HEAD.size or (len(body) - _HEAD.size) % _PLACE.size:
        raise _malformed(f"MEMORY with {len(body)} octets")
    slot, size = _HEAD.unpack_from(body)
    whole = shared.borrow(slot, size)
    found = []
    for index, start, count in _PLACE.iter_unpack(body[_HEAD.size :]):
        if not count or start + count > len(whole):
            raise _malformed(f"MEMORY names octets {start}..{start + count} of a slot of {len(whole)}")
        found.append((index, whole[start : start + count]))
    return found


def _malformed(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(text, Code.MALFORMED)
