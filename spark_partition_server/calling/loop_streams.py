"""``LoopStream``: the items of a generator method for an asyncio client. ``Stream``, for a loop.

It has no connection of its own: its items come between the answers to other calls. The server sends as many as it has
been granted, and more are granted once half of them have been taken, so there are never more than ``credit`` that
nobody has taken, wherever they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from typing import Any

from ..core.flow import Window
from ..errors import CallError, CallOutcomeUnknown, Overloaded, RemoteProtocolError, Unavailable
from ..net.clock import monotonic
from ..wire.codes import Code
from ..wire.messages import Frame, Items, Member
from ..wire.payload import decode_value, size_of
from .answers import Asked, so_far, stream_lost, timed_out
from .loop_line import Line
from .loop_tries import LoopTries

__all__ = ["LoopStream"]

LONGEST_WAIT = 1e6  # seconds; loops take no more than so many


class Feed:
    """What comes of one try of a stream. The line knows it, and it does not know the stream, which may be dropped.

    Attributes:
        buffer: items that nobody has taken.
        window: how many may come.
        ended: what the generator has returned, or the error.
        waiter: whoever waits for more.
    """

    __slots__ = ("buffer", "call_id", "ended", "line", "waiter", "window")

    def __init__(self, credit: int, line: Line, call_id: int) -> None:
        self.buffer: deque[Any] = deque()
        self.window = Window(credit)
        self.line = line
        self.call_id = call_id
        self.ended: asyncio.Future[Any]
        self.waiter: asyncio.Future[None] | None = None

    def add(self, message: Items) -> None:
        """Items have come.

        Raises:
            RemoteProtocolError: they are not in order, or were not granted.
        """
        items = decode_value(message.payload)
        if type(items) is not list:
            raise RemoteProtocolError("the items of a stream are no list", Code.MALFORMED)
        self.window.receive(message.sequence, len(items))
        self.buffer.extend(items)
        self.wake()

    def wake(self) -> None:
        """There is something to look at."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def drop(self) -> None:
        """Nobody wants more: the server is told."""
        self.buffer.clear()
        if not self.ended.done():
            self.line.cancel(self.call_id)
            self.ended.cancel()


