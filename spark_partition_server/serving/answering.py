"""Judges messages and answers them: frames in, frames out.

The hot path: frames -> ``call_fields`` -> ``Dispatch.admit`` -> the method -> ``Replies.reply`` -> frames, in the
listener's thread and without a queue. A request takes that path while nothing waits and the sockets have been looked at
a moment ago; everything else goes over the desk.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from ..core.dispatch import RESERVED_PREFIX, Dispatch
from ..errors import RemoteProtocolError
from ..net.clock import monotonic
from ..net.connection import Caller
from ..options import ServerOptions
from ..wire import codec
from ..wire.codes import Code
from ..wire.messages import Cancel, Credit, Error, Frame, Kind, Message, Refuse
from ..wire.zmtp import Frames
from .batches import Batch
from .desk import SLICE, Desk, unanswered
from .jobs import Single, run
from .replies import Replies
from .streams import Flowing, Streaming
from .workers import Workers

if TYPE_CHECKING:
    from .coroutines import Going, Loop

__all__ = ["STATUS", "Answering"]

log = logging.getLogger("spark_partition_server.server")

STATUS = RESERVED_PREFIX + "status"
CANCELLABLE = (Kind.REQUEST, Kind.BATCH, Kind.STREAM)
TAKEN = (*CANCELLABLE, Kind.CREDIT, Kind.CANCEL)
CLOSE_TIMEOUT = 2.0  # seconds that methods which still run at the end may take to notice
SHARE = 4  # times as long as it took to read and judge, turns are given: a flood takes a fifth of the time
LONGEST_SLICE = 0.05  # seconds of turns between two looks at the sockets, whatever it took to read
LONGEST_SLEEP = 1.0  # seconds between two looks at streams that nobody reads

_preamble_of = itemgetter(0)


class Answering:
    """Answers the messages of one incarnation.

    Args:
        dispatch: its methods; the reserved ones are added.
        run_id: of its run.
        options: its limits.
        threads: methods run on so many threads; 0: in the thread that serves.
        coroutines: the names of methods that run on an asyncio loop instead.
        status: what ``sps.status`` returns, besides what is known here.

    Attributes:
        dispatch: as given.
        desk: the jobs that are not over.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        run_id: bytes,
        options: ServerOptions,
        *,
        threads: int = 0,
        coroutines: Collection[str] = (),
        status: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.dispatch = dispatch
        self.desk = Desk(options.calls_max, options.calls_bytes_max, options.connection_calls_max, max(threads, 1))
        dispatch.handlers[STATUS] = self._status
        self._run_id = run_id
        self._bytes_max = options.message_bytes_max
        self._stream_timeout = options.stream_timeout
        self._more_status = status
        self._request = codec.preamble(Kind.REQUEST, run_id)
        self._cancel = codec.preamble(Kind.CANCEL, run_id)
        self._kinds = {codec.preamble(kind, run_id): kind for kind in TAKEN}
        self._all_replies: list[Replies] = []
        self._replies = self._more_replies()
        self._load = self.desk.load
        self._looked = 0.0  # at streams that nobody reads
        self._worked = 0.0  # when turns were given last; 0: nothing was left to do
        self._look_at = 0.0  # when the sockets are to be looked at
        self._spent = 0.0  # seconds of methods that were run without a queue since the sockets were looked at
        self._workers = Workers(self.desk, threads, self._more_replies) if threads else None
        self._coroutines = frozenset(coroutines)
        self._loop: Loop | None = None
        self._inline = not threads and not coroutines  # every request may take the shortest way

    def open(self) -> None:
        """Starts the threads there are to be."""
        if self._workers is not None:
            self._workers.start()
        if self._coroutines:
            from .coroutines import Loop  # noqa: PLC0415 - asyncio takes its time; most servers do not need it

            self._loop = Loop(self.desk, self._more_replies())
            self._loop.start()

    def close(self) -> None:
        """Takes everything back and ends the threads. What runs and does not notice is left behind with a warning."""
        self.desk.clear()
        deadline = monotonic() + CLOSE_TIMEOUT
        ended = self._workers is None or self._workers.stop(deadline)
        if not (self._loop is None or self._loop.stop(deadline)) or not ended:
            log.warning("methods still run %g s after the end of their server", CLOSE_TIMEOUT)

    def answer(self, frames: Frames, received: float, caller: Caller) -> Sequence[Frame] | None:
        """The answer to one message; None: silence, or later. Raises nothing: a message must not end the server."""
        try:
            if frames[0] == self._request:
                return self._answer_request(frames, received, caller)
            return self._answer_other(frames, received, caller)
        except RemoteProtocolError as error:
            return self._refuse(error, frames[0])
        except Exception:
            log.exception("a message could not be answered: a bug of this library")
            return self._replies.encode(unanswered())

    def sift(self, messages: list[Frames]) -> list[Frames]:
        """Of messages that were read together, those that are to be answered: a call whose CANCEL is here already is
        not begun. (Those of a REQ, which come with its delimiter, are left alone: a REQ waits for each answer.)"""
        if self._cancel not in map(_preamble_of, messages):
            return messages
        kept: list[Frames] = []
        taken_back: set[int] = set()
        for frames in reversed(messages):
            kind = self._kind(frames[0])
            if taken_back and kind in CANCELLABLE and _call_of(frames) in taken_back:
                continue
            if kind is Kind.CANCEL:
                with contextlib.suppress(RemoteProtocolError):  # which is told when its turn comes
                    taken_back.add(cast("Cancel", codec.decode(frames, self._run_id)).call_id)
            kept.append(frames)
        kept.reverse()
        return kept

    def _kind(self, preamble: Frame) -> Kind | None:
        """What is taken here, by its preamble; None: another message, or none at all, however long it may be."""
        return self._kinds.get(bytes(preamble)) if len(preamble) == codec.PREAMBLE_BYTES else None

    def gone(self, caller: Caller) -> None:
        """A caller's connection has ended."""
        if self._load.calls:
            self.desk.gone(caller)

    def work(self) -> float | None:
        """Turns for the jobs that wait, for about a millisecond. Returns in how many seconds it is to be called again;
        less than 0: before the sockets are looked at."""
        spent, self._spent = self._spent, 0.0
        load = self._load
        if load.idle:
            self._look_at_streams()
        if load.waiting:
            if self._workers is not None:
                self._workers.remind()
            else:
                now = monotonic()
                if spent > SLICE and not self._worked:
                    self._worked = now
                    return 0.0  # a method took its time: what came meanwhile goes first, it may be a CANCEL
                if now >= self._look_at:
                    since = now - self._worked if self._worked else 0.0
                    self._look_at = now + min(SHARE * since, LONGEST_SLICE)
                until = now + SLICE
                self.desk.flowed = False
                while self.desk.turn(self._replies):
                    self._worked = now = monotonic()
                    # items leave before the generator goes on: nobody knows how long the next one takes
                    if self.desk.flowed or now >= until:
                        return -1.0 if now < self._look_at else 0.0
        self._worked = self._look_at = 0.0
        return min(self._stream_timeout / 4, LONGEST_SLEEP) if load.idle else None

    def busy(self) -> bool:
        """Whether calls run or wait for their turn."""
        return self._load.calls > self._load.idle

    # ------------------------------------------------------------------------------------------------ calls

    def _answer_request(self, frames: Frames, received: float, caller: Caller) -> list[Frame] | None:
        fields = codec.call_fields(frames)
        now = monotonic()
        handler = self.dispatch.admit(fields, received, now)
        if type(handler) is Error:
            return self._replies.error(handler)
        assert callable(handler)
        if self._load.waiting or self._spent > SLICE or not self._inline:
            name = fields[1]
            if name in self._coroutines:
                from .going import GoingSingle  # noqa: PLC0415

                return self._go(GoingSingle(caller, fields, frames, handler, received))
            waits = self._load.waiting or self._spent > SLICE or self._workers is not None
            if waits and not name.startswith(RESERVED_PREFIX):
                return self.desk.enter(Single(caller, fields, frames, handler, received), self._replies)
        answer = run(handler, fields[0], frames, self._replies)
        self._spent += monotonic() - now
        return answer

    def _answer_other(self, frames: Frames, received: float, caller: Caller) -> list[Frame] | None:
        kind = self._kind(frames[0]) or codec.read_preamble(frames[0], self._run_id)
        if kind is Kind.REQUEST:
            return self._answer_request(frames, received, caller)
        if kind is Kind.BATCH:
            return self._answer_batch(frames, received, caller)
        if kind is Kind.STREAM:
            return self._answer_stream(frames, received, caller)
        if kind not in TAKEN:
            raise RemoteProtocolError(f"a server takes no {kind.name}", Code.UNEXPECTED)
        message = codec.decode(frames, self._run_id)
        if isinstance(message, Cancel):
            self.desk.cancel(caller, message.call_id)
        elif isinstance(message, Credit):
            job = self.desk.find(caller, message.call_id)
            if isinstance(job, Flowing) and job.grant(message.items):
                self.desk.wants_turn(job)
        return None

    def _answer_batch(self, frames: Frames, received: float, caller: Caller) -> list[Frame] | None:
        fields = codec.call_fields(frames, "BATCH")
        handler = self.dispatch.admit(fields, received, monotonic())
        if type(handler) is Error:
            return self._replies.error(handler)
        assert callable(handler)
        if fields[1] in self._coroutines:
            from .going import GoingBatch  # noqa: PLC0415

            return self._go(GoingBatch(caller, fields, frames, handler, received))
        return self.desk.enter(Batch(caller, fields, frames, handler, received), self._replies)

    def _answer_stream(self, frames: Frames, received: float, caller: Caller) -> list[Frame] | None:
        fields, credit = codec.stream_fields(frames)
        handler = self.dispatch.admit(fields, received, monotonic(), stream=True)
        if type(handler) is Error:
            return self._replies.error(handler)
        assert callable(handler)
        if fields[1] in self._coroutines:
            from .going import GoingStream  # noqa: PLC0415

            return self._go(GoingStream(caller, fields, frames, handler, received, credit))
        return self.desk.enter(Streaming(caller, fields, frames, handler, received, credit), self._replies)

    def _go(self, job: Going) -> list[Frame] | None:
        assert self._loop is not None
        refused = self.desk.enter(job, self._replies, running=True)
        if refused is None:
            self._loop.begin(job)
        return refused

    # -------------------------------------------------------------------------------------------- the rest

    def _look_at_streams(self) -> None:
        now = monotonic()
        if now - self._looked >= min(self._stream_timeout / 4, LONGEST_SLEEP):
            self._looked = now
            self.desk.starve(self._stream_timeout, self._replies)

    def _more_replies(self) -> Replies:
        self._all_replies.append(Replies(self._run_id, self._bytes_max))
        return self._all_replies[-1]

    def _status(self) -> dict[str, Any]:
        load = self._load
        errors = sum(replies.errors for replies in self._all_replies)
        return {
            "calls": errors + sum(replies.answered for replies in self._all_replies),
            "errors": errors,
            "queued": load.waiting,
            "in_flight": load.calls - load.waiting,
            "streams": self.desk.streams(),
            **self._more_status(),
        }

    # --------------------------------------------------------------------------------------------- refusals

    def _refuse(self, error: RemoteProtocolError, preamble: Frame) -> list[Frame] | None:
        """A stranger gets silence; whoever speaks the protocol gets the reason, under the run id it came with."""
        code = Code.of(error.code)
        log.debug("refused code=%s error=%s", code.name, error)
        if code is Code.MALFORMED:
            return None
        message: Message = Refuse(code, str(error))
        return codec.encode(message, codec.run_id_of(preamble, self._run_id))


def _call_of(frames: Frames) -> Any:
    """The call id of a call; None: it says none."""
    try:
        fields = codec.decode_fields(frames[1])
        return fields[0] if type(fields[0]) is int else None
    except (RemoteProtocolError, IndexError):
        return None
