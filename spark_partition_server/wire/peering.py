"""The messages between ranks (PROTOCOL.md, sections 7.64 to 7.73).

All but MEET go from a rank that has said MEET over the same connection, so none of them names its sender. A context is
a communicator: its number, and ranks in these messages are those of the communicator, MEET excepted.

What the fields hold:

* ``sequence``: 0 for a message that ``send`` sent; else the number of the collective it belongs to, from 1.
* ``signature``: of a collective, everything its ranks have to agree on, as text: ``allreduce(float32 x 1024, SUM)``;
  of a message, what it is made of: empty for an object, ``float32`` for a buffer.
* sets of ranks are octets, a bit each: rank ``r`` is bit ``r % 8`` of octet ``r // 8``; zeros at the end are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from .fields import (
    GROUP_MAX,
    RANKS_MAX,
    SIGNATURE_CHARS_MAX,
    TAG_MAX,
    TOKEN_BYTES_MAX,
    U64,
    Frame,
    a_text,
    an_integer,
    declared,
    some_frames,
    some_octets,
)
from .kinds import Kind, Message, checked

__all__ = [
    "GROUP_MAX",
    "KINDS",
    "SIGNATURE_CHARS_MAX",
    "TAG_MAX",
    "Alarm",
    "Ask",
    "Ballot",
    "Cause",
    "Data",
    "Grant",
    "Meet",
    "Offer",
    "Phase",
    "Room",
    "Stand",
    "Tell",
    "ranks_from",
    "ranks_to",
]


class Cause(IntEnum):
    """Why a communicator is broken. ONLY APPEND."""

    LOST = 1
    REVOKED = 2
    MISMATCH = 3
    TIMEOUT = 4
    FAILED = 5


class Phase(IntEnum):
    """What a BALLOT says. ONLY APPEND."""

    STATE = 1
    PROPOSE = 2
    ACCEPT = 3
    DECIDE = 4


def ranks_to(ranks: Iterable[int]) -> bytes:
    """A set of ranks as octets."""
    number = 0
    for rank in ranks:
        number |= 1 << rank
    return number.to_bytes((number.bit_length() + 7) // 8, "little")


def ranks_from(octets: bytes) -> frozenset[int]:
    """Octets as a set of ranks; of a communicator that has them is for the caller to see."""
    return frozenset(8 * at + bit for at, octet in enumerate(octets) for bit in range(8) if octet >> bit & 1)


@dataclass(frozen=True, slots=True)
class Meet(Message):
    """P->P. Who speaks over this connection, and to whom; the first message both ways (7.64)."""

    kind: ClassVar[Kind] = Kind.MEET
    rank: int = declared(an_integer(RANKS_MAX - 1))
    incarnation: int = declared(an_integer(U64))
    to_rank: int = declared(an_integer(RANKS_MAX - 1))
    to_incarnation: int = declared(an_integer(U64))
    token: bytes = declared(some_octets(TOKEN_BYTES_MAX))


@dataclass(frozen=True, slots=True)
class Tell(Message):
    """P->P. A message, whole (7.65)."""

    kind: ClassVar[Kind] = Kind.TELL
    context: int = declared(an_integer(U64))
    sequence: int = declared(an_integer(U64))
    tag: int = declared(an_integer(TAG_MAX))
    signature: str = declared(a_text(SIGNATURE_CHARS_MAX))
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Offer(Message):
    """P->P. A message whose payload comes when somebody receives it (7.66)."""

    kind: ClassVar[Kind] = Kind.OFFER
    context: int = declared(an_integer(U64))
    sequence: int = declared(an_integer(U64))
    tag: int = declared(an_integer(TAG_MAX))
    signature: str = declared(a_text(SIGNATURE_CHARS_MAX))
    transfer: int = declared(an_integer(U64))
    octets: int = declared(an_integer(U64))


@dataclass(frozen=True, slots=True)
class Grant(Message):
    """P->P. Somebody receives what was offered (7.67)."""

    kind: ClassVar[Kind] = Kind.GRANT
    transfer: int = declared(an_integer(U64))


@dataclass(frozen=True, slots=True)
class Data(Message):
    """P->P. The payload of what was granted (7.68)."""

    kind: ClassVar[Kind] = Kind.DATA
    transfer: int = declared(an_integer(U64))
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Room(Message):
    """P->P. How much the messages of a lane may have cost in all (7.69). Lane 0: of ``send``; 1: of collectives."""

    kind: ClassVar[Kind] = Kind.ROOM
    lane: int = declared(an_integer(1))
    octets: int = declared(an_integer(U64))


@dataclass(frozen=True, slots=True)
class Alarm(Message):
    """P->P. A communicator is broken (7.70); what the fields say depends on ``cause``."""

    kind: ClassVar[Kind] = Kind.ALARM
    context: int = declared(an_integer(U64))
    cause: int = declared(an_integer(255))
    sequence: int = declared(an_integer(U64))
    rank: int = declared(an_integer(GROUP_MAX - 1))
    other: int = declared(an_integer(GROUP_MAX - 1))
    here: str = declared(a_text(SIGNATURE_CHARS_MAX))
    there: str = declared(a_text(SIGNATURE_CHARS_MAX))
    ranks: bytes = declared(some_octets(GROUP_MAX // 8))


@dataclass(frozen=True, slots=True)
class Ask(Message):
    """P->P. What are you doing on this communicator? (7.71)."""

    kind: ClassVar[Kind] = Kind.ASK
    context: int = declared(an_integer(U64))
    number: int = declared(an_integer(U64))
    sequence: int = declared(an_integer(U64))


@dataclass(frozen=True, slots=True)
class Stand(Message):
    """P->P. The answer to ASK (7.72)."""

    kind: ClassVar[Kind] = Kind.STAND
    context: int = declared(an_integer(U64))
    number: int = declared(an_integer(U64))
    sequence: int = declared(an_integer(U64))
    doing: str = declared(a_text(SIGNATURE_CHARS_MAX))
    signature: str = declared(a_text(SIGNATURE_CHARS_MAX))
    waiting: bytes = declared(some_octets(GROUP_MAX // 8))


@dataclass(frozen=True, slots=True)
class Ballot(Message):
    """P->P. A step of an agreement (7.73)."""

    kind: ClassVar[Kind] = Kind.BALLOT
    context: int = declared(an_integer(U64))
    number: int = declared(an_integer(U64))
    phase: int = declared(an_integer(255))
    round: int = declared(an_integer(GROUP_MAX - 1))
    stamp: int = declared(an_integer(GROUP_MAX))
    flag: int = declared(an_integer(U64))
    failed: bytes = declared(some_octets(GROUP_MAX // 8))
    next: int = declared(an_integer(U64))


KINDS: dict[Kind, type[Message]] = checked(Meet, Tell, Offer, Grant, Data, Room, Alarm, Ask, Stand, Ballot)
