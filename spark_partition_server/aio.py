"""``aio``: the asyncio face of a client. The same names and meanings as the blocking ``Client``, awaitable.

::

    async with aio.connect("/path/to/cluster.json") as client:
        value = await client.call(3, "get", "alice")

A call is sent by the task that makes it and answered by the loop: one connection to each server, any number of calls
under way on it, a second one for what is large, no thread. Cancelling a task takes its call back.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Generator, Iterable
from typing import Any

from . import connection_file
from .calling.answers import left
from .calling.loop_lines import Lines
from .calling.loop_many import call_all, call_many, wait_for_ready
from .calling.loop_routes import LoopRoutes
from .calling.loop_streams import LoopStream
from .calling.loop_tries import LoopTries
from .calling.requests import Requests, check_credit, rank_of, seconds_of
from .calling.routes import Failure
from .calling.streams import CREDIT
from .keyed import LoopKeyedCalls
from .keys import Function
from .net.clock import monotonic
from .net.loop_lane import READ_BYTES
from .options import ClientOptions
from .partition import Partition

__all__ = ["Client", "connect"]


def connect(
    path: str | os.PathLike[str],
    *,
    timeout: float | None = None,
    partitioner: Function | None = None,
    options: ClientOptions | None = None,
    route: str | None = None,
) -> Client:
    """A client for the cluster that a connection file names, for ``async with`` or ``await``.

    Args:
        path: the cluster's ``connection_file``.
        timeout: seconds a call may take when it does not say itself; default 10.
        partitioner: key -> int, the function that placed the cluster's keys, where it is one of the application's.
        options: more than ``timeout``.
        route: ``"direct"``, ``"relay"`` (by way of the driver) or ``"auto"``, see ``ClientOptions``; default auto.

    Raises:
        ClusterClosed: the cluster has stopped.
        CoordinatorLost: the driver does not answer; from ``async with`` or ``await``.
        AuthenticationError: the file can be read by others.
    """
    found = connection_file.read(path)
    given = ClientOptions.given(options, timeout=timeout, route=route)
    client = Client(found.coordinator, found.run_id, given, partitioner=partitioner)
    client._routes.file = path
    return client


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
        self._loop: asyncio.AbstractEventLoop | None = None
        scratch = memoryview(bytearray(READ_BYTES))
        self._routes: LoopRoutes = LoopRoutes(coordinator, run_id, failure, scratch)
        super().__init__(self._routes, run_id, options or ClientOptions(), partitioner)
        self._lines = Lines(self._routes, self._answers, self._options, scratch)
        self._requests = Requests(run_id, self._routes.calls, self._options.message_bytes_max)
        shared = (self._routes, self._lines, self._answers, self._requests)
        self._tries = LoopTries(*shared, itertools.count(1), self._retry, self._room)
        self._call = self._tries.call

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
        rank = rank_of(partition)
        timeout = self._timeout if timeout is None else left(timeout, rank, method)
        payload = self._requests.payload(rank, method, args, kwargs)
        if self._loop is not asyncio.get_running_loop():
            self._settle()
        return await self._call(rank, method, payload, timeout, timeout, monotonic() + timeout)

    def partition(self, partition: int) -> Partition:
        """The methods of one partition as methods: ``await client.partition(3).get("alice")``."""
        return Partition(self.call, partition)

    async def call_all(
        self, method: str, /, *args: Any, timeout: float | None = None, return_errors: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Runs a method of every partition at once and returns the results in partition order.

        Args:
            method: its name.
            timeout: seconds for all of them; default: the client's.
            return_errors: an error of one partition stands in the list as its exception, and nothing is raised for it.

        Raises:
            CallError: of the first partition, in order, whose call failed; the others have been called too.
            TypeError: an argument cannot be sent.
            ClusterError: the cluster is over or gone.
        """
        self._settle()
        seconds = self._for_many(timeout, method, return_errors)
        return await call_all(self._tries, method, args, kwargs, seconds, return_errors)

    async def call_many(
        self, method: str, calls: Iterable[Any], /, *, timeout: float | None = None, return_errors: bool = False
    ) -> list[Any]:
        """Runs a method many times and returns the results in the order of ``calls``.

        The calls of one partition travel together, a few hundred in a message, and all servers work at once; the calls
        of one partition may run in any order. Nothing is sent before all arguments have been read and encoded.

        Args:
            method: its name.
            calls: (partition, argument, ...) for each: ``await client.call_many("get", [(3, "alice"), (7, "bob")])``.
            timeout: seconds for all of them; default: the client's.
            return_errors: an error of one call stands in the list as its exception, and nothing is raised for it.

        Raises:
            CallError: of the first call, in order, that failed; the others have been made too.
            TypeError: one of ``calls`` is no such tuple, or an argument cannot be sent; nothing was sent.
            ClusterError: the cluster is over or gone.
        """
        self._settle()
        seconds = self._for_many(timeout, method, return_errors)
        return await call_many(self._tries, self._sizes, method, calls, seconds, return_errors)

    def stream(
        self,
        partition: int,
        method: str,
        /,
        *args: Any,
        timeout: float | None = None,
        credit: int = CREDIT,
        **kwargs: Any,
    ) -> LoopStream:
        """Iterates over what a generator method of one partition yields: ``async for row in client.stream(3, "scan")``.

        The server runs ahead of the reader by ``credit`` items at most. To ``aclose`` the stream, to leave its ``async
        with`` block or to drop it closes the generator. A stream that has begun is never begun again by itself.

        Args:
            partition: whose.
            method: its name.
            timeout: seconds to wait for each next item; default: the client's.
            credit: items.

        Raises:
            TypeError, MessageTooLarge: an argument cannot be sent.
            CallError, ClusterError: as ``call``, from the iterator. ``StreamLost``: half-way.
            ValueError: ``credit`` is no number of items above 0.
        """
        rank = rank_of(partition)
        check_credit(credit)
        seconds = self._timeout if timeout is None else left(timeout, rank, method)
        payload = self._requests.payload(rank, method, args, kwargs)
        self._settle()
        return LoopStream(self._tries, rank, method, payload, seconds, credit)

    # ------------------------------------------------------------------------------------- what is around them

    async def partitions(self) -> int:
        """How many partitions the cluster has."""
        self._settle()
        return await self._routes.size(monotonic() + self._timeout)

    async def refresh(self, timeout: float | None = None) -> None:
        """Asks the coordinator now who serves what. Calls do this by themselves when they need to.

        Raises:
            ClusterError: the cluster is over or gone.
            CallTimeout: there was no time to ask, and nothing is known yet.
        """
        self._settle()
        now = monotonic()
        await self._routes.refresh(now, now + (self._timeout if timeout is None else seconds_of(timeout)))

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Returns once every partition is served and answers.

        Args:
            timeout: seconds; default: the client's.

        Raises:
            NotReady: some do not; the error names them.
            ClusterError: the cluster is over or gone.
            CallTimeout: there was no time to learn how many partitions there are.
        """
        self._settle()
        await wait_for_ready(self._tries, self._timeout if timeout is None else seconds_of(timeout))

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
