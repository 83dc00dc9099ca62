"""The desk: jobs wait here for their turns, and are taken back here. Used by every thread that runs jobs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..core.load import Load, State, Ticket
from ..net.clock import monotonic
from ..wire.codes import Code
from ..wire.messages import Error, Frame, Refuse
from .jobs import Job, Next
from .replies import Replies

if TYPE_CHECKING:
    from ..net.connection import Caller

__all__ = ["SLICE", "Desk", "unanswered"]

log = logging.getLogger("spark_partition_server.server")


SLICE = 0.001  # seconds of a turn, about; inline also of all work between two looks at the sockets


class Desk:
    """The book of jobs behind a lock, and what follows from its entries.

    Args:
        calls_max: jobs at one time.
        octets_max: of their arguments.
        calls_held: of one caller, before it is not read from any more.
        workers: jobs that run at the same time.
    """

    def __init__(self, calls_max: int, octets_max: int, calls_held: int, workers: int) -> None:
        self.load = Load(calls_max, octets_max, calls_held, _hold, workers)
        self.bell: Callable[[], None] = _silent  # rung for every job that waits for a turn
        self.dispose: Callable[[Job], None] = _close  # of a job that is over before its end and has no turn
        self.flowed = False  # a stream has sent something; set here, reset by whoever looks
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------ in the serving thread

    def enter(self, job: Job, replies: Replies, running: bool = False) -> list[Frame] | None:
        """A job comes in, to wait for its turns or to be run elsewhere. Returns the ERROR where it is turned away."""
        now = monotonic()
        crowded_out: Job | None = None
        with self._lock:
            older = self.load.cancel(job.caller, job.call_id)
            wait = self.load.refusal(job.octets, job.expires - now)
            if wait is not None and self.load.full:
                crowded_out = cast("Job | None", self.load.crowd(job.caller))
                wait = self.load.refusal(job.octets, job.expires - now)
            if wait is None:
                self.load.enter(job, running)
        if older is not None:
            self._end(*older)
        if crowded_out is not None:
            crowded_out.caller.send(replies.overloaded(crowded_out.call_id, self.load.calls, wait or 0.0))
            self.dispose(crowded_out)
        if wait is not None:
            return replies.overloaded(job.call_id, self.load.calls, wait)
        if not running:
            self.bell()
        return None

    def cancel(self, caller: Caller, call_id: int) -> None:
        """The caller takes a call back; nothing happens where it is not here."""
        with self._lock:
            found = self.load.cancel(caller, call_id)
        if found is not None:
            self._end(*found)

    def gone(self, caller: Caller) -> None:
        """The caller has gone: what it has asked for is dropped."""
        with self._lock:
            left = self.load.leave(caller)
        for job, before in left:
            self._end(job, before)

    def wants_turn(self, job: Job) -> None:
        """Something has come that a parked job waited for."""
        with self._lock:
            again = job.state is State.PARKED and self.load.again(job)
        if again:
            self.bell()

    def park(self, job: Job) -> None:
        """A job that runs elsewhere waits for something that may not come."""
        with self._lock:
            self.load.park(job, monotonic())

    def resume(self, job: Job) -> None:
        """It runs again."""
        with self._lock:
            self.load.resume(job)

    def starve(self, timeout: float, replies: Replies) -> None:
        """Ends the jobs that have been parked for longer than ``timeout`` seconds."""
        before = monotonic() - timeout
        with self._lock:
            starved = [cast("Job", ticket) for ticket in self.load.parked(before)]
            for job in starved:
                self.load.cancel(job.caller, job.call_id)
        for job in starved:
            text = f"its reader has given no credit for {timeout:g} s (stream_timeout); it was ended"
            job.caller.send(replies.error(Error(job.call_id, Code.CANCELLED, text)))
            self.dispose(job)

    def streams(self) -> int:
        """Streams that are not over."""
        with self._lock:
            return sum(hasattr(ticket, "flow") for ticket in self.load.tickets())

    def find(self, caller: Caller, call_id: int) -> Job | None:
        """A job that is not over."""
        with self._lock:
            return cast("Job | None", self.load.find(caller, call_id))

    def clear(self) -> None:
        """Takes everything back."""
        for caller in self.load.everybody():
            self.gone(cast("Caller", caller))

    # ------------------------------------------------------------------------------------------- in any thread

    def turn(self, replies: Replies, length: float = SLICE) -> bool:
        """Gives the next job a turn of about ``length`` seconds. False: there is none that could run."""
        now = monotonic()
        with self._lock:
            job = cast("Job | None", self.load.take(_is_congested, now))
        if job is None:
            return False
        refusal = job.refusal(now)
        if refusal is not None:
            job.close()
            self.settle(job, [replies.error(refusal)], Next.DONE)
            return True
        try:
            messages, following = job.step(replies, now + length)
        except Exception:
            log.exception("a call could not be answered: a bug of this library")
            messages, following = [replies.encode(unanswered())], Next.DONE
        self.settle(job, messages, following)
        return True

    def settle(self, job: Job, messages: list[list[Frame]], following: Next, measured: bool = True) -> None:
        """What a turn has led to. The messages leave first: nobody else may go on with the job before."""
        for frames in messages:
            if not job.over:
                try:
                    job.caller.send(frames)
                except Exception:
                    log.exception("an answer could not be sent: a bug of this library")
        if messages and hasattr(job, "flow"):
            self.flowed = True
        with self._lock:
            if following is Next.DONE:
                self.load.finish(job, monotonic(), measured)
                return
            if following is Next.PARK:
                alive = self.load.park(job, monotonic())
                again = alive and job.ready and self.load.again(job)
            else:
                alive = again = self.load.again(job)
        if again:
            self.bell()
        elif not alive:
            self.dispose(job)

    # ----------------------------------------------------------------------------------------------- inside

    def _end(self, ticket: Ticket, before: State) -> None:
        """A job is over before its end. One that has a turn is told; its thread throws the result away."""
        job = cast("Job", ticket)
        if before is State.RUNNING:
            job.interrupt()
        else:
            self.dispose(job)


def unanswered() -> Refuse:
    """The answer in place of one that could not be made."""
    return Refuse(Code.UNEXPECTED, "the server failed to answer; its log says why")


def _is_congested(caller: Any) -> bool:
    return bool(caller.congested)


def _hold(caller: Any, held: bool) -> None:
    caller.hold(held)


def _close(job: Job) -> None:
    job.close()


def _silent() -> None:
    pass
