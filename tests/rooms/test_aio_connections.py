"""The connections of an asyncio client: which they are, and what is left of those that are not wanted after all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import Any

import pytest
from support.lanes import Acceptor
from support.loops import alone, beside, client_of
from support.octets import handshake
from support.probe import LONG, switches
from support.wait import until, wait_until

from spark_partition_server import aio
from spark_partition_server.errors import CallOutcomeUnknown, MethodNotFound, Unavailable
from spark_partition_server.net.endpoints import bind_unix
from spark_partition_server.wire.messages import Member


def say_that(client: aio.Client, rank: int, endpoint: str) -> Member:
    """Lets the client believe that another server has taken the place of a partition's, and serves there."""
    members = client._routes.calls.members
    real = members[rank]
    members[rank] = Member(rank, real.incarnation + 1, 0, real.host, real.port, endpoint)
    return real


def read_to_the_end(other: socket.socket) -> None:
    """Until the other side hangs up, gently or not."""
    with contextlib.suppress(ConnectionError):
        while other.recv(1 << 16):
            pass


def test_closing_while_connections_are_made_ends_the_calls(cluster, run):
    """A server that accepts and says nothing, and a client that is closed meanwhile."""

    async def main(endpoint: str) -> None:
        client = client_of(cluster)
        await client.refresh()
        say_that(client, 1, endpoint)
        calls = [asyncio.create_task(client.call(1, "get", "b")) for _ in range(5)]
        await beside(silent.accepted)
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

    async def main(servers: list[Acceptor]) -> None:
        client = client_of(cluster)
        await client.refresh()
        calls, accepted = [], []
        for server in servers:
            say_that(client, 1, server.endpoint)
            calls.append(asyncio.create_task(client.call(1, "get", "b")))
            accepted.append(await beside(server.accepted))
        if how == "cancel":
            for call in calls:
                call.cancel()
        elif how == "close":
            client.close()
        else:
            await client.aclose()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError if how == "cancel" else Unavailable] * 2
        await client.aclose()
        await alone()
        for other in accepted:
            await beside(read_to_the_end, other)

    with Acceptor(opening=b"") as first, Acceptor(opening=b"") as second:
        run(main([first, second]))


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
            other = await beside(slow.accepted)
            client._routes.calls.members[1] = real
            under_way = asyncio.create_task(client.call(1, "wait"))
            await until(switches.entered.is_set)
            line = client._lines.ready[1]
            other.sendall(handshake(b"ROUTER"))
            await beside(read_to_the_end, other)
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


# ------------------------------------------------------------------------------------------ what is large

LARGE = 32 << 20  # octets; more than the kernel's buffers hold, so that it comes in many pieces


@pytest.mark.parametrize("local", [True, False])
def test_small_calls_are_answered_while_a_large_answer_is_under_way(cluster, run, monkeypatch, local):
    """A network that stops in the middle of it: calls to the same server go by another connection."""

    async def main() -> None:
        async with client_of(cluster, local=local) as client:
            lines, held = client._lines, []
            set_aside = lines.set_aside

            def hold(line: Any) -> None:
                if not held:
                    held.append(line)
                    asyncio.get_running_loop().call_soon(line._transport.pause_reading)
                set_aside(line)

            monkeypatch.setattr(lines, "set_aside", hold)
            large = asyncio.create_task(client.call(1, "large", LARGE))
            await until(lambda: held, LONG)
            for _ in range(10):
                assert await client.call(1, "get", "b") == 2
            assert not large.done()
            held[0]._transport.resume_reading()
            assert len(await large) == LARGE

    run(main())


def test_what_is_known_to_be_large_holds_nothing_up(cluster, run):
    """A method whose reply was large once, a large request: what is asked behind it in the same turn passes it."""

    async def main() -> None:
        async with client_of(cluster) as client:
            lines = client._lines
            await client.call(1, "large", LARGE)
            await client.call(1, "get", "b")
            bulk = lines.bulk[1]
            assert bulk is not lines.ready[1]
            for method, argument in [("large", LARGE), ("echo", bytes(LARGE))]:
                bulk._transport.pause_reading()
                large = asyncio.create_task(client.call(1, method, argument))
                assert await asyncio.gather(*(client.call(1, "get", "b") for _ in range(10))) == [2] * 10
                assert not large.done()
                bulk._transport.resume_reading()
                await large
            assert lines.bulk == {1: bulk}
            (server,) = [one for one in switches.servers if one.partition_ind == 1]
            assert server._listener.connections == 2

    run(main())


def test_the_connection_for_what_is_large_goes_with_its_server(cluster, run):
    """When another server has taken the place, both are made anew; nothing of the old ones is left."""

    async def main() -> None:
        async with client_of(cluster) as client:
            lines, members = client._lines, client._routes.calls.members
            await client.call(1, "large", LARGE)
            await client.call(1, "get", "b")
            old = [lines.ready[1], lines.bulk[1]]
            members[1] = replace(members[1])
            assert await client.call(1, "get", "b") == 2
            for line in old:
                await asyncio.wait_for(line.gone, LONG)
            assert 1 not in lines.bulk
            assert len(await client.call(1, "large", LARGE)) == LARGE

    run(main())
