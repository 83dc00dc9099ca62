"""The start-up bar: how many partitions have registered. Only on a terminal, and only where tqdm is installed."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

__all__ = ["Progress"]


class Progress:
    """A bar from 0 to ``total`` partitions; a context manager.

    Args:
        total: partitions.
        shown: False: nothing is drawn.
    """

    def __init__(self, total: int, shown: bool) -> None:
        self._total = total
        self._bar: Any = None
        self._shown = shown and sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if self._shown:
            try:
                from tqdm.auto import tqdm  # noqa: PLC0415 - an extra
            except ImportError:
                return self
            self._bar = tqdm(total=self._total, desc="partition servers", unit="partition", leave=True)
        return self

    def update(self, done: int, note: str = "") -> None:
        """Draws ``done`` partitions."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
