"""One lease: the right to be considered alive until a moment.

A lease is *fresh* until it has gone half its length without renewal, then *late*, then *expired*. Whoever keeps leases
may itself have slept (a stopped process, a long garbage collection): what it did not hear then is not the others'
silence, so ``oversleep`` finds the time to forgive and ``forgive`` gives it back to every lease.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Lease", "LeaseState", "oversleep"]


class LeaseState(Enum):
    """How a lease stands."""

    FRESH = "fresh"
    LATE = "late"
    EXPIRED = "expired"


class Lease:
    """The lease of one member.

    Args:
        duration: seconds from one renewal to the expiry.
        now: the moment it starts.
    """

    __slots__ = ("duration", "renewed")

    def __init__(self, duration: float, now: float) -> None:
        assert duration > 0, "a lease that is never fresh"
        self.duration = duration
        self.renewed = now

    @property
    def deadline(self) -> float:
        """When it expires."""
        return self.renewed + self.duration

    def renew(self, now: float) -> None:
        """A sign of life. An older one than the last is ignored."""
        self.renewed = max(self.renewed, now)

    def forgive(self, seconds: float) -> None:
        """Gives back time in which nobody could have been heard."""
        self.renewed += max(seconds, 0.0)

    def silent(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return max(now - self.renewed, 0.0)

    def state(self, now: float) -> LeaseState:
        """How it stands at ``now``."""
        silent = self.silent(now)
        if silent >= self.duration:
            return LeaseState.EXPIRED
        return LeaseState.LATE if silent >= self.duration / 2 else LeaseState.FRESH


def oversleep(due: float | None, now: float, tolerance: float) -> float:
    """Seconds by which a keeper of leases that wanted to wake at ``due`` woke too late; 0 within ``tolerance``."""
    if due is None:
        return 0.0
    late = now - due
    return late if late > tolerance else 0.0
