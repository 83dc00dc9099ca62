"""``async def`` methods: tasks on an asyncio loop of the server's, in a thread of its own, all of them at once.

Imported only by a server that has such methods: asyncio takes its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from ..net.clock import monotonic
from ..wire.codes import Code
from ..wire.messages import Error, Frame
from .desk import Desk, unanswered
from .jobs import Job, Next
from .replies import Replies

__all__ = ["Going", "Loop"]

log = logging.getLogger("spark_partition_server.server")


CLEAN_UP = 0.5  # seconds before a task that was cancelled at the end is cancelled again


class Going(Job, ABC):
    """A job that is a task on the loop.

    Attributes:
        loop: where it runs.
        task: what is cancelled when nobody waits for it any more.
        late: it is cancelled because its time is over.
    """

    loop: Loop
    task: asyncio.Task[None] | None
    late: bool

    @property
    def deadline(self) -> float | None:
        """When its task is cancelled."""
        return self.expires

    @abstractmethod
    async def go(self, replies: Replies) -> list[Frame]:
        """Runs to its end. Returns the answer; raises what ``ends`` says is its own end."""

    def ends(self, error: BaseException) -> bool:
        """Whether what came out of a coroutine of the user's is the end of the job rather than a failure of his."""
        return isinstance(error, asyncio.CancelledError) and (self.over or self.late)

    def interrupt(self) -> None:
        self.loop.call(self._cancel)

    def close(self) -> None:
        self.interrupt()

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Loop:
    """An asyncio loop in a thread.

    Args:
        desk: keeps the book of its jobs.
        replies: makes their answers.
    """

    def __init__(self, desk: Desk, replies: Replies) -> None:
        self._desk = desk
        self._replies = replies
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ending: asyncio.Event
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="spark-partition-server-asyncio", daemon=True)
        self._thread.start()

    def stop(self, deadline: float) -> bool:
        """Cancels what still runs. Returns whether it has all ended by ``deadline``."""
        if self._thread is None:
            return True
        self.call(self._ending.set)
        self._thread.join(max(deadline - monotonic(), 0.0))
        return not self._thread.is_alive()

    def call(self, run: Callable[[], object]) -> None:
        """Has something run on the loop; dropped after its end. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(run)

    def begin(self, job: Going) -> None:
        """Runs a job that is in the book. From any thread."""
        job.loop, job.task, job.late = self, None, False
        self.call(lambda: self._begin(job))

    # --------------------------------------------------------------------------------------- on the loop

    def park(self, job: Job) -> None:
        """The job waits for something that may not come."""
        self._desk.park(job)

    def resume(self, job: Job) -> None:
        """It has come."""
        self._desk.resume(job)

    def _begin(self, job: Going) -> None:
        if job.over:
            return
        assert self._loop is not None
        job.task = task = self._loop.create_task(self._go(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        deadline = job.deadline
        if deadline is not None:
            timer = self._loop.call_later(max(deadline - monotonic(), 0.0), self._is_late, job, task)
            task.add_done_callback(lambda _: timer.cancel())

    @staticmethod
    def _is_late(job: Going, task: asyncio.Task[None]) -> None:
        job.late = True
        task.cancel()

    async def _go(self, job: Going) -> None:
        try:
            answers = [await job.go(self._replies)]
        except asyncio.CancelledError:
            text = f"it was cancelled after {job.remaining_ms} ms, while it ran: its time was over"
            answers = [] if job.over else [self._replies.error(Error(job.call_id, Code.CANCELLED, text))]
        except Exception:
            log.exception("a call could not be answered: a bug of this library")
            answers = [self._replies.encode(unanswered())]
        self._desk.settle(job, answers, Next.DONE, measured=False)

    def _run(self) -> None:
        assert self._loop is not None
        try:
            self._loop.run_until_complete(self._until_the_end())
        finally:
            self._loop.close()

    async def _until_the_end(self) -> None:
        await self._ending.wait()
        assert self._loop is not None
        while self._tasks:  # they have been cancelled with their jobs, and may take their time to clean up
            await asyncio.wait(self._tasks, timeout=CLEAN_UP)
            for task in self._tasks:
                task.cancel()
        ends: Coroutine[Any, Any, None] = self._loop.shutdown_asyncgens()
        await ends
