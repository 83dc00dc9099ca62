"""One connection to a listener, and what every caller looks like to those who answer."""

from __future__ import annotations

import itertools
import select
import socket
import threading
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..wire.messages import Frame
from ..wire.zmtp import Engine, Frames, encode_small, encode_vector
from .shared import SharedMemory, close_all

__all__ = ["BACKLOG_BYTES", "Caller", "Connection", "has_ended"]

BACKLOG_BYTES = 1 << 20  # a client that leaves more than this unread is not read from, and nothing is run for it
VECTOR_MAX = 128  # buffers of one sendmsg, well under IOV_MAX
JOINED_BYTES = 256 * 1024  # small messages are joined into one buffer up to this size


class Caller(ABC):
    """Who asked: a connection, or somebody whose messages come another way. Callers are compared by identity.

    All of it may be used from any thread.
    """

    __slots__ = ()

    @property
    def congested(self) -> bool:
        """Whether so much waits for this caller that nothing more is to be made for it now."""
        return False

    @abstractmethod
    def send(self, frames: Sequence[Frame]) -> None:
        """Sends one message; dropped when the caller has gone. From any thread; does not block."""

    def hold(self, held: bool) -> None:  # noqa: B027  # a caller who cannot be held needs nothing
        """Asks for no more messages of this caller, or for more again. What comes all the same is answered."""


class Passed:
    """Octets that wait to be sent, with descriptors that are to go with the first of them."""

    __slots__ = ("descriptors", "octets")

    def __init__(self, octets: bytes, descriptors: list[int]) -> None:
        self.octets = octets
        self.descriptors = descriptors

    def __len__(self) -> int:
        return len(self.octets)


