"""A line of an asyncio client: the calls under way to one server, and the connection over which they go."""

from __future__ import annotations

import asyncio
import math
from typing import Any, NamedTuple, Protocol

from ..core.inflight import Inflight
from ..errors import CallError, Overloaded, RemoteProtocolError, SparkPartitionServerError
from ..net.clock import monotonic
from ..net.loop_lane import LARGE_BYTES, LoopLane
from ..options import ClientOptions
from ..wire.messages import Cancel, Error, Frame, Items, Member, Message, Reply, Results
from ..wire.payload import decode_value, size_of
from ..wire.zmtp import Allocate, Frames
from .answers import Answers, Asked, failure, not_sent, timed_out

__all__ = ["Batch", "Feeding", "Line", "Owner"]

LOOK = 0.01  # seconds between two looks for deadlines that have come


class Batch(NamedTuple):
    """What the runs of a batch have returned.

    Attributes:
        results: of each run.
        errors: of those that failed, by the index of the run.
        octets, arrays: of all results together.
    """

    results: list[Any]
    errors: dict[int, CallError]
    octets: int
    arrays: int


class Feeding(Protocol):
    """What takes the items of a stream."""

    def add(self, message: Items) -> None:
        """Some have come. Raises ``RemoteProtocolError`` if they should not have."""


class Owner(Protocol):
    """Whoever has a line."""

    def forget(self, line: Line) -> None:
        """The line is of no further use."""

    def set_aside(self, line: Line) -> None:
        """Something large has begun to come over the line, and holds up what comes behind it."""

    def weigh(self, method: str) -> None:
        """The reply to a call of a method was large."""


# What is known of a call under way: its future, method and number, the seconds that it was given, and what it is: a
# call (0), a batch of so many runs, or a stream.
Token = tuple["asyncio.Future[Any]", str, int, float, "int | Feeding"]


