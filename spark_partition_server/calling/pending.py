"""``Pending``: the future of a call that was submitted.

The fields that ``concurrent.futures`` keeps in a future (``_condition``, ``_state``, ``_waiters``, ``_done_callbacks``)
are kept here, and only here: ``wait`` and ``as_completed`` look at them. The public ``set_result`` would do the same
with a condition for each future, made and notified: a microsecond more than this costs, and a tenth of a call.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from ..errors import CallError
from ..wire.messages import Frame, Member

if TYPE_CHECKING:
    from ..net.channel import Channel
    from .line import Line
    from .submitter import Submitter

__all__ = ["FINISHED", "PENDING", "Pending", "Sleeper"]

log = logging.getLogger("concurrent.futures")  # where its own futures tell of callbacks that fail

# The states of concurrent.futures that a call can be in; it is never RUNNING, so it can be cancelled until it ends.
PENDING = "PENDING"
FINISHED = "FINISHED"
CANCELLED = "CANCELLED_AND_NOTIFIED"


class Pending(Future[Any]):
    """The answer to a call that is under way.

    A ``concurrent.futures.Future`` like any other, for ``wait``, ``as_completed``, ``add_done_callback`` and
    ``asyncio.wrap_future``. A thread that waits in ``result`` reads the answers of the server itself.

    Attributes:
        rank: the partition that was called.
        method: the method.
    """

    __slots__ = (
        "_attempt",
        "_call_id",
        "_channel",
        "_deadline",
        "_failure",
        "_line",
        "_mark",
        "_octets",
        "_owner",
        "_payload",
        "_started",
        "_tried",
        "method",
        "rank",
    )

    def __init__(
        self,
        owner: Submitter,
        condition: threading.Condition,
        line: Line,
        method: str,
        payload: list[Frame],
        octets: int,
        started: float,
        deadline: float,
    ) -> None:
        # Not super().__init__(): the Condition that it makes costs more than sending the call. All calls of a client
        # share one, which nobody ever waits on: ``result`` and ``exception`` have their own ways.
        self._condition = condition
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiters: list[Any] = []  # those of concurrent.futures, and Sleepers
        self._done_callbacks: list[Callable[[Future[Any]], Any]] = []
        self._owner: Submitter | None = owner  # None once it is over
        self._line: Line | None = line
        self.rank = line.rank
        self.method = method
        self._payload: list[Frame] = payload
        self._octets = octets
        self._started = started
        self._deadline = deadline
        self._attempt = 1
        self._call_id = 0
        self._channel: Channel | None = None  # over which the request goes; None: it waits for one
        self._tried: Member | None = None  # whom the last try went to, or was to go to
        self._failure: CallError | None = None  # of the last try, while it waits for another
        self._mark = 0  # the request has certainly not left whole while ``channel.handed`` is below it

    def result(self, timeout: float | None = None) -> Any:
        """What the method returned.

        Args:
            timeout: seconds to wait now; the call itself goes on after that, until its own deadline.

        Raises:
            CallError: what became of the call; as ``Client.call``.
            concurrent.futures.TimeoutError: it is not over yet.
            concurrent.futures.CancelledError: it was cancelled.
        """
        if self._state != FINISHED:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                del self  # the exception's traceback holds this frame: no circle
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that the call ended with; None: it did not. Raises as ``result`` does where there is neither."""
        if self._state != FINISHED:
            self._wait(timeout)
        return self._exception

    def cancel(self) -> bool:
        """Gives the call up, if it is not over. Returns whether it is cancelled.

        The server is told, and does not run a request that has not begun. One that has begun runs to its end: a
        cancelled call may have taken effect.
        """
        owner = self._owner
        return owner.cancel(self) if owner is not None else self.cancelled()

    def run_callbacks(self) -> None:
        """Calls what was to be called at the end, which has come. What it raises is logged; Ctrl-C goes through."""
        for callback in self._done_callbacks:
            try:
                callback(self)
            except Exception:
                log.exception("exception calling callback for %r", self)

    def followed(self, sleeper: Sleeper) -> None:
        """A thread is to be woken when the call is over. The condition's lock is held."""
        self._waiters.append(sleeper)

    def left(self, sleeper: Sleeper) -> None:
        """It waits no longer. The condition's lock is held."""
        self._waiters.remove(sleeper)

    def _wait(self, timeout: float | None) -> None:
        owner = self._owner
        if owner is not None:
            owner.wait(self, timeout)
        if self._state != FINISHED:
            raise CancelledError

    def _end(self, result: Any, error: BaseException | None) -> bool:
        """The call is over. Whoever says so holds the condition's lock. Returns whether there are callbacks to run."""
        self._result = result
        self._exception = error
        self._state = FINISHED
        self._owner = self._line = self._channel = None
        self._payload = []
        if self._waiters:
            for waiter in self._waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
        return bool(self._done_callbacks)

    def _abandon(self) -> None:
        """The call is cancelled, as ``_end``."""
        self._state = CANCELLED
        self._owner = self._line = self._channel = None
        self._payload = []
        for waiter in self._waiters:
            waiter.add_cancelled(self)


class Sleeper:
    """A thread that waits for a call while another one reads the answers; in the calls' list of waiters."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def sleep(self, timeout: float) -> None:
        """Until woken, or for ``timeout`` seconds."""
        self._asleep.acquire(timeout=timeout)

    def wake(self, _: object = None) -> None:
        """Ends the sleep, now or before it begins. Twice is harmless."""
        with contextlib.suppress(RuntimeError):
            self._asleep.release()

    add_result = add_exception = add_cancelled = wake
