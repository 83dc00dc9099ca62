"""The direct lane, client side, on an asyncio loop: one connection that many calls share and that nobody waits on.

The messages of one turn of the loop leave together. Long frames leave in slices, as the other side takes them, and are
received straight into memory of their own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import cast

from ..errors import RemoteProtocolError
from ..wire.codec import PREAMBLE_BYTES
from ..wire.messages import FIELDS_BYTES_MAX, FRAMES_MAX, Frame
from ..wire.zmtp import Allocate, Engine, Frames, Limits, allocate, encode_small, encode_vector
from .endpoints import connect_to, cut, parse

__all__ = ["LARGE_BYTES", "READ_BYTES", "LoopLane"]

READ_BYTES = 256 * 1024
LARGE_BYTES = 256 * 1024  # what is larger holds up everything behind it for a while
SLICE_BYTES = 256 * 1024  # of a long frame given to the transport at a time: it copies what the kernel does not take
MANY = 8  # messages of a turn that wait for each other: to write one by itself costs as much as to write all
HEAD_BYTES_MAX = PREAMBLE_BYTES + FIELDS_BYTES_MAX  # before the payload, which is what senders measure


class LoopLane(asyncio.BufferedProtocol, ABC):
    """A connection to a server's direct lane, or to a coordinator's ROUTER. ``open`` makes it.

    Subclasses say what becomes of messages (``take``), of the end (``ended``), of those that wait (``wanted``), and of
    long frames that are under way (``large``).

    Args:
        loop: the running loop.
        endpoint: what errors call the other side.
        message_bytes_max: the largest payload accepted, all frames of a message together.
        scratch: to receive into. Nothing stays in it, so all lanes of a loop can share it.
        memory: where long frames are received into.

    Attributes:
        endpoint: as given.
        lost: why the connection is of no further use; None while it is of use.
        gone: done once its socket is closed; None: it was never open.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        message_bytes_max: int,
        scratch: memoryview,
        memory: Allocate = allocate,
    ) -> None:
        self.endpoint = endpoint
        self.lost: Exception | None = None
        self.gone: asyncio.Future[None] | None = None
        self._loop = loop
        self._call_soon = loop.call_soon
        self._shaken: asyncio.Future[None] = loop.create_future()
        self._engine = Engine(b"DEALER", Limits(message_bytes_max + HEAD_BYTES_MAX, FRAMES_MAX), memory)
        self._scratch = scratch
        self._ready = False  # both sides have shaken hands
        self._direct = False  # receiving into the memory of a long frame
        self._transport: asyncio.Transport
        self._paused = False  # the transport holds as much as it should
        self._turn = False  # something has been written in this turn of the loop already
        self._many = False  # the last turn wrote many: the first message of the next waits for the others
        self._outbox: list[Frame] = []  # small messages that leave at the end of the turn
        self._queue: deque[tuple[int, list[Frame]]] = deque()  # messages that wait for the other side, with their calls

    async def open(self, endpoint: str) -> None:
        """Connects and shakes hands; names are looked up beside the loop. The caller sets the deadline.

        Args:
            endpoint: ``tcp://host:port``, ``ipc://path`` or ``ipc://@name``.

        Raises:
            OSError: refused, unreachable, closed by the other side.
            RemoteProtocolError: the other side does not speak the protocol.
        """
        family, address = parse(endpoint)
        try:
            await self._connect(family, address)
            await self._shaken
        except BaseException as error:
            self.close(ConnectionAbortedError("the connection was not made in time"))
            if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno is not None:
                # asyncio says that it failed, and not why
                raise OSError(error.errno, os.strerror(error.errno)) from error
            raise

    async def _connect(self, family: socket.AddressFamily, address: tuple[str, int] | str) -> None:
        try:
            if isinstance(address, str):
                await self._loop.create_unix_connection(lambda: self, sock=connect_to(family, address, 0.0))
            else:
                await self._loop.create_connection(lambda: self, *address)
        except BaseException:
            # uvloop says ``connection_made`` and then nothing more, where it is cancelled between the two
            self._call_soon(self.connection_lost, None)
            raise
        if family != socket.AF_UNIX:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    # ------------------------------------------------------------------------------------- for subclasses

    @abstractmethod
    def take(self, messages: list[Frames]) -> None:
        """Messages have come."""

    def ended(self, error: Exception) -> None:
        """The connection is of no further use, and was ready before. Called once."""

    def large(self) -> None:
        """Much of a long frame is still to come. Called again while that is so."""

    def wanted(self, call_id: int) -> bool:
        """Whether the message of a call, which has not begun to leave, is still to be sent."""
        return True

    # --------------------------------------------------------------------------------------------- sending

    def send(self, frames: Sequence[Frame], call_id: int = 0) -> None:
        """Sends a message, now or as soon as the other side takes it. Long frames must not change until then."""
        octets = encode_small(frames)
        if octets is None:
            self._flush()
            self._queue.append((call_id, encode_vector(frames)))
            self._pump()
        elif self._turn:
            self._outbox.append(octets)
        elif self._paused or self._queue:
            self._queue.append((call_id, [octets]))
        elif self.lost is None:  # else it goes nowhere: whoever waits for an answer has been told by ``ended``
            self._turn = True
            self._call_soon(self._end_turn)
            if self._many:
                self._outbox.append(octets)
            else:
                self._transport.write(octets)

    def waiting(self) -> set[int]:
        """The calls whose messages have not begun to leave."""
        return {call_id for call_id, _ in self._queue}

    def _end_turn(self) -> None:
        self._turn = False
        self._many = len(self._outbox) >= MANY
        self._flush()

    def _flush(self) -> None:
        if self._outbox:
            octets = b"".join(self._outbox)
            self._outbox.clear()
            if self._paused or self._queue:
                self._queue.append((0, [octets]))
            elif self.lost is None:
                self._transport.write(octets)

    def _pump(self) -> None:
        """Gives the transport what waits for as long as it takes it: short pieces joined, long ones in slices."""
        while self._queue and not self._paused and self.lost is None:
            joined: list[Frame] = []
            size = 0
            while self._queue and size < SLICE_BYTES:
                call_id, pieces = self._queue.popleft()
                if call_id and not self.wanted(call_id):
                    continue
                piece = pieces[0]
                if size and len(piece) > SLICE_BYTES:
                    self._queue.appendleft((call_id, pieces))
                    break
                if len(piece) > SLICE_BYTES:
                    whole = memoryview(piece)
                    piece, rest = whole[:SLICE_BYTES], [whole[SLICE_BYTES:], *pieces[1:]]
                else:
                    rest = pieces[1:]
                if rest:
                    self._queue.appendleft((0, rest))
                joined.append(piece)
                size += len(piece)
            if joined:
                self._transport.write(joined[0] if len(joined) == 1 else b"".join(joined))

    # ------------------------------------------------------------------------- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own
        self.gone = self._loop.create_future()
        if self.lost is not None:
            self._transport.abort()
        else:
            self._transport.write(self._engine.output())

    def get_buffer(self, sizehint: int) -> memoryview:
        room = self._engine.room()
        self._direct = room is not None
        if room is None:
            return self._scratch
        if len(room) > LARGE_BYTES:
            self.large()
        return room

    def buffer_updated(self, nbytes: int) -> None:
        engine = self._engine
        try:
            messages = engine.filled(nbytes) if self._direct else engine.receive(bytes(self._scratch[:nbytes]))
        except RemoteProtocolError as error:
            self.close(error)
            return
        if not self._ready:
            self._shake(messages)
        elif messages and self.lost is None:
            self.take(messages)
        if not self._paused:  # else PONGs wait in the engine, which knows how many are too many
            self._answer()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._answer()
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)
        self.close(exc or ConnectionResetError("the other side closed the connection"))

    def close(self, error: Exception) -> None:
        """Ends the connection; ``error`` is why. Twice is harmless."""
        if self.lost is not None:
            return
        self.lost = error
        if self.gone is not None:
            self._transport.abort()
        if self._ready:
            self.ended(error)
        elif not self._shaken.done():
            self._shaken.set_exception(error)
            self._shaken.exception()  # it is told by ``open``, if anybody still waits there

    def cut(self) -> bool:
        """Whether nothing reaches the other side any more, as far as this host knows."""
        return self.lost is None and cut(self._transport.get_extra_info("socket"))

    def _shake(self, messages: list[Frames]) -> None:
        if messages:
            self.close(RemoteProtocolError("a message came before any was asked for"))
        elif self._engine.ready and self.lost is None and not self._shaken.done():
            self._ready = True
            self._shaken.set_result(None)

    def _answer(self) -> None:
        """What the protocol itself wants to say: never in the middle of a frame."""
        output = self._engine.output()
        if output and self.lost is None:
            if self._queue:
                self._queue.append((0, [output]))
            else:
                self._transport.write(output)
