"""The interpreter's switch interval while a server serves beside computing threads."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import ClassVar

__all__ = ["SwitchInterval"]


class SwitchInterval:
    """Who waits for the interpreter lock gets it after this many seconds at most; Python's own choice is 5 ms.

    The interval belongs to the interpreter, so those who ask for one are written down where all servers of a process
    meet: the shortest that is asked for holds, and with the last of them the original comes back.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _asked: ClassVar[list[float]] = []
    _original: ClassVar[float] = 0.0

    @classmethod
    @contextlib.contextmanager
    def of(cls, seconds: float | None) -> Iterator[None]:
        """Within the block nobody holds the lock for longer than ``seconds`` while others wait; None: as it is."""
        if seconds is None:
            yield
            return
        with cls._lock:
            if not cls._asked:
                cls._original = sys.getswitchinterval()
            cls._asked.append(seconds)
            sys.setswitchinterval(min(*cls._asked, cls._original))
        try:
            yield
        finally:
            with cls._lock:
                cls._asked.remove(seconds)
                sys.setswitchinterval(min([*cls._asked, cls._original]))