class Connection(Caller):
    """One connection of those that a thread serves.

    Attributes:
        answer, gone: what its messages are given to, and who is told of its end.
        opened: this side has made it.
        owner: whatever those know it by.
    """

    __slots__ = (
        "_backlog",
        "_hand",
        "_serving",
        "_small",
        "_small_bytes",
        "_touch",
        "answer",
        "closed",
        "engine",
        "enveloped",
        "events",
        "gone",
        "held",
        "inbox",
        "opened",
        "outbox",
        "outbox_bytes",
        "owner",
        "passing",
        "shared",
        "since",
        "socket",
    )

    def __init__(
        self,
        accepted: socket.socket,
        engine: Engine,
        now: float,
        serving: int,
        touch: Callable[[Connection], None],
        hand: Callable[[Callable[[], None]], None],
        answer: Callable[[Frames, float, Any], Sequence[Frame] | None],
        gone: Callable[[Any], None] | None = None,
        backlog_bytes: int = BACKLOG_BYTES,
        shared: SharedMemory | None = None,
    ) -> None:
        """``serving`` is the thread that serves; ``touch`` tells it of octets to send, ``hand`` hands it anything."""
        self.socket = accepted
        self.answer = answer
        self.gone = gone
        self.opened = False
        self.owner: Any = None
        self._backlog = backlog_bytes
        self.shared = shared
        self.passing = 0  # descriptors in the outbox
        self.engine = engine
        self.since = now  # accepted; later: the last time waiting octets were taken
        self.events = 1  # selectors.EVENT_READ
        self.closed = False
        self.held = False  # whoever answers wants no more of it now
        self.inbox: deque[tuple[Frames, float]] = deque()  # read and not yet answered, as too much waits in outbox
        self.outbox: deque[Frame | Passed] = deque()
        self.outbox_bytes = 0
        self.enveloped: Enveloped | None = None
        self._small: list[bytes] = []  # behind the outbox: small messages, joined when they are sent
        self._small_bytes = 0
        self._serving = serving
        self._touch = touch
        self._hand = hand

    @property
    def congested(self) -> bool:
        return self.outbox_bytes >= self._backlog

    def send(self, frames: Sequence[Frame]) -> None:
        if threading.get_ident() != self._serving:
            self._hand(lambda: self.send(frames))
        elif not self.closed:
            self.queue(frames)
            self._touch(self)

    def hold(self, held: bool) -> None:
        if threading.get_ident() != self._serving:
            self._hand(lambda: self.hold(held))
        elif not self.closed:
            self.held = held
            self._touch(self)

    def envelope(self) -> Enveloped:
        """The same connection as the caller of messages that came with a REQ's delimiter."""
        if self.enveloped is None:
            self.enveloped = Enveloped(self)
        return self.enveloped

    # ------------------------------------------------------------------------------- in the thread that serves

    def queue(self, frames: Sequence[Frame]) -> None:
        """Adds a message to what waits to be sent."""
        octets = encode_small(frames)
        if self.shared is not None and self.shared.borrowed and (due := self.shared.due()):
            self.queue_octets(due)
        if octets is None:
            if self.shared is not None:
                frames = self._lend(frames, self.shared)
            for buffer in encode_vector(frames):
                self.queue_octets(buffer)
        else:
            self._small.append(octets)
            self._small_bytes += len(octets)
            self.outbox_bytes += len(octets)
            if self._small_bytes > JOINED_BYTES:
                self._join()

    def queue_octets(self, octets: Frame) -> None:
        if self._small:
            self._join()
        self.outbox.append(octets)
        self.outbox_bytes += len(octets)

    def _lend(self, frames: Sequence[Frame], shared: SharedMemory) -> Sequence[Frame]:
        """Puts large frames in shared memory, and what is to go before the message in the outbox."""
        lent = shared.lend(frames, self.engine.lends)
        if lent is None:
            return frames
        head, rest, descriptors = lent
        self.queue_octets(head)
        if descriptors:
            self.outbox[-1] = Passed(head, descriptors)
            self.passing += 1
        return rest

    def recv(self, size: int) -> bytes:
        return self.socket.recv(size) if self.shared is None else self.shared.recv(self.socket, size)

    def recv_into(self, room: memoryview) -> int:
        return self.socket.recv_into(room) if self.shared is None else self.shared.recv_into(self.socket, room)

    def flush(self) -> bool:
        """Sends what the kernel takes now. Returns whether nothing waits any more."""
        if self._small:
            self._join()
        outbox = self.outbox
        while outbox:
            try:
                if self.passing:
                    sent = self._pass()
                elif len(outbox) == 1:
                    sent = self.socket.send(outbox[0])  # type: ignore[arg-type]  # nothing is passed: all of it is octets
                else:
                    batch = [outbox[i] for i in range(min(len(outbox), VECTOR_MAX))]
                    sent = self.socket.sendmsg(batch)  # type: ignore[arg-type]  # the same
            except BlockingIOError:
                return False
            self._sent(sent)
        return True

    def _pass(self) -> int:
        """Sends what comes before the next descriptors, or those with their octets."""
        first = self.outbox[0]
        if isinstance(first, Passed):
            sent = self.socket.sendmsg(
                [first.octets], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", first.descriptors))]
            )
            close_all(first.descriptors)  # they have gone with the first octet
            self.outbox[0] = first.octets
            self.passing -= 1
            return sent
        batch = list(itertools.takewhile(lambda one: not isinstance(one, Passed), self.outbox))
        return self.socket.sendmsg(batch[:VECTOR_MAX])  # type: ignore[arg-type]  # up to the first that is passed

    def close(self) -> None:
        self.closed = True
        self.socket.close()
        for one in self.outbox:
            if isinstance(one, Passed):
                close_all(one.descriptors)
        self.passing = 0
        if self.shared is not None:
            self.shared.close()
        self.inbox.clear()
        self.outbox.clear()
        self._small.clear()
        self.outbox_bytes = self._small_bytes = 0

    def _join(self) -> None:
        self.outbox.append(b"".join(self._small) if len(self._small) > 1 else self._small[0])
        self._small.clear()
        self._small_bytes = 0

    def _sent(self, count: int) -> None:
        self.outbox_bytes -= count
        while count:
            first = self.outbox[0]
            if count < len(first):
                self.outbox[0] = memoryview(first)[count:]  # type: ignore[arg-type]  # passed ones have been unwrapped
                return
            count -= len(first)
            self.outbox.popleft()


class Enveloped(Caller):
    """A connection as it is seen through a REQ's delimiter: the empty frame goes back before every answer."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def congested(self) -> bool:
        return self.connection.congested

    def send(self, frames: Sequence[Frame]) -> None:
        self.connection.send([b"", *frames])

    def hold(self, held: bool) -> None:
        self.connection.hold(held)


def has_ended(plain: socket.socket) -> bool:
    """Whether the other side has closed a connection, also where there is more to read before its end."""
    poll = select.poll()
    poll.register(plain, getattr(select, "POLLRDHUP", 0))  # Linux; elsewhere a reset is seen, and no gentle end
    return bool(poll.poll(0))
