"""What all communicators of one rank share: the door, the encoder, how long an operation may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.collectives.steps import Schedule
from ..core.peers.contexts import Context
from ..core.peers.requests import Request as Operation
from ..net.clock import monotonic
from ..net.peer_door import PeerDoor
from ..wire.exact import ExactEncoder, decode_exact
from ..wire.fields import Frame
from .requests import Request

__all__ = ["TIMEOUT", "Basis", "Rank", "unpacked"]

TIMEOUT = 600.0  # seconds an operation may take where nobody has said


class Rank:
    """One rank of a run.

    Args:
        door: its connections.
        timeout: seconds an operation may take; None: 600.
    """

    def __init__(self, door: PeerDoor, timeout: float | None = None) -> None:
        self.door = door
        self.peer = door.peer
        self.timeout = TIMEOUT if timeout is None else timeout
        self._encode = ExactEncoder().encode

    def pack(self, value: Any) -> tuple[Frame, ...]:
        """The frames of a value."""
        return tuple(self._encode(value))

    def deadline(self) -> float:
        """Of an operation that begins now."""
        return monotonic() + self.timeout


class Basis:
    """What every part of a communicator uses.

    Args:
        rank: whose it is.
        context: its rules.
    """

    def __init__(self, rank: Rank, context: Context) -> None:
        self._rank = rank
        self._context = context

    @property
    def _place(self) -> tuple[int, int]:
        return self._context.rank, self._context.size

    def _begin(self, signature: str, schedule: Schedule, finish: Callable[[Any], Any]) -> Request:
        """Begins a collective; ``finish`` makes its result of the schedule's."""
        one = self._rank
        with one.door.lock:
            operation = one.peer.start(self._context, signature, schedule, one.deadline())
            one.door.perform()
        return Request(one.door, operation, finish)

    def _ended(self, operation: Operation) -> Any:
        """Waits for an operation, and takes its result."""
        self._rank.door.wait(operation)
        return operation.result()

    def _check_root(self, root: int) -> None:
        if not 0 <= root < self._context.size:
            raise ValueError(f"root={root} is no rank of a communicator of {self._context.size} ranks")


def unpacked(frames: tuple[Frame, ...]) -> Any:
    """The value that frames hold."""
    return decode_exact(frames)
