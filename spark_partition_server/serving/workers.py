"""Threads that give the jobs of a desk their turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from ..net.clock import monotonic
from .desk import Desk
from .jobs import Job
from .replies import Replies

__all__ = ["Workers"]

NAME = "spark-partition-server-worker"


class Workers:
    """``count`` threads. A token in their queue is a turn to give, a job to close, or the end.

    Args:
        desk: where the jobs wait.
        count: threads.
        replies: makes the answers of one thread.
    """

    def __init__(self, desk: Desk, count: int, replies: Callable[[], Replies]) -> None:
        self._desk = desk
        self._tokens: SimpleQueue[Job | bool | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(replies(),), name=f"{NAME}-{number}", daemon=True)
            for number in range(count)
        ]
        desk.bell = lambda: self._tokens.put(True)
        desk.dispose = self._tokens.put  # a generator's last words are the user's code as well

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def remind(self) -> None:
        """Somebody who did not read may read again: his jobs, whose tokens are used up, get new ones."""
        for _ in range(self._desk.load.waiting - self._tokens.qsize()):
            self._tokens.put(True)

    def stop(self, deadline: float) -> bool:
        """Ends the threads after what they run now. Returns whether they have all ended by ``deadline``."""
        for _ in self._threads:
            self._tokens.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(deadline - monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, replies: Replies) -> None:
        while (token := self._tokens.get()) is not None:
            if token is True:
                self._desk.turn(replies)
            elif isinstance(token, Job):
                token.close()
