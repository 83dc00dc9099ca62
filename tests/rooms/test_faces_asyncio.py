"""What only an asyncio client can do: be cancelled, live in a loop, and hold thousands of calls at once."""

from __future__ import annotations

import asyncio

import pytest
from support.lanes import Acceptor
from support.loops import beside, client_of
from support.probe import LONG, switches
from support.wait import until, wait_until

from spark_partition_server import aio
from spark_partition_server.errors import CallTimeout, ClusterClosed, Overloaded, Unavailable
from spark_partition_server.wire.messages import Member

# ----------------------------------------------------------------------------------------- coming and going


def test_another_process_needs_the_connection_file_only(cluster, run):
    """In a block, or by ``await`` and ``aclose``."""

    async def main() -> None:
        async with aio.connect(cluster.connection_file, timeout=LONG) as client:
            assert await client.call_all("rank") == [0, 1, 2]
        client = await aio.connect(cluster.connection_file)
        assert await client.partition(1).get("b") == 2
        await client.aclose()
        await client.aclose()
        with pytest.raises(Unavailable, match="client is closed"):
            await client.call(1, "rank")

    run(main())


def test_a_client_of_a_connection_file_learns_that_its_cluster_has_stopped(cluster, run):
    """From the file, which is gone, and the coordinator, which does not answer; as the blocking client does."""

    async def main() -> None:
        async with aio.connect(cluster.connection_file, timeout=LONG) as client:
            assert await client.call_all("rank") == [0, 1, 2]
            await beside(cluster.stop)
            for ask in (lambda: client.call(1, "run", "x"), lambda: client.call_many("get", [(1, "b")])):
                with pytest.raises(ClusterClosed, match=r"the cluster has stopped: its connection file .* is gone"):
                    await ask()

    run(main())


def test_a_client_belongs_to_one_loop(cluster, run):
    """The second loop is told so, at once, and what to do; the client is none the worse."""
    client = client_of(cluster)

    async def main() -> None:
        assert await client.call(1, "get", "b") == 2

    async def again() -> None:
        for ask in (lambda: client.call(1, "get", "b"), lambda: client.call_all("rank"), client.refresh):
            with pytest.raises(RuntimeError, match="one client for each loop"):
                await ask()

    async def both() -> None:
        await main()
        await asyncio.get_running_loop().run_in_executor(None, run, again())
        await main()
        await client.aclose()

    run(both())


def test_close_without_waiting_leaves_nothing_open(cluster, run):
    """``close`` is for those who cannot await; the loop closes the sockets."""

    async def main() -> None:
        client = client_of(cluster)
        await client.call_all("rank")
        client.close()

    run(main())
    wait_until(lambda: all(server._listener.connections == 0 for server in switches.servers))


# ------------------------------------------------------------------------------------------- cancelling


def test_a_cancelled_call_frees_its_place_on_both_sides(cluster, run):
    """It waits in the server behind a long one; its caller gives it up. Later calls on the same connection go on."""

    async def main() -> None:
        async with client_of(cluster) as client:
            busy = asyncio.create_task(client.call(1, "wait"))
            await until(switches.entered.is_set)
            given_up = [asyncio.create_task(client.call(1, "run", "x")) for _ in range(10)]
            line = client._lines.ready[1]
            await until(lambda: len(line.inflight) == 11)
            for task in given_up:
                task.cancel()
            results = await asyncio.gather(*given_up, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
            assert len(line.inflight) == 1
            after = asyncio.create_task(client.call(1, "run", "y"))
            await until(lambda: len(line.inflight) == 2)
            switches.gate.set()
            assert await busy == "wait"
            assert await after == 1
            assert len(line.inflight) == 0

    run(main())


def test_wait_for_takes_a_call_back(cluster, run):
    """asyncio's own timeouts cancel; the answer that comes later goes to nobody."""

    async def main() -> None:
        async with client_of(cluster) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.call(1, "wait"), 0.1)
            switches.gate.set()
            assert await client.call(1, "wait", "later") == "later"

    run(main())


def test_a_call_that_is_cancelled_while_it_connects(cluster, run):
    """The others that wait for the same connection get it all the same."""

    async def main() -> None:
        async with client_of(cluster) as client:
            calls = [asyncio.create_task(client.call(1, "get", "b")) for _ in range(3)]
            await asyncio.sleep(0)
            calls[0].cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError)
            assert results[1:] == [2, 2]

    run(main())


def test_a_group_of_calls_is_cancelled_together(cluster, run):
    """``call_all`` takes all of its calls back."""

    async def main() -> None:
        async with client_of(cluster) as client:
            calls = asyncio.create_task(client.call_all("wait"))
            await until(lambda: switches.runs["wait"] == 3)
            calls.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calls
            assert [len(line.inflight) for line in client._lines.ready.values()] == [0, 0, 0]

    run(main())


# ------------------------------------------------------------------------------------------ many at once


def test_thousands_of_calls_share_one_connection(cluster, run):
    """Each gets its own answer, and nobody opens a second socket."""

    async def main() -> None:
        async with client_of(cluster) as client:
            answers = await asyncio.gather(*(client.call(1, "echo", number) for number in range(3000)))
            assert answers == [[[number], {}] for number in range(3000)]
            (server,) = [one for one in switches.servers if one.partition_ind == 1]
            assert server._listener.connections == 1

    run(main())


def test_more_calls_than_the_client_may_have_are_refused_at_once(cluster, run):
    """Not queued to death; those under way are answered."""

    async def main() -> None:
        async with client_of(cluster, calls_max=4) as client:
            calls = [asyncio.create_task(client.call(1, "wait")) for _ in range(4)]
            await until(switches.entered.is_set)
            with pytest.raises(Overloaded, match="calls_max") as caught:
                await client.call(1, "get", "b")
            assert caught.value.definite
            switches.gate.set()
            assert await asyncio.gather(*calls) == ["wait"] * 4
            assert await client.call(1, "get", "b") == 2

    run(main())


def test_a_server_that_does_not_read_holds_up_its_own_calls_only(cluster, run):
    """What has not begun to leave by the deadline was not run, and is said to be so; memory is bounded."""

    async def main(endpoint: str) -> None:
        async with client_of(cluster, calls_bytes_max=32 << 20) as client:
            await client.refresh()
            real = client._routes.calls.members[1]
            client._routes.calls.members[1] = Member(1, real.incarnation, 0, real.host, real.port, endpoint)
            calls = [asyncio.create_task(client.call(1, "echo", bytes(8_000_000), timeout=0.5)) for _ in range(5)]
            assert await client.call(2, "get", "c") == 3
            results = await asyncio.gather(*calls, return_exceptions=True)
            kinds = [type(result) for result in results]
            assert kinds[0] is CallTimeout  # it has begun to leave
            assert kinds[1:4] == [Unavailable] * 3
            assert kinds[4] is Overloaded
            assert all(result.definite for result in results[1:])
            assert await client.call(2, "get", "c") == 3

    with Acceptor() as deaf:
        run(main(deaf.endpoint))
