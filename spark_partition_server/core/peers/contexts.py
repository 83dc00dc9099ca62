"""One communicator at one of its ranks: its messages, its collectives, its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import CommError
from ...wire.fields import Frame
from ...wire.peering import Alarm, Cause, Offer, Stand, Tell, ranks_to
from ..collectives.steps import Schedule
from .agreement import Agreement
from .links import COST, Identity
from .matching import ANY, Held, Matching, Posted
from .requests import Finished, Request
from .running import Running
from .verdicts import Verdict, cut

if TYPE_CHECKING:
    from .peer import Peer

__all__ = ["HISTORY", "Context", "neighbours"]

HISTORY = 1024  # signatures of collectives that are over, kept to judge what comes late


def neighbours(rank: int, size: int, failed: frozenset[int] | set[int]) -> list[int]:
    """To whom a rank passes an alarm on: in each distance 1, 2, 4, ... both ways, the next that is not lost.

    As many ranks as a binomial graph has neighbours may be lost before an alarm stops anywhere, after Bosilca et al.,
    "Failure Detection and Propagation in HPC Systems" (SC 2016); walking on past the lost makes it more.
    """
    found: dict[int, None] = {}
    distance = 1
    while distance < size:
        for way in (1, -1):
            other = (rank + way * distance) % size
            while other != rank and other in failed:
                other = (other + way) % size
            if other != rank:
                found[other] = None
        distance *= 2
    return list(found)


class Context:
    """The rules of one communicator.

    Attributes:
        number: its context; the same on all its ranks.
        group: its members by rank.
        rank: our own.
        sequence: the number of the last collective that we called.
        verdict: why it is broken; None: it is not.
        failed: the ranks that are known to be lost.
    """

    def __init__(self, peer: Peer, number: int, group: Sequence[Identity]) -> None:
        self.peer = peer
        self.number = number
        self.group = tuple(group)
        self.index = {identity: rank for rank, identity in enumerate(self.group)}
        self.rank = self.index[peer.me]
        self.size = len(self.group)
        self.points = Matching()
        self.pieces: dict[int, Matching] = {}  # of each collective that is under way, here or elsewhere
        self.requests: dict[Request, None] = {}
        self.sequence = 0
        self.running: dict[int, Running] = {}
        self.signatures: dict[int, str] = {}
        self.verdict: Verdict | None = None
        self.failed: set[int] = set()
        self.agreements: dict[int, Agreement] = {}
        self.agreed = 0  # the number of the last agreement that we called

    @property
    def where(self) -> str:
        """For a text."""
        return f"communicator {self.number} of {self.size} ranks (this is rank {self.rank})"

    # ------------------------------------------------------------------------------------- our own calls

    def request(self, doing: str, deadline: float, peer: int = ANY) -> Request:
        """A new operation; one of a broken communicator has ended already."""
        made = Request(self, doing, deadline, peer)
        self.requests[made] = None
        if self.verdict is not None:
            made.end(error=self.error())
        return made

    def error(self) -> CommError:
        """What operations raise since it is broken; each its own exception."""
        assert self.verdict is not None
        verdict = self.verdict
        if verdict.cause is Cause.LOST:
            verdict = verdict._replace(ranks=tuple(sorted(self.failed)))
        return verdict.error(self.where)

    def post(self, request: Request, posted: Posted) -> None:
        """A receive of our user's."""
        request.posted = posted
        held = self.points.post(posted)
        if held is not None:
            self.meet(posted, held)

    def begin(self, signature: str, schedule: Schedule, deadline: float) -> Request:
        """The next collective."""
        request = self.request(signature, deadline)
        if request.done:
            schedule.close()
            return request
        signature = cut(signature)
        self.sequence = request.sequence = sequence = self.sequence + 1
        self.signatures[sequence] = signature
        self.signatures.pop(sequence - HISTORY, None)
        running = self.running[sequence] = request.running = Running(self, sequence, signature, schedule, request)
        for held in running.pieces.held():
            if held.signature != signature:
                self.fail(Verdict(Cause.MISMATCH, sequence, self.rank, held.source, signature, held.signature))
                return request
        running.advance()
        return request

    def completed(self, running: Running, value: object) -> None:
        """A schedule came to its end."""
        del self.running[running.sequence]
        del self.pieces[running.sequence]
        running.request.end(value)
        for held in running.pieces.held():
            self.peer.consumed(held, True)
            self._superfluous(held.source, running.sequence, held.signature)

    def stumbled(self, running: Running, error: Exception) -> None:
        """A schedule raised what the user's reduction raised: here that, on the other ranks CommRevoked."""
        del self.running[running.sequence]
        running.request.end(error=error)
        text = cut(f"{type(error).__name__}: {error}")
        self.fail(Verdict(Cause.FAILED, running.sequence, self.rank, 0, running.signature, text))

    def ended(self, request: Request) -> None:
        """A request of ours is over."""
        self.requests.pop(request, None)
        self.peer.effects.append(Finished(request))

    def cancel(self, request: Request) -> bool:
        """Takes a receive back, or a message that waits for room; False: too late, it goes on."""
        posted, out = request.posted, request.out
        if posted is not None:
            request.cancelled = self.points.cancel(posted)
        elif out is not None:
            request.cancelled = self.peer.withdraw(out, self.group[out.to])
        if request.cancelled:
            request.end()
        return request.cancelled

    # ------------------------------------------------------------------------------- what others send us

    def arrive(self, source: int, message: Tell | Offer, sender: Identity) -> None:
        """A message, or the offer of one."""
        collective = message.sequence > 0
        if isinstance(message, Tell):
            payload: tuple[Frame, ...] | None = message.payload
            octets = sum([len(frame) for frame in message.payload])
            held = Held(source, message.tag, message.signature, payload, octets, octets + COST, sender)
        else:
            held = Held(source, message.tag, message.signature, None, message.octets, 0, (sender, message.transfer))
        if self.verdict is not None or (collective and not self._fits(source, message)):
            self.peer.consumed(held, collective)
            return
        matching = self.points
        if collective:
            known = self.pieces.get(message.sequence)
            matching = self.pieces.setdefault(message.sequence, Matching()) if known is None else known
        self.deliver(held, matching)

    def deliver(self, held: Held, matching: Matching) -> None:
        """A message meets its receive, or waits for it."""
        posted = matching.arrive(held.source, held.tag)
        if posted is None:
            matching.hold(held)
        else:
            self.meet(posted, held)

    def meet(self, posted: Posted, held: Held) -> None:
        """A receive and a message have found each other."""
        if held.payload is not None:
            self.peer.consumed(held, isinstance(posted.owner, Running))
            posted.owner.arrived(posted, held, held.payload)
        else:
            self.peer.fetch(self, posted, held)

    def _fits(self, source: int, message: Tell | Offer) -> bool:
        """Whether a message of a collective agrees with what we called, as far as we have called it."""
        sequence = message.sequence
        if sequence > self.sequence:
            return True
        running = self.running.get(sequence)
        if running is not None:
            ours = running.signature
        else:
            ours = self.signatures.get(sequence, "a collective that is long over")
        if message.signature != ours:
            self.fail(Verdict(Cause.MISMATCH, sequence, self.rank, source, ours, message.signature))
        elif running is None:
            self._superfluous(source, sequence, message.signature)
        return self.verdict is None

    def _superfluous(self, source: int, sequence: int, signature: str) -> None:
        """A message that the schedule of the very same call does not receive: the counts of a v-form disagree."""
        there = cut(f"{signature} with more messages")
        self.fail(Verdict(Cause.MISMATCH, sequence, self.rank, source, signature, there))

    def place(self, source: int, message: Tell, octets: int) -> memoryview | None:
        """The memory that the payload of a message is for, where that is certain before it has come."""
        matching = self.points
        if message.sequence > 0:
            running = self.running.get(message.sequence)
            if running is None or running.signature != message.signature:
                return None
            matching = running.pieces
        posted = matching.next_posted(source, message.tag)
        if posted is None or posted.into is None or len(posted.into) != octets:
            return None
        return posted.into if posted.signature in (None, message.signature) else None

    # ------------------------------------------------------------------------------------------- the end

    def fail(self, verdict: Verdict) -> None:
        """It is broken from now on, on all ranks. The first verdict counts."""
        if self.verdict is None:
            self._end(verdict)
            self.spread()

    def lose(self, rank: int) -> None:
        """A rank was lost; once."""
        self.failed.add(rank)
        if self.verdict is None:
            self._end(Verdict(Cause.LOST, ranks=(rank,)))
        for agreement in list(self.agreements.values()):
            agreement.lost(rank)
        self.spread()
        if rank != self.rank:  # should it still run, it is told
            lost = Verdict(Cause.LOST).alarm(self.number, frozenset(self.failed))
            self.peer.transmit(self.group[rank], lost)

    def hear(self, alarm: Alarm) -> None:
        """Another rank says that it is broken."""
        verdict = Verdict.of(alarm, self.size)
        if verdict is None:
            return
        if verdict.cause is Cause.LOST:
            for rank in verdict.ranks:
                self.peer.lost(self.group[rank])
        else:
            self.fail(verdict)

    def spread(self) -> None:
        """Tells the neighbours, who tell theirs."""
        assert self.verdict is not None
        failed = frozenset(self.failed)
        verdicts = [self.verdict]
        if failed and self.verdict.cause is not Cause.LOST:
            verdicts.append(Verdict(Cause.LOST))
        for other in neighbours(self.rank, self.size, failed):
            for verdict in verdicts:
                self.peer.transmit(self.group[other], verdict.alarm(self.number, failed))

    def _end(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.peer.send_no_more(self)
        self.clear()

    def close(self) -> None:
        """Our user needs it no more. What is under way here ends; what was sent is still on its way to the others."""
        if self.verdict is None:
            self.verdict = Verdict(Cause.REVOKED, rank=self.rank)
            for request in self.requests:
                if request.out is not None:
                    request.out.copy()
            self.clear()

    def clear(self) -> None:
        """Ends every operation, agreements excepted, and forgets what has come for them."""
        held = [(one, False) for one in self.points.held()]
        held += [(one, True) for pieces in self.pieces.values() for one in pieces.held()]
        self.points.clear()
        self.pieces.clear()
        self.peer.await_no_more(self)
        self.running.clear()
        for one, collective in held:
            self.peer.consumed(one, collective)
        for request in list(self.requests):
            if not any(agreement.request is request for agreement in self.agreements.values()):
                running = request.running
                request.end(error=self.error())
                if running is not None:
                    running.schedule.close()

    # ------------------------------------------------------------------------------- who waits for whom

    def waits(self, request: Request) -> frozenset[int]:
        """The ranks without which a request cannot end."""
        if request.running is not None:
            found: frozenset[int] = request.running.waits
            return found
        for agreement in self.agreements.values():
            if agreement.request is request:
                return agreement.waits
        everybody = frozenset(range(self.size)) - {self.rank}
        return everybody if request.peer == ANY else frozenset((request.peer,))

    def stand(self, number: int, sequence: int) -> Stand:
        """What we are doing, for one who waits."""
        reached = min(sequence, self.sequence)
        running = self.running.get(reached)
        pending = [running.request] if running is not None else list(self.requests)[:1]
        doing = pending[0].doing if pending else "no call that waits"
        waiting = self.waits(pending[0]) if pending else frozenset()
        known = running is not None or reached == sequence
        signature = self.signatures.get(reached, "") if known else ""
        return Stand(self.number, number, self.sequence, cut(doing), signature, ranks_to(waiting))

    def check(self) -> None:
        """Asserts every invariant."""
        self.points.check()
        for pieces in self.pieces.values():
            pieces.check()
        assert all(not request.done for request in self.requests)
        assert self.verdict is not None or not self.failed
        if self.verdict is not None:
            assert not self.running
            assert next(self.points.held(), None) is None
            assert not self.pieces
        assert all(sequence <= self.sequence for sequence in self.running)
        assert all(sequence in self.running or sequence > self.sequence for sequence in self.pieces)
