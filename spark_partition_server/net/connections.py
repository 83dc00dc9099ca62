"""The connections that one thread serves: accepted, read from, written to, and kept within their limits.

Every message is handed to ``answer`` as soon as it has been read; what that returns leaves with the next send. What the
kernel does not take waits with its connection, and while too much waits nothing more is read from that connection: a
slow reader holds up itself and costs a bounded amount of memory. A full descriptor table costs a stranger its
connection, never the loop its sleep.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import RemoteProtocolError
from ..wire.codec import PREAMBLE_BYTES
from ..wire.messages import FIELDS_BYTES_MAX, FRAMES_MAX, Frame
from ..wire.zmtp import Engine, Frames, Limits, encode_small
from .accepting import Accepting
from .clock import monotonic
from .connection import BACKLOG_BYTES, Caller, Connection, has_ended
from .memory import IDLE, Blocks
from .shared import Budget, Forks, SharedMemory

__all__ = ["BURST", "READ", "TICK", "Answer", "Connections", "Gone"]

log = logging.getLogger("spark_partition_server.net")

READ_BYTES = 64 * 1024
HEAD_BYTES_MAX = PREAMBLE_BYTES + FIELDS_BYTES_MAX  # before the payload, which is what senders measure
BURST = 256  # messages of one connection before others are looked at
TICK = 0.25  # seconds between two looks at handshakes and slow readers, while there are any

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Given a message's frames, when it was read, and who sent it, returns the frames of the answer, or None: there is
# none, or it comes later by the caller's ``send``.
Answer = Callable[[Frames, float, Any], "Sequence[Frame] | None"]
Gone = Callable[[Any], None]


class Connections:
    """What a thread that serves does with its connections. Subclasses wait for them, and own the selector.

    Args:
        listening: bound sockets, tcp or Unix; closed with the rest.
        answer: called with every message; must not raise.
        message_bytes_max: the largest payload accepted, all frames of a message together.
        connections_max: one connection more is closed at once.
        handshake_timeout: seconds a connection has to finish the ZMTP handshake.
        write_timeout: seconds the other side may leave octets that wait for it untouched.
        sift: given the messages of one connection that were read together, returns those that are to be answered.
        gone: called with every caller whose connection has ended.
        memory_bytes_max: octets of memory for large requests that are kept to be used again, and octets of memory
            shared with clients on this host; 0: none.
        backlog_bytes: octets that wait to be sent over a connection, from which on nothing more is read from it.
        burst: messages of one connection answered before others are looked at.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        answer: Answer,
        message_bytes_max: int,
        connections_max: int,
        handshake_timeout: float,
        write_timeout: float,
        *,
        sift: Callable[[list[Frames]], list[Frames]] | None = None,
        gone: Gone | None = None,
        memory_bytes_max: int = 0,
        backlog_bytes: int = BACKLOG_BYTES,
        burst: int = BURST,
    ) -> None:
        self._accepting = Accepting(listening, self._accept, self._make_room)
        self._answer = answer
        self._sift = sift
        self._gone = gone
        self._limits = Limits(message_bytes_max + HEAD_BYTES_MAX, FRAMES_MAX)
        self._memory = Blocks(memory_bytes_max)
        self._budget = Budget(memory_bytes_max)
        self._forks = Forks()
        self._rest_at = 0.0
        self._connections_max = connections_max
        self._handshake_timeout = handshake_timeout
        self._write_timeout = write_timeout
        self._backlog_bytes = backlog_bytes
        self._burst = burst
        self._connections: set[Connection] = set()
        self._opened = 0  # of them, by this side
        self._waiting: dict[Connection, None] = {}  # in handshake or with octets to write, oldest first
        self._unwatched: dict[Connection, None] = {}  # neither read from nor written to
        self._touched: dict[Connection, None] = {}  # have octets to send, or are to be read again
        self._thread = 0  # the one that serves
        # Opened by the subclass: what is never served has nothing to close but what it was given.
        self._selector: selectors.BaseSelector

    @property
    def connections(self) -> int:
        """Connections open now that others have opened."""
        return len(self._connections) - self._opened

    def hand(self, run: Callable[[], None]) -> None:
        """Has something run in the serving thread, soon. From any thread."""
        raise NotImplementedError  # not abstract: a subclass whose connections are used in one thread needs none

    def adopt(self, connected: socket.socket, engine: Engine, answer: Answer, gone: Gone) -> Connection:
        """Serves a connection that this side has opened and whose handshake is over. In the serving thread.

        Args:
            answer, gone: called instead of those for connections that were accepted.
        """
        connected.setblocking(False)
        connection = self._join(connected, engine, answer, gone, None)
        connection.opened = True
        self._opened += 1
        return connection

    def _join(
        self, connected: socket.socket, engine: Engine, answer: Answer, gone: Gone | None, shared: SharedMemory | None
    ) -> Connection:
        calls = (self._touch, self.hand, answer, gone)
        connection = Connection(connected, engine, monotonic(), self._thread, *calls, self._backlog_bytes, shared)
        self._connections.add(connection)
        self._selector.register(connected, READ, connection)
        return connection

    def _flush_touched(self) -> None:
        touched, self._touched = self._touched, {}
        for connection in touched:
            if not connection.closed:
                self._flush(connection)

    def _tick(self, now: float) -> None:
        for connection in list(self._waiting):
            if connection.engine.ready:
                if now - connection.since > self._write_timeout:
                    self._close(connection, f"it left an answer unread for {self._write_timeout:g} s")
            elif now - connection.since > self._handshake_timeout:
                self._close(connection, f"no handshake within {self._handshake_timeout:g} s")
        for connection in [one for one in self._unwatched if has_ended(one.socket)]:
            self._close(connection)
        self._accepting.tick(now)

    def _has_to_tick(self) -> bool:
        return bool(self._waiting or self._unwatched) or self._accepting.again is not None

    def _rest(self, now: float) -> None:
        """Gives memory back that has long been free."""
        self._rest_at = now + IDLE / 2
        self._memory.rest()
        for connection in self._connections:
            if connection.shared is not None:
                connection.shared.idle()

    def _has_to_rest(self) -> bool:
        return bool(self._budget.used or self._memory.blocks)

    # ------------------------------------------------------------------------------------------- accepting

    def _accept(self, accepted: socket.socket) -> None:
        if self.connections >= self._connections_max:
            log.warning("refused: %d connections are open", self._connections_max)
            accepted.close()
            return
        shared = None
        if accepted.family == socket.AF_UNIX and self._budget.bytes_max and SharedMemory.possible():
            shared = SharedMemory(self._budget.bytes_max, self._budget, self._forks)
        engine = Engine(b"ROUTER", self._limits, self._memory.allocate, shared)
        connection = self._join(accepted, engine, self._answer, self._gone, shared)
        self._waiting[connection] = None
        connection.queue_octets(engine.output())
        self._flush(connection)

    def _make_room(self) -> bool:
        for one in list(self._waiting):
            if not one.engine.ready:
                self._readable(one)  # the rest of its handshake may be here already
            if not one.engine.ready:
                self._close(one, "the descriptor table is full")
                return True
        return False

    # ------------------------------------------------------------------------------------ reading, writing

    def _readable(self, connection: Connection) -> None:
        engine = connection.engine
        try:
            room = engine.room()
            if room is None:
                data = connection.recv(READ_BYTES)
                if not data:
                    self._close(connection)
                    return
                messages = engine.receive(data)
            else:
                count = connection.recv_into(room)
                if not count:
                    self._close(connection)
                    return
                messages = engine.filled(count)
        except (BlockingIOError, InterruptedError):
            return
        except RemoteProtocolError as error:
            self._refuse(connection, error)
            return
        except OSError as error:
            self._close(connection, str(error))
            return
        if output := engine.output():
            connection.queue_octets(output)
        if len(messages) == 1 and messages[0][0] and not connection.inbox and not connection.outbox_bytes:
            answer = connection.answer(messages[0], monotonic(), connection)
            if answer is not None:
                self._say(connection, answer)
        elif messages:
            received = monotonic()
            if len(messages) > 1 and self._sift is not None and not connection.opened:
                messages = self._sift(messages)
            connection.inbox.extend([(frames, received) for frames in messages])
            self._answer_inbox(connection)
        if connection.outbox_bytes or connection.inbox:
            self._flush(connection)
        elif connection in self._waiting and engine.ready:
            del self._waiting[connection]

    def _say(self, connection: Connection, frames: Sequence[Frame]) -> None:
        """Sends a message without a queue, as far as it goes. What is left waits with its connection: to be flushed."""
        shared = connection.shared
        due = shared is not None and shared.borrowed  # goes before the answer
        octets = None if connection.outbox_bytes or due else encode_small(frames)
        if octets is not None:
            try:
                sent = connection.socket.send(octets)
            except OSError:
                sent = 0  # _flush meets it again, and knows what to do
            if sent < len(octets):
                connection.queue_octets(memoryview(octets)[sent:])
        else:
            connection.queue(frames)

    def _answer_inbox(self, connection: Connection) -> None:
        inbox, answer_to = connection.inbox, connection.answer
        for _ in range(self._burst):
            if not inbox or connection.held or connection.outbox_bytes >= self._backlog_bytes:
                break
            frames, received = inbox.popleft()
            if frames[0]:
                answer = answer_to(frames, received, connection)
                if answer is not None:
                    connection.queue(answer)
            elif len(frames) > 1:  # a REQ's delimiter: whatever stands before the message goes back before the answer
                del frames[0]
                answer = answer_to(frames, received, connection.envelope())
                if answer is not None:
                    connection.queue([b"", *answer])

    def _writable(self, connection: Connection) -> None:
        self._flush(connection)
        if connection.inbox and not connection.closed:
            self._answer_inbox(connection)
            self._flush(connection)

    def _touch(self, connection: Connection) -> None:
        self._touched[connection] = None

    def _flush(self, connection: Connection) -> None:
        before = connection.outbox_bytes
        try:
            done = connection.flush()
        except OSError as error:
            self._close(connection, str(error))
            return
        events = 0
        if not connection.held and not connection.congested:
            events = WRITE if connection.inbox else READ  # what has been read is answered first
        if not done:
            events |= WRITE
            if connection.engine.ready and (connection.outbox_bytes < before or connection not in self._waiting):
                connection.since = monotonic()
            self._waiting.setdefault(connection)
        elif connection.engine.ready:
            self._waiting.pop(connection, None)
        if events != connection.events:
            self._watch(connection, events)

    def _watch(self, connection: Connection, events: int) -> None:
        """A connection that is neither read from nor written to is not watched; ``_tick`` asks whether it has ended."""
        if not events:
            self._selector.unregister(connection.socket)
            self._unwatched[connection] = None
        elif connection.events:
            self._selector.modify(connection.socket, events, connection)
        else:
            self._selector.register(connection.socket, events, connection)
            del self._unwatched[connection]
        connection.events = events

    def _refuse(self, connection: Connection, error: RemoteProtocolError) -> None:
        """Says why where the protocol has words for it, and closes."""
        with contextlib.suppress(OSError):
            if output := connection.engine.output():
                connection.queue_octets(output)
                connection.flush()
        self._close(connection, str(error))

    def _close(self, connection: Connection, why: str = "closed by the other side") -> None:
        if connection.closed:
            return
        self._connections.discard(connection)
        self._opened -= connection.opened
        self._waiting.pop(connection, None)
        self._unwatched.pop(connection, None)
        if connection.events:
            self._selector.unregister(connection.socket)
        connection.close()
        log.debug("connection closed why=%s", why)
        if connection.gone is not None:
            callers: tuple[Caller | None, ...] = (connection, connection.enveloped)
            for caller in filter(None, callers):
                connection.gone(caller)

    def _close_all(self, why: str) -> None:
        for connection in list(self._connections):
            self._close(connection, why)
