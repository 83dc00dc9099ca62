"""Which calls are being relayed, for whom, and by which member: the books of ``core.relaying``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..errors import RemoteProtocolError
from ..wire.codes import Code
from ..wire.fields import RANKS_MAX, U32, U64
from ..wire.messages import Attach, Refuse
from ..wire.relays import route_of
from .windows import Flow, Peer

__all__ = ["CALLS_PER_CLIENT", "CALLS_PER_MEMBER", "Call", "Client", "Lane", "Ledger", "Member", "NotTaken", "Serving"]

CALLS_PER_CLIENT = 512  # over one connection; their answers fit what libzmq keeps for one that does not read
CALLS_PER_MEMBER = 768
REQUEST_BYTES_PER_MEMBER = 16 << 20  # octets of requests that were relayed whole and have no answer yet
SLACK = 1.0  # seconds after a call's own deadline until it is forgotten


class Serving(Protocol):
    """What is asked of the membership."""

    def serving(self, rank: int) -> tuple[int, bytes] | None:
        """The incarnation and the connection of a rank's member; None: there is none."""

    def is_member(self, sender: bytes) -> bool:
        """Whether a connection is a member's."""

    def attach(self, attach: Attach) -> Refuse | None:
        """Why a connection is not to be taken for that of the member which it names; None: it is."""


class Client(Peer):
    """A connection that sends calls.

    Attributes:
        route: the fields of every RELAY for it.
        calls: by id.
        owed: what it must be told once it reads again, by the call's id.
        owed_since: when it began to be owed something; None: it reads.
    """

    __slots__ = ("calls", "owed", "owed_since", "route")

    def __init__(self, name: bytes) -> None:
        super().__init__(name)
        self.route = route_of(name)
        self.calls: dict[int, Call] = {}
        self.owed: dict[int, Code] = {}
        self.owed_since: float | None = None


class Member(Peer):
    """A connection that answers them: of a member to the control plane, or its lane."""

    __slots__ = ("calls", "incarnation", "octets", "rank")

    def __init__(self, name: bytes, rank: int, incarnation: int) -> None:
        super().__init__(name)
        self.rank = rank
        self.incarnation = incarnation
        self.calls: dict[Call, None] = {}
        self.octets = 0


class Lane:
    """A connection that a member has opened for what is relayed to it.

    Attributes:
        until: when it is closed, as its member is none any more; None: it is one.
    """

    __slots__ = ("incarnation", "name", "rank", "until")

    def __init__(self, name: bytes, rank: int, incarnation: int) -> None:
        self.name = name
        self.rank = rank
        self.incarnation = incarnation
        self.until: float | None = None


class Call:
    """A call under way, or one that is answered and whose answer the client has yet to take.

    Attributes:
        octets: of its request, if that was relayed whole.
        until: when nobody waits for it any more.
        moved: when parts of its answer last moved.
        up: the parts of the request, if it comes in parts.
        down: the parts of answers.
        whole: the member has been sent all of the request.
        last: the answer that comes in parts is the last.
        over: the member has nothing more to do with it.
    """

    __slots__ = ("call_id", "client", "down", "last", "member", "moved", "octets", "over", "until", "up", "whole")

    def __init__(self, call_id: int, client: Client, member: Member, octets: int, until: float) -> None:
        self.call_id = call_id
        self.client = client
        self.member = member
        self.octets = octets
        self.until = until
        self.moved = 0.0
        self.up: Flow | None = None
        self.down: Flow | None = None
        self.whole = True
        self.last = False
        self.over = False


