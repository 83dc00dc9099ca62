"""What only an asyncio client can do: be cancelled, live in a loop, and hold thousands of calls at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvloop
from support.lanes import Acceptor
from support.octets import handshake
from support.probe import LONG, switches
from support.wait import until, wait_until

from spark_partition_server import ClientOptions, aio
from spark_partition_server.errors import CallOutcomeUnknown, CallTimeout, MethodNotFound, Overloaded, Unavailable
from spark_partition_server.net.endpoints import bind_unix
from spark_partition_server.testing import LocalCluster
from spark_partition_server.wire.messages import Member

Run = Callable[[Any], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Run]:
    """``asyncio.run``, and the same on uvloop. Nothing may be left to complain about."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield asyncio.run if request.param == "asyncio" else uvloop.run
        gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def say_that(client: aio.Client, rank: int, endpoint: str) -> Member:
    """Lets the client believe that another server has taken the place of a partition's, and serves there."""
    members = client._routes.calls.members
    real = members[rank]
    members[rank] = Member(rank, real.incarnation + 1, 0, real.host, real.port, endpoint)
    return real


async def alone() -> None:
    """Fails when there is another task than the caller's."""
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def client_of(cluster: LocalCluster, **options: Any) -> aio.Client:
    given = ClientOptions(**{"timeout": LONG, **options})
    return aio.Client(cluster.coordinator.get_url(), cluster.coordinator.run_id, given)


def read_to_the_end(other: socket.socket) -> None:
    """Until the other side hangs up, gently or not."""
    with contextlib.suppress(ConnectionError):
        while other.recv(1 << 16):
            pass


def assert_hung_up(silent: Acceptor) -> None:
    """The client has closed its connection to a server that only accepts."""
    read_to_the_end(silent.accepted())


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


def test_closing_while_connections_are_made_ends_the_calls(cluster, run):
    """A server that accepts and says nothing, and a client that is closed meanwhile."""

    async def main(endpoint: str) -> None:
        client = client_of(cluster)
        await client.refresh()
        real = client._routes.calls.members[1]
        client._routes.calls.members[1] = Member(1, real.incarnation, 0, real.host, real.port, endpoint)
        calls = [asyncio.create_task(client.call(1, "get", "b")) for _ in range(5)]
        await asyncio.get_running_loop().run_in_executor(None, silent.accepted)
        assert not any(call.done() for call in calls)
        await client.aclose()
        for call in calls:
            with pytest.raises(Unavailable):
                await call

    with Acceptor(opening=b"") as silent:
        run(main(silent.endpoint))


@pytest.mark.parametrize("how", ["aclose", "close", "cancel"])
def test_a_replaced_servers_connection_that_is_being_made_leaves_nothing(cluster, run, how):
    """Two servers of one partition, one after the other, that accept and say nothing; then the client is closed, or
    its callers are cancelled first. No task, socket or warning is left, and every call has ended."""

    async def main(endpoints: list[str]) -> None:
        client = client_of(cluster)
        await client.refresh()
        calls = []
        for endpoint in endpoints:
            say_that(client, 1, endpoint)
            calls.append(asyncio.create_task(client.call(1, "get", "b")))
            await asyncio.sleep(0.05)
        if how == "cancel":
            for call in calls:
                call.cancel()
        elif how == "close":
            client.close()
        else:
            await client.aclose()
            await alone()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError if how == "cancel" else Unavailable] * 2
        await client.aclose()
        await alone()

    with Acceptor(opening=b"") as first, Acceptor(opening=b"") as second:
        run(main([first.endpoint, second.endpoint]))
        for silent in (first, second):
            assert_hung_up(silent)


