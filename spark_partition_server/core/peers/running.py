"""One collective under way: it drives a schedule with the messages of its sequence number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...wire.fields import Frame
from ...wire.peering import Cause
from ..collectives.steps import Schedule
from .links import Outgoing
from .matching import Held, Matching, Posted
from .requests import Request, put
from .verdicts import Verdict, cut

if TYPE_CHECKING:
    from .contexts import Context

__all__ = ["Running"]


class Running:
    """A schedule between two of its steps.

    Args:
        signature: what all ranks have to agree on; it goes with every message.
    """

    __slots__ = (
        *("_got", "_missing", "_waits", "busy", "context", "pieces"),
        *("request", "schedule", "sequence", "signature"),
    )

    def __init__(self, context: Context, sequence: int, signature: str, schedule: Schedule, request: Request) -> None:
        self.context = context
        self.sequence = sequence
        self.signature = signature
        self.schedule = schedule
        self.request = request
        self.pieces = context.pieces.setdefault(sequence, Matching())  # some may have come before us
        self._got: list[Any] | None = None
        self._missing = 0  # messages of this step that have not come or not left
        self._waits: list[int] = []  # the ranks they come from or go to
        self.busy = False  # a step is being begun: what arrives meanwhile does not begin the next

    def advance(self) -> None:
        """Begins steps for as long as they are over at once."""
        self.busy = True
        while self._missing == 0 and not self.request.done:
            try:
                step = self.schedule.send(self._got) if self._got is not None else next(self.schedule)
            except StopIteration as over:
                self.context.completed(self, over.value)
                break
            except Exception as error:  # noqa: BLE001 - the user's reduction may raise anything
                self.context.stumbled(self, error)
                break
            self._begin(step.sends, step.receives)
        self.busy = False

    def _begin(
        self, sends: tuple[tuple[int, tuple[Frame, ...]], ...], receives: tuple[tuple[int, memoryview | None], ...]
    ) -> None:
        context = self.context
        self._got = [None] * len(receives)
        self._waits = []
        # Counted before anything moves: whatever moves counts down.
        self._missing = len(receives)
        for index, (source, into) in enumerate(receives):
            self._waits.append(source)
            posted = Posted(source, 0, self, into=into, index=index)
            held = self.pieces.post(posted)
            if held is not None:
                context.meet(posted, held)
        for to, parcel in sends:
            if self.request.done:
                return
            out = Outgoing(context.number, to, self.sequence, 0, self.signature, parcel, self)
            self._missing += 1
            self._waits.append(to)
            context.peer.submit(out, context.group[to])

    @property
    def waits(self) -> frozenset[int]:
        """The ranks of messages that have not come or not left."""
        return frozenset(self._waits)

    def arrived(self, posted: Posted, held: Held, payload: tuple[Frame, ...]) -> None:
        """A message of the step has come."""
        assert self._got is not None
        if posted.into is None:
            self._got[posted.index] = payload
        elif held.octets != len(posted.into):
            here, there = (f"{self.signature} with {size} octets" for size in (len(posted.into), held.octets))
            context = self.context
            context.fail(Verdict(Cause.MISMATCH, self.sequence, context.rank, held.source, cut(here), cut(there)))
            return
        else:
            put(payload, posted.into)
            self._got[posted.index] = posted.into
        self._counted(held.source)

    def departed(self, out: Outgoing) -> None:
        """A message of the step has left; perhaps long after the collective has failed."""
        if not self.request.done:
            self._counted(out.to)

    def _counted(self, rank: int) -> None:
        self._waits.remove(rank)
        self._missing -= 1
        if self._missing == 0 and not self.busy:
            self.advance()
