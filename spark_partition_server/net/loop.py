"""The driver of a machine of ``core`` on a ZeroMQ socket: one thread, one poller, one way to wake it.

Receive, feed the machine, perform its effects, sleep until its deadline or the next message, tick. A ZeroMQ socket
belongs to one thread for life; other threads hand in commands.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import zmq

from ..core.effects import Effect, Forward, Send
from ..core.pace import Pace
from ..errors import ProtocolError, RemoteProtocolError
from ..wire import codec
from ..wire.messages import FRAMES_MAX, Frame, Kind, Message
from .clock import monotonic
from .door import Door, is_of_the_door

__all__ = ["Loop", "Machine", "Passing"]

log = logging.getLogger("spark_partition_server.net")

BURST = 256  # messages taken before the descriptor is looked at again
LATE = 0.1  # seconds by which a tick waits at the longest for what has come already
LONGEST_SLEEP = 1.0  # seconds

# As plain numbers: to join two members of an enum costs more than to send a frame.
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS, READ, WRITE = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.POLLOUT)


class Machine(Protocol):
    """What a loop drives."""

    @property
    def deadline(self) -> float | None: ...
    def receive(self, message: Message, sender: bytes, now: float) -> list[Effect]: ...
    def tick(self, now: float) -> list[Effect]: ...


class Passing(Protocol):
    """What takes messages of relayed calls, before they are decoded."""

    @property
    def deadline(self) -> float | None: ...
    def receive(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward] | None: ...
    def tick(self, now: float) -> list[Forward]: ...
    def unreachable(self, to: bytes, frames: Sequence[Frame]) -> list[Forward]: ...
    def full(self, to: bytes, frames: Sequence[Frame], now: float) -> list[Forward]: ...


class Loop:
    """A thread that owns a socket and a machine.

    Args:
        name: of the thread.
        context: terminated with the loop.
        bound: a ROUTER or a DEALER.
        machine: the rules; where they have a hot path for heartbeats (``beat``), it is asked first.
        run_id: of the messages sent and accepted.
        perform: called in the loop's thread with every effect that is not ``Send``; must not block.
        ended: called in the loop's thread when it is over, after ``failure`` has been set.
        passing: takes what is relayed.
        door: the relay's, opened and closed with the loop.

    Attributes:
        failure: what ended the thread before its time, if anything did.
    """

    def __init__(
        self,
        name: str,
        context: zmq.Context[Any],
        bound: zmq.Socket[bytes],
        machine: Machine,
        run_id: bytes,
        perform: Callable[[Effect], None],
        ended: Callable[[], None] | None = None,
        passing: Passing | None = None,
        door: Door | None = None,
    ) -> None:
        self.failure: BaseException | None = None
        self._context = context
        self._socket = bound
        self._routes = bound.type == zmq.ROUTER
        self._frames_kept = FRAMES_MAX + (2 if self._routes else 1)  # the sender's, and one more than is allowed
        self._machine = machine
        self._beat: Callable[[int, int, bytes, float], bool] | None = getattr(machine, "beat", None)
        self._beating = codec.preamble(Kind.HEARTBEAT, run_id)
        self._run_id = run_id
        self._perform = perform
        self._ended = ended
        self._passing = passing
        self._door = door
        self._stirred = True  # the socket was used since it was last asked what has happened to it
        self._backlog: deque[Forward] = deque()  # of a DEALER that cannot send now
        self._commands: deque[Callable[[float], list[Effect]]] = deque()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        # The methods of pyzmq's core: its Python layer doubles the cost of a small frame.
        core: Any = super(zmq.Socket, bound)
        self._put, self._receive, self._events = core.send, core.recv, core.get
        self._due = -math.inf  # when the machine wants its tick
        self._pace = Pace()
        self._woken = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def call(self, command: Callable[[float], list[Effect]]) -> None:
        """Runs a command of the machine in the loop's thread, with ``now``, and performs what it returns."""
        self._commands.append(command)
        if not self._woken:
            self._wake()

    def stop(self, timeout: float = 5.0) -> bool:
        """Runs the commands handed in so far, then ends the thread and closes everything. Twice is harmless.

        Returns:
            Whether the thread has ended within ``timeout`` seconds.
        """
        self._stopping = True
        self._wake()
        if self._thread.ident is None:
            self._close()  # it was never started
        elif threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            # Its descriptor says only that something has changed, once: so the socket is asked last before each wait.
            poller = select.poll()
            poller.register(int(self._socket.fd), select.POLLIN)
            wake = self._wake_out.fileno()
            poller.register(wake, select.POLLIN)
            if self._door is not None:
                self._door.open(self._forward, threading.get_ident())
                poller.register(self._door.fileno(), select.POLLIN)
            more = relaying = False
            while not self._stopping:
                # what the door has said to the socket may have taken the sign that it has something
                hurry = more or relaying or self._stirred
                ready = [one for one, _ in poller.poll(0 if hurry else self._sleep_ms())]
                if self._door is not None and (relaying or self._is_wanted(self._door, ready)):
                    self._pace.urgent(monotonic())
                    relaying = self._door.turn()
                    if not more and self._is_quiet(self._door, ready):
                        continue
                if self._routes and (wait := self._pace.turn(monotonic())):
                    time.sleep(wait)
                more = self._turn(wake in ready)
                if self._door is not None:
                    self._door.settle()
            self._turn(True)
        except BaseException as error:
            self.failure = error
            log.exception("loop failed name=%s", self._thread.name)
        finally:
            self._close()
            if self._ended is not None:
                self._ended()

    @staticmethod
    def _is_wanted(door: Door, ready: list[int]) -> bool:
        return door.fileno() in ready or ((deadline := door.deadline) is not None and monotonic() >= deadline)

    def _is_quiet(self, door: Door, ready: list[int]) -> bool:
        """Whether nobody but the door wants anything: to ask libzmq costs as much as to pass a message on."""
        at_door = door.fileno()
        return (
            not self._stirred
            and not self._commands
            and all(one == at_door for one in ready)
            and monotonic() < self._due
        )

    def _turn(self, woken: bool) -> bool:
        """Everything that is to be done now. Returns whether there is more."""
        if woken:
            self._drain_wake()
        self._obey()
        more = self._take()
        now = monotonic()
        # Behind what has come: a loop that did not run for a moment must not find missing what was there in time.
        if now >= self._due and not (more and now < self._due + LATE):
            self._due = math.inf
            self._apply(self._machine.tick(now))
            if self._passing is not None:
                self._forward(self._passing.tick(now))
            more = self._take()  # to send may have used up what the descriptor had to say
        return more

    def _take(self) -> bool:
        """Takes messages, and sends what waited to be sent. Returns whether there are more."""
        for _ in range(BURST):
            events = self._events(EVENTS)
            if self._backlog and events & WRITE:
                held, self._backlog = self._backlog, deque()
                self._forward(held)
            elif events & READ:
                self._receive_one()
            else:
                self._stirred = False
                return False
        return True

    def _obey(self) -> None:
        while self._commands:
            self._command(self._commands.popleft())

    def _command(self, command: Callable[[float], list[Effect]]) -> None:
        try:
            self._apply(command(monotonic()))
        except ProtocolError:  # it would have made a message that breaks a limit
            log.exception("command failed")

    def _sleep_ms(self) -> int:
        if self._commands:
            return 0
        deadline = self._machine.deadline
        other = None if self._passing is None else self._passing.deadline
        if other is not None and (deadline is None or other < deadline):
            deadline = other
        self._due = due = math.inf if deadline is None else deadline
        if self._door is not None and (at_door := self._door.deadline) is not None and at_door < due:
            due = at_door
        sleep = min(max(due - monotonic(), 0.0), LONGEST_SLEEP)
        return int(sleep * 1000) + 1  # rounded up: waking early would only be a turn for nothing

    def _receive_one(self) -> None:
        """Takes one message. Frames are counted while they come, so that none piles them up."""
        receive = self._receive
        # a zmq.Frame says whether another one follows; to ask the socket costs more than to receive
        frame = receive(NOBLOCK, False)
        frames: list[bytes] = [frame.bytes]
        while frame.more:
            frame = receive(0, False)
            if len(frames) < self._frames_kept:
                frames.append(frame.bytes)
        if self._commands:  # handed in before this message was sent, for all that anybody can tell
            self._obey()
        sender = frames.pop(0) if self._routes else b""
        if is_of_the_door(sender):
            return  # it has chosen a name under which it could get what is for others
        if self._beat is not None:
            fields = codec.read_heartbeat(frames, self._beating)
            if fields is not None and self._beat(*fields, sender, monotonic()):
                self._say(sender, frames, "HEARTBEAT")
                return
        if self._passing is not None and frames:
            now = monotonic()
            passed = self._passing.receive(sender, frames, now)
            if passed is not None:
                self._pace.urgent(now)
                self._forward(passed)
                return
        try:
            message = codec.decode(frames, self._run_id)
        except RemoteProtocolError as error:
            log.debug("malformed error=%s", error)
            malformed = getattr(self._machine, "malformed", None)
            if malformed is not None and frames:
                self._apply(malformed(error, sender), codec.run_id_of(frames[0], self._run_id))
            return
        log.debug("received kind=%s", message.kind.name)
        self._apply(self._machine.receive(message, sender, monotonic()))

    def _apply(self, effects: list[Effect], run_id: bytes | None = None) -> None:
        for effect in effects:
            try:
                if isinstance(effect, Forward):
                    self._forward((effect,))
                elif isinstance(effect, Send):
                    self._send(effect, run_id or self._run_id)
                else:
                    self._perform(effect)
            except Exception:
                log.exception("effect failed effect=%r", type(effect).__name__)

    def _send(self, effect: Send, run_id: bytes) -> None:
        kind = effect.message.kind.name
        try:
            self._say(effect.to, codec.encode(effect.message, run_id), kind)
        except ProtocolError as error:
            log.error("unsent kind=%s error=%s", kind, error)

    def _say(self, to: bytes | None, frames: Sequence[Frame], kind: str) -> None:
        self._stirred = True
        try:
            if to is not None:
                self._put(to, NOBLOCK_MORE)
            for frame in frames[:-1]:
                self._put(frame, NOBLOCK_MORE)
            self._put(frames[-1], NOBLOCK)
            log.debug("sent kind=%s", kind)
        except zmq.Again:  # at the first frame or not at all: it does not read; what matters is said again later
            log.warning("dropped kind=%s: the other side does not read", kind)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:  # the connection has gone; its member will come again or be lost
                raise
            log.debug("gone kind=%s", kind)

    def _forward(self, forwards: Iterable[Forward]) -> None:
        """Sends what is relayed. None of it is dropped: what cannot be sent is waited for, or answered for."""
        put = self._put
        for forward in forwards:
            if self._backlog:
                self._backlog.append(forward)
                continue
            to, frames = forward
            if self._door is not None and to is not None and is_of_the_door(to):
                if following := self._door.send(to, frames):
                    self._forward(following)
                continue
            self._stirred = True
            try:
                if to is not None:
                    put(to, NOBLOCK_MORE)
                for frame in frames[:-1]:
                    put(frame, NOBLOCK_MORE)
                put(frames[-1], NOBLOCK)
            except zmq.Again:
                if to is None or self._passing is None:
                    self._backlog.append(forward)
                else:
                    self._forward(self._passing.full(to, frames, monotonic()))
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                if to is not None and self._passing is not None:
                    self._forward(self._passing.unreachable(to, frames))

    # ---------------------------------------------------------------------------------------------- waking

    def _wake(self) -> None:
        self._woken = True
        with contextlib.suppress(OSError):  # it is awake already, or has ended
            self._wake_in.send(b"\0")

    def _drain_wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_out.recv(4096)
        # behind it, or the octet of who comes in between is taken and the next one believes us awake; and before the
        # commands are looked at
        self._woken = False

    def _close(self) -> None:
        if self._door is not None:
            self._door.close()
        self._socket.close()  # with the linger it was made with
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()
