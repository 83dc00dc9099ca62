"""When a loop should let messages gather: turns that take one heartbeat each cost twice what a handful together does.

With ten thousand members a heartbeat arrives every 100 us, and each would wake two threads to be answered. A heartbeat
can wait; a relayed call cannot, so nothing gathers while there are some. What a message is cannot be seen before it has
been taken, so among that many heartbeats any other message waits as well, a millisecond at the longest; where messages
are not that dense, as with a few hundred members, each is taken at once.
"""

from __future__ import annotations

__all__ = ["Pace"]

GATHER = 0.001  # seconds between two turns, at the least, while the control plane's own messages come densely
DENSE = 0.0005  # seconds from a turn to the next message, on average, below which they do
WEIGHT = 1 / 16  # of one more pause in that average: a dozen messages in a row, of a few clients, are not yet dense
URGENT = 1.0  # seconds after a message that cannot wait in which others of its kind are expected


class Pace:
    """How soon after a turn the next one begins."""

    def __init__(self) -> None:
        self._turned = float("-inf")
        self._urgent = float("-inf")
        self._pause = GATHER  # from a turn to the next message, on average; one that is longer counts as this long

    def urgent(self, now: float) -> None:
        """A message came that cannot wait."""
        self._urgent = now + URGENT

    def turn(self, now: float) -> float:
        """There is something to do: the seconds to wait before it is done; 0 unless the last turns were just now."""
        self._pause += (min(now - self._turned, GATHER) - self._pause) * WEIGHT
        gathers = self._pause < DENSE and now >= self._urgent
        wait = max(self._turned + GATHER - now, 0.0) if gathers else 0.0
        self._turned = now + wait
        return wait
