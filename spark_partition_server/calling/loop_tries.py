"""One call of an asyncio client: its tries, and what follows one that failed."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

from ..core.retry import BUDGET, Retry
from ..errors import CallError, CallOutcomeUnknown, ClusterError, CoordinatorLost, Overloaded, Unavailable
from ..net.clock import monotonic
from ..net.loop_lane import LARGE_BYTES
from ..wire.messages import Frame, Member
from ..wire.payload import size_of
from .answers import Answers, closed_after, nobody_answers
from .loop_lines import Lines
from .loop_routes import LoopRoutes
from .requests import Requests
from .room import COUNTED_BYTES, Room

__all__ = ["LoopTries"]


class LoopTries:
    """Sends requests and waits for answers: ``Tries``, for a loop.

    Attributes:
        routes: who serves what.
        lines: the connections.
        answers: reads what comes.
        requests: makes what leaves.
        ids: the numbers of calls.
        retry: when a call is tried again.
        room: for the calls under way.
    """

    def __init__(
        self,
        routes: LoopRoutes,
        lines: Lines,
        answers: Answers,
        requests: Requests,
        ids: itertools.count[int],
        retry: Retry,
        room: Room,
    ) -> None:
        self.routes = routes
        self.lines = lines
        self.answers = answers
        self.requests = requests
        self.ids = ids
        self.retry = retry
        self.room = room
        self._calls = routes.calls
        self._ready, self._bulk, self._heavy = lines.ready, lines.bulk, lines.heavy
        self._budget = retry.budget

    async def call(
        self,
        rank: int,
        method: str,
        payload: list[Frame],
        seconds: float,
        timeout: float,
        deadline: float,
        runs: int = 0,
    ) -> Any:
        """A call with as many tries as it takes. Raises what ``aio.Client.call`` does.

        Args:
            seconds: that the caller was given.
            timeout: what is left of them, until ``deadline``.
            runs: the call is a batch of so many, and a ``Batch`` is returned; 0: it is none.
        """
        if not self._calls.view_number:  # now the servers' limit will be known too
            await self.routes.size(deadline)
            self.requests.check_size(payload, rank, method)
            timeout = deadline - monotonic()
        octets = len(payload[0]) if len(payload) == 1 else size_of(payload)
        key = call_id = next(self.ids)
        if not self.room.take(key, octets if octets >= COUNTED_BYTES else 0):
            raise self.room.full(rank, method)
        try:
            if self._budget.left < BUDGET:
                self._budget.earn()
            opening = self.requests.batch if runs else None
            lines = self._bulk if octets > LARGE_BYTES or method in self._heavy else self._ready
            attempt = 0
            while True:
                attempt += 1
                line = lines.get(rank)
                try:
                    if line is None or line.member is not self._calls.members.get(rank):
                        line = None
                        line = await self.lines.open(rank, method, deadline, lines is self._bulk)
                        timeout = deadline - monotonic()
                    frames = self.requests.frames(call_id, method, timeout, line.member, payload, opening)
                    return await line.begin(call_id, method, frames, octets, seconds, deadline, runs)
                except asyncio.CancelledError:
                    if line is not None:
                        line.cancel(call_id)
                    raise
                except (Unavailable, Overloaded, CallOutcomeUnknown) as error:
                    await self.again(error, rank, method, attempt, None if line is None else line.member, deadline)
                call_id = next(self.ids)
                timeout = deadline - monotonic()
        finally:
            self.room.give(key)

    async def again(
        self, error: CallError, rank: int, method: str, attempt: int, tried: Member | None, deadline: float
    ) -> None:
        """After a failed try: looks at the view again and waits, or raises the error.

        Args:
            attempt: tries so far.
            tried: whom the last of them went to; None: it went to nobody.
        """
        if self.lines.closed:
            shut = closed_after(error)
            raise shut from shut.__cause__
        tried = tried or self._calls.members.get(rank)
        asked = monotonic()
        pause = self.retry.pause(error, method, attempt, asked, deadline, random.random())
        if pause is None and error.code:  # a server that answers is no reason to look for another one
            self.routes.check_failure(error)
            raise error
        try:
            await self.routes.refresh(asked, deadline)
        except CoordinatorLost as lost:
            if not error.code:  # neither the server nor the coordinator can be reached
                gone = nobody_answers(error, lost)
                raise gone from gone.__cause__
        except ClusterError as ended:
            raise ended from error
        wait = None if pause is None else self.retry.wait(error, tried, self._calls.members.get(rank), pause)
        if wait is None:
            raise error
        if wait:
            await asyncio.sleep(wait)
