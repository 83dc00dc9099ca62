"""``QueryServer`` in all its modes: on threads, on a loop, as streams; what it tells of itself, and what it leaves."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgpack
import pytest
from support.lanes import Raw
from support.wait import wait_until

from spark_partition_server import QueryServer, ServerOptions, method
from spark_partition_server.serving.switching import SwitchInterval
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Credit, Items, Message, Reply, Stream

LONG = 20.0


class Modes(QueryServer):
    @method
    def here(self) -> str:
        return threading.current_thread().name

    @method
    async def there(self) -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    @method
    def count(self, last: int) -> Iterator[int]:
        yield from range(last)

    @method
    async def count_there(self, last: int) -> AsyncIterator[int]:
        for number in range(last):
            await asyncio.sleep(0)
            yield number

    @method
    def interval(self) -> float:
        return sys.getswitchinterval()


class Threaded(Modes):
    threads = 2

    @method
    def more(self) -> int:
        return self.threads


class Own(QueryServer):
    """A constructor of its own, which knows nothing of threads."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @method
    def get(self) -> str:
        return self.name


class OwnThreaded(Own):
    threads = 3


class Direct:
    """A raw connection to partition 0 of a cluster."""

    def __init__(self, cluster: LocalCluster) -> None:
        assert cluster.coordinator is not None
        self.run_id = cluster.coordinator.run_id
        self.raw = Raw(cluster.coordinator.hosts[0])

    def send(self, message: Message) -> None:
        self.raw.send(*[bytes(frame) for frame in codec.encode(message, self.run_id)])

    def receive(self) -> Message:
        return codec.decode(self.raw.receive(), self.run_id)

    def stream(self, name: str, last: int, window: int = 10) -> list[int]:
        """The items of a stream, read with a small window."""
        self.send(Stream(1, name, 10_000, 0, 1, window, (msgpack.packb([[last], {}]),)))
        found: list[int] = []
        while isinstance(message := self.receive(), Items):
            found += msgpack.unpackb(message.payload[0])
            self.send(Credit(1, len(found) + window))
        assert isinstance(message, Reply)
        return found


def test_plain_methods_run_where_the_server_serves_and_coroutines_on_a_loop():
    """And with threads on those; the loop is there for those that need it only."""
    with local_cluster(Modes(), [[]]) as cluster:
        client = cluster.client(LONG)
        assert client.call(0, "here") == "local-cluster-0"
        assert client.call(0, "there") == "spark-partition-server-asyncio"
    with local_cluster(Threaded(), [[]]) as cluster:
        client = cluster.client(LONG)
        assert client.call(0, "here").startswith("spark-partition-server-worker-")
        assert client.call(0, "there") == "spark-partition-server-asyncio"
        assert client.call(0, "more") == 2


@pytest.mark.parametrize("server", [Modes(), Modes(threads=2)], ids=["inline", "threads"])
@pytest.mark.parametrize("name", ["count", "count_there"])
def test_streams_flow_over_real_sockets(server, name):
    """[8.27]: with a window of ten, and beside calls on other connections."""
    with local_cluster(server, [[]]) as cluster:
        client, direct = cluster.client(LONG), Direct(cluster)
        assert direct.stream(name, 500) == list(range(500))
        assert direct.stream(name, 0) == []
        assert client.call(0, "here")
        direct.raw.close()


@pytest.mark.parametrize("made", [lambda: OwnThreaded("x"), Threaded, lambda: Modes(threads=1)])
def test_the_number_of_threads_is_an_argument_or_an_attribute_of_the_class(made):
    """Also where a constructor of its own passes nothing on."""
    server = made()
    assert server.threads in (1, 2, 3)
    before = threading.active_count()
    with local_cluster(server, [[]]) as cluster:
        wait_until(lambda: threading.active_count() >= before + server.threads, LONG)
        assert cluster.client(LONG).call(0, "sps.status")["threads"] == server.threads


@pytest.mark.parametrize("threads", [-1, True, 1.5, "2"])
def test_a_number_of_threads_that_is_none_is_refused_where_it_is_written(threads):
    """On the driver."""
    with pytest.raises(ValueError, match=r"Modes.threads must be a number of threads, 0 or more"):
        Modes(threads=threads)


def test_the_status_of_a_server():
    """[8.26]: what an operator asks first."""
    with local_cluster(Modes(), [[], []]) as cluster:
        client = cluster.client(LONG)
        client.call(1, "here")
        direct = Direct(cluster)
        direct.send(Stream(1, "count", 10_000, 0, 1, 5, (msgpack.packb([[100], {}]),)))
        direct.receive()
        status = client.call(1, "sps.status")
        assert set(status) == {
            *("partition", "incarnation", "attempt", "pid", "host", "uptime_s", "calls", "errors", "queued"),
            *("in_flight", "connections", "streams", "threads", "rss_bytes"),
        }
        assert (status["partition"], status["incarnation"], status["attempt"]) == (1, 2, 0)
        assert (status["pid"], status["host"]) == (os.getpid(), "127.0.0.1")
        assert status["calls"] == 1
        assert status["rss_bytes"] > 1 << 20
        assert 0 <= status["uptime_s"] < LONG
        assert client.call(0, "sps.status")["streams"] == 1
        direct.raw.close()
        wait_until(lambda: client.call(0, "sps.status")["streams"] == 0, LONG)
        assert client.call(0, "sps.status")["connections"] == 1


def test_clients_are_told_how_large_a_request_may_be():
    """In the view, for those that split what they send."""
    with local_cluster(Modes(options=ServerOptions(message_bytes_max=12345)), [[]]) as cluster:
        assert cluster.coordinator is not None
        assert cluster.coordinator._membership is not None
        assert cluster.coordinator._membership.meta["message_bytes_max"] == 12345


# --------------------------------------------------------------------------------- the switch interval


def test_the_switch_interval_is_short_while_a_server_serves():
    """And as it was afterwards, also with several servers in one process."""
    before = sys.getswitchinterval()
    options = ServerOptions(switch_interval=2e-4)
    with local_cluster(Modes(options=options), [[], []]) as cluster:
        assert cluster.client(LONG).call(0, "interval") == pytest.approx(2e-4, rel=0.01)
    assert sys.getswitchinterval() == before
    with local_cluster(Modes(options=ServerOptions(switch_interval=None)), [[]]) as cluster:
        assert cluster.client(LONG).call(0, "interval") == before


def test_the_shortest_interval_that_is_asked_for_holds():
    """Whoever ends first does not take it away from the others."""
    before = sys.getswitchinterval()
    one, two, three = SwitchInterval.of(1e-3), SwitchInterval.of(1e-4), SwitchInterval.of(10.0)
    one.__enter__()
    two.__enter__()
    three.__enter__()
    assert sys.getswitchinterval() == pytest.approx(1e-4, rel=0.01)
    two.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(1e-3, rel=0.01)
    one.__exit__(None, None, None)
    assert sys.getswitchinterval() == before
    three.__exit__(None, None, None)
    assert sys.getswitchinterval() == before


def test_a_name_that_the_server_uses_is_refused():
    """A method called threads would hide their number."""
    with pytest.raises(TypeError, match="PartitionServer uses that name itself"):

        class Bad(QueryServer):
            @method
            def threads(self) -> Any: ...
