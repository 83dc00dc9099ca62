"""Holds code in other processes, a Spark task say, until the test lets it go on: no polling, no wait without end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["Gate"]

PATIENCE = 60.0  # seconds; whoever waits longer goes on, so that a test that forgets the gate leaves nothing behind


class Gate:
    """A named pipe. The end of its block lets everybody through, by an octet in it; for later ones it is not there."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._path = str(path)
        self._end = os.open(path, os.O_RDWR)  # Linux: neither waits for a reader nor fails without one

    def waiter(self) -> Callable[[], None]:
        """What waits. Made here so that cloudpickle ships it by value: executors cannot import the tests."""
        path, patience = self._path, PATIENCE

        def wait() -> None:
            import os
            import select

            try:
                end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except FileNotFoundError:
                return  # it is open
            try:
                select.select([end], [], [], patience)
            finally:
                os.close(end)

        return wait

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.write(self._end, b"!")
        os.unlink(self._path)
        os.close(self._end)
