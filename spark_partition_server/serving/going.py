"""The kinds of calls of ``async def`` methods: one value, a batch, a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from ..core.dispatch import Handler
from ..errors import RemoteProtocolError
from ..net.clock import monotonic
from ..net.connection import Caller
from ..wire.codec import Fields
from ..wire.lists import ListEncoder
from ..wire.messages import Frame
from ..wire.zmtp import Frames
from .batches import Batch
from .coroutines import Going
from .jobs import arguments
from .replies import Replies, failed, invalid
from .streams import Flowing

__all__ = ["GoingBatch", "GoingSingle", "GoingStream"]

log = logging.getLogger("spark_partition_server.server")

CONGESTED_PAUSE = 0.01  # seconds between two looks at a caller that does not read


class GoingSingle(Going):
    """A REQUEST."""

    async def go(self, replies: Replies) -> list[Frame]:
        try:
            args, kwargs = arguments(self._take_frames())
        except (RemoteProtocolError, ImportError, TypeError, ValueError) as error:
            return replies.error(invalid(self.call_id, f"the arguments cannot be decoded: {error}"))
        try:
            result = await self._handler(*args, **kwargs)
        except BaseException as error:
            if self.ends(error):
                raise
            return replies.error(failed(self.call_id, self._handler, args, kwargs, error))
        return replies.reply(self.call_id, result)


class GoingBatch(Going, Batch):
    """A BATCH: one run after the other."""

    async def go(self, replies: Replies) -> list[Frame]:
        refused = self.begin(replies)
        if refused is not None:
            return refused
        for args in self.runs:
            now = monotonic()
            if now > self.expires:
                self.expire(now)
                break
            try:
                self.results.append(await self._handler(*args))
            except BaseException as error:
                if self.ends(error):
                    raise
                self.fail(failed(len(self.results), self._handler, args, {}, error))
        return self.frames(replies)


class GoingStream(Going, Flowing):
    """A STREAM of an asynchronous generator."""

    def __init__(
        self, caller: Caller, fields: Fields, frames: Frames, handler: Handler, received: float, credit: int
    ) -> None:
        super().__init__(caller, fields, frames, handler, received, credit)
        self._encoder = ListEncoder()
        self._credited: asyncio.Event | None = None

    @property
    def deadline(self) -> float | None:
        return None  # its reader keeps it alive, with credit

    def grant(self, total: int) -> bool:
        if self.flow.grant(total):
            self.loop.call(self._wake)
        return False

    def _wake(self) -> None:
        if self._credited is not None:
            self._credited.set()

    async def go(self, replies: Replies) -> list[Frame]:
        read = self.arguments(replies)
        if isinstance(read, list):
            return read
        args, kwargs = read
        try:
            items: AsyncGenerator[Any, Any] = self._handler(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - it does not run yet: the arguments do not fit
            return replies.error(failed(self.call_id, self._handler, args, kwargs, error))
        self._credited = asyncio.Event()
        try:
            return await self._advance(items, replies)
        finally:
            await self._end(items)

    async def _advance(self, items: AsyncGenerator[Any, Any], replies: Replies) -> list[Frame]:
        while True:
            await self._room()
            try:
                item = await _Advance(items, lambda: self._send(replies))
            except StopAsyncIteration:
                self._send(replies)
                return replies.reply(self.call_id, None)
            except BaseException as error:
                if self.ends(error):
                    raise
                self._send(replies)
                return replies.error(failed(self.call_id, self._handler, (), {}, error))
            has_room, refused = self.add(item, self._encoder, replies)
            if not has_room:
                self._send(replies)
                _, refused = self.add(item, self._encoder, replies)
            if refused is not None:
                self._send(replies)
                return refused
            if self.full(self._encoder):
                self._send(replies)
                await asyncio.sleep(0)  # others have their turn

    async def _room(self) -> None:
        """Waits for credit, and for a caller that reads."""
        while self.caller.congested:
            await asyncio.sleep(CONGESTED_PAUSE)
        if self.flow.room:
            return
        assert self._credited is not None
        self.loop.park(self)
        try:
            while not self.flow.room:
                self._credited.clear()
                if not self.flow.room:
                    await self._credited.wait()
        finally:
            self.loop.resume(self)

    def _send(self, replies: Replies) -> None:
        if self._encoder.count and not self.over:
            self.caller.send(self.items(self._encoder, replies))

    async def _end(self, items: AsyncGenerator[Any, Any]) -> None:
        try:
            await items.aclose()
        except BaseException as error:
            if self.ends(error):
                raise
            log.exception("a stream raised when it was closed method=%s", self.method)


class _Advance:
    """The next item of an asynchronous generator; ``waits`` is called when it does not come at once."""

    __slots__ = ("_items", "_waits")

    def __init__(self, items: AsyncGenerator[Any, Any], waits: Callable[[], None]) -> None:
        self._items = items
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._items.__anext__().__await__()
        try:
            future = inner.send(None)
            self._waits()
            while True:
                try:
                    sent = yield future
                except BaseException as error:  # noqa: BLE001 - it is the inner one's
                    future = inner.throw(error)
                else:
                    future = inner.send(sent)
        except StopIteration as stop:
            return stop.value
