"""Agreement of all living ranks on one value, whoever dies meanwhile: the machine under ``Agree`` and ``Shrink``.

Rounds have leaders in the order of ranks, the first living one leads. Every rank sends the leader its state; the leader
proposes a value to all, waits until every living rank has accepted it, and tells all that it is decided. When the
leader is lost, all turn to the next, which takes over a value that anybody has accepted: one that was decided was
accepted by all the living. This is the rotating coordinator of Chandra and Toueg, "Unreliable Failure Detectors for
Reliable Distributed Systems" (J. ACM 43, 1996), in the form that Buntinas gave it for MPI, "Scalable Distributed
Consensus to Support MPI Fault Tolerance" (IPDPS 2012). It needs a failure detector that errs neither way in the end: a
rank that is declared lost must never speak again, which ``Peer`` sees to, and every rank must hear of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...wire.peering import Ballot, Phase, ranks_from, ranks_to

if TYPE_CHECKING:
    from .contexts import Context
    from .requests import Request

__all__ = ["Agreement", "Value"]


class Value(NamedTuple):
    """What is agreed on: the bitwise and of all flags, the union of the lost ranks, the greatest free context."""

    flag: int
    failed: frozenset[int]
    next: int

    def joined(self, other: Value) -> Value:
        """Both in one."""
        return Value(self.flag & other.flag, self.failed | other.failed, max(self.next, other.next))


class Agreement:
    """One agreement of a communicator at one of its ranks.

    Attributes:
        request: what our user waits for; None: he has not called it yet.
        decided: the value, once it is certain.
    """

    def __init__(self, context: Context, number: int) -> None:
        self.context = context
        self.number = number
        self.request: Request | None = None
        self.decided: Value | None = None
        self._round = -1  # the last leader that we have sent our state, or whose proposal we have accepted
        self._stamp = 0  # of the value below: 1 + the leader that proposed it; 0: it is our own contribution
        self._value: Value | None = None
        self._states: dict[int, tuple[int, Value]] = {}  # sent to us as a leader, by rank
        self._accepted: set[int] | None = None  # ranks that have accepted what we proposed; None: nothing proposed

    @property
    def _living(self) -> set[int]:
        return set(range(self.context.size)) - self.context.failed

    @property
    def waits(self) -> frozenset[int]:
        """The ranks without which it cannot go on."""
        leader = min(self._living, default=self.context.rank)
        if leader != self.context.rank:
            return frozenset((leader,))
        return frozenset(self._living - (set(self._states) if self._accepted is None else self._accepted))

    def enter(self, request: Request, value: Value) -> None:
        """Our user calls it."""
        self.request = request
        if self.decided is not None:
            request.end(self.decided)
            return
        if self._stamp == 0:
            self._value = value
        self._step()

    def hear(self, rank: int, ballot: Ballot) -> None:
        """A rank says something."""
        value = Value(ballot.flag, ranks_from(ballot.failed), ballot.next)
        if ballot.phase == Phase.DECIDE:
            if self.decided is None:
                self._decide(value)
                for other in set(self._states) - {self.context.rank}:  # they have turned to us, and wait
                    self._send(other, Phase.DECIDE, 0, 0, value)
        elif ballot.phase == Phase.STATE:
            if self.decided is not None:
                self._send(rank, Phase.DECIDE, 0, 0, self.decided)
            else:
                self._states[rank] = (ballot.stamp, value)
        elif ballot.phase == Phase.PROPOSE:
            # who has turned to a later leader has given up this one, which is lost
            if ballot.round >= self._round:
                self._accept(ballot.round, value)
                self._send(rank, Phase.ACCEPT, ballot.round, 0, value)
        elif ballot.phase == Phase.ACCEPT and self._accepted is not None:
            self._accepted.add(rank)
        self._step()

    def lost(self, rank: int) -> None:
        """A rank of the communicator was lost."""
        if rank == self.context.rank:
            if self.request is not None:
                self.request.end(error=self.context.error())
        elif self.decided is not None:
            # the next leader may have missed the decision; it asks nobody, it is told
            leader = min(self._living)
            if rank < leader != self.context.rank:
                self._send(leader, Phase.DECIDE, 0, 0, self.decided)
        else:
            self._step()

    # --------------------------------------------------------------------------------------------- helpers

    def _step(self) -> None:
        """Does what has become possible: turn to a new leader, or, as the leader, propose and decide."""
        if self.decided is not None or self._value is None or self.context.rank in self.context.failed:
            return
        me, leader = self.context.rank, min(self._living)
        if leader > self._round:
            self._round = leader
            if leader == me:
                self._states[me] = (self._stamp, self._value)
            else:
                self._send(leader, Phase.STATE, leader, self._stamp, self._value)
        if leader == me:
            self._lead(me)

    def _lead(self, me: int) -> None:
        others = self._living - {me}
        if self._accepted is None and set(self._states) >= self._living:
            stamp, value = max(self._states.values(), key=lambda state: state[0])
            if stamp == 0:
                for _, other in self._states.values():
                    value = value.joined(other)
                value = value._replace(failed=value.failed | self.context.failed)
            self._accept(me, value)
            self._accepted = {me}
            for rank in others:
                self._send(rank, Phase.PROPOSE, me, 0, value)
        if self._accepted is not None and self._accepted >= self._living:
            assert self._value is not None
            for rank in others:
                self._send(rank, Phase.DECIDE, me, 0, self._value)
            self._decide(self._value)

    def _accept(self, leader: int, value: Value) -> None:
        self._round, self._stamp, self._value = leader, leader + 1, value

    def _decide(self, value: Value) -> None:
        self.decided = value
        if self.request is not None:
            self.request.end(value)

    def _send(self, rank: int, phase: Phase, leader: int, stamp: int, value: Value) -> None:
        context = self.context
        failed = ranks_to(value.failed)
        ballot = Ballot(context.number, self.number, int(phase), leader, stamp, value.flag, failed, value.next)
        context.peer.transmit(context.group[rank], ballot)

    def check(self) -> None:
        """Asserts every invariant."""
        assert self._stamp <= self._round + 1
        assert self.decided is None or self.request is None or self.request.done
