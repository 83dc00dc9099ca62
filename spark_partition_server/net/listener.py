"""The direct lane, server side: a selector loop that speaks ZMTP as a ROUTER over plain sockets.

One thread accepts, reads, answers and writes. An answer is written at once, from the thread that made it; what the
kernel does not take waits with its connection, and while too much waits nothing more is read from that connection: a
slow reader holds up itself and costs a bounded amount of memory. A full descriptor table costs a stranger its
connection, never the loop its sleep.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import RemoteProtocolError
from ..wire.codec import PREAMBLE_BYTES
from ..wire.messages import FIELDS_BYTES_MAX, FRAMES_MAX, Frame
from ..wire.zmtp import Engine, Frames, Limits, encode_small, encode_vector
from .clock import monotonic

__all__ = ["Answer", "Connection", "Listener"]

log = logging.getLogger("spark_partition_server.net")

READ_BYTES = 64 * 1024
HEAD_BYTES_MAX = PREAMBLE_BYTES + FIELDS_BYTES_MAX  # before the payload, which is what senders measure
BACKLOG_BYTES = 1 << 20  # a connection that leaves more than this unread is not read from
VECTOR_MAX = 128  # buffers of one sendmsg, well under IOV_MAX
ACCEPTS = 64  # connections taken at a time
ACCEPT_PAUSE = 0.1  # seconds without accepting when the descriptor table is full and nothing can be given back
TICK = 0.25  # seconds between two looks at handshakes and slow readers, while there are any

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Given a message's frames and when it was read, returns the frames of the answer, or None.
Answer = Callable[[Frames, float], "Sequence[Frame] | None"]


class Connection:
    """One client's connection."""

    __slots__ = ("engine", "events", "inbox", "outbox", "outbox_bytes", "since", "socket")

    def __init__(self, accepted: socket.socket, engine: Engine, now: float) -> None:
        self.socket = accepted
        self.engine = engine
        self.since = now  # accepted; later: the last time waiting octets were taken
        self.events = READ
        self.inbox: deque[Frames] = deque()  # messages read and not yet answered, because too much waits in outbox
        self.outbox: deque[Frame] = deque()
        self.outbox_bytes = 0

    def queue(self, frames: Sequence[Frame]) -> None:
        """Adds a message to what waits to be sent."""
        octets = encode_small(frames)
        for buffer in encode_vector(frames) if octets is None else (octets,):
            self.queue_octets(buffer)

    def queue_octets(self, octets: Frame) -> None:
        self.outbox.append(octets)
        self.outbox_bytes += len(octets)

    def flush(self) -> bool:
        """Sends what the kernel takes now. Returns whether nothing waits any more."""
        outbox = self.outbox
        while outbox:
            try:
                if len(outbox) == 1:
                    sent = self.socket.send(outbox[0])
                else:
                    sent = self.socket.sendmsg([outbox[i] for i in range(min(len(outbox), VECTOR_MAX))])
            except BlockingIOError:
                return False
            self._sent(sent)
        return True

    def _sent(self, count: int) -> None:
        self.outbox_bytes -= count
        while count:
            first = self.outbox[0]
            if count < len(first):
                self.outbox[0] = memoryview(first)[count:]
                return
            count -= len(first)
            self.outbox.popleft()


