"""Two clusters on one SparkContext, and ordinary jobs beside them."""

from __future__ import annotations

from typing import Any

import pytest
from support.servers import lookup_server
from support.spark import spark_application

from spark_partition_server import Cluster


@pytest.fixture(scope="module")
def sc() -> Any:
    with spark_application("local[5]") as context:
        yield context


def test_two_clusters_side_by_side(sc: Any) -> None:
    """Each has its own coordinator, run, file and servers; stopping one leaves the other alone."""
    first_pairs = sc.parallelize([("a", 1), ("b", 2)], 2)
    second_pairs = sc.parallelize([("a", 10), ("b", 20)], 2)
    first = Cluster(sc, first_pairs, lookup_server(), verbose=False)
    with Cluster(sc, second_pairs, lookup_server(), verbose=False) as second:
        with first:
            assert first.connection_file != second.connection_file
            assert first.client().call_all("get", "a") == [1, None]
            assert second.client().call_all("get", "a") == [10, None]
            assert sc.parallelize(range(100), 1).sum() == 4950
        assert second.client().call_all("get", "b") == [None, 20]


def test_fair_scheduler_pools_are_inherited(sc: Any) -> None:
    """The job runs in the scheduler pool of the thread that called start()."""
    sc.setLocalProperty("spark.scheduler.pool", "servers")
    try:
        with Cluster(sc, sc.parallelize([("a", 1)], 1), lookup_server(), verbose=False) as cluster:
            queue = sc._jsc.sc().taskScheduler().rootPool().schedulableQueue().toArray()
            pools = [item.taskSet().properties().getProperty("spark.scheduler.pool") for item in queue]
            assert "servers" in pools
            assert cluster.client().call(0, "get", "a") == 1
    finally:
        sc.setLocalProperty("spark.scheduler.pool", None)
