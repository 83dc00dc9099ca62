"""Who never came: what a rank finds out about the others when an operation of its own is not over by its deadline.

It asks the ranks it waits for what they do, and those of them that are in a collective name the ranks that they wait
for, which are asked next. So it reaches the ranks that hold everybody up, and nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...errors import CommTimeout
from ...wire.peering import Ask, Cause, Stand, ranks_from
from .verdicts import Verdict, cut

if TYPE_CHECKING:
    from .contexts import Context
    from .requests import Request

__all__ = ["GRACE", "Census"]

GRACE: Final = 0.08  # seconds for the answers: with them a call is over a tenth of a second behind its deadline
TOLD: Final = 5  # ranks whose doings a text tells


class Census:
    """One inquiry.

    Attributes:
        end: the instant at which whoever has not answered counts as silent.
    """

    def __init__(self, context: Context, request: Request, number: int, now: float) -> None:
        self.context = context
        self.request = request
        self.number = number
        self.end = now + GRACE
        self._asked: set[int] = set()
        self._stands: dict[int, Stand] = {}
        self._ask(context.waits(request))

    def _ask(self, ranks: frozenset[int]) -> None:
        context = self.context
        for rank in sorted(ranks - self._asked - {context.rank}):
            if rank < context.size:
                self._asked.add(rank)
                ask = Ask(context.number, self.number, self.request.sequence)
                context.peer.transmit(context.group[rank], ask)

    def hear(self, rank: int, stand: Stand) -> None:
        """An answer."""
        if rank in self._asked:
            self._stands[rank] = stand
            if stand.signature:  # it is in this collective, or held up in one before
                self._ask(ranks_from(stand.waiting))

    @property
    def complete(self) -> bool:
        """Everybody has answered."""
        return self._asked == set(self._stands)

    def conclude(self) -> None:
        """Ends the request, with what is known now."""
        request, context = self.request, self.context
        told = "; ".join(self._tell(rank) for rank in sorted(self._asked)[:TOLD]) or "nobody else is needed"
        sequence = request.sequence
        if sequence == 0:
            missing = tuple(sorted(context.waits(request)))
            context.peer.give_up(request)
            text = f"{request.doing} of {context.where} was not over by its deadline: {told}"
            request.end(error=CommTimeout(text, missing))
            return
        ours = context.signatures.get(sequence, "")
        for rank, stand in self._stands.items():
            reached = min(sequence, stand.sequence)
            here = context.signatures.get(reached, stand.signature)
            if stand.signature not in ("", here):
                context.fail(Verdict(Cause.MISMATCH, reached, context.rank, rank, here, stand.signature))
                return
        behind = [rank for rank in self._asked if rank not in self._stands or self._stands[rank].sequence < sequence]
        # who is held up in a collective before is not to blame, unless there is nobody else
        guilty = [rank for rank in behind if rank not in self._stands or not self._stands[rank].signature]
        missing = tuple(sorted(guilty or behind))
        if missing:
            told = "; ".join(map(self._tell, missing[:TOLD]))
        context.fail(Verdict(Cause.TIMEOUT, sequence, context.rank, 0, ours, cut(told), missing))

    def _tell(self, rank: int) -> str:
        stand = self._stands.get(rank)
        if stand is None:
            return f"rank {rank} does not answer"
        return f"rank {rank} is in {stand.doing}, after {stand.sequence} collectives"
