"""Clients in processes of their own: what they call, and what they tell the test of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from spark_partition_server import CallError, CallTimeout, ClientOptions, aio, connect
from spark_partition_server.core import reach
from spark_partition_server.net.clock import monotonic

from .apart import remember

__all__ = ["EXPECTED", "asyncio_calls", "blocking_calls", "cut_off", "direct_calls", "healed", "one_slow"]

LARGE = 20_000_000
LOGGER = "spark_partition_server.client"

# what all the calls below return, of a cluster with four partitions
EXPECTED = {
    "call": [0, 1, 2, 3],
    "call_all": [0, 1, 2, 3],
    "call_many": [("k5", 5), ("k6", 6), ("k7", 7)],
    "call_key": 5,
    "submit": [0, 1, 2, 3],
    "stream": list(range(300)),
    "array": LARGE // 8,
    "total": sum(range(LARGE // 8)),
    "fails": "ValueError",
    "connections": [0, 0, 0, 0],
}


def blocking_calls(path: str, options: ClientOptions) -> tuple[dict[str, Any], list[str]]:
    """Every way to call, and the warnings in the client's log."""
    told = remember(LOGGER, logging.WARNING)
    with connect(path, options=options) as client:
        found: dict[str, Any] = {"call": [client.call(rank, "rank") for rank in range(4)]}
        found["call_all"] = client.call_all("rank")
        keys = ["k5", "k6", "k7"]
        calls = [(client.partition_of(key), key) for key in keys]
        found["call_many"] = list(zip(keys, client.call_many("get", calls), strict=True))
        found["call_key"] = client.call_key("k5", "get", "k5")
        found["submit"] = [future.result() for future in [client.submit(rank, "rank") for rank in range(4)]]
        found["stream"] = list(client.stream(2, "count", 300, credit=16))
        array = client.call(1, "array", LARGE)
        found["array"] = len(array)
        found["total"] = client.call(3, "total", array)
        try:
            client.call(1, "fail", "on purpose")
        except CallError as error:
            found["fails"] = error.remote_type
        found["connections"] = [status["connections"] for status in client.call_all("sps.status")]
    return found, told


def asyncio_calls(path: str, options: ClientOptions) -> tuple[dict[str, Any], list[str]]:
    """The same by the asyncio client; ``submit`` is a task there."""
    told = remember(LOGGER, logging.WARNING)

    async def calls() -> dict[str, Any]:
        async with aio.connect(path, options=options) as client:
            found: dict[str, Any] = {"call": [await client.call(rank, "rank") for rank in range(4)]}
            found["call_all"] = await client.call_all("rank")
            keys = ["k5", "k6", "k7"]
            many = [(await client.partition_of(key), key) for key in keys]
            found["call_many"] = list(zip(keys, await client.call_many("get", many), strict=True))
            found["call_key"] = await client.call_key("k5", "get", "k5")
            found["submit"] = list(await asyncio.gather(*(client.call(rank, "rank") for rank in range(4))))
            found["stream"] = [item async for item in client.stream(2, "count", 300, credit=16)]
            array = await client.call(1, "array", LARGE)
            found["array"] = len(array)
            found["total"] = await client.call(3, "total", array)
            try:
                await client.call(1, "fail", "on purpose")
            except CallError as error:
                found["fails"] = error.remote_type
            found["connections"] = [status["connections"] for status in await client.call_all("sps.status")]
            return found

    return asyncio.run(calls()), told


def direct_calls(path: str, timeout: float) -> dict[str, tuple[str, bool | None, float]]:
    """What calls end in that may not take the relay: the error's type, whether it is definite, seconds."""
    options = ClientOptions(timeout=timeout, route="direct")
    found = {}

    async def awaited() -> None:
        async with aio.connect(path, options=options) as client:
            await client.call(1, "rank")

    def asynchronous() -> None:
        asyncio.run(awaited())

    with connect(path, options=options) as client:
        ways = {
            "call": lambda: client.call(1, "rank"),
            "call_all": lambda: client.call_all("rank"),
            "call_many": lambda: client.call_many("get", [(1, "k5"), (2, "k6")]),
            "submit": lambda: client.submit(1, "rank").result(),
            "stream": lambda: next(client.stream(1, "count", 3)),
            "asyncio": asynchronous,
        }
        for name, way in ways.items():
            started = monotonic()
            try:
                way()
                found[name] = ("no error", None, 0.0)
            except CallError as error:
                found[name] = (type(error).__name__, error.definite, monotonic() - started)
    return found


