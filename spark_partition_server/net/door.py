"""The relay's door: where relayed calls come to the coordinator and leave it, over plain sockets and our own engine.

libzmq passes every message from one of its threads to another, twice on each side; a relayed call is four messages, so
that was most of what it cost. Clients and the members' lanes connect here instead, and the coordinator's own loop reads
and writes, for a millisecond at a time: then the control plane has its turn.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ..core.effects import Forward
from ..errors import RemoteProtocolError
from ..wire import codec
from ..wire.codes import Code
from ..wire.messages import Attach, Frame, Kind, Message, Refuse
from ..wire.relays import FIRST_CREDIT
from ..wire.zmtp import Frames
from .clock import monotonic
from .connection import Connection
from .connections import READ, TICK, Connections
from .control import CONTROL_FRAME_BYTES
from .endpoints import keep_alive

__all__ = ["DOOR_BACKLOG_BYTES", "Door", "Rules", "is_of_the_door"]

log = logging.getLogger("spark_partition_server.net")

SLICE = 0.001  # seconds of one turn; a message more may begin in it
BURST = 64  # messages of one connection before others are looked at: about a millisecond
HANDSHAKE_TIMEOUT = 2.0
WRITE_TIMEOUT = 60.0  # seconds that octets may wait untouched: a client of streams may take its time
# What may wait for one connection: the first parts or small answers of as many calls as it may have, and a window.
DOOR_BACKLOG_BYTES = 512 * FIRST_CREDIT + (4 << 20)
NAME_BYTES = 9


def is_of_the_door(name: bytes) -> bool:
    """Whether a connection is one to the door. Those to the ROUTER have names that libzmq draws, of five octets, or
    that their other side chose, which are taken from nobody if they look like these."""
    return len(name) == NAME_BYTES and not name[0]


class Rules(Protocol):
    """What is done with relayed calls, as far as the door asks."""

    def receive(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward] | None: ...
    def attach(self, sender: bytes, attach: Attach) -> list[Forward]: ...
    def gone(self, name: bytes) -> list[Forward]: ...
    def unreachable(self, to: bytes, frames: Sequence[Frame]) -> list[Forward]: ...
    def full(self, to: bytes, frames: Sequence[Frame], now: float) -> list[Forward]: ...


class Door(Connections):
    """The door of one coordinator. All of it but the constructor belongs to the coordinator's loop.

    Args:
        listening: a bound socket; closed with the door.
        passing: the rules.
        run_id: of the messages.
        connections_max: one connection more is closed at once.
    """

    def __init__(self, listening: socket.socket, passing: Rules, run_id: bytes, connections_max: int) -> None:
        super().__init__(
            [listening],
            self._take,
            CONTROL_FRAME_BYTES,
            connections_max,
            HANDSHAKE_TIMEOUT,
            WRITE_TIMEOUT,
            gone=self._ended,
            backlog_bytes=DOOR_BACKLOG_BYTES,
            burst=BURST,
        )
        self._passing = passing
        self._run_id = run_id
        self._relay = codec.preamble(Kind.RELAY, run_id)
        self._named: dict[bytes, Connection] = {}
        self._names = 0  # given so far
        self._found: list[tuple[selectors.SelectorKey, int]] = []  # what a turn had no time for
        self._closing: list[Connection] = []
        self._ticked = 0.0
        self._forward: Callable[[Iterable[Forward]], None]
        self._opened_all: contextlib.ExitStack | None = None

    def open(self, forward: Callable[[Iterable[Forward]], None], thread: int) -> None:
        """Begins to listen. ``forward`` is given what is to be sent, by the door or otherwise; ``thread`` serves."""
        self._forward = forward
        self._thread = thread
        with contextlib.ExitStack() as opened:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            opened.callback(self._close_all, "the coordinator stops")
            self._accepting.begin(self._selector)
            self._opened_all = opened.pop_all()

    def fileno(self) -> int:
        """Readable when ``turn`` has something to do."""
        descriptor: int = self._selector.fileno()  # type: ignore[attr-defined]  # epoll and kqueue have one
        return descriptor

    @property
    def deadline(self) -> float | None:
        """When ``turn`` is wanted, whatever is readable."""
        return self._ticked + TICK if self._has_to_tick() else None

    def turn(self) -> bool:
        """Some of what is to be done now. Returns whether there is more."""
        now = monotonic()
        until = now + SLICE
        found = self._found or self._selector.select(0)
        taken = 0
        for key, events in found:
            taken += 1
            connection = key.data
            if type(connection) is not Connection:
                self._accepting.acceptable(connection, now)
            elif connection.closed:
                continue  # since it was found
            elif events & READ:
                self._readable(connection)
            else:
                self._writable(connection)
            if taken < len(found) and monotonic() >= until:
                break
        self._found = found[taken:]
        self.settle()
        if self._has_to_tick() and now >= self._ticked + TICK:
            self._ticked = now
            self._tick(now)
            self.settle()
        return bool(self._found)

    def send(self, to: bytes, frames: Sequence[Frame]) -> list[Forward]:
        """Sends a message, or ends a connection if it has no frames. Returns what follows where that cannot be."""
        connection = self._named.get(to)
        if connection is None:
            return self._passing.unreachable(to, frames) if frames else []
        if not frames:
            self._closing.append(connection)
        elif connection.congested:
            return self._passing.full(to, frames, monotonic())
        else:
            self._say(connection, frames)
            if connection.outbox_bytes:
                self._touched[connection] = None
        return []

    def settle(self) -> None:
        """Sends what waits, as far as it goes, and closes what is to be closed."""
        while self._touched or self._closing:
            self._flush_touched()
            closing, self._closing = self._closing, []
            for connection in closing:
                self._close(connection, "it is of no further use")

    def close(self) -> None:
        """Closes everything."""
        self._forward = _nowhere  # the end of the coordinator is the end of all that is relayed
        self._accepting.close()
        if self._opened_all is not None:
            self._opened_all.close()

    # --------------------------------------------------------------------------------------------- helpers

    def _accept(self, accepted: socket.socket) -> None:
        keep_alive(accepted)
        super()._accept(accepted)

    def _take(self, frames: Frames, received: float, caller: Connection) -> None:
        """A message has come; what follows from it is sent by ``send``."""
        if type(caller) is not Connection:
            return  # a REQ's delimiter, which nothing here is made for
        name = caller.owner or self._name(caller)
        heads = 4 if frames[0] == self._relay else 2
        for index, frame in enumerate(frames[:heads]):
            if type(frame) is not bytes:  # long, so received into memory of its own
                frames[index] = bytes(frame)
        try:
            # what is not octets is memory that was received into, behind the heads, and is not looked into
            passed = self._passing.receive(name, frames, received)  # type: ignore[arg-type]  # see above
            if passed is None:
                passed = self._other(name, frames)
            if passed:
                self._forward(passed)
        except Exception:  # of one connection; the loop is everybody's
            log.exception("a message at the relay's door could not be dealt with: a bug of this library")
            self._closing.append(caller)

    def _other(self, name: bytes, frames: Frames) -> list[Forward]:
        """What is not relayed: a member's ATTACH, or nothing that is taken here."""
        try:
            message = codec.decode(frames, self._run_id)
        except RemoteProtocolError as error:
            code = Code.of(error.code)
            log.debug("refused at the relay's door code=%s error=%s", code.name, error)
            if code is Code.MALFORMED:
                return []
            run_id = codec.run_id_of(frames[0], self._run_id)
            return [Forward(name, codec.encode(Refuse(code, str(error)), run_id))]
        if isinstance(message, Attach):
            return self._passing.attach(name, message)
        return [self._refused(name, message)]

    def _refused(self, name: bytes, message: Message) -> Forward:
        text = f"the relay's door takes no {message.kind.name}"
        return Forward(name, codec.encode(Refuse(Code.UNEXPECTED, text), self._run_id))

    def _name(self, connection: Connection) -> bytes:
        self._names += 1
        name = connection.owner = self._names.to_bytes(NAME_BYTES, "big")
        self._named[name] = connection
        return name

    def _ended(self, connection: Connection) -> None:
        if type(connection) is Connection and connection.owner is not None:
            del self._named[connection.owner]
            self._forward(self._passing.gone(connection.owner))


def _nowhere(forwards: Iterable[Forward]) -> None:
    pass
