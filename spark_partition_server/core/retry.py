"""When a call that failed is tried again: the rules that all calls of one client share.

A retry that goes to a server which is there and has just failed adds load where there may be too much already: it is
paid for from a budget, which calls fill up slowly. A retry that goes to another server, or waits for one, is free: a
partition that moves costs a thousand callers nothing.
"""

from __future__ import annotations

from ..errors import CallError, Overloaded
from ..wire.codes import CODES, Code
from ..wire.messages import Member
from .calls import Calls

__all__ = ["Budget", "Retry"]

BUDGET = 10.0  # retries at once
BACK = 0.1  # of a retry, for every call


class Budget:
    """Retries that a client may still make.

    Threads share it without a lock: two that count at the same moment can lose a tenth of a retry, which hurts nobody.

    Args:
        most: retries to begin with, and never more.
        back: what a call gives back.
    """

    __slots__ = ("_back", "_most", "left")

    def __init__(self, most: float = BUDGET, back: float = BACK) -> None:
        self._most = most
        self._back = back
        self.left = most

    def earn(self) -> None:
        """A call was made."""
        if self.left < self._most:
            self.left = min(self.left + self._back, self._most)

    def spend(self) -> bool:
        """Pays for one retry. False: there is not enough left."""
        if self.left < 1.0 - 1e-9:  # ten tenths are a little less than one
            return False
        self.left -= 1.0
        return True


class Retry:
    """The decisions after a try that failed.

    Args:
        calls: the view and its rules.
        wait_for_ready: whether a call waits for a partition that nobody serves.
    """

    __slots__ = ("_calls", "_wait_for_ready", "budget")

    def __init__(self, calls: Calls, wait_for_ready: bool = True) -> None:
        self._calls = calls
        self._wait_for_ready = wait_for_ready
        self.budget = Budget()

    def pause(
        self, error: CallError, method: str, attempt: int, now: float, deadline: float, jitter: float
    ) -> float | None:
        """Seconds until the next try if it goes to the same server, or None: there is none, tell the caller.

        Args:
            attempt: tries so far, at least 1.
            jitter: a random number within 0..1, so that many clients do not come back at once.
        """
        if error.code and not CODES[Code.of(error.code)].retry:
            return None
        if not error.code and isinstance(error, Overloaded):
            return None  # it is this client that has no room
        hint = error.retry_after if isinstance(error, Overloaded) else 0.0
        return self._calls.pause(method, error.definite, attempt, now, deadline, jitter, hint)

    def wait(self, error: CallError, tried: Member | None, found: Member | None, pause: float) -> float | None:
        """The same, now that the view has been looked at again: 0 where another server serves by now.

        Args:
            tried: whom the failed try went to, or was to go to.
            found: who serves the partition now.
            pause: what ``pause`` has said.
        """
        if found is not None and found is not tried:
            return 0.0
        if found is None or (error.definite and not error.code):  # it is not served, or cannot be reached
            return pause if self._wait_for_ready else None
        if error.code == Code.UNAVAILABLE and self._wait_for_ready:
            return pause  # nobody runs it there: the relay has just lost the server, or the server is leaving
        if self.budget.spend():
            return pause
        error.add(f"not tried again, because this client's retry budget ({BUDGET:g}, {BACK:g} more a call) is spent")
        return None