class Line(LoopLane):
    """The connection to one server.

    Args:
        loop: the running loop.
        member: who serves there.
        answers: reads what comes.
        options: limits.
        scratch, memory: as for ``LoopLane``.
        owner: is told what others need to know of the line.

    Attributes:
        member: as given.
        inflight: the calls under way.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        member: Member,
        answers: Answers,
        options: ClientOptions,
        scratch: memoryview,
        memory: Allocate,
        owner: Owner,
    ) -> None:
        super().__init__(loop, member.endpoint, options.message_bytes_max, scratch, memory)
        self.member = member
        self.inflight: Inflight[Token] = Inflight(options.calls_max, options.calls_bytes_max)
        self._answers = answers
        self._call_id_of = answers.call_id
        self._owner = owner
        self._make_future = loop.create_future
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    # --------------------------------------------------------------------------------------------- calls

    def begin(
        self,
        call_id: int,
        method: str,
        frames: list[Frame],
        octets: int,
        seconds: float,
        deadline: float,
        what: int | Feeding = 0,
    ) -> asyncio.Future[Any]:
        """Sends a request. Returns what its answer will be found in.

        Args:
            seconds: that the call was given, all its tries together.
            deadline: of this try.
            what: a call (0), a batch of so many runs, or who takes the items of a stream.

        Raises:
            Overloaded: too many calls are under way to this server.
            Unavailable: the connection has been lost.
        """
        if self.lost is not None:
            asked = Asked(self.member.rank, method, self.endpoint, call_id)
            raise not_sent(asked, OSError(f"the connection was lost: {self.lost}"))
        future = self._make_future()
        inflight = self.inflight
        if not inflight.begin(call_id, (future, method, call_id, seconds, what), deadline, octets):
            text = f"{len(inflight)} calls of {inflight.bytes} octets are under way to its server, which is too many"
            raise Overloaded(text, rank=self.member.rank, method=method, endpoint=self.endpoint, definite=True)
        self.send(frames, call_id)
        if inflight.deadline < self._timer_at:
            self._wake_at(inflight.deadline)
        return future

    def future(self) -> asyncio.Future[Any]:
        """A future of the line's loop."""
        return self._make_future()

    def cancel(self, call_id: int) -> None:
        """Nobody waits for a call any more: its slot is free, and its server is told."""
        if self.inflight.cancel(call_id) is not None and self.lost is None and call_id not in self.waiting():
            self.send(self._answers.encode(Cancel(call_id)))

    # ------------------------------------------------------------------------------------ of the connection

    def large(self) -> None:
        self._owner.set_aside(self)

    def take(self, messages: list[Frames]) -> None:
        if self._direct:
            self._weigh(messages)
        receive = self.inflight.receive
        for frames in messages:
            try:
                call_id = self._call_id_of(frames)
                if call_id is None:
                    self._other(self._answers.message(frames, self.endpoint), frames)
                    continue
            except SparkPartitionServerError as error:
                self.close(error)
                return
            token = receive(call_id)
            if token is not None:
                future = token[0]
                if not future.done():
                    try:
                        future.set_result(decode_value(frames[2:]))
                    except (RemoteProtocolError, ImportError) as error:
                        future.set_exception(error)

    def _weigh(self, messages: list[Frames]) -> None:
        """Which of the replies are large."""
        for frames in messages:
            if size_of(frames) > LARGE_BYTES:
                token = self.inflight.find(self._call_id_of(frames) or 0)
                if token is not None and token[4] == 0:
                    self._owner.weigh(token[1])

    def _other(self, message: Message, frames: Frames) -> None:
        """An answer that is not this version's plain reply."""
        if isinstance(message, Items):
            self._feed(message)
            return
        if not isinstance(message, (Reply, Error, Results)):
            return
        token = self.inflight.receive(message.call_id)
        if token is None or token[0].done():
            return
        asked, runs = self._asked(token), token[4]
        try:
            if isinstance(message, Results) and isinstance(runs, int) and runs:
                results, errors = self._answers.results(message, asked, runs)
                token[0].set_result(Batch(results, errors, size_of(frames), len(frames) - 3))
            else:
                token[0].set_result(self._answers.value(message, asked))
        except (SparkPartitionServerError, ImportError) as error:
            token[0].set_exception(error)

    def _feed(self, message: Items) -> None:
        """Items of a stream have come; of one that is over they are late."""
        token = self.inflight.find(message.call_id)
        if token is None or isinstance(token[4], int):
            return
        try:
            token[4].add(message)
        except (SparkPartitionServerError, ImportError) as error:
            self.cancel(message.call_id)
            if not token[0].done():
                token[0].set_exception(failure(self._asked(token), error))

    def ended(self, error: Exception) -> None:
        self._owner.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        waiting = self.waiting()
        for token in self.inflight.lost():
            if not token[0].done():
                asked = self._asked(token)
                if token[2] in waiting:
                    token[0].set_exception(not_sent(asked, OSError(f"the connection was lost: {error}")))
                else:
                    token[0].set_exception(failure(asked, error))

    def wanted(self, call_id: int) -> bool:
        return self.inflight.find(call_id) is not None

    # --------------------------------------------------------------------------------------------- deadlines

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = None if at == math.inf else self._loop.call_later(at - monotonic(), self._wake)

    def _wake(self) -> None:
        now = monotonic()
        waiting = self.waiting()
        late = self.inflight.expired(now)
        for token in late:
            future, _, call_id, seconds, _ = token
            if not future.done():
                asked = self._asked(token)
                if call_id in waiting:
                    future.set_exception(not_sent(asked, TimeoutError("the other side does not read")))
                else:
                    future.set_exception(timed_out(asked, seconds))
                    self.send(self._answers.encode(Cancel(call_id)))
        if late and self.cut():
            self.close(ConnectionAbortedError("nothing has reached the other side for a while"))
        self._wake_at(max(self.inflight.deadline, now + LOOK))

    def _asked(self, token: Token) -> Asked:
        return Asked(self.member.rank, token[1], self.endpoint, token[2])