def test_closing_at_any_moment_of_connecting_leaves_nothing(cluster, run):
    """Turn by turn of the loop, over tcp and the Unix socket: a task that is cancelled at the moment at which what it
    waits for is done must not keep it."""

    async def main() -> None:
        for turns in range(40):
            for local in (True, False):
                client = client_of(cluster, local=local)
                calls = [asyncio.create_task(client.call(rank, "get", "b")) for rank in range(3)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                await client.aclose()
                ends = await asyncio.gather(*calls, return_exceptions=True)
                kinds = {type(end) for end in ends if end not in (2, None)}
                assert kinds <= {Unavailable, CallOutcomeUnknown}, (turns, ends)
                await alone()

    run(main())
    wait_until(lambda: all(server._listener.connections == 0 for server in switches.servers))


def test_a_replaced_server_that_shakes_hands_late_does_not_displace_the_one_that_serves(cluster, run):
    """Its connection is closed; calls under way on the other one are answered, and whoever waited for it gets there."""

    async def main(slow: Acceptor) -> None:
        async with client_of(cluster) as client:
            await client.refresh()
            real = say_that(client, 1, slow.endpoint)
            waited = asyncio.create_task(client.call(1, "get", "b"))
            other = await asyncio.get_running_loop().run_in_executor(None, slow.accepted)
            client._routes.calls.members[1] = real
            under_way = asyncio.create_task(client.call(1, "wait"))
            await until(switches.entered.is_set)
            line = client._lines.ready[1]
            other.sendall(handshake(b"ROUTER"))
            await asyncio.get_running_loop().run_in_executor(None, read_to_the_end, other)
            assert client._lines.ready[1] is line
            switches.gate.set()
            assert await under_way == "wait"
            assert await waited == 2

    with Acceptor(opening=b"") as slow:
        run(main(slow))


def test_a_connection_that_is_lost_before_its_first_call_fails_that_call_at_once(cluster, run):
    """It was not sent: the call may be made again on another connection, and is."""

    async def main() -> None:
        async with client_of(cluster) as client:
            line = await client._lines.open(1, "get", asyncio.get_running_loop().time() + LONG)
            line._transport.abort()
            await line.gone
            with pytest.raises(Unavailable, match="could not be sent: the connection was lost") as caught:
                line.begin(1, "get", [b"x"], 1, LONG, asyncio.get_running_loop().time() + LONG)
            assert caught.value.definite
            assert await client.call(1, "get", "b") == 2

    run(main())


@pytest.mark.parametrize(("local", "family"), [(True, socket.AF_UNIX), (False, socket.AF_INET)])
def test_servers_on_this_host_are_reached_over_their_unix_socket(cluster, run, local, family):
    """Unless told otherwise; errors call the server by its tcp endpoint either way."""

    async def main() -> None:
        async with client_of(cluster, local=local) as client:
            assert await client.call(1, "get", "b") == 2
            line = client._lines.ready[1]
            assert line._transport.get_extra_info("socket").family == family
            with pytest.raises(MethodNotFound) as caught:
                await client.call(1, "nothing")
            assert caught.value.endpoint == line.member.endpoint
            assert line.member.endpoint.startswith("tcp://127.0.0.1:")

    run(main())


def test_a_unix_socket_that_does_not_answer_is_passed_over(cluster, run, tmp_path):
    """Of another user, of a server that has gone, or one that says nothing: the server is called over tcp."""

    async def main(local: str) -> None:
        async with client_of(cluster) as client:
            await client.refresh()
            members = client._routes.calls.members
            members[1] = replace(members[1], local=local)
            assert await client.call(1, "get", "b") == 2
            assert client._lines.ready[1]._transport.get_extra_info("socket").family == socket.AF_INET

    tmp_path.chmod(0o700)
    with bind_unix(tmp_path / "s"):
        for local in (f"ipc://{tmp_path}/s", "ipc://@nobody-is-there", "nonsense"):
            run(main(local))


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


def test_nothing_is_forgotten_in_a_line_that_was_lost(cluster, run):
    """Its calls end at once, the line is dropped, and the next call makes another."""

    async def main() -> None:
        async with client_of(cluster) as client:
            line = await client._lines.open(1, "get", asyncio.get_running_loop().time() + LONG)
            calls = [asyncio.create_task(client.call(1, "wait", timeout=LONG)) for _ in range(3)]
            await until(switches.entered.is_set)
            line._transport.abort()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [CallOutcomeUnknown] * 3
            assert 1 not in client._lines.ready
            switches.gate.set()
            assert await client.call(1, "get", "b") == 2
            assert client._lines.ready[1] is not line

    run(main())
