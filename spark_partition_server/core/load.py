"""The book of the calls that a server has taken and not yet answered: who is next, and who is turned away.

Every caller has a queue of its own and the queues take turns, so that whoever floods waits behind himself. A call that
could not be answered in time is turned away at once rather than queued: it would be run for nobody, at the cost of
those who still wait. Calls, their octets, and the calls of one caller are bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum

__all__ = ["Load", "State", "Ticket"]

FAST = 1e-4  # seconds between two ends: what TCP holds back for a caller then is soon answered
CALLS_HELD_MIN = 8
SAFETY = 0.7  # of the time a call has, that it may be expected to spend here: the rest is for the way and for errors
SLOWER, FASTER = 1 / 8, 1 / 4  # the weight of one more sample in the average: good news is believed sooner


class State(Enum):
    """Where a call is."""

    NEW = 0
    WAITING = 1  # for its turn
    RUNNING = 2
    PARKED = 3  # under way, and waiting for something that comes by itself
    OVER = 4  # answered, cancelled or dropped: nothing is owed for it any more


class Ticket:
    """One call in the book.

    Attributes:
        caller: who asked.
        call_id: the caller's name for it.
        octets: of its arguments, which wait with it.
        state: kept by the book.
        started: when its last turn began, or when it was parked.
    """

    __slots__ = ("call_id", "caller", "octets", "started", "state")

    def __init__(self, caller: Hashable, call_id: int, octets: int) -> None:
        self.caller = caller
        self.call_id = call_id
        self.octets = octets
        self.state = State.NEW
        self.started = 0.0


class Party:
    """What the book has about one caller."""

    __slots__ = ("active", "caller", "held", "queue", "tickets")

    def __init__(self, caller: Hashable) -> None:
        self.caller = caller
        self.queue: deque[Ticket] = deque()  # those that wait
        self.tickets: dict[int, Ticket] = {}  # all of its calls that are not over
        self.active = 0  # those of them that are not parked
        self.held = False


class Load:
    """The book.

    Args:
        calls_max: calls waiting and under way, of all callers.
        octets_max: octets of their arguments.
        calls_held: a caller with so many, parked ones aside, is not read from until half of them are over, as long as
            calls are fast. Where they are slow everything is read, so that the time each may wait is known.
        hold: called with a caller and whether it is to be held.
        workers: calls that can run at the same time.

    Attributes:
        calls: calls that are not over.
        waiting: those of them that wait for their turn.
        idle: those of them that are parked.
        octets: of the arguments of all of them.
        interval: seconds from the end of one call to the end of the next while others wait, about; 0: unknown.
    """

    def __init__(
        self,
        calls_max: int,
        octets_max: int,
        calls_held: int,
        hold: Callable[[Hashable, bool], None],
        workers: int = 1,
    ) -> None:
        self.calls = 0
        self.waiting = 0
        self.idle = 0
        self.octets = 0
        self.interval = 0.0
        self._calls_max = calls_max
        self._octets_max = octets_max
        self._calls_held = max(calls_held, 1)
        self._hold = hold
        self._workers = max(workers, 1)
        self._parties: dict[Hashable, Party] = {}
        self._ring: deque[Party] = deque()  # those with a queue, in the order of their turns
        self._last_end: float | None = None  # of a call, while others have been waiting ever since

    # --------------------------------------------------------------------------------------------- entering

    @property
    def full(self) -> bool:
        """Whether there is no room for another call."""
        return self.calls >= self._calls_max

    def refusal(self, octets: int, remaining: float) -> float | None:
        """Whether a call is turned away now: in how many seconds it is worth another try, or None: it may enter.

        Args:
            octets: of its arguments.
            remaining: seconds that its caller still waits.
        """
        wait = self.waiting * self.interval
        if self.full or (self.calls and self.octets + octets > self._octets_max):
            return max(wait / 2, self.interval)
        if self.waiting and wait + self.interval > remaining * SAFETY:
            return wait + self.interval - remaining * SAFETY
        return None

    def enter(self, ticket: Ticket, running: bool = False) -> None:
        """Takes a call in: it waits for its turn, or runs already. Its caller has no other of that id in the book."""
        assert ticket.state is State.NEW
        party = self._parties.get(ticket.caller)
        if party is None:
            party = self._parties[ticket.caller] = Party(ticket.caller)
        assert ticket.call_id not in party.tickets
        party.tickets[ticket.call_id] = ticket
        self.calls += 1
        self.octets += ticket.octets
        if running:
            ticket.state = State.RUNNING
        else:
            self._queue(ticket, party)
        self._count(party, 1)

    def crowd(self, caller: Hashable) -> Ticket | None:
        """When the book is full: the newest waiting call of the caller with the most of them, if that has at least
        two more than ``caller`` has. It is over now, so that there is room."""
        own = len(self._parties[caller].tickets) if caller in self._parties else 0
        fullest = max(self._ring, key=lambda party: len(party.tickets), default=None)
        if fullest is None or len(fullest.tickets) < own + 2:
            return None
        ticket = fullest.queue[-1]
        self._end(ticket, fullest)
        return ticket

    # ---------------------------------------------------------------------------------------------- turns

    def take(self, blocked: Callable[[Hashable], bool], now: float) -> Ticket | None:
        """The call whose turn it is; it runs from now on. Callers that are ``blocked`` lose their turn."""
        for _ in range(len(self._ring)):
            party = self._ring.popleft()
            if blocked(party.caller):
                self._ring.append(party)
                continue
            ticket = party.queue.popleft()
            if party.queue:
                self._ring.append(party)
            ticket.state = State.RUNNING
            ticket.started = now
            self.waiting -= 1
            return ticket
        return None

    def again(self, ticket: Ticket) -> bool:
        """A call that ran or was parked waits for another turn. False: it is over, there is no other turn."""
        if ticket.state is State.OVER:
            return False
        if ticket.state is not State.WAITING:
            party = self._parties[ticket.caller]
            if ticket.state is State.PARKED:
                self.idle -= 1
                self._count(party, 1)
            self._queue(ticket, party)
        return True

    def park(self, ticket: Ticket, now: float) -> bool:
        """A call that ran waits for something else than its turn. False: it is over."""
        if ticket.state is State.OVER:
            return False
        assert ticket.state is State.RUNNING
        ticket.state = State.PARKED
        ticket.started = now
        self.idle += 1
        self._count(self._parties[ticket.caller], -1)
        return True

    def resume(self, ticket: Ticket) -> bool:
        """A parked call goes on without a turn. False: it is over."""
        if ticket.state is State.OVER:
            return False
        assert ticket.state is State.PARKED
        ticket.state = State.RUNNING
        self.idle -= 1
        self._count(self._parties[ticket.caller], 1)
        return True

    # ---------------------------------------------------------------------------------------------- ending

    def finish(self, ticket: Ticket, now: float, measured: bool = True) -> bool:
        """A call has ended by itself. Returns whether its answer is still owed.

        Args:
            ticket: the call.
            now: the time.
            measured: it had its turns from here, so that it tells how long those who wait will wait.
        """
        if measured:
            self._measure(ticket, now)
        if ticket.state is State.OVER:
            return False
        self._end(ticket, self._parties[ticket.caller])
        return True

    def _measure(self, ticket: Ticket, now: float) -> None:
        sample = (now - ticket.started) / self._workers if self._last_end is None else now - self._last_end
        weight = SLOWER if sample > self.interval else FASTER
        self.interval += (sample - self.interval) * (weight if self.interval else 1.0)
        self._last_end = now if self.waiting else None

    def cancel(self, caller: Hashable, call_id: int) -> tuple[Ticket, State] | None:
        """The caller takes a call back. Returns the call, and where it was; None: there is none of that id."""
        party = self._parties.get(caller)
        ticket = None if party is None else party.tickets.get(call_id)
        if party is None or ticket is None:
            return None
        before = ticket.state
        self._end(ticket, party)
        return ticket, before

    def find(self, caller: Hashable, call_id: int) -> Ticket | None:
        """A call that is not over."""
        party = self._parties.get(caller)
        return None if party is None else party.tickets.get(call_id)

    def leave(self, caller: Hashable) -> list[tuple[Ticket, State]]:
        """The caller has gone: all its calls are over. Returns them, and where they were."""
        party = self._parties.get(caller)
        if party is None:
            return []
        left = [(ticket, ticket.state) for ticket in party.tickets.values()]
        for ticket, _ in left:
            self._end(ticket, party)
        return left

    def parked(self, before: float) -> list[Ticket]:
        """The calls that were parked before that moment and still are."""
        return [ticket for ticket in self.tickets() if ticket.state is State.PARKED and ticket.started < before]

    def tickets(self) -> list[Ticket]:
        """The calls that are not over."""
        return [ticket for party in self._parties.values() for ticket in party.tickets.values()]

    def everybody(self) -> list[Hashable]:
        """Callers with calls that are not over."""
        return list(self._parties)

    # ----------------------------------------------------------------------------------------------- inside

    def _queue(self, ticket: Ticket, party: Party) -> None:
        ticket.state = State.WAITING
        self.waiting += 1
        if not party.queue:
            self._ring.append(party)
        party.queue.append(ticket)

    def _end(self, ticket: Ticket, party: Party) -> None:
        if ticket.state is State.WAITING:
            self.waiting -= 1
            party.queue.remove(ticket)
            if not party.queue:
                self._ring.remove(party)
        if ticket.state is State.PARKED:
            self.idle -= 1
        else:
            self._count(party, -1)
        ticket.state = State.OVER
        del party.tickets[ticket.call_id]
        self.calls -= 1
        self.octets -= ticket.octets
        if not party.tickets:
            del self._parties[party.caller]

    def _count(self, party: Party, more: int) -> None:
        party.active += more
        most = min(self._calls_held, max(self._calls_max // (2 * len(self._parties)), CALLS_HELD_MIN))
        held = self.interval <= FAST and (2 * party.active > most if party.held else party.active >= most)
        if held != party.held:
            party.held = held
            self._hold(party.caller, held)

    def check(self) -> None:
        """Asserts the invariants."""
        tickets = self.tickets()
        assert self.calls == len(tickets)
        assert self.octets == sum(ticket.octets for ticket in tickets)
        assert self.waiting == sum(ticket.state is State.WAITING for ticket in tickets)
        assert self.idle == sum(ticket.state is State.PARKED for ticket in tickets)
        assert all(ticket.state not in (State.NEW, State.OVER) for ticket in tickets)
        queued = [ticket for party in self._ring for ticket in party.queue]
        assert len(queued) == len(set(map(id, queued))) == self.waiting
        assert all(ticket.state is State.WAITING for ticket in queued)
        assert all(party.queue and self._parties[party.caller] is party for party in self._ring)
