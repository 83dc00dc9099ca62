"""Connections by relay to servers that could not be reached, until the straight way is to be tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..net.clock import monotonic
from ..net.lane import Lane
from ..net.relay_channel import RelayChannel
from ..net.relay_lane import RelayLane, Trunk

__all__ = ["LOOK", "Detour", "DetourChannel"]

LOOK = 0.5  # seconds between two questions whether it is time


class Detour(RelayLane):
    """A lane by relay.

    Args:
        trunk, endpoint, proved: as of ``RelayLane``.
        due: whether the straight way is to be tried again.
    """

    __slots__ = ("_due", "_looked")

    def __init__(
        self, trunk: Trunk, endpoint: str, proved: Callable[[], None] | None, due: Callable[[], bool]
    ) -> None:
        self._looked = 0.0
        super().__init__(trunk, endpoint, proved)
        self._looked = monotonic()
        self._due = due

    @property
    def used(self) -> float:
        """When it was used last, or a little before: a lane in use all the time is looked at now and then as well."""
        return self._looked

    @used.setter
    def used(self, now: float) -> None:
        if not now or now - self._looked > LOOK:
            self._looked = now

    def lost(self) -> bool:
        return super().lost() or self._due()


class DetourChannel(RelayChannel):
    """A channel by relay.

    Args:
        lane, line, run_id, message_bytes_max, proved: as of ``RelayChannel``.
        due: whether the straight way is to be tried again.
    """

    __slots__ = ("due",)

    def __init__(
        self,
        lane: Lane,
        line: Any,
        run_id: bytes,
        message_bytes_max: int,
        proved: Callable[[], None] | None,
        due: Callable[[], bool],
    ) -> None:
        super().__init__(lane, line, run_id, message_bytes_max, proved)
        self.due = due

    def lost(self) -> bool:
        return super().lost() or self.due()
