"""Messages in parts: how a message that is too large to be relayed whole travels (PROTOCOL.md, sections 7.41 and 8.5).

A ``Parts`` is one end of a relayed conversation: a client's connection to the coordinator, or what a member keeps for
one such connection. What is to be sent goes through ``send``, what has come through ``take``; both say which messages
are to be sent now. It waits for nothing, so that every face of the client and the member use the same one.

A large message becomes PARTs of its ZMTP encoding. They leave as fast as CREDIT for them comes, so that what waits on
the way is bounded whatever the size; the receiver puts them together in memory that is mapped when the first has come.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgpack

from ..errors import RemoteProtocolError
from . import codec
from .codes import Code
from .fields import Frame
from .framing import SMALL_BYTES, Frames, encode_vector
from .messages import Kind
from .relays import (
    CALL_WINDOW,
    ENDING,
    FINAL,
    FIRST_CREDIT,
    PART_BYTES_MAX,
    WHOLE_BYTES_MAX,
    WHOLE_FRAMES_MAX,
    BadPart,
    call_of,
    final,
    frames_of,
    read_part,
)
from .zmtp import MAPPED_BYTES

__all__ = ["Parts"]

Messages: TypeAlias = "Sequence[Sequence[Frame]]"


class _Cut:
    """A message that leaves in parts."""

    __slots__ = ("buffers", "offset", "size")

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.buffers = deque(memoryview(buffer).cast("B") for buffer in encode_vector(frames))
        self.size = sum(map(len, self.buffers))
        self.offset = 0

    def piece(self, most: int) -> Frame:
        """The next octets, ``most`` at the most."""
        taken: list[memoryview] = []
        while most and self.buffers:
            first = self.buffers[0]
            taken.append(first[:most])
            if len(first) > most:
                self.buffers[0] = first[most:]
            else:
                self.buffers.popleft()
            most -= len(taken[-1])
        piece = bytes(taken[0]) if len(taken) == 1 else b"".join(taken)
        self.offset += len(piece)
        return piece


class _Call:
    """One call of which a message has been in parts."""

    __slots__ = ("allowed", "credit", "filled", "memory", "over", "queue", "received", "sent")

    def __init__(self) -> None:
        self.queue: deque[_Cut | Sequence[Frame]] = deque()  # what is to leave: messages in parts, and those behind
        self.sent = 0  # octets of parts, in all
        self.credit = FIRST_CREDIT
        self.over = False  # the last message of the call is in the queue
        self.memory: memoryview | None = None  # of the message that is coming
        self.filled = 0
        self.received = 0  # octets of parts, in all
        self.allowed = CALL_WINDOW  # as far as we have let the other side send


class Parts:
    """One end of a relayed conversation.

    Args:
        run_id: of the messages.
        message_bytes_max: the largest message put together; one that announces more is refused at its first PART.
        joining_bytes_max: of all messages that are being put together at one time.
        expects: whether the answer to a call is still waited for; parts of others are dropped. None: everything is.

    Attributes:
        joining: octets of the messages that are being put together.
        waiting: octets that wait for credit.
    """

    def __init__(
        self,
        run_id: bytes,
        message_bytes_max: int,
        joining_bytes_max: int | None = None,
        expects: Callable[[int], bool] | None = None,
    ) -> None:
        self.joining = 0
        self.waiting = 0
        self._limit = message_bytes_max
        self._joining_max = joining_bytes_max or message_bytes_max
        self._expects = expects
        self._calls: dict[int, _Call] = {}
        self._part = codec.preamble(Kind.PART, run_id)
        self._credit = codec.preamble(Kind.CREDIT, run_id)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way in parts."""
        return not self._calls

    def unsent(self, call_id: int) -> bool:
        """Whether something of a call has yet to leave."""
        call = self._calls.get(call_id)
        return call is not None and bool(call.queue)

    def forget(self, call_id: int) -> None:
        """The call is over: what has not left will not, and what has come of a message is dropped."""
        call = self._calls.pop(call_id, None)
        if call is not None:
            self.waiting -= sum(map(_octets, call.queue))
            self._drop(call)

    def check(self) -> None:
        """Asserts every invariant."""
        calls = self._calls.values()
        assert self.waiting == sum(_octets(one) for call in calls for one in call.queue)
        assert self.joining == sum(len(call.memory) for call in calls if call.memory is not None) <= self._joining_max
        assert all(call.sent <= call.credit and call.received <= call.allowed for call in calls)

    # --------------------------------------------------------------------------------------------- sending

    def send(self, frames: Sequence[Frame]) -> Messages:
        """What is to be sent now for a message that is to leave; the rest of it follows from ``take``."""
        size = sum(map(len, frames))
        small = len(frames) <= WHOLE_FRAMES_MAX and size <= WHOLE_BYTES_MAX
        if small and size > SMALL_BYTES:
            frames = [frame if isinstance(frame, (bytes, memoryview)) else bytes(frame) for frame in frames]
        if small and not self._calls:
            return (frames,)
        call_id, kind = call_of(frames), frames[0][4]
        if kind == Kind.CANCEL:
            self.forget(call_id)
        call = self._calls.get(call_id)
        if small and (call is None or not call.queue or kind == Kind.CREDIT):
            if call is not None and kind in FINAL:
                self.forget(call_id)
            return (frames,)
        if call is None:
            call = self._calls[call_id] = _Call()
        call.queue.append(frames if small else _Cut(frames))
        self.waiting += _octets(call.queue[-1])
        call.over = kind in FINAL
        return self._pump(call_id, call)

    def _pump(self, call_id: int, call: _Call) -> Messages:
        """As much of a call's queue as its credit lets go."""
        messages: list[Sequence[Frame]] = []
        queue = call.queue
        while queue:
            first = queue[0]
            if isinstance(first, _Cut):
                most = min(PART_BYTES_MAX, call.credit - call.sent)
                if not most:
                    return messages
                fields = msgpack.packb((call_id, first.offset, first.size))
                piece = first.piece(most)
                call.sent += len(piece)
                self.waiting -= len(piece)
                messages.append([self._part, fields, piece])
                if first.offset < first.size:
                    continue
            else:
                messages.append(first)
                self.waiting -= _octets(first)
            queue.popleft()
        if call.over:
            self.forget(call_id)
        return messages

    # ------------------------------------------------------------------------------------------- receiving

    def take(self, frames: Frames) -> tuple[Frames | None, Messages]:
        """A message has come. Returns the message to act upon, if there is a whole one, and what is to be sent now.

        Raises:
            BadPart: it does not fit its call, of which nothing is kept.
            RemoteProtocolError: it is malformed.
        """
        if frames[0] == self._part:
            return self._join(frames)
        if frames[0] == self._credit:
            return self._credited(frames)
        if self._limit < WHOLE_BYTES_MAX and sum(map(len, frames)) > self._limit:
            raise BadPart(f"a message of over {self._limit} octets, the limit", Code.TOO_LARGE, call_of(frames))
        if self._calls and len(frames[0]) == codec.PREAMBLE_BYTES and frames[0][4] in ENDING:
            self.forget(call_of(frames))
        return frames, ()

    def _credited(self, frames: Frames) -> tuple[Frames | None, Messages]:
        values = codec.decode_fields(frames[1])
        octets = values[2] if len(values) > 2 else 0
        if not values or type(values[0]) is not int or type(octets) is not int:
            raise RemoteProtocolError("the fields of a CREDIT are integers", Code.MALFORMED)
        items = frames if not octets or values[1] else None  # what is about parts alone is for us alone
        call = self._calls.get(values[0])
        if call is None or octets <= call.credit:
            return items, ()
        call.credit = octets
        return items, self._pump(values[0], call) if call.queue else ()

    def _join(self, frames: Frames) -> tuple[Frames | None, Messages]:
        call_id, offset, size, piece = read_part(frames)
        if self._expects is not None and not self._expects(call_id):
            self.forget(call_id)
            return None, ()
        call = self._calls.get(call_id)
        if call is None:
            if offset:
                return None, ()  # the rest of a message that was given up
            call = self._calls[call_id] = _Call()
        try:
            return self._fill(call_id, call, offset, size, piece)
        except BadPart:
            self.forget(call_id)
            raise

    def _fill(
        self, call_id: int, call: _Call, offset: int, size: int, piece: Frame
    ) -> tuple[Frames | None, Messages]:
        if call.memory is None and not offset:
            self._begin(call_id, call, size)
        memory = call.memory
        if memory is None or offset != call.filled or size != len(memory):
            raise BadPart(f"a PART at {offset} of {size} does not follow the one before", Code.MALFORMED, call_id)
        if call.received + len(piece) > call.allowed:
            raise BadPart("a PART over the credit of its call", Code.MALFORMED, call_id)
        memory[offset : offset + len(piece)] = piece
        call.filled += len(piece)
        call.received += len(piece)
        whole: Frames | None = None
        if call.filled == size:
            try:
                whole = frames_of(memory)
            except RemoteProtocolError as error:
                raise BadPart(str(error), Code.MALFORMED, call_id) from error
            self._drop(call)
        # for every part: what has come but was not credited would count as under way, for ever if no more comes
        call.allowed = call.received + CALL_WINDOW
        if whole is not None and final(whole[0]):
            self.forget(call_id)
        return whole, ([self._credit, msgpack.packb((call_id, 0, call.allowed))],)

    def _begin(self, call_id: int, call: _Call, size: int) -> None:
        if size > self._limit:
            text = f"a message of {size} octets in parts, the limit is {self._limit}"
            raise BadPart(text, Code.TOO_LARGE, call_id)
        if self.joining + size > self._joining_max:
            text = f"{self.joining} octets of messages in parts are under way, {size} more are too many"
            raise BadPart(text, Code.OVERLOADED, call_id)
        # pages that nobody has filled cost nothing, whatever was announced
        call.memory = memoryview(mmap.mmap(-1, size) if size >= MAPPED_BYTES else bytearray(size))
        call.filled = 0
        self.joining += size

    def _drop(self, call: _Call) -> None:
        if call.memory is not None:
            self.joining -= len(call.memory)
            call.memory = None


def _octets(queued: _Cut | Sequence[Frame]) -> int:
    """What is left of a queued message."""
    return queued.size - queued.offset if isinstance(queued, _Cut) else sum(map(len, queued))
