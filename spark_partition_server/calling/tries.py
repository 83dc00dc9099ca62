"""One blocking call, in the caller's own thread: its tries, and what follows one that failed."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from threading import get_ident
from typing import Any

from ..core.retry import BUDGET, Retry
from ..errors import (
    CallError,
    CallOutcomeUnknown,
    ClusterError,
    CoordinatorLost,
    Overloaded,
    RemoteProtocolError,
    Unavailable,
)
from ..net.clock import monotonic
from ..net.lane import Lane
from ..wire.codec import read_reply
from ..wire.messages import Error, Frame, Member, Reply
from ..wire.payload import decode_value, size_of
from ..wire.zmtp import Frames
from .answers import Answers, Asked, closed_after, failure, nobody_answers, not_sent, timed_out
from .lanes import Lanes
from .room import COUNTED_BYTES, Room
from .routes import Routes

__all__ = ["Tries"]


class Tries:
    """Sends requests and waits for answers.

    Attributes:
        routes: who serves what.
        lanes: the connections.
        answers: reads what comes.
        ids: the numbers of calls; ``next`` of it is atomic.
        retry: when a call is tried again.
        room: for the calls under way.
    """

    def __init__(
        self, routes: Routes, lanes: Lanes, answers: Answers, ids: itertools.count[int], retry: Retry, room: Room
    ) -> None:
        self.routes = routes
        self.lanes = lanes
        self.answers = answers
        self.ids = ids
        self.retry = retry
        self.room = room
        self._calls = routes.calls
        self._budget = retry.budget
        self._local = lanes.local
        self._opening = answers.opening

    def call(
        self, rank: int, method: str, payload: list[Frame], started: float, timeout: float, deadline: float
    ) -> Any:
        """A call with as many tries as it takes. Raises what ``Client.call`` does."""
        room = self.room
        if not self._calls.view_number:  # now the servers' limit will be known too
            self.routes.size(deadline)
            self.lanes.local.requests.check_size(payload, rank, method)
        octets = 0
        if len(payload) > 1 or len(payload[0]) >= COUNTED_BYTES:
            octets = size_of(payload)
        thread = get_ident()
        if not room.take(thread, octets):
            raise room.full(rank, method)
        try:
            if self._budget.left < BUDGET:
                self._budget.earn()
            attempt = 0
            while True:
                attempt += 1
                try:
                    return self.once(rank, method, payload, started, timeout, deadline)
                except (Unavailable, Overloaded, CallOutcomeUnknown) as error:
                    self._again(error, rank, method, attempt, deadline)
                started = monotonic()
                timeout = deadline - started
        finally:
            room.give(thread)

    def once(
        self, rank: int, method: str, payload: list[Frame], started: float, timeout: float, deadline: float
    ) -> Any:
        """One try: sends the request and waits for its answer; late answers to earlier calls are passed over.

        Raises:
            Unavailable: it was certainly not sent whole.
            CallError: what became of the call.
            SparkPartitionServerError: the server breaks the protocol or refuses to talk to us; as ``Lanes.get``.
        """
        member, lane = self.lanes.get(rank, method, started, deadline)
        call_id = next(self.ids)
        lane.used = started
        requests = self._local.requests
        octets = requests.octets(call_id, method, timeout, member, payload)
        try:
            lane.arm(timeout)
            if octets is not None:
                lane.send_octets(octets, deadline)
            else:
                lane.send(requests.frames(call_id, method, timeout, member, payload), deadline)
        except OSError as error:  # TimeoutError too, and a lane that close() has closed meanwhile
            self.lanes.drop(rank)
            raise not_sent(Asked(rank, method, lane.endpoint, call_id), error) from error
        opening = self._opening
        while True:
            try:
                messages = lane.receive(deadline)
            except TimeoutError:
                lane.used = 0.0  # it is looked at before it is used again
                self.cancel(lane, call_id)
                raise timed_out(Asked(rank, method, lane.endpoint, call_id), deadline - started) from None
            except (OSError, RemoteProtocolError) as error:
                self.lanes.drop(rank)
                raise failure(Asked(rank, method, lane.endpoint, call_id), error) from error
            for frames in messages:
                if read_reply(frames, opening) == call_id:
                    return decode_value(frames[2:])
                asked = Asked(rank, method, lane.endpoint, call_id)
                reply = self._other(frames, asked)
                if reply is not None:
                    return self.answers.value(reply, asked)

    def cancel(self, lane: Lane, call_id: int) -> None:
        """Tells the server that nobody waits for an answer any more, if that can be said without waiting."""
        with contextlib.suppress(OSError):
            if lane.offer(self.lanes.local.requests.cancel(call_id)):
                lane.close()  # half a message has left: nothing can follow it

    def _other(self, frames: Frames, asked: Asked) -> Reply | Error | None:
        """An answer that is not this version's plain reply: a later version's, or an error; None: it is late."""
        try:
            message = self.answers.message(frames, asked.endpoint)
        except Exception as error:
            self.lanes.drop(asked.rank)
            raise failure(asked, error) from error
        return message if isinstance(message, (Reply, Error)) and message.call_id == asked.call_id else None

    # ------------------------------------------------------------------------------------ after a failed try

    def _again(self, error: CallError, rank: int, method: str, attempt: int, deadline: float) -> None:
        """Waits until it is time for another try, or raises the error."""
        if self.lanes.closed:
            ended = closed_after(error)
            raise ended from ended.__cause__
        wait = self.verdict(error, rank, method, attempt, self.lanes.tried(rank), monotonic(), deadline)
        if wait is None:
            raise error
        if wait:
            time.sleep(wait)

    def verdict(
        self,
        error: CallError,
        rank: int,
        method: str,
        attempt: int,
        tried: Member | None,
        asked: float,
        deadline: float,
    ) -> float | None:
        """Seconds until another try, after another look at the view; None: there is none.

        Args:
            attempt: tries so far.
            tried: whom the last of them went to.
            asked: when it failed; a view that was fetched since is as good as another look.

        Raises:
            ClusterError: the cluster is over or gone, which says more than the error.
        """
        pause = self.retry.pause(error, method, attempt, asked, deadline, random.random())
        if pause is None and error.code:  # a server that answers is no reason to look for another one
            self.routes.check_failure(error)
            return None
        try:
            self.routes.refresh(asked, deadline)
        except CoordinatorLost as lost:
            if not error.code:  # neither the server nor the coordinator can be reached
                ended = nobody_answers(error, lost)
                raise ended from ended.__cause__
        except ClusterError as over:
            raise over from error
        if pause is None:
            return None
        return self.retry.wait(error, tried, self.routes.calls.members.get(rank), pause)
