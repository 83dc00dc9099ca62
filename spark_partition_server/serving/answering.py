"""Judges messages and answers them: frames in, frames out.

The hot path: frames -> ``call_fields`` -> ``Dispatch.admit`` -> the method -> ``Replies.reply`` -> frames, in the
listener's thread and without a queue. A request takes that path while nothing waits and the sockets have been looked at
a moment ago; everything else goes over the desk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.dispatch import RESERVED_PREFIX, Dispatch
from ..errors import RemoteProtocolError
from ..net.clock import monotonic
from ..net.connection import Caller
from ..options import ServerOptions
from ..wire import codec
from ..wire.codes import Code
from ..wire.messages import Cancel, Error, Frame, Kind, Message, Refuse
from ..wire.zmtp import Frames
from .batches import Batch
from .desk import Desk, unanswered
from .jobs import Job, Single, run
from .replies import Replies

__all__ = ["STATUS", "Answering"]

log = logging.getLogger("spark_partition_server.server")

SLICE = 0.001  # seconds of work between two looks at the sockets
STATUS = RESERVED_PREFIX + "status"
CALLS = {Kind.REQUEST: Single, Kind.BATCH: Batch}
TAKEN = (Kind.REQUEST, Kind.BATCH, Kind.CANCEL)


class Answering:
    """Answers the messages of one incarnation.

    Args:
        dispatch: its methods; the reserved ones are added.
        run_id: of its run.
        options: its limits.
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
        status: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.dispatch = dispatch
        self.desk = Desk(options.calls_max, options.calls_bytes_max, options.connection_calls_max, 1)
        dispatch.handlers[STATUS] = self._status
        self._run_id = run_id
        self._more_status = status
        self._request = codec.preamble(Kind.REQUEST, run_id)
        self._kinds = {codec.preamble(kind, run_id): kind for kind in TAKEN}
        self._replies = Replies(run_id, options.message_bytes_max)
        self._load = self.desk.load
        self._spent = 0.0  # seconds of methods that were run without a queue since the sockets were looked at

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

    def gone(self, caller: Caller) -> None:
        """A caller's connection has ended."""
        if self._load.calls:
            self.desk.gone(caller)

    def work(self) -> float | None:
        """Turns for the jobs that wait, for about a millisecond. Returns in how many seconds it is to be called."""
        self._spent = 0.0
        if not self._load.waiting:
            return None
        until = monotonic() + SLICE
        while self.desk.turn(self._replies, until):
            if monotonic() >= until:
                return 0.0
        return None

    def busy(self) -> bool:
        """Whether calls are under way or wait."""
        return self._load.calls > 0

    def close(self) -> None:
        """Ends what is under way."""
        self.desk.clear()

    # ------------------------------------------------------------------------------------------------ calls

    def _answer_request(self, frames: Frames, received: float, caller: Caller) -> list[Frame] | None:
        fields = codec.call_fields(frames)
        now = monotonic()
        handler = self.dispatch.admit(fields, received, now)
        if type(handler) is Error:
            return self._replies.error(handler)
        assert callable(handler)
        if (self._load.waiting or self._spent > SLICE) and not fields[1].startswith(RESERVED_PREFIX):
            return self.desk.enter(Single(caller, fields, frames, handler, received), self._replies)
        answer = run(handler, fields[0], frames, self._replies)
        self._spent += monotonic() - now
        return answer

    def _answer_other(self, frames: Frames, received: float, caller: Caller) -> list[Frame] | None:
        kind = self._kinds.get(bytes(frames[0])) or codec.read_preamble(frames[0], self._run_id)
        if kind is Kind.REQUEST:
            return self._answer_request(frames, received, caller)
        if kind is Kind.BATCH:
            return self._enter(kind, frames, received, caller)
        if kind is Kind.CANCEL:
            message = codec.decode(frames, self._run_id)
            assert isinstance(message, Cancel)
            self.desk.cancel(caller, message.call_id)
            return None
        raise RemoteProtocolError(f"a server takes no {kind.name}", Code.UNEXPECTED)

    def _enter(self, kind: Kind, frames: Frames, received: float, caller: Caller) -> list[Frame] | None:
        fields = codec.call_fields(frames, kind.name)
        handler = self.dispatch.admit(fields, received, monotonic())
        if type(handler) is Error:
            return self._replies.error(handler)
        assert callable(handler)
        job: Job = CALLS[kind](caller, fields, frames, handler, received)
        return self.desk.enter(job, self._replies)

    def _status(self) -> dict[str, Any]:
        load = self._load
        return {
            "calls": self._replies.answered + self._replies.errors,
            "errors": self._replies.errors,
            "queued": load.waiting,
            "in_flight": load.calls,
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
