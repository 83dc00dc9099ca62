"""What carries a rank's messages: links, transfers, tickets; the part of ``Peer`` that knows no communicators."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ...wire.kinds import Message
from ...wire.peering import Data, Grant, Offer, Room
from .links import Identity, Link, Outgoing, Transmit
from .matching import Held, Posted
from .requests import Finished, Request

if TYPE_CHECKING:
    from .contexts import Context

__all__ = ["Carrier", "Effect"]

Effect: TypeAlias = "Transmit | Finished"


class Carrier:
    """Sends and fetches messages within the bounds of their links.

    Args:
        me: who we are.
        window: octets of messages of one sender, in each lane, that nobody has received.
    """

    def __init__(self, me: Identity, window: int) -> None:
        self.me = me
        self.gone: set[Identity] = set()
        self.effects: list[Effect] = []
        self._window = window
        self._links: dict[Identity, Link] = {}
        self._number = 0  # of tickets, transfers and questions
        self._tickets: dict[int, Outgoing] = {}
        self._transfers: dict[int, tuple[Outgoing, Link]] = {}
        self._incoming: dict[tuple[Identity, int], tuple[Context, Posted, Held]] = {}

    def take(self) -> list[Effect]:
        """The effects since the last time, in order."""
        taken, self.effects = self.effects, []
        return taken

    def sent(self, ticket: int) -> None:
        """The octets of a ``Transmit`` have left the user's memory."""
        out = self._tickets.pop(ticket, None)
        if out is not None:
            self._departed(out)

    # ----------------------------------------------------------------------------------- for communicators

    def transmit(self, to: Identity, message: Message) -> None:
        """A message that needs no room."""
        self.effects.append(Transmit(to, message))

    def submit(self, out: Outgoing, to: Identity) -> None:
        """A message that needs room, in the order of its lane."""
        link = self._link(to)
        queue = link.lanes[out.sequence > 0].queue
        if queue or not self._go(link, out):
            queue.append(out)

    def withdraw(self, out: Outgoing, to: Identity) -> bool:
        """Takes back a message that still waits for room."""
        link = self._links.get(to)
        queue = link.lanes[out.sequence > 0].queue if link is not None else None
        if queue is None or out not in queue:
            return False
        queue.remove(out)
        return True

    def fetch(self, context: Context, posted: Posted, held: Held) -> None:
        """A receive has met a message that was only offered."""
        origin = held.origin
        if isinstance(origin, Outgoing):  # of our own, to ourselves
            posted.owner.arrived(posted, held, origin.payload)
            self._departed(origin)
            return
        sender, transfer = origin
        self._incoming[origin] = (context, posted, held)
        self.transmit(sender, Grant(transfer))

    def consumed(self, held: Held, collective: bool) -> None:
        """A message has left the messages that wait; its sender gets its room back."""
        if held.cost and held.origin not in self.gone:
            room = self._link(held.origin).consume(collective, held.cost)
            if room is not None:
                self.transmit(held.origin, Room(int(collective), room))

    def give_up(self, request: Request) -> None:
        """A send or a receive is over its deadline: nothing writes to its memory any more, or reads it."""
        if request.posted is not None:
            request.context.points.cancel(request.posted)
            request.posted.into = None
        if request.out is not None and not self.withdraw(request.out, request.context.group[request.out.to]):
            request.out.copy()  # it may still be received

    def await_no_more(self, context: Context) -> None:
        """Nobody waits for the messages of a communicator any more."""
        for key in [key for key, (waits, _, _) in self._incoming.items() if waits is context]:
            del self._incoming[key]

    def send_no_more(self, context: Context) -> None:
        """Messages of a broken communicator are not sent any more."""
        for link in self._links.values():
            for lane in link.lanes:
                kept = [out for out in lane.queue if out.context != context.number]
                lane.queue.clear()
                lane.queue.extend(kept)
        for number, (out, link) in list(self._transfers.items()):
            if out.context == context.number:
                del self._transfers[number]
                link.lanes[out.sequence > 0].offers -= 1

    # --------------------------------------------------------------------------------------------- helpers

    def _link(self, to: Identity) -> Link:
        link = self._links.get(to)
        if link is None:
            link = self._links[to] = Link(to, self._window)
        return link

    def _go(self, link: Link, out: Outgoing) -> bool:
        """Sends a message, or offers it; False: there is no room."""
        self._number += 1
        message = link.admit(out, self._number)
        if message is None:
            return False
        if isinstance(message, Offer):
            self._transfers[self._number] = (out, link)
            self.transmit(link.to, message)
        else:
            self._leave(link.to, message, out)
        return True

    def _leave(self, to: Identity, message: Message, out: Outgoing) -> None:
        """The payload of a message goes; it has departed now, or once the door says so."""
        if not out.lent or out.owner is None:
            self.transmit(to, message)
            self._departed(out)
            return
        self._number += 1
        self._tickets[self._number] = out
        self.effects.append(Transmit(to, message, self._number))

    def _departed(self, out: Outgoing) -> None:
        if out.owner is not None:
            out.owner.departed(out)

    def _drain(self, link: Link, lane: int) -> None:
        """There may be room again."""
        queue = link.lanes[lane].queue
        while queue and self._go(link, queue[0]):
            queue.popleft()

    def _granted(self, transfer: int, sender: Identity) -> None:
        out, link = self._transfers.get(transfer, (None, None))
        if out is None or link is None or link.to != sender:
            return
        del self._transfers[transfer]
        lane = int(out.sequence > 0)
        link.lanes[lane].offers -= 1
        self._leave(sender, Data(transfer, out.payload), out)
        self._drain(link, lane)

    def _arrived(self, message: Data, sender: Identity) -> None:
        _, posted, held = self._incoming.pop((sender, message.transfer), (None, None, None))
        if posted is not None and held is not None:
            held.octets = sum([len(frame) for frame in message.payload])
            posted.owner.arrived(posted, held, message.payload)

    def _roomier(self, message: Room, sender: Identity) -> None:
        link = self._link(sender)
        lane = link.lanes[message.lane]
        lane.allowed = max(lane.allowed, message.octets)
        self._drain(link, message.lane)
