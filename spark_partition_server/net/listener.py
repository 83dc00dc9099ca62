"""The direct lane, server side: a selector loop that speaks ZMTP as a ROUTER over plain sockets.

One thread accepts, reads and writes. Every message is handed to ``answer`` as soon as it has been read; what that
returns leaves with the next send, and answers that come later are handed in with ``Caller.send``, from any thread.
What the kernel does not take waits with its connection, and while too much waits nothing more is read from that
connection: a slow reader holds up itself and costs a bounded amount of memory. A full descriptor table costs a
stranger its connection, never the loop its sleep.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import RemoteProtocolError
from ..wire.codec import PREAMBLE_BYTES
from ..wire.messages import FIELDS_BYTES_MAX, FRAMES_MAX, Frame
from ..wire.zmtp import Engine, Frames, Limits, encode_small
from .accepting import Accepting
from .clock import monotonic
from .connection import BACKLOG_BYTES, Caller, Connection, has_ended
from .memory import IDLE, Blocks
from .shared import Budget, Forks, SharedMemory

__all__ = ["BACKLOG_BYTES", "Answer", "Caller", "Connection", "Listener"]

log = logging.getLogger("spark_partition_server.net")

READ_BYTES = 64 * 1024
HEAD_BYTES_MAX = PREAMBLE_BYTES + FIELDS_BYTES_MAX  # before the payload, which is what senders measure
BURST = 256  # messages of one connection before others are looked at
TICK = 0.25  # seconds between two looks at handshakes and slow readers, while there are any

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Given a message's frames, when it was read, and who sent it, returns the frames of the answer, or None: there is
# none, or it comes later by the caller's ``send``.
Answer = Callable[[Frames, float, Caller], "Sequence[Frame] | None"]


class Listener:
    """Serves requests on listening sockets until it is stopped.

    Args:
        listening: bound sockets, tcp or Unix; closed with the listener.
        answer: called in the serving thread with every message; must not raise.
        message_bytes_max: the largest payload accepted, all frames of a message together.
        connections_max: one connection more is closed at once.
        handshake_timeout: seconds a connection has to finish the ZMTP handshake.
        write_timeout: seconds a client may leave octets that wait for it untouched.
        sift: given the messages of one connection that were read together, returns those that are to be answered.
        gone: called in the serving thread with every caller whose connection has ended.
        work: called in the serving thread after every look at the sockets; does some of what waits, for about a
            millisecond, and returns in how many seconds it wants to be called again (0: after the next look; less: once
            its answers have been sent, before the next look), or None: not before something has come.
        busy: whether answers are still to come; ``stop`` gives them its grace.
        memory_bytes_max: octets of memory for large requests that are kept to be used again, and octets of memory
            shared with clients on this host; 0: none.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        answer: Answer,
        message_bytes_max: int,
        connections_max: int = 4096,
        handshake_timeout: float = 2.0,
        write_timeout: float = 30.0,
        *,
        sift: Callable[[list[Frames]], list[Frames]] | None = None,
        gone: Callable[[Caller], None] | None = None,
        work: Callable[[], float | None] | None = None,
        busy: Callable[[], bool] | None = None,
        memory_bytes_max: int = 0,
    ) -> None:
        self._accepting = Accepting(listening, self._accept, self._make_room)
        self._answer = answer
        self._sift = sift
        self._gone = gone
        self._work = work
        self._busy = busy
        self._limits = Limits(message_bytes_max + HEAD_BYTES_MAX, FRAMES_MAX)
        self._memory = Blocks(memory_bytes_max)
        self._budget = Budget(memory_bytes_max)
        self._forks = Forks()
        self._rest_at = 0.0
        self._connections_max = connections_max
        self._handshake_timeout = handshake_timeout
        self._write_timeout = write_timeout
        self._connections: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # in handshake or with octets to write, oldest first
        self._unwatched: dict[Connection, None] = {}  # neither read from nor written to
        self._touched: dict[Connection, None] = {}  # have octets to send, or are to be read again
        self._handed: deque[Callable[[], None]] = deque()  # by other threads, to be run in this one
        self._work_in: float | None = None
        self._stop_by: float | None = None
        self._stopping = threading.Event()
        self._thread = 0  # the one that serves
        self._woken = False
        # Opened by ``serve``: a listener that is never served has nothing to close but what it was given.
        self._selector: selectors.BaseSelector
        self._wake_out: socket.socket
        self._wake_in: socket.socket | None = None

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def serve(self) -> None:
        """Serves in this thread until ``stop``, then closes everything."""
        self._thread = threading.get_ident()
        with contextlib.ExitStack() as opened:
            opened.callback(self._accepting.close)
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._wake_out, self._wake_in = socket.socketpair()
            for one in (self._wake_out, self._wake_in):
                opened.callback(one.close)
                one.setblocking(False)
            opened.callback(self._close_all)
            self._selector.register(self._wake_out, READ, None)
            self._accepting.begin(self._selector)
            while not self._stopping.is_set():
                self._turn(self._pause())
            self._drain()

    def stop(self, grace: float = 0.0) -> None:
        """Makes ``serve`` return soon; answers to come and octets to be sent get ``grace`` seconds. From any thread."""
        if not self._stopping.is_set():
            self._stop_by = monotonic() + grace
            self._stopping.set()
        self._wake()

    def hand(self, run: Callable[[], None]) -> None:
        """Has something run in the serving thread, soon; dropped after its end. From any thread."""
        self._handed.append(run)
        if not self._woken:
            self._woken = True
            self._wake()

    def deliver(self, caller: Caller, frames: Frames) -> None:
        """Has a message answered that came another way; the answer goes to ``caller.send``. From any thread."""
        received = monotonic()
        self.hand(lambda: self._answer_delivered(caller, frames, received))

    # ----------------------------------------------------------------------------------------------- turns

    def _turn(self, pause: float | None) -> None:
        for key, events in self._selector.select(pause):
            connection = key.data
            if type(connection) is Connection:
                if events & READ:
                    self._readable(connection)
                elif not connection.closed:
                    self._writable(connection)
            elif connection is None:
                self._wake_out.recv(4096)
                self._woken = False  # in this order: an octet that is sent from here on is not taken away
            else:
                self._accepting.acceptable(connection, monotonic())
        while self._handed:
            try:
                self._handed.popleft()()
            except Exception:
                log.exception("what was handed in failed: a bug of this library")
        again = True
        while again:
            self._work_in = self._work() if self._work is not None else None
            again = self._work_in is not None and self._work_in < 0
            touched, self._touched = self._touched, {}
            for connection in touched:
                if not connection.closed:
                    self._flush(connection)
        if self._waiting or self._unwatched or self._accepting.again is not None:
            self._tick(monotonic())
        if (self._budget.used or self._memory.blocks) and (now := monotonic()) >= self._rest_at:
            self._rest(now)

    def _pause(self) -> float | None:
        if self._handed:
            return 0.0
        busy = self._waiting or self._unwatched or self._accepting.again is not None
        pause = TICK if busy else IDLE if self._budget.used or self._memory.blocks else None
        if self._work_in is None:
            return pause
        return self._work_in if pause is None or self._work_in < pause else pause

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

    def _rest(self, now: float) -> None:
        """Gives memory back that has long been free."""
        self._rest_at = now + IDLE / 2
        self._memory.rest()
        for connection in self._connections:
            if connection.shared is not None:
                connection.shared.idle()

    def _drain(self) -> None:
        """Lets what is under way finish, and the answers that wait be sent, until the end of the grace period."""
        self._accepting.end()
        while any(connection.outbox for connection in self._connections) or (self._busy is not None and self._busy()):
            left = (self._stop_by or 0.0) - monotonic()
            if left <= 0:
                return
            pause = self._pause()
            self._turn(min(left, TICK if pause is None else pause))

    def _wake(self) -> None:
        if self._wake_in is not None:  # else ``serve`` has yet to look
            with contextlib.suppress(OSError):  # it is awake, or has ended
                self._wake_in.send(b"\0")

    # ------------------------------------------------------------------------------------------- accepting

    def _accept(self, accepted: socket.socket) -> None:
        if len(self._connections) >= self._connections_max:
            log.warning("refused: %d connections are open", self._connections_max)
            accepted.close()
            return
        shared = None
        if accepted.family == socket.AF_UNIX and self._budget.bytes_max and SharedMemory.possible():
            shared = SharedMemory(self._budget.bytes_max, self._budget, self._forks)
        engine = Engine(b"ROUTER", self._limits, self._memory.allocate, shared)
        connection = Connection(accepted, engine, monotonic(), self._thread, self._touch, self.hand, shared)
        self._connections.add(connection)
        self._waiting[connection] = None
        self._selector.register(accepted, READ, connection)
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
            self._answer_one(connection, messages[0])
        elif messages:
            received = monotonic()
            if len(messages) > 1 and self._sift is not None:
                messages = self._sift(messages)
            connection.inbox.extend([(frames, received) for frames in messages])
            self._answer_inbox(connection)
        if connection.outbox_bytes or connection.inbox:
            self._flush(connection)
        elif connection in self._waiting and engine.ready:
            del self._waiting[connection]

    def _answer_one(self, connection: Connection, frames: Frames) -> None:
        """A request that comes alone while nothing waits: its answer is sent without a queue, as far as it goes."""
        answer = self._answer(frames, monotonic(), connection)
        if answer is None:
            return
        shared = connection.shared
        due = shared is not None and shared.borrowed  # goes before the answer
        octets = None if connection.outbox_bytes or due else encode_small(answer)
        if octets is not None:
            try:
                sent = connection.socket.send(octets)
            except OSError:
                sent = 0  # _flush meets it again, and knows what to do
            if sent < len(octets):
                connection.queue_octets(memoryview(octets)[sent:])
        else:
            connection.queue(answer)

    def _answer_inbox(self, connection: Connection) -> None:
        inbox = connection.inbox
        for _ in range(BURST):
            if not inbox or connection.held or connection.outbox_bytes >= BACKLOG_BYTES:
                break
            frames, received = inbox.popleft()
            if frames[0]:
                answer = self._answer(frames, received, connection)
                if answer is not None:
                    connection.queue(answer)
            elif len(frames) > 1:  # a REQ's delimiter: whatever stands before the message goes back before the answer
                del frames[0]
                answer = self._answer(frames, received, connection.envelope())
                if answer is not None:
                    connection.queue([b"", *answer])

    def _answer_delivered(self, caller: Caller, frames: Frames, received: float) -> None:
        answer = self._answer(frames, received, caller)
        if answer is not None:
            caller.send(answer)

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

    def _close(self, connection: Connection, why: str = "closed by the client") -> None:
        if connection.closed:
            return
        self._connections.discard(connection)
        self._waiting.pop(connection, None)
        self._unwatched.pop(connection, None)
        if connection.events:
            self._selector.unregister(connection.socket)
        connection.close()
        log.debug("connection closed why=%s", why)
        if self._gone is not None:
            for caller in filter(None, (connection, connection.enveloped)):
                self._gone(caller)

    def _close_all(self) -> None:
        for connection in list(self._connections):
            self._close(connection, "the server stops")