class LoopStream:
    """An asynchronous iterator over what a generator method of a partition yields; made by ``aio.Client.stream``.

    It begins with the first item that is asked for. Belongs to one task at a time. To ``aclose`` it, to leave its
    ``async with`` block or to drop it closes the generator at the server.

    Attributes:
        items: how many have come out of it.
        returned: what the generator returned, once it has ended; until then None.
    """

    def __init__(
        self, tries: LoopTries, rank: int, method: str, payload: list[Frame], timeout: float, credit: int
    ) -> None:
        self.items = 0
        self.returned: Any = None
        self._tries = tries
        self._rank = rank
        self._method = method
        self._payload = payload
        self._octets = size_of(payload)
        self._timeout = timeout
        self._credit = credit
        self._attempt = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._feed: Feed | None = None
        self._over = False
        self._busy = False

    def __aiter__(self) -> LoopStream:
        return self

    async def __anext__(self) -> Any:
        """The next item.

        Raises:
            StopAsyncIteration: there are no more.
            CallTimeout: none came within the stream's ``timeout``.
            StreamLost: the server was lost; ``error.items`` says how many had come.
            CallError: as ``aio.Client.call``. The stream is over after any of them.
        """
        feed = self._feed
        if feed is None or not feed.buffer:
            feed = await self._fill()
        item = feed.buffer.popleft()
        self.items += 1
        total = feed.window.take()
        if total is not None and not feed.ended.done():
            feed.line.send(self._tries.requests.credit(feed.call_id, total))
        return item

    async def aclose(self) -> None:
        """Ends the stream, here and at its server. Twice is harmless."""
        self._over = True
        if self._feed is not None:
            self._feed.drop()
            await asyncio.sleep(0)  # its place is free after this turn of the loop

    async def __aenter__(self) -> LoopStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the loop may be over, or modules gone at the interpreter's end
            feed, loop = self._feed, self._loop
            if feed is not None and loop is not None and not feed.ended.done():
                loop.call_soon_threadsafe(feed.drop)

    # ------------------------------------------------------------------------------------------------- the items

    async def _fill(self) -> Feed:
        """Waits for items. Raises whatever ends the stream."""
        if self._busy:
            raise RuntimeError("another task waits for the next item of this stream")
        self._busy = True
        deadline = monotonic() + self._timeout
        try:
            while not self._over:
                feed = self._feed
                if feed is None:
                    feed = self._feed = await self._begun(deadline)
                await self._some(feed, deadline)
                if feed.buffer:
                    return feed
                await self._ended(feed, deadline)
            raise StopAsyncIteration
        except BaseException:  # nothing can follow: an error, the end, or the task was cancelled
            self._over = True
            if self._feed is not None:
                self._feed.drop()
            raise
        finally:
            self._busy = False

    async def _some(self, feed: Feed, deadline: float) -> None:
        """Waits until there is an item, or none will come any more."""
        while not feed.buffer and not feed.ended.done():
            feed.waiter = feed.line.future()
            await asyncio.wait({feed.waiter}, timeout=min(max(deadline - monotonic(), 0.0), LONGEST_WAIT))
            feed.waiter = None
            if not feed.buffer and not feed.ended.done() and monotonic() >= deadline:
                asked = Asked(self._rank, self._method, feed.line.endpoint, feed.call_id)
                error = timed_out(asked, self._timeout)
                error.add(so_far(feed.window.received))
                raise error

    async def _ended(self, feed: Feed, deadline: float) -> None:
        """What came last: the generator's return, an error, or one after which it is begun again."""
        came = feed.window.received
        try:
            self.returned = feed.ended.result()
            self._over = True
        except asyncio.CancelledError:
            self._over = True  # it was closed meanwhile
        except (Unavailable, Overloaded, CallOutcomeUnknown) as error:
            if came:
                raise stream_lost(error, came) from error
            self._feed = None
            await self._again(error, feed.line.member, deadline)
        except CallError as error:
            error.add(so_far(came))
            raise

    # --------------------------------------------------------------------------------------------- the beginning

    async def _begun(self, deadline: float) -> Feed:
        """Sends the request, with as many tries as it takes."""
        self._loop = asyncio.get_running_loop()
        tries, rank, method = self._tries, self._rank, self._method
        while True:
            self._attempt += 1
            line: Line | None = None
            try:
                line = await tries.lines.open(rank, method, deadline)
                return self._send(line, deadline)
            except (Unavailable, Overloaded) as error:
                await self._again(error, None if line is None else line.member, deadline)

    def _send(self, line: Line, deadline: float) -> Feed:
        tries, rank, method = self._tries, self._rank, self._method
        tries.requests.check_size(self._payload, rank, method)  # now that the servers' limit is known
        call_id = next(tries.ids)
        room = tries.room
        if not room.take(call_id, self._octets):
            raise room.full(rank, method)
        feed = Feed(self._credit, line, call_id)
        remaining = deadline - monotonic()
        frames = tries.requests.stream(call_id, method, remaining, line.member, self._payload, self._credit)
        try:
            ended = line.begin(call_id, method, frames, self._octets, self._timeout, math.inf, feed)
        except BaseException:
            room.give(call_id)
            raise
        feed.ended = ended

        def end(future: asyncio.Future[Any]) -> None:
            room.give(call_id)
            if not future.cancelled():
                future.exception()  # told to whoever asks for the next item, if anybody does
            feed.wake()

        ended.add_done_callback(end)
        return feed

    async def _again(self, error: CallError, tried: Member | None, deadline: float) -> None:
        await self._tries.again(error, self._rank, self._method, self._attempt, tried, deadline)
