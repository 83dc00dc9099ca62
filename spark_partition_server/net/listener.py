"""The direct lane, server side: a selector loop that speaks ZMTP as a ROUTER over plain sockets.

One thread accepts, reads and writes (``connections``). Every message is handed to ``answer`` as soon as it has been
read; what that returns leaves with the next send, and answers that come later are handed in with ``Caller.send``, from
any thread.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..wire.zmtp import Frames
from .clock import monotonic
from .connection import BACKLOG_BYTES, Caller, Connection
from .connections import BURST, HEAD_BYTES_MAX, READ, TICK, Answer, Connections
from .memory import IDLE

__all__ = ["BACKLOG_BYTES", "BURST", "HEAD_BYTES_MAX", "Answer", "Caller", "Connection", "Listener"]

log = logging.getLogger("spark_partition_server.net")


class Listener(Connections):
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
        super().__init__(
            listening,
            answer,
            message_bytes_max,
            connections_max,
            handshake_timeout,
            write_timeout,
            sift=sift,
            gone=gone,
            memory_bytes_max=memory_bytes_max,
        )
        self._work = work
        self._busy = busy
        self._handed: deque[Callable[[], None]] = deque()  # by other threads, to be run in this one
        self._work_in: float | None = None
        self._stop_by: float | None = None
        self._stopping = threading.Event()
        self._woken = False
        # Opened by ``serve``: a listener that is never served has nothing to close but what it was given.
        self._wake_out: socket.socket
        self._wake_in: socket.socket | None = None

    def serve(self) -> None:
        """Serves in this thread until ``stop``, then closes everything."""
        self._thread = threading.get_ident()
        with contextlib.ExitStack() as opened:
            opened.callback(self._accepting.close)
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._wake_out, self._wake_in = socket.socketpair()
            self._woken = False  # whoever handed something in before could not wake it
            for one in (self._wake_out, self._wake_in):
                opened.callback(one.close)
                one.setblocking(False)
            opened.callback(self._close_all, "the server stops")
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
        if not self._woken and self._wake_in is not None:  # else ``serve`` looks before it sleeps, and nobody was woken
            self._woken = True
            self._wake()

    def serves_here(self) -> bool:
        """Whether this thread is the one that serves."""
        return threading.get_ident() == self._thread

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
            self._flush_touched()
        if self._has_to_tick():
            self._tick(monotonic())
        if self._has_to_rest() and (now := monotonic()) >= self._rest_at:
            self._rest(now)

    def _pause(self) -> float | None:
        if self._handed:
            return 0.0
        pause = TICK if self._has_to_tick() else IDLE if self._has_to_rest() else None
        if self._work_in is None:
            return pause
        return self._work_in if pause is None or self._work_in < pause else pause

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

    def _answer_delivered(self, caller: Caller, frames: Frames, received: float) -> None:
        answer = self._answer(frames, received, caller)
        if answer is not None:
            caller.send(answer)
