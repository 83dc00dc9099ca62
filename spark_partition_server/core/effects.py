"""What a machine may ask of the world. Frozen, compared with ``==`` in tests, performed in order by a driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..wire.codes import Code
from ..wire.messages import Frame, Goodbye, Member, Message

__all__ = [
    "Effect",
    "Ended",
    "Forward",
    "InitFailed",
    "Joined",
    "Left",
    "Lost",
    "Refused",
    "Send",
    "ShutdownAsked",
    "StopAsked",
    "Welcomed",
]


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message. ``to`` is the sender key that ``receive`` was given; None: to the coordinator."""

    to: bytes | None
    message: Message


class Forward(NamedTuple):
    """Send frames that are a message already. A tuple, because relayed calls pass here four times.

    No frames: that was all, and the connection, one to the relay's door, is to be closed.
    """

    to: bytes | None
    frames: Sequence[Frame]


# ------------------------------------------------------------------------------------ of the coordinator


@dataclass(frozen=True, slots=True)
class Joined:
    """A member serves its rank from now on; ``previous`` is who did before, if anybody; ``meta`` is of its HELLO."""

    member: Member
    previous: Member | None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """A member said GOODBYE."""

    member: Member
    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A member was silent for longer than its lease."""

    member: Member
    silent: float


@dataclass(frozen=True, slots=True)
class InitFailed:
    """A server could not initialise its partition and never became a member."""

    goodbye: Goodbye


@dataclass(frozen=True, slots=True)
class Refused:
    """Somebody was refused; for the log."""

    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody who may asks for the end of the cluster."""

    reason: str


# ------------------------------------------------------------------------------------------ of a member


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The coordinator accepted this member; ``relay_port`` is of the relay's door, 0: there is none."""

    relay_port: int = 0


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """Stop serving within ``grace`` seconds."""

    reason: str
    grace: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; the server must end. ``code`` is OK after our own GOODBYE."""

    code: Code
    text: str


Effect = Send | Forward | Joined | Left | Lost | InitFailed | Refused | Welcomed | ShutdownAsked | StopAsked | Ended
