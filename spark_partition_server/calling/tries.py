"""One try of a blocking call, in the caller's own thread, and what follows a try that failed."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any, NamedTuple

from ..errors import CallError, ClusterError, CoordinatorLost, RemoteProtocolError
from ..net.clock import monotonic
from ..net.lane import Lane
from ..wire.codes import Code
from ..wire.messages import Error, Frame, Reply
from ..wire.payload import decode_value
from ..wire.zmtp import Frames
from .answers import Answers, Asked, closed, failure, not_sent, timed_out
from .lanes import Lanes
from .routes import Routes

__all__ = ["Begun", "Tries"]


class Begun(NamedTuple):
    """A request that has left, and where its answer comes."""

    rank: int
    method: str
    lane: Lane
    call_id: int
    started: float

    def asked(self) -> Asked:
        """The request as errors tell of it."""
        return Asked(self.rank, self.method, self.lane.endpoint, self.call_id)


class Tries:
    """Sends requests and waits for answers.

    Args:
        routes: who serves what.
        lanes: the connections.
        answers: reads what comes.
        ids: the numbers of calls; ``next`` of it is atomic.
    """

    def __init__(self, routes: Routes, lanes: Lanes, answers: Answers, ids: itertools.count[int]) -> None:
        self._routes = routes
        self._calls = routes.calls
        self._lanes = lanes
        self._answers = answers
        self._call_id = answers.call_id
        self._ids = ids

    def begin(
        self, rank: int, method: str, payload: list[Frame], started: float, timeout: float, deadline: float
    ) -> Begun:
        """Sends a request.

        Raises:
            Unavailable: it was certainly not sent whole.
            CallError, ClusterError: as ``Lanes.get``.
        """
        member, lane = self._lanes.get(rank, method, started, deadline)
        call_id = next(self._ids)
        lane.arm(timeout)
        lane.used = started
        frames = self._lanes.local.requests.frames(call_id, method, timeout, member, payload)
        try:
            lane.send(frames, deadline)
        except OSError as error:  # TimeoutError too
            self._lanes.drop(rank)
            raise not_sent(Asked(rank, method, lane.endpoint, call_id), error) from error
        return Begun(rank, method, lane, call_id, started)

    def finish(self, begun: Begun, deadline: float) -> Any:
        """Waits for the answer; late answers to earlier calls are passed over.

        Raises:
            CallError: what became of the call.
            SparkPartitionServerError: the server breaks the protocol or refuses to talk to us.
        """
        lane, call_id = begun.lane, begun.call_id
        while True:
            try:
                messages = lane.receive(deadline)
            except TimeoutError:
                raise timed_out(begun.asked(), deadline - begun.started) from None
            except (OSError, RemoteProtocolError) as error:
                self._lanes.drop(begun.rank)
                raise failure(begun.asked(), error) from error
            for frames in messages:
                if self._call_id(frames) == call_id:
                    return decode_value(frames[2:])
                reply = self._other(frames, begun)
                if reply is not None:
                    return self._answers.value(reply, begun.asked())

    def _other(self, frames: Frames, begun: Begun) -> Reply | Error | None:
        """An answer that is not this version's plain reply: a later version's, or an error; None: it is late."""
        try:
            message = self._answers.message(frames, begun.lane.endpoint)
        except Exception as error:
            self._lanes.drop(begun.rank)
            raise failure(begun.asked(), error) from error
        return message if isinstance(message, (Reply, Error)) and message.call_id == begun.call_id else None

    def again(self, error: CallError, method: str, attempt: int, deadline: float) -> None:
        """After a failed try: looks at the view again and waits, or raises the error."""
        asked = monotonic()
        if self._lanes.closed:
            raise closed(error.rank, method) from error
        pause = self._calls.pause(method, error.definite, attempt, asked, deadline, random.random())
        if pause is None or (error.code and not self._calls.retryable(Code.of(error.code))):
            self._routes.check_failure(error)
            raise error
        before = self._calls.members.get(error.rank or 0)
        try:
            self._routes.refresh(asked, deadline)
        except CoordinatorLost as lost:
            raise error from lost
        except ClusterError as over:
            raise over from error
        if self._calls.members.get(error.rank or 0) in (before, None):
            time.sleep(pause)
