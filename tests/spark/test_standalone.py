"""A standalone master with two workers: executors come and go by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.servers import lookup_server
from support.spark import spark_application
from support.standalone import standalone_master

from spark_partition_server import Cluster, ClusterOptions, InsufficientSlots, StartTimeout, connect


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with standalone_master(tmp_path_factory.mktemp("standalone"), workers=2) as url:
        yield url


def pairs(sc: Any, partitions: int) -> Any:
    return sc.parallelize([(f"k{i}", i) for i in range(12)], partitions)


def test_serve_on_standalone_workers(master: str) -> None:
    """Started at once, before the executors are there; answers, result, restart."""
    with spark_application(master) as sc:
        cluster = Cluster(sc, pairs(sc, 2), lookup_server(), cache_result=True, verbose=False)
        for _ in range(2):
            with cluster:
                assert cluster.client().call_all("count") == [6, 6]
                with connect(cluster.connection_file) as client:
                    assert client.call(0, "get", "k3") == 3
            assert [row[:2] for row in cluster.get_result_rdd().collect()] == [(0, 6), (1, 6)]


def test_too_few_slots_of_a_configured_application(master: str) -> None:
    """spark.cores.max says how many slots there will ever be."""
    with spark_application(master, spark_cores_max="2") as sc, pytest.raises(InsufficientSlots) as caught:
        Cluster(sc, pairs(sc, 3), lookup_server(), verbose=False).start()
    assert caught.value.available == 2


def test_dynamic_allocation_brings_executors(master: str) -> None:
    """No executor at first: the waiting tasks are what brings them."""
    settings = {
        "spark_dynamicAllocation_enabled": "true",
        "spark_dynamicAllocation_shuffleTracking_enabled": "true",
        "spark_dynamicAllocation_initialExecutors": "0",
        "spark_dynamicAllocation_minExecutors": "0",
        "spark_dynamicAllocation_maxExecutors": "3",
        "spark_executor_cores": "1",
    }
    with spark_application(master, **settings) as sc:
        with Cluster(sc, pairs(sc, 2), lookup_server(), verbose=False) as cluster:
            assert cluster.client().call_all("count") == [6, 6]
        with pytest.raises(InsufficientSlots, match=r"maxExecutors"):
            Cluster(sc, pairs(sc, 4), lookup_server(), verbose=False).start()
        # three are allowed, and the workers have room for two: nothing moves, and the error says who is missing
        options = ClusterOptions(start_timeout=3.0)
        with pytest.raises(StartTimeout) as timeout:
            Cluster(sc, pairs(sc, 3), lookup_server(), verbose=False, options=options).start()
        assert len(timeout.value.registered) == 2
        assert len(timeout.value.missing) == 1
        assert "Spark runs 2 of the 3 tasks" in str(timeout.value)
