"""What one rank has sent another and may send it: windows, offers and the messages that wait for room.

A message that is small and fits the window goes as a TELL, whole, before anybody waits for it. Every other one goes as
an OFFER, of which the receiver keeps the envelope only, and its payload goes once a receive has met it. So a receiver
holds at most a window of octets and ``OFFERS_MAX`` envelopes of each sender; what is beyond waits at the sender, in
order. Messages of collectives have a lane of their own: a flood of ``isend`` does not stop a barrier.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from ...wire.fields import Frame
from ...wire.kinds import Message
from ...wire.peering import Offer, Tell

__all__ = [
    "COST",
    "OFFERS_MAX",
    "WINDOWS_OCTETS",
    "WINDOW_LEAST",
    "WINDOW_MOST",
    "Identity",
    "Lane",
    "Link",
    "Outgoing",
    "Transmit",
    "window_of",
]

WINDOWS_OCTETS: Final = 256 * 1024 * 1024  # that all senders of a run together may have told one rank, in each lane
WINDOW_MOST: Final = 4 * 1024 * 1024
WINDOW_LEAST: Final = 64 * 1024
OFFERS_MAX: Final = 4096  # offers of one sender that nobody has received, in each lane
COST: Final = 256  # octets that a message takes besides its payload
EAGER: Final = 4  # a payload of more than a quarter of the window is offered: it would leave no room for others


def window_of(size: int) -> int:
    """The octets that one sender may have told and nobody received, in each lane, in a run of ``size`` ranks."""
    return min(max(WINDOWS_OCTETS // size, WINDOW_LEAST), WINDOW_MOST)


class Identity(NamedTuple):
    """One life of one rank of the cluster; a later life of the same rank is another one."""

    rank: int
    incarnation: int


class Transmit(NamedTuple):
    """Effect: send a message. ``ticket``: say so to ``Peer.sent`` once nobody looks at the payload any more.

    Messages to one identity go in the order of their effects, over one connection.
    """

    to: Identity
    message: Message
    ticket: int | None = None


class Outgoing:
    """A message that a rank has to send.

    Attributes:
        to: the receiver's rank in the communicator.
        lent: its payload may be memory of the user's, which must not change before the message has left.
        synchronous: it counts as sent once a receive has met it.
        owner: who is told once it counts as sent; None: nobody.
    """

    __slots__ = ("context", "lent", "octets", "owner", "payload", "sequence", "signature", "synchronous", "tag", "to")

    def __init__(
        self,
        context: int,
        to: int,
        sequence: int,
        tag: int,
        signature: str,
        payload: tuple[Frame, ...],
        owner: Any = None,
        *,
        synchronous: bool = False,
    ) -> None:
        self.context = context
        self.to = to
        self.sequence = sequence
        self.tag = tag
        self.signature = signature
        self.payload = payload
        self.octets = sum([len(frame) for frame in payload])
        self.owner = owner
        # memory of our own is octets that nobody can change; of anything else we do not know who else looks at it
        self.lent = any(type(frame) is not bytes for frame in payload)
        self.synchronous = synchronous

    def copy(self) -> None:
        """Makes the payload ours, so that the user may change his."""
        if self.lent:
            self.payload = tuple(bytes(frame) for frame in self.payload)
            self.lent = False


class Lane:
    """One direction of one kind of messages: what was sent, what may be, what waits; and what was received."""

    __slots__ = ("allowed", "consumed", "offers", "queue", "sent", "told")

    def __init__(self, window: int) -> None:
        self.allowed = window  # as the other side has said
        self.sent = 0
        self.offers = 0
        self.queue: deque[Outgoing] = deque()
        self.consumed = 0  # of what the other side has sent us
        self.told = window  # what we have said that it may send


class Link:
    """Both lanes to one identity.

    Args:
        window: octets that we hold of it in each lane; it holds as many of ours.
    """

    __slots__ = ("lanes", "to", "window")

    def __init__(self, to: Identity, window: int) -> None:
        self.to = to
        self.window = window
        self.lanes = (Lane(window), Lane(window))

    def admit(self, out: Outgoing, transfer: int) -> Message | None:
        """The message by which ``out`` goes now; None: there is no room, and it waits."""
        lane = self.lanes[out.sequence > 0]
        if not out.synchronous and out.octets * EAGER <= self.window:
            cost = out.octets + COST
            if lane.sent + cost <= lane.allowed:
                lane.sent += cost
                return Tell(out.context, out.sequence, out.tag, out.signature, out.payload)
        if lane.offers >= OFFERS_MAX:
            return None
        lane.offers += 1
        return Offer(out.context, out.sequence, out.tag, out.signature, transfer, out.octets)

    def consume(self, lane_number: int, cost: int) -> int | None:
        """Something of a lane was received; the octets of a ROOM where one is due."""
        lane = self.lanes[lane_number]
        lane.consumed += cost
        if lane.consumed + self.window - lane.told < self.window // 2:
            return None
        lane.told = lane.consumed + self.window
        return lane.told

    def check(self) -> None:
        """Asserts every invariant."""
        for lane in self.lanes:
            assert 0 <= lane.offers <= OFFERS_MAX
            assert lane.sent <= lane.allowed
            assert lane.consumed <= lane.told
