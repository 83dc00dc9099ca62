"""Why a communicator is broken, as it travels in an ALARM, and as the error that every rank raises."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import CollectiveMismatch, CollectiveTimeout, CommError, CommRevoked, RankLost
from ...errors.comm import ranked
from ...wire.peering import SIGNATURE_CHARS_MAX, Alarm, Cause, ranks_from, ranks_to

__all__ = ["GO_ON", "Verdict", "cut"]

GO_ON = "Shrink() makes a communicator of those that are left"


def cut(text: str) -> str:
    """A text that fits its field."""
    return text if len(text) <= SIGNATURE_CHARS_MAX else f"{text[: SIGNATURE_CHARS_MAX - 3]}..."


class Verdict(NamedTuple):
    """What broke a communicator. The fields are those of ALARM (PROTOCOL.md, 7.70)."""

    cause: Cause
    sequence: int = 0
    rank: int = 0
    other: int = 0
    here: str = ""
    there: str = ""
    ranks: tuple[int, ...] = ()

    def alarm(self, context: int, ranks: frozenset[int]) -> Alarm:
        """The message that tells it. ``ranks``: those that were lost, if that is the cause."""
        named = ranks if self.cause is Cause.LOST else self.ranks
        here, there = cut(self.here), cut(self.there)
        return Alarm(context, int(self.cause), self.sequence, self.rank, self.other, here, there, ranks_to(named))

    @classmethod
    def of(cls, alarm: Alarm, size: int) -> Verdict | None:
        """What an ALARM of a communicator of ``size`` ranks says; None: nothing that could be."""
        ranks = tuple(sorted(ranks_from(alarm.ranks)))
        named = (alarm.rank, alarm.other, *ranks)
        known = alarm.cause in tuple(Cause) and max(named) < size and (ranks or alarm.cause != Cause.LOST)
        if not known:
            return None
        return cls(Cause(alarm.cause), alarm.sequence, alarm.rank, alarm.other, alarm.here, alarm.there, ranks)

    def error(self, where: str) -> CommError:
        """What a rank raises. ``where`` names the communicator and the rank."""
        if self.cause is Cause.LOST:
            return RankLost(f"{ranked(self.ranks)} of {where} lost; {GO_ON}", self.ranks)
        if self.cause is Cause.REVOKED:
            return CommRevoked(f"rank {self.rank} revoked {where}; {GO_ON}", self.rank)
        if self.cause is Cause.MISMATCH:
            return CollectiveMismatch(
                f"collective {self.sequence} of {where}: rank {self.rank} called {self.here}, rank {self.other} called "
                f"{self.there}; all ranks must make the same calls in the same order",
                self.sequence,
                (self.rank, self.other),
                (self.here, self.there),
            )
        if self.cause is Cause.TIMEOUT:
            if self.ranks:
                what = f"{ranked(self.ranks)} never called it ({self.there})"
            else:
                what = f"every rank that rank {self.rank} depends on has called it ({self.there})"
            return CollectiveTimeout(
                f"collective {self.sequence} of {where}, {self.here}, was not over by the deadline of rank "
                f"{self.rank}: {what}; {GO_ON}",
                self.ranks,
                self.sequence,
            )
        return CommRevoked(
            f"rank {self.rank} of {where} could not go on with collective {self.sequence}, {self.here}: {self.there}; "
            f"{GO_ON}",
            self.rank,
        )
