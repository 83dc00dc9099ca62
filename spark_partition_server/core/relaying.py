"""The coordinator's rules for calls that are relayed (PROTOCOL.md, section 8.5).

A client that cannot reach a server sends its calls to the coordinator, which knows the member's connection, and passes
them on as they are, wrapped in RELAY; answers come back the same way. What is kept of a call is who waits for it and
who has it. Whatever becomes of either, every call that was taken ends in one answer: the server's or the coordinator's.

Frames go through here without becoming messages: each call passes twice, and through one thread for all members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import RemoteProtocolError
from ..wire import codec
from ..wire.codes import Code
from ..wire.fields import Frame
from ..wire.messages import Attach, Cancel, Error, Kind, Refuse
from ..wire.relays import (
    BEGINNINGS,
    FIRST_CREDIT,
    WHOLE_BYTES_MAX,
    WHOLE_FRAMES_MAX,
    beginning_of,
    call_of,
    final,
    opening_of,
    read_credit,
    read_part,
)
from .effects import Forward
from .ledger import CALLS_PER_CLIENT, Call, Client, Lane, Ledger, Member, NotTaken, Serving
from .windows import Flow, Peer

__all__ = ["Relaying"]

RETRY_MS = 50  # told with OVERLOADED
LOOK_EVERY = 1.0  # seconds between two looks at deadlines and at members
PROBE_EVERY = 10.0  # seconds between two looks whether the clients are still there
OWED_EVERY = 0.1  # seconds between two tries to tell a client that did not read what it has lost
OWED_MAX = 2 * CALLS_PER_CLIENT
STALL = 30.0  # seconds that a client may leave what waits for it
LANE_GRACE = 2.0  # seconds that a member which has left may take to finish answers, whatever it says of itself

Handler = Callable[[bytes, list[bytes], float], "list[Forward]"]


class Relaying:
    """What the coordinator does with the messages of relayed calls.

    Args:
        members: who serves what.
        run_id: of the messages.
    """

    def __init__(self, members: Serving, run_id: bytes) -> None:
        self._membership = members
        self._run_id = run_id
        self._ledger = Ledger(members)
        self._leaving = False  # a lane is, as its member has gone
        self._look = 0.0
        self._probe = 0.0
        self._relay = codec.preamble(Kind.RELAY, run_id)
        self._credit = codec.preamble(Kind.CREDIT, run_id)
        self._pack = codec.field_packer()
        handlers: dict[Kind, Handler] = {
            **dict.fromkeys(BEGINNINGS, self._begin),
            Kind.CANCEL: self._cancel,
            Kind.CREDIT: self._credited,
            Kind.PART: self._part_up,
            Kind.RELAY: self._answer,
        }
        self._handlers = {codec.preamble(kind, run_id): handler for kind, handler in handlers.items()}

    @property
    def calls(self) -> int:
        """Calls under way."""
        return sum(len(member.calls) for member in self._ledger.members.values())

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is wanted next."""
        return self._look if self._ledger.clients or self._leaving else None

    def check(self) -> None:
        """Asserts every invariant."""
        self._ledger.check()

    # ------------------------------------------------------------------------------------- what can happen

    def receive(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward] | None:
        """A message has come; ``frames`` begin with its preamble. None: it is none that is relayed."""
        opening = frames[0] if frames else b""
        handler = self._handlers.get(opening)
        if handler is None:
            opening = opening[:5] + bytes(3) + opening[8:]  # a later version may set flags
            handler = self._handlers.get(opening)
        if handler is None or len(frames) < 2:
            return None
        if opening == self._relay and not (sender in self._ledger.lanes or self._membership.is_member(sender)):
            return None  # refused, as any other message that nobody takes
        if not self._ledger.clients and not self._leaving:
            self._look = now + LOOK_EVERY
            self._probe = now + PROBE_EVERY
        try:
            return handler(sender, frames, now)
        except RemoteProtocolError:  # malformed: dropped without an answer
            return []

    def tick(self, now: float) -> list[Forward]:
        """Time has passed: calls that nobody waits for are over, members that have gone have lost theirs."""
        if self.deadline is None or now < self._look:
            return []
        out = self.look(now)
        probe = now >= self._probe
        for client in list(self._ledger.clients.values()):
            for call in list(client.calls.values()):
                out += self._overdue(call, now)
            if probe and client.calls:
                out.append(self._probe_of(client))
            if client.owed_since is not None:
                out += self._pay(client, client.owed_since, now)
        self._look = now + LOOK_EVERY
        self._probe = now + PROBE_EVERY if probe else self._probe
        return out

    def attach(self, sender: bytes, attach: Attach) -> list[Forward]:
        """A connection to the relay's door says that it is a member's."""
        ledger = self._ledger
        refuse = self._membership.attach(attach)
        if refuse is None and sender in ledger.lanes:
            refuse = Refuse(Code.UNEXPECTED, "a connection is the lane of one member")
        if refuse is not None:
            return [Forward(sender, codec.encode(refuse, self._run_id)), Forward(sender, ())]
        before = ledger.attach(Lane(sender, attach.rank, attach.incarnation))
        return [] if before is None else self._ended(before, "has connected anew")

    def look(self, now: float) -> list[Forward]:
        """The membership may have changed: a member that is none any more, or has another connection, has lost its
        calls. Its lane outlasts it for a moment: what it answered last comes over another connection than GOODBYE."""
        out: list[Forward] = []
        self._leaving = False
        for lane in list(self._ledger.lanes.values()):
            serving = self._membership.serving(lane.rank)
            if serving is not None and serving[0] == lane.incarnation:
                lane.until = None
            elif serving is None and (lane.until is None or now < lane.until):
                lane.until = lane.until or now + LANE_GRACE
                self._leaving = True
            else:
                self._ledger.detach(lane)
                out += self._ended(lane, "is lost")
        for member in list(self._ledger.members.values()):
            if self._ledger.lost(member):
                out += self._lose(member, f"the server of partition {member.rank} is lost, or has connected anew")
        return out

    def gone(self, name: bytes) -> list[Forward]:
        """A connection to the relay's door has ended: nobody waits for its calls, and if it was a lane it has lost
        those that it had."""
        lane, client = self._ledger.lanes.get(name), self._ledger.clients.get(name)
        out: list[Forward] = []
        if lane is not None:
            self._ledger.detach(lane)
            out += self._ended(lane, "has gone")
        if client is not None:
            out += self._left(client)
        return out

    def unreachable(self, to: bytes, frames: Sequence[Frame]) -> list[Forward]:
        """A message could not be sent, as its connection has gone."""
        client, member = self._ledger.clients.get(to), self._ledger.members.get(to)
        if client is not None:  # nobody waits for its calls
            return self._left(client)
        if member is None:
            return []
        unsent = self._unsent(member, frames, Code.UNAVAILABLE, "its server has just gone")
        return unsent + self._lose(member, f"the server of partition {member.rank} is lost")

    def full(self, to: bytes, frames: Sequence[Frame], now: float) -> list[Forward]:
        """A message could not be sent, as too much waits for that connection already."""
        if frames[0] == self._relay:
            known = self._ledger.members.get(to)
            text = "too much waits for its server"
            return [] if known is None else self._unsent(known, frames, Code.OVERLOADED, text)
        if frames[0][4] == Kind.REFUSE:
            return []
        client, call_id = self._ledger.clients.get(to) or Client(to), call_of(frames)
        if client.owed_since is None:
            client.owed_since = now
            self._ledger.know(client)
        if len(client.owed) < OWED_MAX:
            client.owed[call_id] = Code.LOST
        self._look = min(self._look, now + OWED_EVERY)
        call = client.calls.get(call_id)
        return [] if call is None else self._cancelled(call)

    # ---------------------------------------------------------------------------------------- from clients

    def _begin(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward]:
        octets = sum(map(len, frames))
        fields = codec.decode_fields(frames[1])
        try:
            call = self._ledger.admit(sender, fields, octets, frames[0][4] == Kind.STREAM, now)
        except NotTaken as problem:
            return [self._error(sender, fields[0], problem.code, str(problem))]
        if octets > WHOLE_BYTES_MAX or len(frames) > WHOLE_FRAMES_MAX:
            self._ledger.forget(call)
            text = f"{octets} octets in {len(frames)} frames are too much to be relayed whole: send them in parts"
            return [self._error(sender, call.call_id, Code.TOO_LARGE, text)]
        return [Forward(call.member.name, [self._relay, call.client.route, *frames])]

    def _part_up(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward]:
        call_id, offset, size, piece = read_part(frames)
        client = self._ledger.clients.get(sender)
        call = None if client is None else client.calls.get(call_id)
        if call is None:
            if offset:
                return []  # the rest of a message that was given up
            kind, fields = beginning_of(piece, call_id, self._run_id)
            try:
                call = self._ledger.admit(sender, fields, 0, kind is Kind.STREAM, now)
            except NotTaken as problem:
                return [self._error(sender, call_id, problem.code, str(problem))]
            call.whole = False
            call.up = Flow(call, call.client, call.member, again=False)
        if call.up is None or call.whole:
            raise RemoteProtocolError("parts of a request that is whole", Code.MALFORMED)
        try:
            call.whole = call.up.part(offset, size, len(piece))
        except RemoteProtocolError as error:
            return [self._error(sender, call_id, Code.MALFORMED, str(error)), *self._cancelled(call)]
        passed = Forward(call.member.name, [self._relay, call.client.route, *frames])
        return [passed, *self._feed(call.client, call.member)]

    def _cancel(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward]:
        call = self._call_of(self._ledger.clients.get(sender), frames[1])
        return [] if call is None else self._cancelled(call)

    def _credited(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward]:
        """Credit for parts is the coordinator's to grant; credit for items goes on to the server."""
        call = self._call_of(self._ledger.clients.get(sender), frames[1])
        if call is None:
            return []
        items, octets = read_credit(frames[1])
        out: list[Forward] = []
        if items and not call.over:
            fields = self._pack((call.call_id, items, 0))
            out.append(Forward(call.member.name, [self._relay, call.client.route, self._credit, fields]))
        if octets and call.down is not None:
            call.down.credit(octets)
            call.moved = now
            self._settle(call)
            out += self._feed(call.client, call.member)
        return out

    @staticmethod
    def _call_of(client: Client | None, packed: bytes) -> Call | None:
        call_id = codec.decode_fields(packed)[:1]
        if client is None or not call_id or type(call_id[0]) is not int:
            return None
        return client.calls.get(call_id[0])

    # ---------------------------------------------------------------------------------------- from members

    def _answer(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward]:
        """A RELAY: what it holds goes to the client it names, if that waits for it from this member."""
        client = self._ledger.routes.get(frames[1])
        if client is None or len(frames) < 4:
            return []  # the client has gone
        inner = frames[2:]
        kind = codec.read_preamble(inner[0], self._run_id)
        if kind is Kind.REFUSE and sender in self._ledger.members:
            return [Forward(client.name, inner)]
        call = self._call_of(client, inner[1])
        if call is None or call.over or call.member.name != sender:
            return []  # late: it was given up
        if kind is Kind.PART:
            return self._part_down(call, inner, now)
        if kind is Kind.CREDIT:
            if call.up is not None:
                call.up.credit(read_credit(inner[1])[1])
            return self._feed(call.member, call.client)
        if final(inner[0]):
            self._finish(call)
        elif kind is not Kind.ITEMS:
            return []
        return [Forward(client.name, inner)]

    def _part_down(self, call: Call, frames: list[bytes], now: float) -> list[Forward]:
        _, offset, size, piece = read_part(frames)
        down = call.down
        if down is None:
            down = call.down = Flow(call, call.member, call.client, again=True)
        if not down.unread:
            call.moved = now
        try:
            if down.opens:
                call.last = final(opening_of(piece)[0])
            whole = down.part(offset, size, len(piece))
        except RemoteProtocolError as error:
            text = f"the server breaks the protocol: {error}"
            return [self._error(call.client.name, call.call_id, Code.LOST, text), *self._cancelled(call)]
        if whole and call.last:
            self._finish(call)
        return [Forward(call.client.name, frames), *self._feed(call.member, call.client)]

    def _feed(self, *peers: Peer) -> list[Forward]:
        """Tells the sources of flows what they may send more."""
        out = []
        for peer in peers:
            for flow in peer.feed() if peer.hungry else ():
                call: Call = flow.owner
                frames = [self._credit, self._pack((call.call_id, 0, flow.granted))]
                if flow is call.down:
                    frames = [self._relay, call.client.route, *frames]
                out.append(Forward(flow.source.name, frames))
        return out

    # --------------------------------------------------------------------------------------- how calls end

    def _finish(self, call: Call) -> None:
        """The member has answered. Parts of the answer may still wait for the client."""
        self._ledger.release(call)
        self._settle(call)

    def _settle(self, call: Call) -> None:
        """Forgets a call that is over on both sides."""
        if call.over and (call.down is None or call.down.settled):
            self._ledger.forget(call)

    def _cancelled(self, call: Call) -> list[Forward]:
        """The client does not wait for it any more: the member is told, unless it has answered."""
        over = call.over
        self._ledger.forget(call)
        fed = self._feed(call.member, call.client)
        if over:
            return fed
        cancel = codec.encode(Cancel(call.call_id), self._run_id)
        return [Forward(call.member.name, [self._relay, call.client.route, *cancel]), *fed]

    def _ended(self, lane: Lane, text: str) -> list[Forward]:
        """A lane that is none any more: its calls are over, and its connection is to be closed."""
        member = self._ledger.members.get(lane.name)
        lost = [] if member is None else self._lose(member, f"the server of partition {lane.rank} {text}")
        return [*lost, Forward(lane.name, ())]

    def _left(self, client: Client) -> list[Forward]:
        """Nobody waits for the calls of a client any more."""
        return [out for call in list(client.calls.values()) for out in self._cancelled(call)]

    def _lose(self, member: Member, text: str) -> list[Forward]:
        """A member has gone, or may have missed something: its calls are over, with an outcome that nobody knows."""
        out: list[Forward] = []
        for call in list(member.calls):
            code = Code.LOST if call.whole else Code.UNAVAILABLE  # a request that did not leave whole was not run
            self._ledger.forget(call)
            out.append(self._error(call.client.name, call.call_id, code, text))
            out += self._feed(call.client)
        return out

    def _unsent(self, member: Member, frames: Sequence[Frame], code: Code, text: str) -> list[Forward]:
        """A message did not leave for its member. A call that was to begin with it was certainly not run."""
        client = self._ledger.routes.get(bytes(frames[1]))
        call = None if client is None else client.calls.get(call_of(frames[2:]))
        if call is None or call.over or call.member is not member:
            return []
        kind = frames[2][4]
        begins = kind in BEGINNINGS or kind == Kind.PART or not call.whole
        self._ledger.forget(call)
        error = self._error(call.client.name, call.call_id, code if begins else Code.LOST, text)
        return [error, *self._feed(call.client, member)]

    def _overdue(self, call: Call, now: float) -> list[Forward]:
        """Looks whether a call has come to an end that nobody has told."""
        if call.down is not None and call.down.unread and now - call.moved > STALL:
            text = f"the connection has taken nothing of the answer for {STALL:g} s"
            return [self._error(call.client.name, call.call_id, Code.LOST, text), *self._cancelled(call)]
        return self._cancelled(call) if now > call.until else []

    def _probe_of(self, client: Client) -> Forward:
        """Credit that every call has: nothing comes of it, but it cannot be sent to a connection that has gone."""
        fields = self._pack((next(iter(client.calls)), 0, FIRST_CREDIT))
        return Forward(client.name, [self._credit, fields])

    def _pay(self, client: Client, since: float, now: float) -> list[Forward]:
        """Tells a client what it has lost. What cannot be sent now comes back by ``full``."""
        owed, client.owed = client.owed, {}
        if owed and now - since <= STALL:
            text = "the connection did not read, and the answer was lost"
            return [self._error(client.name, call_id, code, text) for call_id, code in owed.items()]
        client.owed_since = None  # it reads again, or never will
        calls = list(client.calls.values()) if owed else []
        self._ledger.leave(client)
        return [out for call in calls for out in self._cancelled(call)]

    def _error(self, to: bytes, call_id: int, code: Code, text: str) -> Forward:
        error = Error(call_id, code, text, retry_ms=RETRY_MS if code is Code.OVERLOADED else 0)
        return Forward(to, codec.encode(error, self._run_id))
