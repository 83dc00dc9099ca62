"""A coordinator's rules for relayed calls, with messages as they come and go; and two ends that talk through them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from spark_partition_server.core.effects import Forward
from spark_partition_server.core.relayed import Relayed, Request
from spark_partition_server.core.relaying import Relaying
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Attach, Message, Refuse, Relay
from spark_partition_server.wire.messages import Request as Asking
from spark_partition_server.wire.parts import Parts

__all__ = ["LIMIT", "RUN", "Members", "Relays", "Through", "frames_of", "read", "request"]

RUN = b"run of 8"
LIMIT = 16 << 20


class Members:
    """A membership to be asked: rank r is served by incarnation 7, over the connection ``b"M<r>"``."""

    def __init__(self, size: int = 2) -> None:
        self.by_rank: dict[int, tuple[int, bytes]] = {rank: (7, b"M%d" % rank) for rank in range(size)}

    def serving(self, rank: int) -> tuple[int, bytes] | None:
        return self.by_rank.get(rank)

    def is_member(self, sender: bytes) -> bool:
        return any(name == sender for _, name in self.by_rank.values())

    def attach(self, attach: Attach) -> Refuse | None:
        known = self.by_rank.get(attach.rank)
        ours = known is not None and known[0] == attach.incarnation and attach.token == b"token"
        return None if ours else Refuse(Code.NOT_MEMBER, "no")


def frames_of(message: Message) -> list[bytes]:
    return [bytes(frame) for frame in codec.encode(message, RUN)]


def request(call_id: int = 1, rank: int = 0, *, incarnation: int = 7, payload: Any = (b"\x92\x90\x80",), **others: Any):
    """A REQUEST with five seconds to go."""
    return Asking(call_id, "get", others.pop("remaining_ms", 5000), rank, incarnation, payload)


def read(forward: Forward) -> tuple[bytes | None, Message | None]:
    """Where a message goes, and what it is; a RELAY's is the message inside, and its place ends in the route's name.
    None: no message, the connection is to be closed."""
    if not forward.frames:
        return forward.to, None
    message = codec.decode(list(forward.frames), RUN)
    if isinstance(message, Relay):
        return (forward.to or b"") + b"<" + message.route, codec.decode(list(message.payload), RUN)
    return forward.to, message


class Relays:
    """The rules, and what they say."""

    def __init__(self, size: int = 2) -> None:
        self.members = Members(size)
        self.rules = Relaying(self.members, RUN)
        self.now = 100.0

    def say(self, sender: bytes, message: Message | Sequence[bytes]) -> list[tuple[bytes | None, Message | None]]:
        """What follows from a client's message; asserts that it is one that is relayed."""
        frames = frames_of(message) if isinstance(message, Message) else list(message)
        out = self.rules.receive(sender, frames, self.now)
        assert out is not None, "not relayed"
        self.rules.check()
        return [read(forward) for forward in out]

    def answer(self, sender: bytes, route: bytes, message: Message) -> list[tuple[bytes | None, Message | None]]:
        """What follows from a member's message for a route."""
        return self.say(sender, Relay(route, tuple(frames_of(message))))

    def attach(
        self, name: bytes, rank: int = 0, incarnation: int = 7, token: bytes = b"token"
    ) -> list[tuple[bytes | None, Message | None]]:
        """What follows from a member's ATTACH over a connection to the door."""
        out = [read(forward) for forward in self.rules.attach(name, Attach(rank, incarnation, token))]
        self.rules.check()
        return out

    def gone(self, name: bytes) -> list[tuple[bytes | None, Message | None]]:
        """What follows from the end of a connection to the door."""
        out = [read(forward) for forward in self.rules.gone(name)]
        self.rules.check()
        return out

    def look(self, seconds: float = 0.0) -> list[tuple[bytes | None, Message | None]]:
        """What follows from a change of the membership."""
        self.now += seconds
        out = [read(forward) for forward in self.rules.look(self.now)]
        self.rules.check()
        return out

    def tick(self, seconds: float = 0.0) -> list[tuple[bytes | None, Message | None]]:
        self.now += seconds
        out = [read(forward) for forward in self.rules.tick(self.now)]
        self.rules.check()
        return out


class Through:
    """Clients and members that send messages of any size through the rules, everything at once and in order."""

    def __init__(self, size: int = 2, limit: int = LIMIT) -> None:
        self.relays = Relays(size)
        self.limit = limit
        self.clients: dict[bytes, Parts] = {}
        self.members = {b"M%d" % rank: Relayed(RUN, limit) for rank in range(size)}
        self.asked: list[tuple[bytes, Request]] = []  # whole messages that members got
        self.answered: list[tuple[bytes, Message]] = []  # and clients
        self.held: set[bytes] = set()  # connections that take nothing now
        self.queues: dict[bytes, deque[list[bytes]]] = {}  # what waits for whom
        self.relayed = 0  # octets of parts that the rules passed on

    def client(self, name: bytes) -> Parts:
        return self.clients.setdefault(name, Parts(RUN, self.limit, 1 << 40))

    def ask(self, name: bytes, message: Message) -> None:
        """A client sends; everything that follows from it happens."""
        for frames in self.client(name).send(codec.encode(message, RUN)):
            self._receive(name, frames)
        self.run()

    def reply(self, member: bytes, asked: Request, message: Message) -> None:
        """A member answers."""
        for forward in self.members[member].answer(asked.route, codec.encode(message, RUN)):
            self._receive(member, forward.frames)
        self.run()

    def waiting(self, name: bytes) -> int:
        """Octets that wait for a connection."""
        return sum(sum(map(len, frames)) for frames in self.queues.get(name, ()))

    def run(self) -> None:
        """Until nothing moves any more."""
        while moving := [name for name, queue in self.queues.items() if queue and name not in self.held]:
            for name in moving:
                self._deliver(name, self.queues[name].popleft())
        for parts in self.clients.values():
            parts.check()
        for relayed in self.members.values():
            relayed.check()
        self.relays.rules.check()

    def _receive(self, sender: bytes, frames: Sequence[Any]) -> None:
        out = self.relays.rules.receive(sender, [bytes(frame) for frame in frames], self.relays.now)
        assert out is not None
        for to, passed in out:
            self.relayed += sum(map(len, passed))
            self.queues.setdefault(to or b"", deque()).append([bytes(frame) for frame in passed])

    def _deliver(self, name: bytes, frames: list[bytes]) -> None:
        if name in self.members:
            taken = self.members[name].receive(frames)
            assert taken is not None
            if taken[0] is not None:
                self.asked.append((name, taken[0]))
            for forward in taken[1]:
                self._receive(name, forward.frames)
            return
        whole, messages = self.client(name).take(frames)
        if whole is not None:
            self.answered.append((name, codec.decode(whole, RUN)))
        for message in messages:
            self._receive(name, message)


