"""What only an asyncio client can do with streams and many calls: cancel them, drop them, mix them."""

from __future__ import annotations

import asyncio
import gc

import pytest
from support.loops import client_of
from support.probe import switches
from support.wait import until


def test_a_cancelled_reader_ends_its_stream(sources, run):
    """While it waits for an item; its place is free, and calls on the same connection go on."""

    async def main() -> None:
        async with client_of(sources) as client:
            stream = client.stream(1, "wait")
            assert await stream.__anext__() == 1
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.__anext__(), 0.2)
            assert [item async for item in stream] == []
            assert len(client._lines.ready[1].inflight) == 0
            assert client._tries.room.active == {}
            switches.gate.set()
            assert await client.call(1, "plain") == 7

    run(main())


def test_a_stream_that_is_dropped_closes_its_generator(sources, run):
    """By ``break``; one that was never read has never begun."""

    async def main() -> None:
        async with client_of(sources, calls_max=1) as client:
            client.stream(1, "count", 10**6)
            async for item in client.stream(1, "count", 10**6):
                if item == 5:
                    break
            gc.collect()
            await until(lambda: switches.runs["closed"] == 1)
            assert await client.call(1, "plain") == 7

    run(main())


def test_one_task_reads_a_stream(sources, run):
    """A second one is told so, and the first goes on."""

    async def main() -> None:
        async with client_of(sources) as client, client.stream(1, "wait") as stream:
            assert await stream.__anext__() == 1
            first = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)  # it is the one that waits
            await until(switches.entered.is_set)
            with pytest.raises(RuntimeError, match="another task"):
                await stream.__anext__()
            switches.gate.set()
            assert await first == 2
            assert [item async for item in stream] == []
            assert stream.returned is None

    run(main())


def test_many_streams_and_calls_share_one_connection(sources, run):
    """Twenty streams beside each other, and calls between; each gets what is its own."""

    async def main() -> None:
        async with client_of(sources) as client:

            async def read(count: int) -> list[int]:
                return [item async for item in client.stream(1, "count", count, credit=7)]

            counts = range(100, 120)
            *got, plain = await asyncio.gather(*(read(count) for count in counts), client.call(1, "plain"))
            assert got == [list(range(count)) for count in counts]
            assert plain == 7
            (server,) = [one for one in switches.servers if one.partition_ind == 1]
            assert server._listener.connections == 1

    run(main())


def test_cancelling_call_many_takes_all_of_it_back(cluster, run):
    """What its servers have not begun is not run; the client has its places again."""

    async def main() -> None:
        async with client_of(cluster) as client:
            calls = [(rank, f"{rank}-{number}") for rank in range(3) for number in range(100)]
            task = asyncio.ensure_future(client.call_many("wait", calls))
            await until(lambda: sum(switches.runs.values()) == 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [len(line.inflight) for line in client._lines.ready.values()] == [0, 0, 0]
            assert client._tries.room.active == {}
            switches.gate.set()
            assert await client.call_all("rank") == [0, 1, 2]

    run(main())
