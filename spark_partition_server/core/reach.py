"""Which way a client takes to a server: straight, or by way of the coordinator."""

from __future__ import annotations

import math
from collections.abc import Hashable

__all__ = ["SHORT", "Reach"]

AGAIN = 60.0  # seconds after which a server that could not be reached is tried again
SHORT = 0.25  # seconds for an attempt to connect while other servers cannot be reached
ENOUGH = 3  # servers that could not be reached, and none that could, after which the others are not tried


class Reach:
    """What is known of the ways to the servers. Shared by the threads of a client: every change is a single step.

    Args:
        route: ``"direct"``, ``"relay"``, or ``"auto"``: direct, and by relay where that fails.
    """

    __slots__ = ("_again", "_reached", "_route")

    def __init__(self, route: str) -> None:
        self._route = route
        self._again: dict[Hashable, float] = {}  # servers that could not be reached, and when to try again
        self._reached = False  # some server could

    @property
    def falls_back(self) -> bool:
        """Whether a server that cannot be reached is called by relay."""
        return self._route == "auto"

    def direct(self, server: Hashable, now: float, remaining: float, timeout: float) -> float | None:
        """Seconds that an attempt to connect straight to a server may take; None: take the relay.

        Args:
            server: one life of it.
            remaining: seconds that the call has.
            timeout: seconds that an attempt may take.
        """
        if self._route == "direct":
            return min(remaining, timeout)
        again = self._again
        if self._route == "relay" or now < again.get(server, now):
            return None
        timeout = min(remaining / 2, timeout)  # the other half is for the relay
        if not again:
            return timeout
        if not self._reached and sum(now < until for until in list(again.values())) >= ENOUGH:
            return None
        return min(timeout, SHORT)

    def due(self, server: Hashable, now: float) -> bool:
        """Whether it is time to try the straight way to a server that is called by relay."""
        return self._route == "auto" and self.direct(server, now, math.inf, SHORT) is not None

    def reached(self, server: Hashable) -> None:
        """A server could be reached."""
        self._reached = True
        self._again.pop(server, None)

    def missed(self, server: Hashable, now: float, seconds: float = SHORT) -> None:
        """A server could not be reached, and the coordinator says that it is there.

        Args:
            seconds: how long it was waited for, where nothing was heard: the shorter, the sooner it is tried again, as
                a call with next to no time left proves next to nothing.
        """
        self._again = {known: until for known, until in list(self._again.items()) if now < until + AGAIN}
        self._again[server] = now + AGAIN * min(max(seconds, 0.0) / SHORT, 1.0)
