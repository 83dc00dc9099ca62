"""Lines by relay of an asyncio client, to servers that could not be reached: they are left in time."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence

from ..wire.messages import Member
from .detours import LOOK
from .loop_line import Line

__all__ = ["LoopDetours"]


class LoopDetours:
    """Looks now and then whether the straight way is to be tried again. A line that is left ends with its last call.

    Args:
        used: where the lines are that calls take, by rank.
        due: whether the straight way to a server is to be tried again.
    """

    def __init__(self, used: Sequence[dict[int, Line]], due: Callable[[Member], bool]) -> None:
        self._used = used
        self._due = due
        self._lines: set[Line] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, line: Line) -> None:
        """A line by relay has been made."""
        self._lines.add(line)
        if self._timer is None:
            self._timer = _later(self)

    def look(self) -> None:
        """Leaves the lines for which it is time; closes those that were left and have no calls any more."""
        for line in list(self._lines):
            rank = line.member.rank
            holders = [lines for lines in self._used if lines.get(rank) is line]
            if line.lost is not None:
                self._lines.discard(line)
            elif holders:
                if self._due(line.member):
                    for lines in holders:
                        del lines[rank]  # the next call makes a new one
            elif not line.inflight:
                line.close(ConnectionAbortedError("the straight way to the server is tried again"))
        self._timer = _later(self) if self._lines else None

    def stop(self) -> None:
        """Looks no more: the client is closed, and all lines with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lines.clear()


def _later(detours: LoopDetours) -> asyncio.TimerHandle:
    """Has them looked at in a while, unless nobody holds them any more by then."""
    known = weakref.ref(detours)

    def look() -> None:
        found = known()
        if found is not None:
            found.look()

    return asyncio.get_running_loop().call_later(LOOK, look)
