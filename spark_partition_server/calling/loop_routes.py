"""The routes of an asyncio client: the view, and the connection to the coordinator that keeps it fresh."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..core.calls import Calls
from ..core.failures import refusal
from ..errors import RemoteProtocolError, SparkPartitionServerError
from ..net.clock import monotonic
from ..net.loop_lane import LoopLane
from ..wire import codec
from ..wire.codec import VIEW_BYTES_MAX
from ..wire.codes import Code
from ..wire.messages import Lookup, Refuse, View
from ..wire.zmtp import Frames
from .answers import closed, unasked
from .routes import LOOKUP_TIMEOUT, SHORT, Failure, coordinator_lost, other_run

__all__ = ["LoopRoutes", "finished", "shared"]

LONGEST = 1e6  # seconds; a deadline later than this is none
T = TypeVar("T")


class Desk(LoopLane):
    """The connection to the coordinator: one question at a time."""

    answer: asyncio.Future[View]
    run_id: bytes

    def ask(self, calls: Calls, run_id: bytes) -> asyncio.Future[View]:
        """Sends a LOOKUP; its answer will be found in what is returned."""
        self.run_id = run_id
        self.answer = self._loop.create_future()
        self.send(codec.encode(Lookup(calls.view_number), run_id))
        return self.answer

    def take(self, messages: list[Frames]) -> None:
        for frames in messages:
            try:
                message = codec.decode(frames, self.run_id)
                if isinstance(message, Refuse):
                    raise refusal(message, self.endpoint)
                if isinstance(message, View) and not self.answer.done():
                    self.answer.set_result(message)
            except SparkPartitionServerError as error:
                self.close(error)
                return

    def ended(self, error: Exception) -> None:
        if hasattr(self, "answer") and not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # it is told by whoever asked, if they still wait


class LoopRoutes:
    """The view of one client, and the connection to the coordinator.

    Attributes:
        calls: the view.
        closed: nothing is asked any more.
        file: the connection file that the client comes from; None: none. The stop of the cluster removes it.
    """

    def __init__(self, coordinator: str, run_id: bytes, failure: Failure | None, scratch: memoryview) -> None:
        self.calls = Calls()
        self.file: str | os.PathLike[str] | None = None
        self.coordinator = coordinator
        self._run_id = run_id
        self._failure = failure
        self._scratch = scratch
        self._refreshed = float("-inf")
        self.closed = False
        self._desk: Desk | None = None
        self._fetching: asyncio.Task[None] | None = None

    def check_failure(self, cause: BaseException | None = None) -> None:
        """Raises what has become of the cluster, if its driver is in this process and knows."""
        failure = self._failure() if self._failure is not None else None
        if failure is not None:
            raise failure from (failure.__cause__ or cause)

    async def size(self, deadline: float) -> int:
        """How many partitions the cluster has. Asked of the coordinator at first."""
        if self.closed or not self.calls.view_number:
            await self.refresh(monotonic(), deadline)
        return self.calls.size

    async def refresh(self, asked: float, deadline: float) -> None:
        """Fetches the view, unless that has been done since ``asked``. Callers at the same time share one LOOKUP.

        With next to no time left a view that is known stays as it is: that does not prove that the coordinator is gone.

        Raises:
            Unavailable: the client is closed.
            CallTimeout: there was next to no time, and no view is known.
            ClusterError: the cluster is over or gone.
        """
        began = monotonic()
        while self._refreshed < asked:
            if self.closed:
                raise closed(None, None)
            self.check_failure()
            task = self._fetching
            if task is None or task.done():
                task = self._fetching = shared(self._fetch())
            if not await finished(task, deadline):
                if deadline - began < SHORT:
                    if self.calls.view_number:
                        return  # what is known has to do
                    raise unasked(self.coordinator, deadline - began)
                raise coordinator_lost(self.coordinator, TimeoutError("no answer by the deadline"), self.file)
            if not task.cancelled():
                task.result()

    async def close(self) -> None:
        """Closes the connection to the coordinator."""
        self.abort()
        if self._fetching is not None:
            await asyncio.wait({self._fetching})
        if self._desk is not None and self._desk.gone is not None:
            await self._desk.gone

    def abort(self) -> None:
        """The same, without waiting for the end."""
        self.closed = True
        if self._fetching is not None:
            self._fetching.cancel()
        if self._desk is not None:
            self._desk.close(ConnectionAbortedError("the client was closed"))

    async def _fetch(self) -> None:
        """One LOOKUP; over a new connection where the one there is turns out to be dead."""
        began = monotonic()
        desk = self._desk
        for last in (desk is None or desk.lost is not None, True):
            try:
                view = await asyncio.wait_for(self._ask(), began + LOOKUP_TIMEOUT - monotonic())
                self.calls.adopt(view)
                self._refreshed = began
                return
            except (OSError, asyncio.TimeoutError, RemoteProtocolError) as error:
                if self._desk is not None:
                    self._desk.close(ConnectionAbortedError("it was of no use"))
                if self.closed:
                    raise closed(None, None) from error
                if isinstance(error, RemoteProtocolError) and error.code == Code.WRONG_RUN:
                    raise other_run(self.coordinator) from error
                if last:
                    reason = error if str(error) else TimeoutError("no answer by the deadline")
                    raise coordinator_lost(self.coordinator, reason, self.file) from error

    async def _ask(self) -> View:
        desk = self._desk
        if desk is None or desk.lost is not None:
            loop = asyncio.get_running_loop()
            desk = self._desk = Desk(loop, self.coordinator, VIEW_BYTES_MAX, self._scratch)
            await desk.open(self.coordinator)
        return await desk.ask(self.calls, self._run_id)


def shared(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that any number of callers may wait for, or none in the end: asyncio would complain of its failure."""
    task = asyncio.get_running_loop().create_task(coroutine)
    task.add_done_callback(_heed)
    return task


async def finished(task: asyncio.Task[Any], deadline: float) -> bool:
    """Waits for a shared task. Returns whether it has ended in time."""
    remaining = deadline - monotonic()
    done, _ = await asyncio.wait({task}, timeout=max(remaining, 0.0) if remaining < LONGEST else None)
    return bool(done)


def _heed(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
