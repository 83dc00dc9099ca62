"""Errands: what may wait for the network and must not make anybody else wait. Threads that come and go."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Errands"]

log = logging.getLogger("spark_partition_server.client")

THREADS_MAX = 16


class Errands:
    """Runs functions in threads, at most so many at a time. A thread ends when there is nothing left to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._threads = 0

    def run(self, function: Callable[..., object], *arguments: Any) -> None:
        """Runs a function soon. What it raises is logged."""
        with self._lock:
            self._waiting.append((function, arguments))
            if self._threads == THREADS_MAX:
                return
            self._threads += 1
        threading.Thread(target=self._work, name="partition-client-errand", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                function, arguments = self._waiting.popleft()
            try:
                function(*arguments)
            except Exception:
                log.exception("an errand failed: a bug of this library")
            del function, arguments
