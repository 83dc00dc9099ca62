"""mpi4py's ``Request``: an operation that goes on while the caller does something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.peers.requests import Request as Operation
from ..core.status import UNDEFINED, Status
from ..net.peer_door import PeerDoor

__all__ = ["Request", "fill", "nothing"]


def nothing(value: Any) -> None:
    """Of an operation whose result lies in a buffer."""


def fill(status: Status | None, source: int, tag: int, octets: int, cancelled: bool = False) -> None:
    """Tells a caller who wants to know."""
    if status is not None:
        status.source, status.tag, status.count, status.cancelled, status.error = source, tag, octets, cancelled, 0


class Request:
    """One operation under way. It goes on in calls of its rank's communicators and requests only.

    Args:
        door: of the rank.
        operation: what it is.
        finish: makes the result of the operation's value.
    """

    def __init__(self, door: PeerDoor, operation: Operation, finish: Callable[[Any], Any]) -> None:
        self._door = door
        self._operation = operation
        self._finish: Callable[[Any], Any] | None = finish
        self._value: Any = None

    def wait(self, status: Status | None = None) -> Any:
        """Waits for the end; returns the object of a receive or of a collective.

        Raises:
            CommTimeout: not by the deadline of the operation; the text names the ranks that never came.
            CommError: as the operation raises.
        """
        one = self._operation
        if not one.done:
            self._door.wait(one)
        value = one.result()
        fill(status, one.source, one.tag, one.octets, one.cancelled)
        if self._finish is not None:
            finish, self._finish = self._finish, None
            self._value = None if one.cancelled else finish(value)
        return self._value

    def test(self, status: Status | None = None) -> tuple[bool, Any]:
        """Whether it has ended, and what ``wait`` would return."""
        if not self._operation.done:
            self._door.turn(0.0)
        return (True, self.wait(status)) if self._operation.done else (False, None)

    def Wait(self, status: Status | None = None) -> bool:
        """Waits for the end. Returns True."""
        self.wait(status)
        return True

    def Test(self, status: Status | None = None) -> bool:
        """Whether it has ended."""
        return self.test(status)[0]

    def cancel(self) -> None:
        """Takes it back, if it is a receive that has met no message, or a send that has not left."""
        with self._door.lock:
            self._door.peer.cancel(self._operation)
            self._door.perform()

    Cancel = cancel

    @classmethod
    def waitall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[Any]:
        """Waits for all of them; returns what ``wait`` returns of each."""
        given = _statuses(statuses, len(requests))
        return [request.wait(status) for request, status in zip(requests, given, strict=True)]

    @classmethod
    def Waitall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> bool:
        """Waits for all of them. Returns True."""
        cls.waitall(requests, statuses)
        return True

    @classmethod
    def testall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> tuple[bool, Any]:
        """Whether all have ended, and what ``waitall`` would return."""
        if not all(request._operation.done for request in requests):
            requests[0]._door.turn(0.0)
        if not all(request._operation.done for request in requests):
            return False, None
        return True, cls.waitall(requests, statuses)

    @classmethod
    def waitany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, Any]:
        """Waits for one of them that nobody has waited for; returns its place, and what its ``wait`` returns.

        ``MPI.UNDEFINED`` and None: there is none.
        """
        while True:
            for index, request in enumerate(requests):
                if request._operation.done and request._finish is not None:
                    return index, request.wait(status)
            if all(request._finish is None for request in requests):
                return UNDEFINED, None
            requests[0]._door.turn(1.0)

    @classmethod
    def testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool, Any]:
        """The place of one that has ended, whether there is one, and what its ``wait`` returns."""
        if requests:
            requests[0]._door.turn(0.0)
        for index, request in enumerate(requests):
            if request._operation.done and request._finish is not None:
                return index, True, request.wait(status)
        return UNDEFINED, all(request._finish is None for request in requests), None


def _statuses(statuses: list[Status] | None, count: int) -> Sequence[Status | None]:
    if statuses is None:
        return [None] * count
    statuses.extend(Status() for _ in range(count - len(statuses)))
    return statuses[:count]
