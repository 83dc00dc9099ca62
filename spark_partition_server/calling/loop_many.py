"""``call_all`` and ``call_many`` of an asyncio client: ``many`` and ``Fanout``, for a loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any

from ..core.retry import Retry
from ..errors import CallTimeout, ClusterError, RemoteProtocolError, SparkPartitionServerError
from ..net.clock import monotonic
from ..wire.codes import Code
from .answers import never_sent
from .batches import Sizes, grouped
from .harvest import STATUS, first_error, not_ready, out_of_time, planned, sorted_in, split
from .loop_line import Batch
from .loop_tries import LoopTries
from .parcels import Parcel
from .requests import check_method

__all__ = ["call_all", "call_many", "wait_for_ready"]

WINDOW = 4  # messages that a server gets ahead of its answers: one is run, one is on its way, and some slack


async def call_all(
    tries: LoopTries, method: str, args: Any, kwargs: Any, timeout: float, return_errors: bool
) -> list[Any]:
    """See ``aio.Client.call_all``."""
    deadline = monotonic() + timeout
    payload = tries.requests.payload(0, method, args, kwargs)
    size = await tries.routes.size(deadline)
    tries.requests.check_size(payload, 0, method)  # now that the servers' limit is known for certain
    out: list[Any] = [None] * size
    spread = Spread(tries, Sizes(), method, out, timeout, deadline)
    await spread.run(Parcel(rank, payload, [rank]) for rank in range(size))
    return first_error(out, spread.failed and not return_errors)


async def call_many(
    tries: LoopTries, sizes: Sizes, method: str, calls: Iterable[Any], timeout: float, return_errors: bool
) -> list[Any]:
    """See ``aio.Client.call_many``."""
    deadline = monotonic() + timeout
    check_method(0, method)
    groups, count = grouped(calls)
    if not count:
        return []
    try:
        size = await tries.routes.size(deadline)
    except CallTimeout:
        if return_errors:
            return out_of_time(groups, count, method, timeout)
        raise
    parcels = planned(groups, size, method, sizes, tries.requests)
    out: list[Any] = [None] * count
    spread = Spread(tries, sizes, method, out, timeout, deadline)
    await spread.run(parcels)
    return first_error(out, spread.failed and not return_errors)


async def wait_for_ready(tries: LoopTries, timeout: float) -> None:
    """See ``aio.Client.wait_for_ready``."""
    waiting = Retry(tries.routes.calls)  # whatever the client's other calls do
    shared = (tries.routes, tries.lines, tries.answers, tries.requests, tries.ids)
    patient = LoopTries(*shared, waiting, tries.room)
    not_ready(await call_all(patient, STATUS, (), {}, timeout, return_errors=True), timeout)


class Spread:
    """One operation on many servers: a few tasks for each of them take its messages one after the other.

    Args:
        tries: how calls are made.
        sizes: learns how large the results of batches are.
        method: what all of them run.
        out: takes the results, at the places of the parcels; an error stands there as its exception.
        timeout, deadline: of the whole operation.

    Attributes:
        failed: some place holds an exception.
    """

    def __init__(
        self, tries: LoopTries, sizes: Sizes, method: str, out: list[Any], timeout: float, deadline: float
    ) -> None:
        self.failed = False
        self._tries = tries
        self._sizes = sizes
        self._method = method
        self._out = out
        self._timeout = timeout
        self._deadline = deadline
        self._waiting: dict[int, deque[Parcel]] = {}
        self._flying = 0
        self._starved: list[asyncio.Future[None]] = []  # those that found no room

    async def run(self, parcels: Iterable[Parcel]) -> None:
        """Sends everything and waits until all of it has ended, by the deadline.

        Raises:
            ClusterError: the cluster is over or gone. What is under way is cancelled.
            Overloaded: other calls of this client take all the room that there is.
        """
        for parcel in parcels:
            self._waiting.setdefault(parcel.rank, deque()).append(parcel)
        await _together([self._serve(waiting) for waiting in self._waiting.values()])

    async def _serve(self, waiting: deque[Parcel]) -> None:
        """Everything for one server."""
        if waiting[0].runs is not None and not self._sizes.of(self._method):
            # the first answer to a batch says how many runs the next ones may have
            await self._make(waiting.popleft(), waiting)
        await _together([self._take(waiting) for _ in range(min(WINDOW, len(waiting)))])

    async def _take(self, waiting: deque[Parcel]) -> None:
        while waiting:
            await self._make(waiting.popleft(), waiting)

    async def _make(self, parcel: Parcel, waiting: deque[Parcel]) -> None:
        """One message and its answer."""
        tries, room = self._tries, self._tries.room
        while len(room.active) >= room.calls_max and self._flying:
            freed = asyncio.get_running_loop().create_future()
            self._starved.append(freed)
            await freed
        remaining = self._deadline - monotonic()
        if remaining <= 0:
            self._end(parcel, never_sent(parcel.rank, self._method, self._timeout))
            return
        runs = 0 if parcel.runs is None else len(parcel.runs)
        self._flying += 1
        asked = (parcel.rank, self._method, parcel.payload, self._timeout, remaining, self._deadline, runs)
        try:
            answer = await tries.call(*asked)
            if runs:
                self._sort_in(parcel, answer, waiting)
            else:
                self._out[parcel.places[0]] = answer
        except ClusterError:
            raise
        except (SparkPartitionServerError, ImportError) as error:
            self._end(parcel, error)
        finally:
            self._flying -= 1
            while self._starved:
                freed = self._starved.pop()
                if not freed.done():
                    freed.set_result(None)

    def _sort_in(self, parcel: Parcel, answer: Any, waiting: deque[Parcel]) -> None:
        if type(answer) is not Batch:
            text = f"partition {parcel.rank} answered a batch as if it were a call"
            raise RemoteProtocolError(text, Code.UNEXPECTED)
        method, encode, runs = self._method, self._tries.requests.encode, len(parcel.runs or ())
        idempotent = method in self._tries.routes.calls.idempotent
        again, failed = sorted_in(parcel, answer.results, answer.errors, self._out, idempotent)
        self.failed = self.failed or failed
        first = not self._sizes.of(method)
        most = self._sizes.learn(method, runs, answer.octets, answer.arrays)
        if first:  # batches that wait may have to be made smaller
            for others in self._waiting.values():
                large = [one for one in others if one.runs is not None and len(one.runs) > most]
                for one in large:
                    others.remove(one)
                    others.extend(split(one, None, most, encode))
        if again:
            waiting.extend(split(parcel, again, self._sizes.halve(method, runs), encode))

    def _end(self, parcel: Parcel, error: Exception) -> None:
        self.failed = True
        for place in parcel.places:
            self._out[place] = error


async def _together(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Runs them all; the first error ends the others."""
    if len(coroutines) == 1:
        await coroutines[0]
        return
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        left = [task for task in tasks if not task.done()]
        if left:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
