"""The coordinator's rules: who serves which rank, since when, and what everybody is told (PROTOCOL.md, section 8).

At most one incarnation of a rank is a member. A greater incarnation takes the rank over and the older one is told that
it is stale; a smaller one is refused, for ever. Every change raises the number of the view.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import RemoteProtocolError
from ..wire import codec
from ..wire.codes import Code
from ..wire.messages import (
    TEXT_CHARS_MAX,
    Attach,
    Goodbye,
    Heartbeat,
    Hello,
    Lookup,
    Member,
    Message,
    Refuse,
    Shutdown,
    Stop,
    View,
    Welcome,
)
from .effects import Effect, InitFailed, Joined, Left, Lost, Refused, Send, StopAsked
from .lease import Lease, oversleep

__all__ = ["Membership", "MembershipState"]

GRACE_MAX = 4e6  # seconds; the field for it ends at 49 days
OVERSLEEP_TOLERANCE = 0.5  # a loop that wakes half a second late was not running; less is ordinary scheduling


class MembershipState(Enum):
    """The life of a run: OPEN -> STOPPING, or OPEN -> FAILED -> STOPPING."""

    OPEN = "open"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(slots=True)
class _Entry:
    member: Member
    sender: bytes
    lease: Lease
    shutdown: Shutdown | None = None  # said, and said again until the member has gone


class Membership:
    """Who is a member of which view.

    Args:
        size: partitions of the run.
        token: what a HELLO must carry.
        heartbeat_interval: seconds between two heartbeats of a member.
        lease: seconds of silence after which a member is lost.
        meta: told to everybody with each view.
        admin: what a STOP must carry; empty: nobody may stop the run by message.
        relay_port: the port of the relay's door, told to members; 0: there is none.
    """

    def __init__(
        self,
        size: int,
        token: bytes,
        heartbeat_interval: float,
        lease: float,
        meta: dict[str, Any] | None = None,
        admin: bytes = b"",
        relay_port: int = 0,
    ) -> None:
        self.size = size
        self.state = MembershipState.OPEN
        self.view_number = 0
        self.meta = dict(meta or {})
        self._token = token
        self._admin = admin
        self._relay_port = relay_port
        self._interval = heartbeat_interval
        self._lease = lease
        # In the order of their last sign of life: all leases are equally long, so the first is the first to end. What
        # happens at every heartbeat must not look at every member.
        self._entries: dict[int, _Entry] = {}
        self._ranks: dict[bytes, int] = {}  # of the members, by sender
        self._highest: dict[int, int] = {}  # the greatest incarnation ever a member of a rank
        self._view: View | None = None  # the current one, made when somebody asked
        self._ending = Refuse(Code.CLOSED, "the cluster is stopping")
        self._due: float | None = None
        self._handlers: dict[type[Message], Callable[[Any, bytes, float], list[Effect]]] = {
            Hello: self._hello,
            Heartbeat: self._heartbeat,
            Goodbye: self._goodbye,
            Lookup: self._lookup,
            Stop: self._stop,
        }

    # ---------------------------------------------------------------------------------- what can be asked

    @property
    def members(self) -> dict[int, Member]:
        """The members by rank, ascending."""
        return {rank: self._entries[rank].member for rank in sorted(self._entries)}

    @property
    def complete(self) -> bool:
        """Whether every rank has a member."""
        return len(self._entries) == self.size

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is wanted next."""
        first = next(iter(self._entries.values()), None)
        self._due = None if first is None else first.lease.deadline
        return self._due

    def serving(self, rank: int) -> tuple[int, bytes] | None:
        """The incarnation and the connection of a rank's member; None: there is none."""
        entry = self._entries.get(rank)
        return None if entry is None else (entry.member.incarnation, entry.sender)

    def is_member(self, sender: bytes) -> bool:
        """Whether a connection is a member's."""
        return sender in self._ranks

    def attach(self, attach: Attach) -> Refuse | None:
        """Why a connection to the relay's door is not to be taken for the member's that it names; None: it is."""
        if not hmac.compare_digest(attach.token, self._token):
            return Refuse(Code.BAD_TOKEN, f"partition {attach.rank} sent a wrong token")
        entry = self._entries.get(attach.rank)
        if entry is not None and entry.member.incarnation == attach.incarnation:
            return None
        if attach.incarnation < self._highest.get(attach.rank, -1):
            return Refuse(Code.STALE, f"incarnation {attach.incarnation} of partition {attach.rank} is over")
        return Refuse(Code.NOT_MEMBER, f"incarnation {attach.incarnation} does not serve partition {attach.rank}")

    def view(self) -> View:
        """The current view as a message."""
        if self._view is None or self._view.number != self.view_number:
            self._view = codec.view_of(self.view_number, self.size, list(self.members.values()), self.meta)
        return self._view

    def check(self) -> None:
        """Asserts every invariant."""
        for rank, entry in self._entries.items():
            assert entry.member.rank == rank < self.size
            assert entry.member.incarnation == self._highest[rank], "a stale incarnation is a member"
        assert self.view_number >= len(self._highest) or not self._highest
        assert self._ranks == {entry.sender: rank for rank, entry in self._entries.items()}
        assert len(self._ranks) == len(self._entries), "one sender, two ranks"
        deadlines = [entry.lease.deadline for entry in self._entries.values()]
        assert deadlines == sorted(deadlines), "the first is not the first to end"

    # ------------------------------------------------------------------------------------- what can happen

    def receive(self, message: Message, sender: bytes, now: float) -> list[Effect]:
        """A message arrived from the connection that ``sender`` names."""
        self._wake(now)
        handler = self._handlers.get(type(message))
        if handler is None:
            return self._refuse(sender, Code.UNEXPECTED, f"a coordinator takes no {message.kind.name}")
        return handler(message, sender, now)

    def malformed(self, error: RemoteProtocolError, sender: bytes) -> list[Effect]:
        """Something arrived that is no message. A stranger gets silence, somebody who tried gets the reason."""
        code = Code.of(error.code)
        if code in (Code.VERSION, Code.WRONG_RUN, Code.UNKNOWN_KIND):
            return self._refuse(sender, code, str(error))
        return [Refused(code, str(error))]

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: members whose lease is over are lost."""
        self._wake(now)
        over: list[int] = []
        for rank, entry in self._entries.items():
            if now < entry.lease.deadline:
                break
            over.append(rank)
        effects: list[Effect] = []
        for rank in sorted(over):
            entry = self._remove(rank)
            effects.append(Lost(entry.member, entry.lease.silent(now)))
        return effects

    def shutdown(self, reason: str, grace: float) -> list[Effect]:
        """Our side wants every member to leave; nobody joins any more."""
        self.state = MembershipState.STOPPING
        self._ending = Refuse(Code.CLOSED, reason[:TEXT_CHARS_MAX])
        return [effect for rank in sorted(self._entries) for effect in self.shutdown_rank(rank, reason, grace)]

    def shutdown_rank(self, rank: int, reason: str, grace: float) -> list[Effect]:
        """Our side wants one member to leave."""
        entry = self._entries.get(rank)
        if entry is None:
            return []
        entry.shutdown = Shutdown(reason[:TEXT_CHARS_MAX], int(min(max(grace, 0.0), GRACE_MAX) * 1000))
        return [Send(entry.sender, entry.shutdown)]

    def fail(self, text: str) -> None:
        """The Spark job is over before its time: lookups are answered with the reason."""
        if self.state is MembershipState.OPEN:
            self.state = MembershipState.FAILED
            self._ending = Refuse(Code.JOB_FAILED, text[:4000])

    # -------------------------------------------------------------------------------------------- messages

    def _hello(self, hello: Hello, sender: bytes, now: float) -> list[Effect]:
        if not hmac.compare_digest(hello.token, self._token):
            return self._refuse(sender, Code.BAD_TOKEN, f"partition {hello.rank} sent a wrong token")
        if not hello.version_min <= codec.VERSION <= hello.version_max:
            text = f"the coordinator speaks version {codec.VERSION}, not {hello.version_min}..{hello.version_max}"
            return self._refuse(sender, Code.VERSION, text)
        if self.state is not MembershipState.OPEN:
            return [Send(sender, self._farewell(hello.rank, hello.incarnation, sender, now))]
        if hello.rank >= self.size:
            return self._refuse(sender, Code.INVALID_ARGUMENT, f"rank {hello.rank} of {self.size}")
        highest = self._highest.get(hello.rank, -1)
        if hello.incarnation < highest:
            text = f"incarnation {hello.incarnation} of partition {hello.rank} came after {highest}"
            return self._refuse(sender, Code.STALE, text)
        return self._admit(hello, sender, now)

    def _admit(self, hello: Hello, sender: bytes, now: float) -> list[Effect]:
        where = (hello.host, hello.port, hello.endpoint, hello.local)
        member = Member(hello.rank, hello.incarnation, hello.attempt, *where)
        effects: list[Effect] = []
        old = self._entries.pop(hello.rank, None)
        previous = shutdown = None
        if old is not None:
            previous = old.member
            del self._ranks[old.sender]
            if previous.incarnation < hello.incarnation and old.sender != sender:
                text = f"incarnation {hello.incarnation} of partition {hello.rank} has taken over"
                effects += self._refuse(old.sender, Code.STALE, text)
            if previous.incarnation == hello.incarnation:
                shutdown = old.shutdown
        if sender in self._ranks:  # one connection serves one rank
            left = self._remove(self._ranks[sender])
            effects.append(Left(left.member, Code.OK, "its connection now serves another rank"))
        self._entries[hello.rank] = _Entry(member, sender, Lease(self._lease, now), shutdown)
        self._ranks[sender] = hello.rank
        self._highest[hello.rank] = hello.incarnation
        if previous != member:
            self.view_number += 1
            effects.append(Joined(member, previous, hello.meta))
        interval_ms, lease_ms = int(self._interval * 1000), int(self._lease * 1000)
        effects.append(Send(sender, Welcome(self.view_number, interval_ms, lease_ms, self._relay_port)))
        return [*effects, Send(sender, shutdown)] if shutdown is not None else effects

    def beat(self, rank: int, incarnation: int, sender: bytes, now: float) -> bool:
        """The hot path of ``receive``, for a HEARTBEAT: whether it is a member's, and to be answered by the same.

        False: nothing has happened, and ``receive`` is to look at it.
        """
        self._wake(now)
        entry = self._entries.get(rank)
        if entry is None or entry.sender != sender or entry.member.incarnation != incarnation:
            return False
        if entry.shutdown is not None:
            return False
        self._renew(entry, now)
        return True

    def _heartbeat(self, heartbeat: Heartbeat, sender: bytes, now: float) -> list[Effect]:
        if heartbeat.incarnation < self._highest.get(heartbeat.rank, -1):
            text = f"incarnation {heartbeat.incarnation} of partition {heartbeat.rank} is over"
            return self._refuse(sender, Code.STALE, text)
        entry = self._entries.get(heartbeat.rank)
        if entry is None or entry.sender != sender or entry.member.incarnation != heartbeat.incarnation:
            if self.state is not MembershipState.OPEN:
                return [Send(sender, self._farewell(heartbeat.rank, heartbeat.incarnation, sender, now))]
            return [Send(sender, Refuse(Code.NOT_MEMBER, "say HELLO"))]
        self._renew(entry, now)
        if entry.shutdown is not None:  # the first may have been lost with a connection
            return [Send(sender, entry.shutdown)]
        return [Send(sender, heartbeat)]

    def _goodbye(self, goodbye: Goodbye, sender: bytes, now: float) -> list[Effect]:
        if not hmac.compare_digest(goodbye.token, self._token):
            return self._refuse(sender, Code.BAD_TOKEN, f"partition {goodbye.rank} said goodbye with a wrong token")
        effects: list[Effect] = []
        entry = self._entries.get(goodbye.rank)
        if entry is not None and entry.member.incarnation == goodbye.incarnation:
            self._remove(goodbye.rank)
            effects.append(Left(entry.member, Code.of(goodbye.code), goodbye.text))
        if goodbye.code in (Code.INIT_FAILED, Code.PORT_UNAVAILABLE):
            effects.append(InitFailed(goodbye))
        return effects

    def _lookup(self, lookup: Lookup, sender: bytes, now: float) -> list[Effect]:
        if self.state is not MembershipState.OPEN:
            return [Send(sender, self._ending)]
        return [Send(sender, self.view())]

    def _stop(self, stop: Stop, sender: bytes, now: float) -> list[Effect]:
        if not self._admin or not hmac.compare_digest(stop.token, self._admin):
            return self._refuse(sender, Code.BAD_TOKEN, "STOP came with a wrong token")
        if self.state is MembershipState.STOPPING:
            return [Send(sender, self._ending)]
        reason = stop.reason or "asked to stop"
        return [StopAsked(reason), Send(sender, Refuse(Code.CLOSED, reason))]

    # --------------------------------------------------------------------------------------------- helpers

    def _farewell(self, rank: int, incarnation: int, sender: bytes, now: float) -> Message:
        """What somebody hears who comes when the run is over: a member that came back on a new connection is to leave
        in order, as its SHUTDOWN may have been lost with the old one; anybody else is refused."""
        entry = self._entries.get(rank)
        if entry is None or entry.shutdown is None or entry.member.incarnation != incarnation:
            return self._ending
        if self._ranks.get(sender, rank) != rank:  # one connection serves one rank
            return self._ending
        del self._ranks[entry.sender]
        entry.sender = sender
        self._ranks[sender] = rank
        self._renew(entry, now)
        return entry.shutdown

    def _wake(self, now: float) -> None:
        """Gives everybody back the time in which this coordinator did not run, and two heartbeats to be heard in."""
        slept = oversleep(self._due, now, OVERSLEEP_TOLERANCE)
        if not slept:
            return
        self._due = now  # once
        for entry in self._entries.values():
            entry.lease.forgive(min(slept, entry.lease.silent(now)))  # nobody was heard later than now
            entry.lease.renew(now - self._lease + 2 * self._interval)

    def _refuse(self, sender: bytes, code: Code, text: str) -> list[Effect]:
        return [Refused(code, text), Send(sender, Refuse(code, text))]

    def _renew(self, entry: _Entry, now: float) -> None:
        """A sign of life: its lease is the last to end."""
        entry.lease.renew(now)
        rank = entry.member.rank
        self._entries[rank] = self._entries.pop(rank)

    def _remove(self, rank: int) -> _Entry:
        entry = self._entries.pop(rank)
        del self._ranks[entry.sender]
        self._highest[rank] = max(self._highest[rank], entry.member.incarnation)
        self.view_number += 1
        return entry
