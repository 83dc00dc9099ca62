"""STREAM: a generator that is advanced as far as its reader has given credit, and no further."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from ..core.dispatch import Handler
from ..core.flow import Allowance
from ..errors import RemoteProtocolError
from ..net.clock import monotonic
from ..net.connection import Caller
from ..wire.codec import Fields
from ..wire.lists import ListEncoder
from ..wire.messages import Frame
from ..wire.zmtp import Frames
from .jobs import Job, Next, arguments
from .replies import Replies, failed, invalid, too_large, unsendable

__all__ = ["ITEMS_BYTES", "ITEMS_COUNT", "Flowing", "Streaming"]

log = logging.getLogger("spark_partition_server.server")

ITEMS_COUNT = 64  # of one message
ITEMS_BYTES = 64 * 1024  # of one message; a larger item travels alone
NOTHING = object()  # no item


class Flowing(Job):
    """A STREAM, however its items are made.

    Attributes:
        flow: what may be sent.
    """

    __slots__ = ("flow",)

    def __init__(
        self, caller: Caller, fields: Fields, frames: Frames, handler: Handler, received: float, credit: int
    ) -> None:
        super().__init__(caller, fields, frames, handler, received)
        self.flow = Allowance(credit)

    @property
    def ready(self) -> bool:
        return self.flow.room > 0

    def arguments(self, replies: Replies) -> tuple[list[Any], dict[str, Any]] | list[Frame]:
        """The arguments, or the ERROR for what is none."""
        try:
            return arguments(self._take_frames())
        except (RemoteProtocolError, ImportError, TypeError, ValueError) as error:
            return replies.error(invalid(self.call_id, f"the arguments cannot be decoded: {error}"))

    def grant(self, total: int) -> bool:
        """The reader's word, in the serving thread. Returns whether the job wants a turn."""
        return self.flow.grant(total)

    def full(self, items: ListEncoder) -> bool:
        """Whether the items that are there are to be sent now."""
        return items.count >= min(ITEMS_COUNT, self.flow.room) or self.flow.sent == 0

    def add(self, item: Any, items: ListEncoder, replies: Replies) -> tuple[bool, list[Frame] | None]:
        """One more item for the next message: whether it had room there, and the ERROR where it never will."""
        try:
            if not items.add(item, min(ITEMS_BYTES, replies.bytes_max)):
                return False, None
        except TypeError as error:
            return True, replies.error(unsendable(self.call_id, error))
        if items.size > replies.bytes_max:  # it is the only one
            size = items.size
            items.clear()
            return True, replies.error(too_large(self.call_id, size, replies.bytes_max))
        return True, None

    def items(self, items: ListEncoder, replies: Replies) -> list[Frame]:
        """ITEMS, with all that are there."""
        sequence = self.flow.spend(items.count)
        return [replies.items_preamble, replies.pack_fields((self.call_id, sequence)), *items.frames()]


class Streaming(Flowing):
    """A STREAM of a generator."""

    __slots__ = ("_iterator", "_kept")

    def __init__(
        self, caller: Caller, fields: Fields, frames: Frames, handler: Handler, received: float, credit: int
    ) -> None:
        super().__init__(caller, fields, frames, handler, received, credit)
        self._iterator: Generator[Any, Any, Any] | None = None
        self._kept: Any = NOTHING  # an item that had no room in the last message

    def step(self, replies: Replies, until: float) -> tuple[list[list[Frame]], Next]:
        if self._frames is not None:
            refused = self._begin(replies)
            if refused is not None:
                return [refused], Next.DONE
        replies.items.clear()
        end = self._collect(replies, until)
        messages = [self.items(replies.items, replies)] if replies.items.count else []
        if end is not None:
            self.close()
            return [*messages, end], Next.DONE
        return messages, Next.AGAIN if self.flow.room else Next.PARK

    def close(self) -> None:
        """Ends the generator: its finally blocks run."""
        super().close()
        iterator, self._iterator, self._kept = self._iterator, None, NOTHING
        if iterator is not None:
            try:
                iterator.close()
            except KeyboardInterrupt:
                raise
            except BaseException:
                log.exception("a stream raised when it was closed method=%s", self.method)

    def _begin(self, replies: Replies) -> list[Frame] | None:
        read = self.arguments(replies)
        if isinstance(read, list):
            return read
        args, kwargs = read
        try:
            self._iterator = self._handler(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - a generator does not run yet: the arguments do not fit
            return replies.error(failed(self.call_id, self._handler, args, kwargs, error))
        return None

    def _collect(self, replies: Replies, until: float) -> list[Frame] | None:
        """Takes items until a message is full or time is over. Returns the last message where it has come to that."""
        iterator = self._iterator
        assert iterator is not None
        while self.flow.room > replies.items.count:
            item, self._kept = self._kept, NOTHING
            if item is NOTHING:
                try:
                    item = next(iterator)
                except StopIteration as stop:
                    return replies.reply(self.call_id, stop.value)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # noqa: BLE001 - whatever else it raises is data for the caller
                    return replies.error(failed(self.call_id, self._handler, (), {}, error))
            has_room, refused = self.add(item, replies.items, replies)
            if refused is not None:
                return refused
            if not has_room:
                self._kept = item
                return None
            if self.full(replies.items) or monotonic() >= until:
                return None
        return None
