"""``route="relay"`` on two executor JVMs: everything goes by way of the driver, and no executor's port is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers import lookup_server
from support.spark import spark_application

from spark_partition_server import ClientOptions, Cluster, connect, stable_hash

LISTENING = "0A"
PARTITIONS = 2


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local-cluster[2,1,1024]") as context:
        yield context


def connections_of(ports: set[int]) -> set[tuple[str, str]]:
    """The ends of the tcp connections that the kernel knows from or to these ports; the ended ones for a minute."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state != LISTENING and ports & {int(address.rpartition(":")[2], 16) for address in (local, remote)}:
            found.add((local, remote))
    return found


def test_every_call_goes_by_way_of_the_driver(sc: Any) -> None:
    """No server sees a connection of a client, by tcp or by Unix socket; ``stop()`` gives the result all the same."""
    pairs = sc.parallelize([(f"k{i}", i) for i in range(100)], PARTITIONS).partitionBy(PARTITIONS, stable_hash)
    with Cluster(sc, pairs, lookup_server(), cache_result=True, verbose=False) as cluster:
        ports = {port for _, port in cluster.get_hosts().values()}
        assert len(ports) == PARTITIONS
        before = connections_of(ports)  # of others, who had these ports a moment ago
        with connect(cluster.connection_file, route="relay") as client:
            counts = client.call_all("count")
            assert sum(counts) == 100
            assert len(set(client.call_all("parent"))) == 2  # two executors
            assert [client.call(rank, "count") for rank in range(PARTITIONS)] == counts
            assert client.call_key("k7", "get", "k7") == 7
            keys = [f"k{i}" for i in range(100)]
            many = [(client.partition_of(key), key) for key in keys]
            assert client.call_many("get", many) == list(range(100))
            assert [client.submit(rank, "count").result(10) for rank in range(PARTITIONS)] == counts
            assert [client.call(rank, "sps.status")["connections"] for rank in range(PARTITIONS)] == [0, 0]
        assert connections_of(ports) <= before
        with connect(cluster.connection_file, route="direct", options=ClientOptions(local=False)) as client:
            assert [client.call(rank, "sps.status")["connections"] for rank in range(PARTITIONS)] == [1, 1]
        assert len(connections_of(ports) - before) >= PARTITIONS  # the counter-proof: there is something to see
    assert sorted(row[:2] for row in cluster.get_result_rdd().collect()) == [(0, counts[0]), (1, counts[1])]