class Listener:
    """Serves requests on listening sockets until it is stopped.

    Args:
        listening: bound sockets, tcp or Unix; closed with the listener.
        answer: called in the serving thread with every message; must not raise.
        message_bytes_max: the largest payload accepted, all frames of a message together.
        connections_max: one connection more is closed at once.
        handshake_timeout: seconds a connection has to finish the ZMTP handshake.
        write_timeout: seconds a client may leave octets that wait for it untouched.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        answer: Answer,
        message_bytes_max: int,
        connections_max: int = 4096,
        handshake_timeout: float = 2.0,
        write_timeout: float = 30.0,
    ) -> None:
        self._listening = list(listening)
        self._answer = answer
        self._limits = Limits(message_bytes_max + HEAD_BYTES_MAX, FRAMES_MAX)
        self._connections_max = connections_max
        self._handshake_timeout = handshake_timeout
        self._write_timeout = write_timeout
        self._connections: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # in handshake or with octets to write, oldest first
        self._accept_again: float | None = None
        self._spare: int | None = None  # a descriptor held back, to be able to refuse when there are none
        self._stop_by: float | None = None
        self._stopping = threading.Event()
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
        with contextlib.ExitStack() as opened:
            for listening in self._listening:
                opened.callback(listening.close)
                listening.setblocking(False)
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._wake_out, self._wake_in = socket.socketpair()
            for one in (self._wake_out, self._wake_in):
                opened.callback(one.close)
                one.setblocking(False)
            opened.callback(self._close_all)
            self._hold_spare()
            self._selector.register(self._wake_out, READ, None)
            self._accept_on()
            while not self._stopping.is_set():
                self._turn(self._pause())
            self._drain()

    def stop(self, grace: float = 0.0) -> None:
        """Makes ``serve`` return soon; octets that wait to be sent get ``grace`` seconds. From any thread."""
        if not self._stopping.is_set():
            self._stop_by = monotonic() + grace
            self._stopping.set()
        if self._wake_in is not None:  # else ``serve`` has yet to look whether it is to stop
            with contextlib.suppress(OSError):  # it is awake, or has ended
                self._wake_in.send(b"\0")

    # ----------------------------------------------------------------------------------------------- turns

    def _turn(self, pause: float | None) -> None:
        for key, events in self._selector.select(pause):
            connection = key.data
            if type(connection) is Connection:
                if events & READ:
                    self._readable(connection)
                elif connection in self._connections:
                    self._writable(connection)
            elif connection is None:
                self._wake_out.recv(4096)
            else:
                self._acceptable(connection)
        if self._waiting or self._accept_again is not None:
            self._tick(monotonic())

    def _pause(self) -> float | None:
        return TICK if self._waiting or self._accept_again is not None else None

    def _tick(self, now: float) -> None:
        for connection in list(self._waiting):
            if connection.engine.ready:
                if now - connection.since > self._write_timeout:
                    self._close(connection, f"it left an answer unread for {self._write_timeout:g} s")
            elif now - connection.since > self._handshake_timeout:
                self._close(connection, f"no handshake within {self._handshake_timeout:g} s")
        if self._accept_again is not None and now >= self._accept_again:
            self._accept_again = None
            self._hold_spare()
            self._accept_on()

    def _drain(self) -> None:
        """Gives the answers that wait to be sent until the end of the grace period."""
        self._accept_again = None
        for listening in self._listening:
            listening.close()
        while any(connection.outbox for connection in self._connections):
            left = (self._stop_by or 0.0) - monotonic()
            if left <= 0:
                return
            self._turn(min(left, TICK))

    # ------------------------------------------------------------------------------------------- accepting

    def _accept_on(self) -> None:
        for listening in self._listening:
            self._selector.register(listening, READ, listening)

    def _hold_spare(self) -> None:
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def _acceptable(self, listening: socket.socket) -> None:
        if self._accept_again is not None:
            return  # another of the listening sockets has found the table full in this very turn
        for _ in range(ACCEPTS):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._full(listening, error)
                    return
                log.warning("accept failed error=%s", error)
                return
            self._accept(accepted)

    def _accept(self, accepted: socket.socket) -> None:
        if len(self._connections) >= self._connections_max:
            log.warning("refused: %d connections are open", self._connections_max)
            accepted.close()
            return
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = Connection(accepted, Engine(b"ROUTER", self._limits), monotonic())
        self._connections.add(connection)
        self._waiting[connection] = None
        self._selector.register(accepted, READ, connection)
        connection.queue_octets(connection.engine.output())
        self._flush(connection)

    def _full(self, listening: socket.socket, error: OSError) -> None:
        """The descriptor table is full: whoever has not finished its handshake gives way, then the newcomer."""
        if not _has_newcomer(listening):  # the kernel says so as well when nobody is there to be accepted
            return
        for one in list(self._waiting):
            if not one.engine.ready:
                self._readable(one)  # the rest of its handshake may be here already
            if not one.engine.ready:
                self._close(one, "the descriptor table is full")
                return
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with contextlib.suppress(OSError):
                listening.accept()[0].close()  # it learns at once that there is no room, instead of waiting
            self._hold_spare()
        log.warning("accept paused seconds=%g error=%s: raise the limit of open files", ACCEPT_PAUSE, error)
        self._accept_again = monotonic() + ACCEPT_PAUSE
        for other in self._listening:
            self._selector.unregister(other)

    # ------------------------------------------------------------------------------------ reading, writing

    def _readable(self, connection: Connection) -> None:
        engine = connection.engine
        try:
            room = engine.room()
            if room is None:
                data = connection.socket.recv(READ_BYTES)
                if not data:
                    self._close(connection)
                    return
                messages = engine.receive(data)
            else:
                count = connection.socket.recv_into(room)
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
        if len(messages) == 1 and messages[0][0] and not connection.inbox and not connection.outbox:
            self._answer_one(connection, messages[0])
        elif messages:
            connection.inbox.extend(messages)
            self._answer_inbox(connection)
        if connection.outbox:
            self._flush(connection)
        elif connection in self._waiting and engine.ready:
            del self._waiting[connection]

    def _answer_one(self, connection: Connection, frames: Frames) -> None:
        """A request that comes alone while nothing waits: its answer is sent without a queue, as far as it goes."""
        answer = self._answer(frames, monotonic())
        octets = None if answer is None else encode_small(answer)
        if octets is not None:
            try:
                sent = connection.socket.send(octets)
            except OSError:
                sent = 0  # _flush meets it again, and knows what to do
            if sent < len(octets):
                connection.queue_octets(memoryview(octets)[sent:])
        elif answer is not None:
            connection.queue(answer)

    def _answer_inbox(self, connection: Connection) -> None:
        received = monotonic()
        inbox = connection.inbox
        while inbox and connection.outbox_bytes < BACKLOG_BYTES:
            frames = inbox.popleft()
            envelope: Frames = []
            if not frames[0]:  # a REQ's delimiter: whatever stands before the message goes back before the answer
                envelope = [frames.pop(0)]
                if not frames:
                    continue
            answer = self._answer(frames, received)
            if answer is not None:
                connection.queue([*envelope, *answer] if envelope else answer)

    def _writable(self, connection: Connection) -> None:
        self._flush(connection)
        if connection.inbox and connection.outbox_bytes < BACKLOG_BYTES and connection in self._connections:
            self._answer_inbox(connection)
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        before = connection.outbox_bytes
        try:
            done = connection.flush()
        except OSError as error:
            self._close(connection, str(error))
            return
        events = READ
        if not done:
            held = connection.outbox_bytes >= BACKLOG_BYTES or connection.inbox
            events = WRITE if held else READ | WRITE
            if connection.engine.ready and (connection.outbox_bytes < before or connection not in self._waiting):
                connection.since = monotonic()
            self._waiting.setdefault(connection)
        elif connection.engine.ready and not connection.inbox:
            self._waiting.pop(connection, None)
        elif connection.inbox:
            events = WRITE
        if events != connection.events:
            connection.events = events
            self._selector.modify(connection.socket, events, connection)

    def _refuse(self, connection: Connection, error: RemoteProtocolError) -> None:
        """Says why where the protocol has words for it, and closes."""
        with contextlib.suppress(OSError):
            if output := connection.engine.output():
                connection.queue_octets(output)
                connection.flush()
        self._close(connection, str(error))

    def _close(self, connection: Connection, why: str = "closed by the client") -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._waiting.pop(connection, None)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        connection.inbox.clear()
        connection.outbox.clear()
        log.debug("connection closed why=%s", why)

    def _close_all(self) -> None:
        for connection in list(self._connections):
            self._close(connection, "the server stops")
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _has_newcomer(listening: socket.socket) -> bool:
    poll = select.poll()  # needs no descriptor of its own
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))