def one_slow(path: str, options: ClientOptions) -> dict[str, Any]:
    """Calls partition 0, whose server does not answer, and meanwhile the others; which were there first, and how."""
    with connect(path, options=options) as client:
        client.refresh()
        slow = client.submit(0, "rank")
        found: dict[str, Any] = {"submit": [client.submit(rank, "rank").result() for rank in (1, 2, 3)]}
        found["submit first"] = not slow.done()
        found["submit slow"] = slow.result()
    with connect(path, options=options) as client:
        client.refresh()
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(client.call(0, "rank")))
        thread.start()
        found["call"] = [client.call(rank, "rank") for rank in (1, 2, 3)]
        found["call first"] = not answers
        thread.join()
        found["call slow"] = answers[0]
        found["connections"] = [client.call(rank, "sps.status")["connections"] > 0 for rank in range(4)]

    async def gathered() -> None:
        async with aio.connect(path, options=options) as client:
            await client.call(1, "rank")
            slow = asyncio.ensure_future(client.call(0, "rank"))
            found["asyncio"] = await asyncio.gather(*(client.call(rank, "rank") for rank in (1, 2, 3)))
            found["asyncio first"] = not slow.done()
            found["asyncio slow"] = await slow

    asyncio.run(gathered())
    return found


def cut_off(path: str, options: ClientOptions) -> Iterator[Any]:
    """A client with connections straight to servers that nothing reaches from one moment on; see the test.

    Yields what the calls over them have returned, and then what calls return at last.
    """
    found: dict[str, Any] = {}

    def until_answered(call: Callable[[], Any]) -> Any:
        """Tries a call again for as long as it takes too long, as its caller might."""
        while True:
            with contextlib.suppress(CallTimeout):
                return call()

    async def until_awaited(client: aio.Client) -> Any:
        while True:
            with contextlib.suppress(CallTimeout):
                return await client.call(3, "rank")

    loop = asyncio.new_event_loop()
    with connect(path, options=options) as client, contextlib.closing(loop):
        looping = aio.connect(path, options=options)
        try:
            third = loop.run_until_complete(looping.call(3, "rank"))
            yield [client.call(1, "rank"), client.submit(2, "rank").result(), third]
            found["call"] = until_answered(lambda: client.call(1, "rank"))
            found["submit"] = until_answered(lambda: client.submit(2, "rank").result())
            found["asyncio"] = loop.run_until_complete(until_awaited(looping))
            yield found
        finally:
            loop.run_until_complete(looping.aclose())


def healed(path: str, options: ClientOptions) -> Iterator[Any]:
    """Clients that call all the time, at first by relay; yields when each has a connection straight to its server.

    The minute until servers are tried again is half a second here.
    """
    reach.AGAIN = 0.5

    def calling() -> None:
        with connect(path, options=options) as client:
            assert client.call(1, "rank") == 1
            told.release()
            go.wait()
            while client.call(1, "sps.status")["connections"] == 0:
                pass

    def submitting() -> None:
        with connect(path, options=options) as client:
            pending = deque(client.submit(2, "sps.status") for _ in range(8))
            assert pending.popleft().result()["connections"] == 0
            told.release()
            go.wait()
            while pending.popleft().result()["connections"] == 0:
                pending.append(client.submit(2, "sps.status"))
            assert {future.result()["partition"] for future in pending} == {2}

    async def awaiting() -> None:
        async with aio.connect(path, options=options) as client:
            assert await client.call(3, "rank") == 3
            told.release()
            await asyncio.to_thread(go.wait)
            while (await client.call(3, "sps.status"))["connections"] == 0:
                pass

    told, go = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(calling), pool.submit(submitting), pool.submit(lambda: asyncio.run(awaiting()))]
        for _ in running:
            assert told.acquire(timeout=20)
        yield "by relay"
        go.set()
        yield [one.result() for one in running]
