"""How many calls one client may have under way, over all of its threads.

Counted without a lock: to note a call in a dict and to take it out again are atomic. Threads that look at one moment
can go over the limit together, by as many as they are.
"""

from __future__ import annotations

from typing import Any

from ..core.inflight import Inflight
from ..errors import Overloaded

__all__ = ["COUNTED_BYTES", "RETRY_AFTER", "Room"]

COUNTED_BYTES = 64 * 1024  # requests smaller than this are bounded by their number
RETRY_AFTER = 0.01  # seconds; a hint: one of the calls under way may have ended by then


class Room:
    """The calls under way.

    Args:
        calls_max: how many there may be.
        bytes_max: octets of their requests together; one that is alone may have more.

    Attributes:
        active: those of threads that wait for them, by a number that is theirs alone: the thread's where it waits for
            one call, the call's negated where it waits for many. The values are the octets of the requests.
        submitted: those that were submitted, once there are any.
    """

    __slots__ = ("_bytes_max", "active", "calls_max", "submitted")

    def __init__(self, calls_max: int, bytes_max: int) -> None:
        self.calls_max = calls_max
        self._bytes_max = bytes_max
        self.submitted: Inflight[Any] | None = None
        self.active: dict[int, int] = {}

    def reset(self) -> None:
        """Nothing is under way: in a child that was forked, where the parent's calls are not."""
        self.active = {}
        self.submitted = None

    def take(self, key: int, octets: int) -> bool:
        """Notes a call. False: there is no room for it, and nothing has changed. Then ``give``, once."""
        active = self.active
        submitted = self.submitted
        count = len(active) if submitted is None else len(active) + len(submitted)
        if count >= self.calls_max:
            return False
        if octets >= COUNTED_BYTES and count:
            total = octets + sum(list(active.values())) + (submitted.bytes if submitted is not None else 0)
            if total > self._bytes_max:
                return False
        active[key] = octets
        return True

    def give(self, key: int) -> None:
        """A call is over."""
        self.active.pop(key, None)

    def full(self, rank: int | None, method: str) -> Overloaded:
        """The error for a call that finds no room. Nothing was sent."""
        text = (
            f"this client has {self.calls_max} calls or {self._bytes_max} octets of requests under way and takes no "
            "more (ClientOptions.calls_max, calls_bytes_max); wait for some of them"
        )
        error = Overloaded(text, rank=rank, method=method)
        error.retry_after = RETRY_AFTER
        return error
