"""How much of the messages in parts may be on their way through the coordinator (PROTOCOL.md, section 8.5).

A flow carries the parts of one call in one direction, from a peer to another. Its source may send as much as it was
granted; more is granted as the destination gives credit, in turn to all flows that wait, and never so much that more
than a window of octets waits for one destination or is to come from one source. So a reader that does not read holds up
what is for itself, and nothing else.
"""

from __future__ import annotations

from typing import Any

from ..errors import RemoteProtocolError
from ..wire.codes import Code
from ..wire.relays import CALL_WINDOW, FIRST_CREDIT, PART_BYTES_MAX

__all__ = ["PEER_WINDOW", "Flow", "Peer"]

PEER_WINDOW = 4 << 20  # octets of parts that wait for one peer, or have been granted to one and have yet to come
STEP = 2 * PART_BYTES_MAX  # granted at a time: half as many messages as one for each part


class Peer:
    """A connection to the coordinator, as far as parts go to it and come from it.

    Attributes:
        name: the connection.
        waiting: octets granted to others for it that it has not yet given credit for.
        coming: octets granted to it that have yet to come.
        hungry: the flows from it and to it that could use a grant, whose turn is next first.
    """

    __slots__ = ("coming", "hungry", "name", "waiting")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.waiting = 0
        self.coming = 0
        self.hungry: dict[Flow, None] = {}

    def feed(self) -> list[Flow]:
        """Grants what can be granted to the flows that wait, each in turn. Returns those whose source must be told."""
        fed: list[Flow] = []
        for flow in list(self.hungry):
            if flow.grant():
                fed.append(flow)
                if flow in self.hungry:  # behind the others
                    del self.hungry[flow]
                    self.hungry[flow] = None
            elif (self.waiting if flow.destination is self else self.coming) > PEER_WINDOW - STEP:
                break  # nothing fits any more; who waits is looked at again when there is room
        return fed


class Flow:
    """The parts of one call in one direction.

    Args:
        owner: whose flow it is; not looked at.
        source: who sends the parts.
        destination: who is sent them.
        again: more than one message may come, one behind the other.

    Attributes:
        granted: octets that the source may have sent in all.
    """

    __slots__ = (
        *("_acknowledged", "_again", "_end", "_offset", "_sent", "_size"),
        *("destination", "granted", "owner", "source"),
    )

    def __init__(self, owner: Any, source: Peer, destination: Peer, again: bool) -> None:
        self.owner = owner
        self.source = source
        self.destination = destination
        self.granted = FIRST_CREDIT
        self._again = again
        self._sent = 0
        self._end = 0  # of the messages announced so far
        self._acknowledged = 0
        self._offset = 0  # within the message that is coming
        self._size = 0  # of it; 0: none is

    @property
    def opens(self) -> bool:
        """Whether the next part is the first of a message."""
        return not self._size

    @property
    def settled(self) -> bool:
        """Whether the destination has given credit for all that was announced."""
        return self._acknowledged == self._end

    @property
    def unread(self) -> bool:
        """Whether something has been sent that the destination has not given credit for."""
        return self._acknowledged < self._sent

    @property
    def waiting(self) -> int:
        """Its share of the destination's ``waiting``."""
        return min(self.granted, self._end) - self._acknowledged

    @property
    def coming(self) -> int:
        """Its share of the source's ``coming``."""
        return min(self.granted, self._end) - self._sent

    def part(self, offset: int, size: int, octets: int) -> bool:
        """A part has come. Returns whether its message is whole.

        Raises:
            RemoteProtocolError: it does not follow the one before, or was not granted. Nothing changes.
        """
        known = self._size or size
        if offset != self._offset or size != known or offset + octets > size:
            raise RemoteProtocolError(f"a part at {offset} of {size} does not follow the one before", Code.MALFORMED)
        if self._sent + octets > self.granted:
            raise RemoteProtocolError("a part that was not granted", Code.MALFORMED)
        before = self.waiting, self.coming
        if not self._size:
            self._size = size
            self._end += size
        self._sent += octets
        self._offset += octets
        whole = self._offset == size
        if whole:
            self._size = self._offset = 0
        self._claim(before)
        return whole

    def credit(self, octets: int) -> None:
        """The destination lets come ``octets`` in all. More than it may is taken for as much as it may."""
        before = self.waiting, self.coming
        self._acknowledged = min(max(self._acknowledged, octets - CALL_WINDOW), self._sent)
        self._claim(before)

    def grant(self) -> bool:
        """Grants the next step, if it fits. Returns whether it did."""
        most = self._most()
        granted = min(most, self.granted + STEP)
        more = min(granted, self._end) - min(self.granted, self._end)
        if self.destination.waiting + more > PEER_WINDOW or self.source.coming + more > PEER_WINDOW:
            return False
        before = self.waiting, self.coming
        self.granted = granted
        self._claim(before)
        return True

    def close(self) -> None:
        """It is over; what it took is given back."""
        self.destination.waiting -= self.waiting
        self.source.coming -= self.coming
        self.source.hungry.pop(self, None)
        self.destination.hungry.pop(self, None)

    def check(self) -> None:
        """Asserts every invariant."""
        assert self._acknowledged <= self._sent <= min(self.granted, self._end)
        assert self.granted <= max(self._most(), FIRST_CREDIT)
        assert (self in self.source.hungry) == (self in self.destination.hungry) == (self.granted < self._most())

    def _most(self) -> int:
        """As far as the call's own window and its messages go; one part of a message that may follow is free."""
        return min(self._acknowledged + CALL_WINDOW, self._end + (FIRST_CREDIT if self._again else 0))

    def _claim(self, before: tuple[int, int]) -> None:
        self.destination.waiting += self.waiting - before[0]
        self.source.coming += self.coming - before[1]
        if self.granted < self._most():
            self.source.hungry[self] = self.destination.hungry[self] = None
        else:
            self.source.hungry.pop(self, None)
            self.destination.hungry.pop(self, None)
