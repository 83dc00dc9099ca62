"""The direct lane, client side, for many calls at once: a connection on which nothing waits, and a watch over many.

What is to be sent is collected and leaves with one system call for many messages; what the kernel does not take stays
with the connection. Who calls ``take``, ``add`` or ``send`` when is the business of ``calling.submitter``, which also
sees to it that no two threads do the same at the same time.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
from collections.abc import Sequence
from typing import Any

from ..errors import RemoteProtocolError
from ..wire.codec import decode_fields
from ..wire.messages import Frame
from ..wire.zmtp import Engine, Frames, encode_small, encode_vector
from .endpoints import cut
from .lane import Lane

__all__ = ["READ", "WRITE", "Channel", "Watch"]

READ_BYTES = 64 * 1024  # from 128 KiB on each buffer is mapped anew, which costs five times the read
VECTOR_MAX = 128  # buffers of one sendmsg, well under IOV_MAX
JOINED_BYTES = 64 * 1024  # up to this much is joined to one piece before it is sent

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Channel:
    """A connection to a server that many calls share.

    Args:
        lane: a connection that has been made and is given up to the channel.
        line: whatever its owner knows the channel by.

    Attributes:
        endpoint: of the server.
        added: octets that were to be sent, ever.
        sent: octets of those that the kernel has taken.
        handed: octets that it may have taken: while ``send`` is under way they may have arrived already.
        count: messages added since ``collect``.
        dead: why nothing can be sent any more; what the server has sent can still be there to be read.
    """

    __slots__ = (
        *("_engine", "_outbox", "_pid", "_poll", "_socket"),
        *("added", "count", "dead", "endpoint", "handed", "line", "sent"),
    )

    def __init__(self, lane: Lane, line: Any) -> None:
        self.line = line
        self.endpoint = lane.endpoint
        self.added = self.sent = self.handed = self.count = 0
        self.dead: OSError | None = None
        self._pid = os.getpid()
        self._engine: Engine
        self._socket, self._engine = lane.release()
        self._socket.setblocking(False)
        self._outbox: list[Frame] = []
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    # ------------------------------------------------------------------------------------------- sending

    def add(self, frames: Sequence[Frame]) -> int:
        """Adds a message to what is to be sent. Returns ``added``: it has not left while ``handed`` is below that.

        Long frames are not copied: they must not change until they have left.
        """
        octets = encode_small(frames)
        if octets is not None:
            self._outbox.append(octets)
            self.added += len(octets)
        else:
            for buffer in encode_vector(frames):
                self.add_octets(buffer)
        self.count += 1
        return self.added

    def add_small(self, octets: bytes) -> int:
        """Adds a message, as octets, and returns as ``add`` does."""
        self._outbox.append(octets)
        self.count += 1
        self.added = mark = self.added + len(octets)
        return mark

    def add_octets(self, octets: Frame) -> None:
        """Adds octets as they are."""
        self._outbox.append(octets)
        self.added += len(octets)

    @property
    def waiting(self) -> int:
        """Octets that have not been sent."""
        return self.added - self.sent

    def collect(self) -> list[Frame]:
        """Hands out what is to be sent, once. Then: ``send`` it, and ``put_back`` what that returned."""
        outbox, self._outbox, self.count = self._outbox, [], 0
        self.handed = self.added
        return outbox

    def put_back(self, rest: list[Frame]) -> None:
        """The kernel did not take ``rest``: it goes before all that was added meanwhile."""
        self._outbox[:0] = rest
        self.handed = self.sent

    def send(self, pieces: list[Frame]) -> list[Frame]:
        """Gives octets to the kernel as far as it takes them now; returns the others.

        Raises:
            OSError: the connection is lost.
        """
        if len(pieces) > 1 and self.waiting <= JOINED_BYTES:
            pieces = [b"".join(pieces)]
        try:
            while pieces:
                one = len(pieces) == 1
                sent = self._socket.send(pieces[0]) if one else self._socket.sendmsg(pieces[:VECTOR_MAX])
                self.sent += sent
                pieces = _behind(pieces, sent)
        except BlockingIOError:
            pass
        return pieces

    # ----------------------------------------------------------------------------------------- receiving

    def take(self) -> list[Frames] | None:
        """The messages that are whole now; None: nothing has come.

        Raises:
            OSError: the connection is lost.
            RemoteProtocolError: the other side broke the protocol.
        """
        engine = self._engine
        room = engine.room()
        try:
            if room is None:
                data = self._socket.recv(READ_BYTES)
                if data:
                    return engine.receive(data)
            else:
                count = self._socket.recv_into(room)
                if count:
                    return engine.filled(count)
        except BlockingIOError:
            return None
        raise ConnectionResetError("the other side closed the connection")

    def culprit(self) -> int | None:
        """The call whose reply was refused because it is too large, if so much of it had come."""
        frames = self._engine.begun
        try:
            return int(decode_fields(frames[1])[0]) if len(frames) > 1 else None
        except (RemoteProtocolError, IndexError, TypeError, ValueError):
            return None

    def output(self) -> bytes:
        """What the protocol itself wants to answer after ``take``: PONGs."""
        return self._engine.output()

    def wait(self, timeout: float) -> None:
        """Waits until something has come, the connection has ended, or the time is over."""
        self._poll.poll(max(timeout, 0.0) * 1000)

    def lost(self) -> bool:
        """Whether the other side has closed the connection, or nothing reaches it, as far as this host knows."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return cut(self._socket)
        except OSError:
            return True

    # ------------------------------------------------------------------------------------------- the end

    def abort(self) -> None:
        """Ends the connection, also for threads that wait on it; ``take`` then says so. Twice is harmless."""
        if self._pid == os.getpid():  # a forked child must not end its parent's connection
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection, which nobody waits on. Twice is harmless."""
        self._socket.close()

    def fileno(self) -> int:
        """For ``Watch``."""
        return self._socket.fileno()

    def __del__(self) -> None:
        # Closed with the last who uses it, so that no thread waits on a descriptor that has become another's.
        try:  # noqa: SIM105 - at the interpreter's end modules may be gone already, or there never was a socket
            self._socket.close()
        except AttributeError:
            pass


def _behind(pieces: list[Frame], count: int) -> list[Frame]:
    """What is left of ``pieces`` behind their first ``count`` octets."""
    for index, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:] if count else piece, *pieces[index + 1 :]]
        count -= len(piece)
    return []


class Watch:
    """Waits for channels, and for being woken. One thread waits; any may wake it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_out, READ, None)
        self._watched: dict[Channel, int] = {}

    def follow(self, wanted: dict[Channel, int]) -> None:
        """From now on these channels are waited for, each until it is ready to ``READ``, to ``WRITE``, or either."""
        watched = self._watched
        for channel in [channel for channel in watched if channel not in wanted]:
            del watched[channel]
            self._selector.unregister(channel)  # closed or not
        for channel, events in wanted.items():
            before = watched.get(channel)
            if before is None:
                self._selector.register(channel, events, channel)
            elif before != events:
                self._selector.modify(channel, events, channel)
            watched[channel] = events

    def wait(self, timeout: float | None) -> list[Channel]:
        """The channels that are ready; none after a wake or the time."""
        ready = self._selector.select(timeout)
        if any(key.data is None for key, _ in ready):
            with contextlib.suppress(BlockingIOError):
                self._wake_out.recv(4096)
        return [key.data for key, _ in ready if key.data is not None]

    def wake(self) -> None:
        """Makes ``wait`` return soon, now or when it is called next. From any thread."""
        with contextlib.suppress(OSError):  # it has been woken often enough, or is closed
            self._wake_in.send(b"\0")

    def close(self) -> None:
        """Closes what it waits with; the channels stay open."""
        self._watched.clear()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()
