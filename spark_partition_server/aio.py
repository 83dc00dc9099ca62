"""``aio``: the asyncio face of a client. The same names and meanings as the blocking ``Client``, awaitable.

::

    async with aio.connect("/path/to/cluster.json") as client:
        value = await client.call(3, "get", "alice")

A call is sent by the task that makes it and answered by the loop: one connection to each server, any number of calls
under way on it, no thread. Cancelling a task takes its call back.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Generator
from typing import Any

from . import connection_file
from .calling.answers import Answers, closed, nobody_answers
from .calling.loop_lines import Lines
from .calling.loop_routes import LoopRoutes
from .calling.requests import Requests, rank_of
from .calling.routes import Failure
from .errors import CallError, CallOutcomeUnknown, ClusterError, CoordinatorLost, Overloaded, Unavailable
from .keys import Function, Keys
from .loop_keyed import LoopKeyedCalls
from .net.clock import monotonic
from .net.loop_lane import READ_BYTES
from .options import ClientOptions
from .partition import Partition
from .wire.codes import Code
from .wire.messages import Frame
from .wire.payload import size_of

__all__ = ["Client", "connect"]


def connect(
    path: str | os.PathLike[str],
    *,
    timeout: float | None = None,
    partitioner: Function | None = None,
    route: str | None = None,
) -> Client:
    """A client for the cluster that a connection file names, for ``async with`` or ``await``.

    Args:
        path: the cluster's ``connection_file``.
        timeout: seconds a call may take when it does not say itself; default 10.
        partitioner: key -> int, the function that placed the cluster's keys, where it is one of the application's.
        route: ``"direct"``, ``"relay"`` (by way of the driver) or ``"auto"``, see ``ClientOptions``; default auto.

    Raises:
        ClusterClosed: the cluster has stopped.
        CoordinatorLost: the driver does not answer; from ``async with`` or ``await``.
        AuthenticationError: the file can be read by others.
    """
    found = connection_file.read(path)
    options = ClientOptions.given(timeout=timeout, route=route)
    return Client(found.coordinator, found.run_id, options, partitioner=partitioner)


class Client(LoopKeyedCalls):
    """Calls the methods of partition servers. Belongs to the loop in which it is used first, and to any of its tasks.

    Args:
        coordinator: the coordinator's endpoint.
        run_id: of the cluster's run.
        options: timeouts and limits.
        failure: asked whether the cluster has failed, and how, when a server cannot be reached.
        partitioner: key -> int, for ``call_key``; default: what the cluster tells of its own.
    """

    def __init__(
        self,
        coordinator: str,
        run_id: bytes,
        options: ClientOptions | None = None,
        failure: Failure | None = None,
        partitioner: Function | None = None,
    ) -> None:
        self._keys = Keys(partitioner)
        self._options = options or ClientOptions()
        self._timeout = self._options.timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        scratch = memoryview(bytearray(READ_BYTES))
        self._ids = itertools.count(1)
        self._answers = Answers(run_id)
        self._routes = LoopRoutes(coordinator, run_id, failure, scratch)
        self._calls = self._routes.calls
        self._lines = Lines(self._routes, self._answers, self._options, scratch)
        self._ready = self._lines.ready
        self._requests = Requests(run_id, self._calls, self._options.message_bytes_max)
        self._under_way = 0  # calls
        self._octets = 0  # of their requests

    # ----------------------------------------------------------------------------------------------- calls

    async def call(
        self, partition: int, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Runs a method of one partition and returns its result. Many calls may be under way at once.

        Cancelling the task takes the call back: its server does not run it any more if it has not begun.

        Args:
            partition: whose.
            method: its name.
            timeout: seconds; default: the client's.

        Raises:
            CallError: one of its subclasses says what happened; ``error.definite`` says whether it certainly did not.
            TypeError: an argument cannot be sent; the text names it.
            ClusterError: the cluster is over (``ClusterClosed``, ``JobFailed``) or gone (``CoordinatorLost``).
            RuntimeError: the client is in use in another loop.
        """
        if timeout is None:
            timeout = self._timeout
        rank = rank_of(partition)
        return await self._call(rank, method, self._requests.payload(rank, method, args, kwargs), timeout)

    async def _call(self, rank: int, method: str, payload: list[Frame], timeout: float) -> Any:
        """All tries of one call."""
        if self._loop is not asyncio.get_running_loop():
            self._settle()
        seconds = timeout
        deadline = monotonic() + timeout
        octets = len(payload[0]) if len(payload) == 1 else size_of(payload)
        self._enter(rank, method, octets)
        attempt = 0
        try:
            while True:
                attempt += 1
                call_id = next(self._ids)
                line = self._ready.get(rank)
                try:
                    if line is None or line.member is not self._calls.members.get(rank):
                        line = await self._lines.open(rank, method, deadline)
                        timeout = deadline - monotonic()
                    frames = self._requests.frames(call_id, method, timeout, line.member, payload)
                    return await line.begin(call_id, method, frames, octets, seconds, deadline)
                except asyncio.CancelledError:
                    if line is not None:
                        line.cancel(call_id)
                    raise
                except (Unavailable, Overloaded, CallOutcomeUnknown) as error:
                    await self._again(error, method, attempt, deadline)
                timeout = deadline - monotonic()
        finally:
            self._under_way -= 1
            self._octets -= octets

    def partition(self, partition: int) -> Partition:
        """The methods of one partition as methods: ``await client.partition(3).get("alice")``."""
        return Partition(self.call, partition)

    async def call_all(self, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> list[Any]:
        """Runs a method of every partition at once and returns the results in partition order.

        Raises:
            CallError: of the first partition, in order, whose call failed; the others have been called too.
            TypeError: an argument cannot be sent.
            ClusterError: the cluster is over or gone.
        """
        if timeout is None:
            timeout = self._timeout
        deadline = monotonic() + timeout
        payload = self._requests.payload(0, method, args, kwargs)
        self._settle()
        ranks = range(await self._routes.size(deadline))
        timeout = deadline - monotonic()
        calls = (self._call(rank, method, payload, timeout) for rank in ranks)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    # ------------------------------------------------------------------------------------- what is around them

    async def partitions(self) -> int:
        """How many partitions the cluster has."""
        self._settle()
        return await self._routes.size(monotonic() + self._timeout)

    async def refresh(self, timeout: float | None = None) -> None:
        """Asks the coordinator now who serves what. Calls do this by themselves when they need to.

        Raises:
            ClusterError: the cluster is over or gone.
        """
        self._settle()
        now = monotonic()
        await self._routes.refresh(now, now + (self._timeout if timeout is None else timeout))

    def close(self) -> None:
        """Ends every call and every connection. Their sockets are closed in the next turn of the loop."""
        self._routes.abort()
        self._lines.abort()

    async def aclose(self) -> None:
        """The same, and waits until all is closed. Twice is harmless."""
        self.close()
        if self._loop is asyncio.get_running_loop():
            await self._routes.close()
            await self._lines.close()

    async def __aenter__(self) -> Client:
        await self.refresh()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __await__(self) -> Generator[Any, None, Client]:
        return self.__aenter__().__await__()

    # -------------------------------------------------------------------------------------------- helpers

    def _settle(self) -> None:
        """The client belongs to the loop that it is used in first."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "this client belongs to another event loop, in which it was used first: make one client for each "
                "loop, for instance inside the coroutine that asyncio.run() runs"
            )

    def _enter(self, rank: int, method: str, octets: int) -> None:
        """Counts a call in, if there is room for it."""
        under_way, total, options = self._under_way, self._octets + octets, self._options
        if under_way and (under_way >= options.calls_max or total > options.calls_bytes_max):
            text = (
                f"{under_way} calls of {self._octets} octets are under way, the limits are {options.calls_max} calls "
                f"and {options.calls_bytes_max} octets (ClientOptions.calls_max, calls_bytes_max): await some of them "
                "before you make more"
            )
            raise Overloaded(text, rank=rank, method=method)
        self._under_way = under_way + 1
        self._octets = total

    async def _again(self, error: CallError, method: str, attempt: int, deadline: float) -> None:
        """After a failed try: looks at the view again and waits, or raises the error."""
        asked = monotonic()
        if self._lines.closed:
            raise (closed(error.rank, method) if error.definite else error) from error
        pause = self._calls.pause(method, error.definite, attempt, asked, deadline, random.random())
        if pause is None or (error.code and not self._calls.retryable(Code.of(error.code))):
            self._routes.check_failure(error)
            raise error
        before = self._calls.members.get(error.rank or 0)
        try:
            await self._routes.refresh(asked, deadline)
        except CoordinatorLost as lost:
            ended = nobody_answers(error, lost)
            raise ended from ended.__cause__
        except ClusterError as over:
            raise over from error
        if self._calls.members.get(error.rank or 0) in (before, None):
            await asyncio.sleep(pause)
