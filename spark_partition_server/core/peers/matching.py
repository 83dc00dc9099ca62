"""Which message meets which receive, in MPI's order: messages that arrived and receives that were posted.

Between a receive and a message that both could be chosen, the older ones meet: of the messages from one source with one
tag the first to arrive, of the receives that fit a message the first that was posted. ``ANY`` as the source or the tag
of a receive fits all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from ...wire.fields import Frame

__all__ = ["ANY", "NOBODY", "Held", "Matching", "Posted"]

ANY: Final = -1  # of a source or a tag; the doors map mpi4py's constants to it
NOBODY: Final = -2  # PROC_NULL: what is sent there is gone, what is received from there is nothing

Key = tuple[int, int]  # source, tag


class Posted:
    """A receive that waits for its message.

    Attributes:
        into: the memory that the payload is for; None: the payload is handed over as it came.
        signature: what the message has to be made of; None: anything.
        owner: who is told once the message is there.
        index: whatever the owner wants to know then.
    """

    __slots__ = ("index", "into", "number", "owner", "signature", "source", "tag")

    def __init__(
        self,
        source: int,
        tag: int,
        owner: Any,
        *,
        into: memoryview | None = None,
        signature: str | None = None,
        index: int = 0,
    ) -> None:
        self.source = source
        self.tag = tag
        self.into = into
        self.signature = signature
        self.owner = owner
        self.index = index
        self.number = 0

    def fits(self, source: int, tag: int) -> bool:
        """Whether a message from there with that tag is one for this receive."""
        return self.source in (ANY, source) and self.tag in (ANY, tag)


class Held:
    """A message that arrived before its receive.

    Attributes:
        payload: its frames; None while it is only offered.
        octets: of the payload.
        cost: what it takes of its sender's window until somebody receives it.
        origin: whatever the owner of the matching needs to fetch an offered payload, or to give room back.
    """

    __slots__ = ("cost", "number", "octets", "origin", "payload", "signature", "source", "tag")

    def __init__(
        self,
        source: int,
        tag: int,
        signature: str,
        payload: tuple[Frame, ...] | None,
        octets: int,
        cost: int = 0,
        origin: Any = None,
    ) -> None:
        self.source = source
        self.tag = tag
        self.signature = signature
        self.payload = payload
        self.octets = octets
        self.cost = cost
        self.origin = origin
        self.number = 0


class Matching:
    """The receives and the messages of one communicator that have not met."""

    __slots__ = ("_exact", "_held", "_number", "_wild")

    def __init__(self) -> None:
        self._number = 0  # of arrivals and of posts: what is older has a smaller one
        self._exact: dict[Key, deque[Posted]] = {}
        self._wild: list[Posted] = []  # receives of any source or any tag, in order
        self._held: dict[Key, deque[Held]] = {}

    def post(self, posted: Posted) -> Held | None:
        """The message that a new receive meets; None: it waits from now on."""
        held = self.take(posted.source, posted.tag)
        if held is not None:
            return held
        self._number = posted.number = self._number + 1
        if ANY in (posted.source, posted.tag):
            self._wild.append(posted)
        else:
            self._exact.setdefault((posted.source, posted.tag), deque()).append(posted)
        return None

    def arrive(self, source: int, tag: int) -> Posted | None:
        """The receive that a message meets, which waits no more; None: the caller holds the message."""
        waiting = self._exact.get((source, tag))
        posted = waiting[0] if waiting else None
        for wild in self._wild:
            if wild.fits(source, tag):
                if posted is None or wild.number < posted.number:
                    self._wild.remove(wild)
                    return wild
                break
        if posted is not None and waiting is not None:
            waiting.popleft()
            if not waiting:
                del self._exact[source, tag]
        return posted

    def hold(self, held: Held) -> None:
        """Keeps a message that met no receive."""
        self._number = held.number = self._number + 1
        self._held.setdefault((held.source, held.tag), deque()).append(held)

    def find(self, source: int, tag: int) -> Held | None:
        """The message that a receive would meet now, which stays."""
        if ANY not in (source, tag):
            waiting = self._held.get((source, tag))
            return waiting[0] if waiting else None
        fitting = (one[0] for (a, b), one in self._held.items() if source in (ANY, a) and tag in (ANY, b))
        return min(fitting, key=lambda held: held.number, default=None)

    def take(self, source: int, tag: int) -> Held | None:
        """The message that a receive meets now."""
        held = self.find(source, tag)
        if held is not None:
            key = (held.source, held.tag)
            self._held[key].popleft()
            if not self._held[key]:
                del self._held[key]
        return held

    def next_posted(self, source: int, tag: int) -> Posted | None:
        """The receive that the next message from ``source`` with ``tag`` will meet, if nothing is posted meanwhile."""
        waiting = self._exact.get((source, tag))
        posted = waiting[0] if waiting else None
        wild = next((one for one in self._wild if one.fits(source, tag)), None)
        return wild if wild is not None and (posted is None or wild.number < posted.number) else posted

    def cancel(self, posted: Posted) -> bool:
        """Takes a receive back; False: it has met its message."""
        if posted in self._wild:
            self._wild.remove(posted)
            return True
        key = (posted.source, posted.tag)
        if posted not in self._exact.get(key, ()):
            return False
        self._exact[key].remove(posted)
        if not self._exact[key]:
            del self._exact[key]
        return True

    def posted(self) -> Iterator[Posted]:
        """Every receive that waits."""
        yield from (posted for waiting in self._exact.values() for posted in waiting)
        yield from self._wild

    def held(self) -> Iterator[Held]:
        """Every message that waits."""
        yield from (held for waiting in self._held.values() for held in waiting)

    def clear(self) -> None:
        """Forgets all of them."""
        self._exact.clear()
        self._wild.clear()
        self._held.clear()

    def check(self) -> None:
        """Asserts that nothing waits for what is there, and that order is kept."""
        for waiting in self._held.values():
            assert waiting
            assert all(one.number < two.number for one, two in zip(waiting, list(waiting)[1:], strict=False))
        for posted in self.posted():
            assert self.find(posted.source, posted.tag) is None
        assert all(self._exact.values())
        assert [one.number for one in self._wild] == sorted(one.number for one in self._wild)
