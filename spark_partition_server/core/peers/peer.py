"""One rank of a run among the others: everything that a process does on the peer plane (PROTOCOL.md, 8.6 and 8.7).

The duties of the door that drives it:

* It calls one method at a time, and after each performs ``take()``, all of it, in order.
* A ``Transmit`` goes over one connection to its identity, in the order in which it was taken, and is never dropped
  silently. The door opens the connection when it is first needed, or takes the one by which the other side came, and
  stays with it. It says MEET over it first and waits for the MEET of the other side, which proves that both mean the
  same incarnations. Each message that comes goes to ``receive`` with the identity of that MEET.
* ``sent(ticket)`` once the octets of a ``Transmit`` with a ticket are out of the user's memory, or never will be sent.
  A blocking call writes them to the socket itself, and reads meanwhile: who only writes makes the other side only
  write too.
* Before a large payload is read, ``place`` says whether it may go straight to its place; the same memoryview is then
  the payload's only frame.
* ``lost(identity)`` once this life of the rank has ended or may never speak again: its connection has ended (what was
  on its way is gone, and nobody could say what), a new one is refused, the coordinator has said so, or another
  incarnation is in the view. Whoever hears of its own loss is done. What is still transmitted to a lost identity goes
  over a connection that is there, or nowhere.
* ``tick(now)`` at ``deadline``, by the door's clock. Agreements, alarms and questions are answered whenever the door is
  driven; ours is while a call of its rank waits, and until all ranks have left.
* ``Finished`` wakes who waits for the request; ``request.result()`` is his.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...wire.fields import Frame
from ...wire.kinds import Message
from ...wire.peering import Alarm, Ask, Ballot, Cause, Data, Grant, Offer, Phase, Room, Stand, Tell
from ..collectives.splitting import Split, split
from ..collectives.steps import Schedule
from .agreement import Agreement, Value
from .carrier import Carrier
from .census import Census
from .contexts import Context
from .links import COST, Identity, Outgoing, window_of
from .matching import ANY, NOBODY, Held, Posted
from .requests import Request
from .verdicts import Verdict

__all__ = ["Peer", "first_context"]

FLAGS = (1 << 64) - 1
ENVELOPED = (Tell, Offer)
IN_CONTEXT = (Tell, Offer, Ballot, Alarm, Ask, Stand)


def first_context(generation: int) -> int:
    """The number of the communicator of all ranks of a generation; those made of it have the numbers behind it."""
    return generation << 24


class Peer(Carrier):
    """The rules of one rank.

    Args:
        me: who we are.
        size: the ranks of the run.
        window: octets of messages from one sender, in each lane, that nobody has received; for tests.
    """

    def __init__(self, me: Identity, size: int, window: int = 0) -> None:
        super().__init__(me, window or window_of(size))
        self.contexts: dict[int, Context] = {}
        self.next_context = 1
        self._early: dict[int, list[tuple[Identity, Message]]] = {}
        self._inquiries: dict[int, Census] = {}
        self._over: dict[int, Context] = {}  # closed, and still asked about their agreements

    # --------------------------------------------------------------------------------------- communicators

    def open(self, number: int, group: Sequence[Identity]) -> Context:
        """A communicator of ``group``, of which we are one, begins; all its members open it by the same number."""
        context = self.contexts[number] = Context(self, number, group)
        self.next_context = max(self.next_context, number + 1)
        for rank, identity in enumerate(context.group):
            if identity in self.gone:
                context.lose(rank)
        waiting = self._early.pop(number, ())
        for old in [known for known in self._early if known < self.next_context]:
            self._drop(self._early.pop(old))  # of communicators that we are no member of
        for sender, message in waiting:
            self.receive(message, sender)
        return context

    def close(self, context: Context) -> None:
        """A communicator is no longer needed. What waits on it ends as if it had been revoked here. Once is enough."""
        if self.contexts.pop(context.number, None) is None:
            return
        context.close()
        if context.agreements:
            self._over[context.number] = context

    # ----------------------------------------------------------------------------------- messages of users

    def send(
        self,
        context: Context,
        to: int,
        tag: int,
        payload: tuple[Frame, ...],
        deadline: float,
        *,
        signature: str = "",
        synchronous: bool = False,
        buffered: bool = False,
        doing: str = "",
    ) -> Request:
        """Sends a message to a rank. The request is done once the payload may change.

        Args:
            to: the rank; ``NOBODY``: done at once.
            signature: what the payload is made of; empty: an encoded object.
            synchronous: done once a receive has met the message too.
            buffered: the payload is copied, and the request done at once.
        """
        request = context.request(doing or f"send(dest={to}, tag={tag})", deadline, to)
        if to == NOBODY:
            request.end()
        if request.done:
            return request
        out = Outgoing(context.number, to, 0, tag, signature, payload, request, synchronous=synchronous)
        request.out = out
        if buffered:
            out.copy()
            out.owner = None
        if to == context.rank:
            self._send_to_myself(context, out)
        else:
            self.submit(out, context.group[to])
        if buffered:
            request.end()
        return request

    def _send_to_myself(self, context: Context, out: Outgoing) -> None:
        out.copy()
        if out.synchronous:
            held = Held(out.to, out.tag, out.signature, None, out.octets, 0, out)
            context.deliver(held, context.points)
            return
        context.deliver(Held(out.to, out.tag, out.signature, out.payload, out.octets), context.points)
        self._departed(out)

    def recv(
        self,
        context: Context,
        source: int,
        tag: int,
        deadline: float,
        *,
        into: memoryview | None = None,
        signature: str | None = None,
        doing: str = "",
    ) -> Request:
        """Receives a message.

        Args:
            source, tag: which; ``ANY`` fits all.
            into: a flat, writable view of octets to put the payload into; it may be larger.
            signature: what the payload has to be made of; None: anything.
        """
        request = context.request(doing or f"recv(source={source}, tag={tag})", deadline, source)
        if source == NOBODY:
            request.source = NOBODY
            request.end()
        elif not request.done:
            context.post(request, Posted(source, tag, request, into=into, signature=signature))
        return request

    def probe(self, context: Context, source: int, tag: int) -> Held | None:
        """The message that a receive would meet now, for its envelope; the message stays.

        Raises:
            CommError: the communicator is broken.
        """
        if context.verdict is not None:
            raise context.error()
        return Held(NOBODY, ANY, "", (), 0) if source == NOBODY else context.points.find(source, tag)

    def claim(self, context: Context, source: int, tag: int) -> Held | None:
        """The same, and no other receive can meet it any more: ``fetch`` it. Raises as ``probe`` does."""
        found = self.probe(context, source, tag)
        return found if source == NOBODY else context.points.take(source, tag)

    def recv_claimed(
        self,
        context: Context,
        held: Held,
        deadline: float,
        *,
        into: memoryview | None = None,
        signature: str | None = None,
        doing: str = "",
    ) -> Request:
        """Receives a message that was claimed."""
        request = context.request(doing or f"recv(source={held.source}, tag={held.tag})", deadline, held.source)
        if held.source == NOBODY:
            request.source = NOBODY
            request.end()
        elif request.done:
            self.consumed(held, False)
        else:
            context.meet(Posted(held.source, held.tag, request, into=into, signature=signature), held)
        return request

    def cancel(self, request: Request) -> bool:
        """Takes back a receive that has met no message, or a message that waits for room; ``cancelled`` tells."""
        return not request.done and request.context.cancel(request)

    # ------------------------------------------------------------------------------- collectives and faults

    def start(self, context: Context, signature: str, schedule: Schedule, deadline: float) -> Request:
        """Begins the next collective of a communicator; all its ranks begin the same, in the same order."""
        return context.begin(signature, schedule, deadline)

    def split(
        self, context: Context, color: int | None, key: int, deadline: float, doing: str = "Split()"
    ) -> Request:
        """Begins a collective whose value ``opened`` takes. One thread at a time may make communicators."""
        schedule = split(context.rank, context.size, color, key, self.next_context)
        return context.begin(doing, schedule, deadline)

    def opened(self, context: Context, request: Request) -> Context | None:
        """The communicator that came of ``split``; None: we are in none.

        Raises:
            CommError: the collective failed.
        """
        made: Split = request.result()
        self.next_context = max(self.next_context, made.beyond)
        if not made.ranks:
            return None
        return self.open(made.number, [context.group[rank] for rank in made.ranks])

    def revoke(self, context: Context) -> None:
        """Breaks a communicator on all its ranks."""
        context.fail(Verdict(Cause.REVOKED, rank=context.rank))

    def agree(self, context: Context, flag: int, deadline: float, doing: str = "Agree()") -> Request:
        """Agrees with all living ranks, also of a broken communicator.

        The value is a ``Value``: the bitwise and of all flags (64 bits, taken as unsigned), the lost ranks as far as
        any rank knows, and a number for a new communicator. Two ranks never get two values.
        """
        request = Request(context, doing, deadline)
        context.requests[request] = None
        if context.rank in context.failed:
            request.end(error=context.error())
            return request
        context.agreed += 1
        context.agreements.pop(context.agreed - 2, None)  # all have got its value: they took part in the next
        agreement = self._agreement(context, context.agreed)
        agreement.enter(request, Value(flag & FLAGS, frozenset(context.failed), self.next_context))
        return request

    def shrunk(self, context: Context, request: Request) -> Context:
        """The communicator of those that are left, after an agreement.

        Raises:
            CommError: the agreement failed, or the others have agreed that we are lost.
        """
        value: Value = request.result()
        if context.rank in value.failed:
            self.lost(self.me)
            raise context.error()
        left = [identity for rank, identity in enumerate(context.group) if rank not in value.failed]
        return self.open(value.next, left)

    def _agreement(self, context: Context, number: int) -> Agreement:
        found = context.agreements.get(number)
        if found is None:
            found = context.agreements[number] = Agreement(context, number)
        return found

    # ----------------------------------------------------------------------------- what the world tells us

    def receive(self, message: Message, sender: Identity) -> None:
        """A message has come from an identity, over the connection on which it said MEET."""
        if sender in self.gone:
            return
        if isinstance(message, IN_CONTEXT):
            self._receive_in_context(message, sender)
        elif isinstance(message, Grant):
            self._granted(message.transfer, sender)
        elif isinstance(message, Data):
            self._arrived(message, sender)
        elif isinstance(message, Room):
            self._roomier(message, sender)

    def _receive_in_context(self, message: Tell | Offer | Alarm | Ask | Stand | Ballot, sender: Identity) -> None:
        context = self.contexts.get(message.context) or self._over.get(message.context)
        if context is None:
            self._receive_without(message, sender)
            return
        rank = context.index.get(sender)
        if rank is None:
            return  # no member, or another life of one
        if isinstance(message, ENVELOPED):
            context.arrive(rank, message, sender)
        elif isinstance(message, Ballot):
            if Phase.STATE <= message.phase <= Phase.DECIDE and message.number >= context.agreed - 1:
                self._agreement(context, message.number).hear(rank, message)
        elif isinstance(message, Alarm):
            context.hear(message)
        elif isinstance(message, Ask):
            self.transmit(sender, context.stand(message.number, message.sequence))
        else:
            census = self._inquiries.get(message.number)
            if census is not None and census.context is context:
                census.hear(rank, message)

    def _receive_without(self, message: Tell | Offer | Alarm | Ask | Stand | Ballot, sender: Identity) -> None:
        """A message of a communicator that we have closed, or that we shall open: others can be ahead of us."""
        if isinstance(message, Ask):
            doing = "no call of this communicator, which it does not have"
            self.transmit(sender, Stand(message.context, message.number, 0, doing, "", b""))
        elif message.context >= self.next_context:
            self._early.setdefault(message.context, []).append((sender, message))
        else:
            self._drop([(sender, message)])

    def _drop(self, messages: list[tuple[Identity, Message]]) -> None:
        """Messages that nobody will receive give their room back."""
        for sender, message in messages:
            if isinstance(message, Tell):
                octets = sum([len(frame) for frame in message.payload]) + COST
                held = Held(0, message.tag, message.signature, message.payload, 0, octets, sender)
                self.consumed(held, message.sequence > 0)

    def place(self, message: Tell | Data, sender: Identity, octets: int) -> memoryview | None:
        """The memory that a payload of one frame of ``octets`` may be read into; ``message`` is still without it."""
        if isinstance(message, Data):
            _, posted, held = self._incoming.get((sender, message.transfer), (None, None, None))
            fits = posted is not None and held is not None and posted.into is not None and len(posted.into) == octets
            return posted.into if fits and posted is not None else None
        context = self.contexts.get(message.context)
        source = context.index.get(sender) if context is not None else None
        return context.place(source, message, octets) if context is not None and source is not None else None

    def lost(self, identity: Identity) -> None:
        """A life of a rank is over. All communicators with it are broken, on all their ranks."""
        if identity in self.gone:
            return
        self.gone.add(identity)
        self._links.pop(identity, None)
        for context in [*self.contexts.values(), *self._over.values()]:
            rank = context.index.get(identity)
            if rank is not None:
                context.lose(rank)

    def tick(self, now: float) -> None:
        """Time has passed: operations that are over their deadline are asked about, and end."""
        under_way = {census.request for census in self._inquiries.values()}
        for context in [*self.contexts.values(), *self._over.values()]:
            late = [one for one in context.requests if one.deadline <= now and one not in under_way]
            for request in late:
                self._number += 1
                self._inquiries[self._number] = Census(context, request, self._number, now)
        for number, census in list(self._inquiries.items()):
            if census.request.done:
                del self._inquiries[number]
            elif census.complete or census.end <= now:
                del self._inquiries[number]
                census.conclude()

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is wanted next."""
        asked = {census.request: census for census in self._inquiries.values()}
        instants = [census.end if not census.complete else 0.0 for census in asked.values()]
        for context in [*self.contexts.values(), *self._over.values()]:
            instants += [request.deadline for request in context.requests if request not in asked]
        return min(instants, default=None)

    def check(self) -> None:
        """Asserts every invariant."""
        for context in self.contexts.values():
            context.check()
            for agreement in context.agreements.values():
                agreement.check()
        for link in self._links.values():
            link.check()
            assert link.to not in self.gone
        assert all(number >= self.next_context for number in self._early)
