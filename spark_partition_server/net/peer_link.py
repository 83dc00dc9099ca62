"""One connection between two ranks: a socket that never blocks, our engine, and what waits to be sent."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice

from ..core.peers.links import Identity
from ..wire.codec import PREAMBLE_BYTES
from ..wire.messages import FIELDS_BYTES_MAX, FRAMES_MAX, Frame
from ..wire.zmtp import Engine, Frames, Limits, allocate, encode_small, encode_vector

__all__ = ["PeerLink"]

READ_BYTES = 64 * 1024
ROOM_BYTES = 1 << 20  # of a long frame taken by one system call
VECTOR_MAX = 128  # buffers of one sendmsg
STRANGER_BYTES = PREAMBLE_BYTES + FIELDS_BYTES_MAX  # until it has said a true MEET
ANY_BYTES = 1 << 62  # afterwards: who may send what is for the machine to see


class PeerLink:
    """See above.

    Args:
        connected: the socket, not blocking; connecting perhaps.
        to: whom we have connected to; None: somebody who has connected to us.

    Attributes:
        socket: the same.
        to: whose connection it is, once that is known.
        ours: we have opened it.
        met: both sides have said MEET: it carries messages.
        said: we have said MEET.
        connecting: the kernel has yet to say whether it is connected.
        watched: the owner waits until it can be written to.
        body_into: memory of a user's that a long frame is being received into.
    """

    __slots__ = (
        *("_engine", "_gone", "_limits", "_out", "_queued", "_tickets"),
        *("body_into", "connecting", "met", "ours", "said", "socket", "to", "watched"),
    )

    def __init__(self, connected: socket.socket, to: Identity | None) -> None:
        self.socket = connected
        self.to = to
        self.ours = to is not None
        self.met = self.said = self.watched = False
        self.connecting = self.ours
        self.body_into: memoryview | None = None
        self._limits = Limits(STRANGER_BYTES, FRAMES_MAX)
        self._engine = Engine(b"DEALER" if self.ours else b"ROUTER", self._limits)
        self._out: deque[Frame] = deque()
        self._queued = self._gone = 0  # octets ever queued, and gone
        self._tickets: deque[tuple[int, int]] = deque()
        self._push(self._engine.output())

    @property
    def ready(self) -> bool:
        """The handshake is over: messages may be sent."""
        return self._engine.ready

    @property
    def waiting(self) -> bool:
        """Octets wait to be sent."""
        return bool(self._out)

    def trust(self) -> None:
        """The other side has said a true MEET."""
        self.met = True
        self._limits.message_bytes = ANY_BYTES

    # ---------------------------------------------------------------------------------------------- sending

    def put(self, frames: Sequence[Frame], ticket: int | None = None) -> None:
        """Queues a message. ``ticket``: see ``write``."""
        small = encode_small(frames)
        if small is not None:
            self._push(small)
        else:
            for piece in encode_vector(frames):
                self._push(piece)
        if ticket is not None:
            self._tickets.append((self._queued, ticket))

    def _push(self, octets: Frame) -> None:
        if octets:
            self._out.append(octets)
            self._queued += len(octets)

    def write(self) -> list[int]:
        """Sends what the kernel takes; returns the tickets of messages that are gone whole. Raises ``OSError``."""
        out = self._out
        while out:
            try:
                count = self.socket.send(out[0]) if len(out) == 1 else self.socket.sendmsg(islice(out, VECTOR_MAX))
            except (BlockingIOError, InterruptedError):
                break
            self._gone += count
            while count:
                first = out[0]
                size = len(first)
                if count < size:
                    out[0] = memoryview(first)[count:]
                    break
                out.popleft()
                count -= size
        gone = []
        tickets = self._tickets
        while tickets and tickets[0][0] <= self._gone:
            gone.append(tickets.popleft()[1])
        return gone

    # -------------------------------------------------------------------------------------------- receiving

    def read(self) -> tuple[list[Frames], bool]:
        """The messages that have come whole, after one system call, and whether there may be more at once.

        Raises:
            OSError: the connection has ended.
            RemoteProtocolError: the other side breaks the protocol or a limit.
        """
        engine = self._engine
        room = engine.room()
        try:
            if room is not None:
                asked = min(len(room), ROOM_BYTES)
                count = self.socket.recv_into(room[:asked])
                messages = engine.filled(count) if count else []
                if messages:
                    self.body_into = None
            else:
                asked = READ_BYTES
                data = self.socket.recv(asked)
                count = len(data)
                messages = engine.receive(data) if count else []
        except (BlockingIOError, InterruptedError):
            return [], False
        if not count:
            raise ConnectionResetError("the other side has closed the connection")
        answer = engine.output()
        if answer:
            self._push(answer)
        return messages, count == asked

    def long_frame(self) -> tuple[Frames, int] | None:
        """The frames before a long frame that is under way, and its octets; None: there is none."""
        room = self._engine.room()
        if room is None or self.body_into is not None:
            return None
        return self._engine.begun, self._engine.long_octets

    def move(self, memory: memoryview) -> None:
        """Receives the rest of the long frame into a user's memory."""
        self._engine.move(memory)
        self.body_into = memory

    def move_away(self) -> None:
        """The long frame is not received into the user's memory any more."""
        if self.body_into is not None and self._engine.room() is not None:
            self._engine.move(allocate(len(self.body_into)))
        self.body_into = None