class NotTaken(Exception):
    """A call that cannot be taken; the coordinator answers it.

    Attributes:
        code: of the answer.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class Ledger:
    """The calls that are relayed.

    Args:
        members: who serves what.

    Attributes:
        clients: those with calls under way, or to whom something is owed, by connection.
        members: those with calls under way, by connection.
        routes: the clients by the fields of a RELAY for them.
        lanes: of members, by connection.
    """

    def __init__(self, members: Serving) -> None:
        self.clients: dict[bytes, Client] = {}
        self.members: dict[bytes, Member] = {}
        self.routes: dict[bytes, Client] = {}
        self.lanes: dict[bytes, Lane] = {}
        self._attached: dict[int, Lane] = {}  # the lanes by rank: one each
        self._serving = members.serving

    def check(self) -> None:
        """Asserts every invariant."""
        assert list(self.routes.values()) == list(self.clients.values())
        for client in self.clients.values():
            assert client.calls or client.owed_since is not None, "a client of whom nothing is known is forgotten"
            assert client.owed_since is not None or not client.owed
            for call in client.calls.values():
                assert call.over != (call in call.member.calls)
        for member in self.members.values():
            assert 0 < len(member.calls) <= CALLS_PER_MEMBER
            assert member.octets == sum(call.octets for call in member.calls) <= REQUEST_BYTES_PER_MEMBER
            assert all(call.client.calls[call.call_id] is call for call in member.calls)
        for client in self.clients.values():
            assert sum(not call.over for call in client.calls.values()) <= CALLS_PER_CLIENT
        assert {lane.rank: lane for lane in self.lanes.values()} == self._attached
        assert len(self.lanes) == len(self._attached)
        self._check_flows()

    def _check_flows(self) -> None:
        peers: list[Peer] = [*self.clients.values(), *self.members.values()]
        flows = {flow for client in self.clients.values() for call in client.calls.values() for flow in _flows(call)}
        for flow in flows:
            flow.check()
        for peer in peers:
            assert peer.waiting == sum(flow.waiting for flow in flows if flow.destination is peer)
            assert peer.coming == sum(flow.coming for flow in flows if flow.source is peer)

    def admit(self, sender: bytes, fields: Sequence[Any], octets: int, streams: bool, now: float) -> Call:
        """Takes a call of the client that ``sender`` names.

        Args:
            fields: of its REQUEST, BATCH or STREAM.
            octets: that wait for the member with it.
            streams: it has no end of its own.

        Raises:
            RemoteProtocolError: it is malformed, or a call of that id is under way.
            NotTaken: nobody can have it.
        """
        call_id, remaining_ms, rank, incarnation = _asked(fields)
        client = self.clients.get(sender)
        if client is not None and call_id in client.calls:
            raise RemoteProtocolError(f"call {call_id} is under way", Code.MALFORMED)
        serving = self._serving(rank)
        if serving is None:
            raise NotTaken(Code.UNAVAILABLE, f"nobody serves partition {rank} now")
        if serving[0] != incarnation:
            text = f"incarnation {serving[0]} serves partition {rank}, not incarnation {incarnation}"
            raise NotTaken(Code.WRONG_MEMBER, text)
        lane = self._attached.get(rank)
        if lane is None or lane.incarnation != incarnation:
            name, other = serving[1], None
        else:
            name, other = lane.name, self.members.get(serving[1])  # which may still have calls of before
        member = self.members.get(name) or Member(name, rank, incarnation)
        calls, waiting = len(member.calls), member.octets
        if other is not None:
            calls, waiting = calls + len(other.calls), waiting + other.octets
        if calls >= CALLS_PER_MEMBER or waiting + octets > REQUEST_BYTES_PER_MEMBER:
            text = f"{calls} calls of {waiting} octets are being relayed to partition {rank}"
            raise NotTaken(Code.OVERLOADED, text)
        client = client or Client(sender)
        if len(client.calls) >= CALLS_PER_CLIENT or client.owed:
            raise NotTaken(Code.OVERLOADED, f"{len(client.calls)} calls of this connection are being relayed")
        until = float("inf") if streams else now + remaining_ms / 1000 + SLACK
        call = Call(call_id, client, member, octets, until)
        self.know(client)
        self.members[member.name] = member
        client.calls[call_id] = call
        member.calls[call] = None
        member.octets += octets
        return call

    def attach(self, lane: Lane) -> Lane | None:
        """New calls for a member go by its lane. Returns the lane that it had before, which is none any more."""
        before = self._attached.get(lane.rank)
        if before is not None:
            self.detach(before)
        self.lanes[lane.name] = self._attached[lane.rank] = lane
        return before

    def detach(self, lane: Lane) -> None:
        """A lane has ended, or is to end."""
        del self.lanes[lane.name]
        del self._attached[lane.rank]

    def lost(self, member: Member) -> bool:
        """Whether a connection with calls is none any more by which its member can be reached."""
        lane = self.lanes.get(member.name)
        return lane is None and self._serving(member.rank) != (member.incarnation, member.name)

    def know(self, client: Client) -> None:
        """Keeps a client in the books."""
        self.clients[client.name] = self.routes[client.route] = client

    def release(self, call: Call) -> None:
        """The member has nothing more to do with a call."""
        if call.over:
            return
        call.over = True
        member = call.member
        del member.calls[call]
        member.octets -= call.octets
        if not member.calls:
            del self.members[member.name]
        if call.up is not None:
            call.up.close()
            call.up = None

    def forget(self, call: Call) -> None:
        """A call is over, for the client too."""
        self.release(call)
        if call.down is not None:
            call.down.close()
            call.down = None
        client = call.client
        del client.calls[call.call_id]
        self.leave(client)

    def leave(self, client: Client) -> None:
        """Strikes a client off the books, if there is nothing about it."""
        if not client.calls and client.owed_since is None:
            del self.clients[client.name]
            del self.routes[client.route]


def _flows(call: Call) -> list[Flow]:
    return [flow for flow in (call.up, call.down) if flow is not None]


def _asked(fields: Sequence[Any]) -> tuple[int, int, int, int]:
    """Call id, remaining ms, rank and incarnation of a REQUEST, BATCH or STREAM."""
    if len(fields) >= 5:
        call_id, _, remaining_ms, rank, incarnation, *_ = fields
        # spelled out, as every call comes here
        if (
            (type(call_id) is type(remaining_ms) is type(rank) is type(incarnation) is int)
            and 0 <= call_id <= U64
            and 0 <= remaining_ms <= U32
            and 0 <= rank < RANKS_MAX
            and 0 <= incarnation <= U64
        ):
            return call_id, remaining_ms, rank, incarnation
    raise RemoteProtocolError("the fields of a call have wrong types or break their limits", Code.MALFORMED)
