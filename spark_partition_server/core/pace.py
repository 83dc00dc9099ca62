"""When a loop should let messages gather: turns that take one heartbeat each cost twice what a handful together does.

With ten thousand members a heartbeat arrives every 100 us, and each would wake two threads to be answered. A heartbeat
can wait; a relayed call cannot, so nothing gathers while there are some.
"""

from __future__ import annotations

__all__ = ["Pace"]

GATHER = 0.002  # seconds between two turns, at the least, while only the control plane's own messages come
URGENT = 1.0  # seconds after a message that cannot wait in which others of its kind are expected


class Pace:
    """How soon after a turn the next one begins."""

    def __init__(self) -> None:
        self._turned = float("-inf")
        self._urgent = float("-inf")

    def urgent(self, now: float) -> None:
        """A message came that cannot wait."""
        self._urgent = now + URGENT

    def turn(self, now: float) -> float:
        """There is something to do: the seconds to wait before it is done; 0 unless the last turn was just now."""
        wait = max(self._turned + GATHER - now, 0.0) if now >= self._urgent else 0.0
        self._turned = now + wait
        return wait
