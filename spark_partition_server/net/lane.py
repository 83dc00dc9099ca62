"""The direct lane, client side: one blocking connection, used in the caller's own thread.

Send, receive, return: no thread in between. Deadlines are kept by the kernel's own socket timeouts, which cost a system
call only when they change.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import struct
import threading
from array import array
from collections.abc import Sequence

from ..errors import RemoteProtocolError
from ..wire.codec import PREAMBLE_BYTES
from ..wire.messages import FIELDS_BYTES_MAX, FRAMES_MAX, Frame
from ..wire.zmtp import Allocate, Engine, Frames, Limits, allocate, encode_small, encode_vector
from .clock import monotonic
from .endpoints import Beginning, connect, cut
from .shared import SharedMemory, close_all

__all__ = ["Lane"]

READ_BYTES = 64 * 1024
ROOM_BYTES = 256 * 1024  # of a long frame taken by one system call: it is still in the cache when the next one comes
VECTOR_MAX = 128  # buffers of one sendmsg, well under IOV_MAX
HEAD_BYTES_MAX = PREAMBLE_BYTES + FIELDS_BYTES_MAX  # before the payload, which is what senders measure
SHORTEST_TIMEOUT = 0.0005  # the kernel takes 0 for "for ever"
LONGEST_TIMEOUT = 1e6  # receive() begins again after it
SLACK = 0.05  # seconds by which a system call may wait longer than the deadline before the timeouts are set again
_TIMEVAL = struct.Struct("@ll")


class Lane:
    """A connection to a server's direct lane, or to a coordinator's ROUTER.

    Making one connects and shakes hands, or begins to.

    Args:
        endpoint: ``tcp://host:port``, ``ipc://path`` or ``ipc://@name``.
        deadline: by which that must be done (``monotonic``).
        message_bytes_max: the largest payload accepted, all frames of a message together.
        memory: where long frames are received into.
        shake: wait until it is connected and the other side has said its half of the handshake. Else nothing is waited
            for: ``greet``, and the lane is usable once ``ready``, which ``take`` sees to.
        shared: memory to share with the other side, over a Unix socket.

    Attributes:
        endpoint: what errors call the other side.
        used: when it was used last; kept by its owner.
        patience: seconds that ``ready`` may be waited for; after them, ``again``.

    Raises:
        TimeoutError: not done by the deadline.
        OSError: refused, unreachable, closed by the other side.
        RemoteProtocolError: the other side does not speak the protocol.
    """

    __slots__ = (
        *("__weakref__", "_armed", "_beginning", "_engine", "_pid", "_polls", "_shared", "_socket", "_whole"),
        *("endpoint", "patience", "used"),
    )

    def __init__(
        self,
        endpoint: str,
        deadline: float,
        message_bytes_max: int,
        memory: Allocate = allocate,
        *,
        shake: bool = True,
        shared: SharedMemory | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.used = 0.0
        self._armed = math.inf
        self._pid = os.getpid()
        self._shared = shared
        self._polls = _signals_are_handled()
        # Fewer wake-ups: a system call returns with all it was asked for, or at the end of its time.
        self._whole = 0 if self._polls else socket.MSG_WAITALL
        self._engine = Engine(b"DEALER", Limits(message_bytes_max + HEAD_BYTES_MAX, FRAMES_MAX), memory, shared)
        self._beginning: Beginning | None = None
        if not shake:
            self._beginning = Beginning(endpoint)
            self.patience = (deadline - monotonic()) / max(self._beginning.left, 1)
            self._begin(self._beginning)
            return
        self._socket = connect(endpoint, deadline)
        try:
            self._handshake(deadline)
            self._socket.settimeout(None)  # from here on the kernel's timeouts, see arm()
        except BaseException:
            self._socket.close()
            raise

    def arm(self, timeout: float) -> None:
        """Sets how long one system call may wait, if that differs from before."""
        if timeout != self._armed:
            fraction, seconds = math.modf(min(max(timeout, SHORTEST_TIMEOUT), LONGEST_TIMEOUT))
            packed = _TIMEVAL.pack(int(seconds), int(fraction * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)
            self._armed = timeout

    def send(self, frames: Sequence[Frame], deadline: float) -> None:
        """Sends one message.

        Raises:
            TimeoutError, OSError: the message did not leave whole, so the other side cannot act on it. The lane is
                closed.
        """
        octets = encode_small(frames)
        if octets is not None:
            self.send_octets(octets, deadline)
            return
        try:
            self._send_large(frames, deadline)
        except BaseException:  # Ctrl-C too: what is sent next must not become the rest of this message
            self.close()
            raise

    def send_octets(self, octets: bytes, deadline: float) -> None:
        """Sends one message that has been encoded. Raises as ``send``."""
        try:
            if self._shared is not None and self._shared.borrowed:
                octets = self._shared.due() + octets
            try:
                sent = self._socket.send(octets, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent < len(octets):
                self._send_vector([memoryview(octets)[sent:]], deadline)
        except BaseException:
            self.close()
            raise

    def receive(self, deadline: float) -> list[Frames]:
        """Waits for messages; returns at least one.

        Raises:
            TimeoutError: none came by the deadline. The lane can be used on.
            OSError: the connection is lost, and the lane closed.
            RemoteProtocolError: the other side broke the protocol; the lane is closed.
        """
        engine = self._engine
        while True:
            remaining = deadline - monotonic()
            if self._armed > remaining + SLACK:
                self.arm(max(remaining, 0.0))  # what is here already is taken even then
            try:
                if self._polls:
                    self._poll(select.POLLIN, remaining)
                count, messages = self._read(0, self._whole)
            except BlockingIOError:
                count, messages = -1, []
                self._armed = math.inf  # to be set again: it was shorter than what remains
            except BaseException:  # Ctrl-C too: octets may have been taken and not been understood
                self.close()
                raise
            output = engine.output()
            if output:  # PONGs: also when a message came with the PING, or they would pile up
                try:
                    self._socket.sendall(output)
                except OSError:  # the next call on the socket says so; what has come is not lost for that
                    self.close()
            if messages:
                return messages
            if count == 0:
                raise ConnectionResetError("the other side closed the connection")
            if remaining <= 0:
                raise TimeoutError("no answer by the deadline")

    # What follows waits for nothing: for an owner who has several lanes in hand and waits for all of them.

    @property
    def ready(self) -> bool:
        """Whether the handshake is over."""
        return self._engine.ready

    @property
    def held(self) -> bool:
        """Whether messages are here that ``take`` would return without looking at the descriptor."""
        return False

    def greet(self) -> list[Frame]:
        """This side's half of the handshake, for ``push`` once the descriptor can be written to."""
        return [self._engine.output()]

    def again(self) -> bool:
        """Begins to connect to the next address; ``greet``'s octets are still to be pushed. False: there is none."""
        self._socket.close()
        if self._beginning is None or not self._beginning.left:
            return False
        try:
            self._begin(self._beginning)
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        """The descriptor to wait for, which lanes may share; -1 once the lane is closed."""
        return self._socket.fileno()

    def offer(self, frames: Sequence[Frame]) -> list[Frame]:
        """Sends as much of a message as the kernel takes now; returns the rest, which is to be given to ``push``.

        Raises:
            OSError: the connection is lost, and the lane closed.
        """
        octets = encode_small(frames)
        due = self._shared.due() if self._shared is not None else b""
        return self.push([*([due] if due else ()), *(encode_vector(frames) if octets is None else (octets,))])

    def push(self, vector: list[Frame]) -> list[Frame]:
        """Sends more of what ``offer`` left; returns what is still left. Raises the same."""
        try:
            while vector:
                if len(vector) == 1:
                    sent = self._socket.send(vector[0], socket.MSG_DONTWAIT)
                else:
                    sent = self._socket.sendmsg(vector[:VECTOR_MAX], (), socket.MSG_DONTWAIT)
                _drop_sent(vector, sent)
        except BlockingIOError:
            pass
        except BaseException:
            self.close()
            raise
        return vector

    def take(self) -> list[Frames]:
        """The messages that are here now; there may be none.

        Raises:
            OSError: the connection is lost, and the lane closed.
            RemoteProtocolError: the other side broke the protocol; the lane is closed.
        """
        try:
            count, messages = self._read(socket.MSG_DONTWAIT, socket.MSG_DONTWAIT)
            if output := self._engine.output():
                self._socket.sendall(output)
        except BlockingIOError:
            return []
        except BaseException:
            self.close()
            raise
        if count == 0:
            self.close()
            raise ConnectionResetError("the other side closed the connection")
        return messages

    def lost(self) -> bool:
        """Whether the other side has closed the connection, or nothing reaches it, as far as this host knows."""
        if not self._engine.ready:
            return False  # ``take`` will say so
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return cut(self._socket)
        except OSError:
            return True

    def release(self) -> tuple[socket.socket, Engine]:
        """Gives the connection to somebody else, who closes it. The lane is of no further use."""
        return socket.socket(fileno=self._socket.detach()), self._engine

    def close(self) -> None:
        """Closes this process's end of the connection. Twice is harmless."""
        self._socket.close()
        if self._shared is not None:
            self._shared.close()

    def __del__(self) -> None:
        # Lanes belong to a thread and go with it, or with a client that nobody closed.
        try:  # noqa: SIM105 - at the interpreter's end modules may be gone already
            self._socket.close()
        except AttributeError:
            pass

    def abort(self) -> None:
        """Ends the connection, also for a thread that waits on it. Twice is harmless."""
        if self._pid == os.getpid():  # a forked child must not end its parent's connection
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self.close()

    # --------------------------------------------------------------------------------------------- helpers

    def _begin(self, beginning: Beginning) -> None:
        self._socket = beginning.next()
        self._socket.settimeout(None)  # what waits for nothing says so by itself

    def _read(self, flags: int, room_flags: int) -> tuple[int, list[Frames]]:
        """Receives once: how many octets (0: the end), and the messages that are whole now."""
        engine, shared = self._engine, self._shared
        room = engine.room()
        if room is None:
            plain = self._socket
            data = plain.recv(READ_BYTES, flags) if shared is None else shared.recv(plain, READ_BYTES, flags)
            return len(data), engine.receive(data) if data else []
        room = room[:ROOM_BYTES]
        if shared is None:
            count = self._socket.recv_into(room, 0, room_flags)
        else:
            count = shared.recv_into(self._socket, room, room_flags)
        return count, engine.filled(count) if count else []

    def _handshake(self, deadline: float) -> None:
        engine = self._engine
        while True:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise TimeoutError("no handshake by the deadline")
            self._socket.settimeout(remaining)
            output = engine.output()
            if output:
                self._socket.sendall(output)
            if engine.ready:
                return
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("the other side closed the connection during the handshake")
            if engine.receive(data):
                raise RemoteProtocolError("a message came before any was asked for")

    def _send_large(self, frames: Sequence[Frame], deadline: float) -> None:
        """Sends a message that is not small: straight from its frames, or in shared memory."""
        head = b"" if self._shared is None else self._shared.due()
        lent = self._shared.lend(frames, self._engine.lends) if self._shared is not None else None
        if lent is None:
            vector = encode_vector(frames)
            self._send_vector([head, *vector] if head else vector, deadline)
            return
        before, frames, descriptors = lent
        try:
            self._send_vector([head + before, *encode_vector(frames)], deadline, descriptors)
        finally:
            close_all(descriptors)

    def _send_vector(self, vector: list[Frame], deadline: float, descriptors: Sequence[int] = ()) -> None:
        flags = socket.MSG_DONTWAIT if self._polls else 0
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        while vector:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise TimeoutError("the other side does not read")
            if self._armed > remaining + SLACK:
                self.arm(remaining)
            try:
                if self._polls:
                    self._poll(select.POLLOUT, remaining)
                sent = self._socket.sendmsg(vector[:VECTOR_MAX], passed, flags)
                passed = []  # they have gone with the first octet
            except BlockingIOError:
                self._armed = math.inf
                continue
            _drop_sent(vector, sent)

    def _poll(self, event: int, timeout: float) -> None:
        """Waits until the socket is ready, or raises BlockingIOError."""
        if self._socket.fileno() < 0:
            return  # closed by another thread: the call on the socket says so
        poll = select.poll()
        poll.register(self._socket, event)
        if not poll.poll(min(max(timeout, 0.0), LONGEST_TIMEOUT) * 1000):
            raise BlockingIOError


def _drop_sent(vector: list[Frame], sent: int) -> None:
    """Takes octets that have left away from the front of ``vector``."""
    while sent:
        first = vector[0]
        if sent < len(first):
            vector[0] = memoryview(first)[sent:]
            return
        sent -= len(first)
        vector.pop(0)


def _signals_are_handled() -> bool:
    """Whether this thread may be interrupted, other than by Ctrl-C, to run a signal handler in Python.

    Python then begins the interrupted system call again with its whole timeout: a timer's signals could put the end of
    a call off for ever. ``poll`` keeps its deadline, and costs a microsecond.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    return any(callable(signal.getsignal(number)) for number in signal.valid_signals() - {signal.SIGINT})
