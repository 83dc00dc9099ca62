"""The result RDD: whatever is lost later, no server is started again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.servers import lookup_server
from support.spark import spark_application

from spark_partition_server import Cluster, ClusterOptions


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local[2]") as context:
        yield context


@pytest.fixture
def pairs(sc: Any) -> Any:
    return sc.parallelize([(f"k{i}", i) for i in range(10)], 2)


def served(sc: Any, pairs: Any, **options: Any) -> Any:
    cluster = Cluster(
        sc, pairs, lookup_server(), cache_result=True, verbose=False, options=ClusterOptions(**options)
    )
    with cluster:
        assert cluster.get_result_rdd() is None
    return cluster.get_result_rdd()


@pytest.mark.smoke
def test_unpersist_loses_nothing(sc: Any, pairs: Any) -> None:
    """A user unpersists the result, as the original's README asks: it can still be used, and no server starts."""
    result = served(sc, pairs)
    assert result.is_cached
    expected = result.collect()
    assert [row[:2] for row in expected] == [(0, 5), (1, 5)]
    result.unpersist(blocking=True)
    assert result.collect() == expected
    assert result.map(lambda row: row[1]).sum() == 10


def test_checkpoint_directory_is_used(sc: Any, pairs: Any, tmp_path: Any) -> None:
    """With a checkpoint directory the result is written there and its lineage ends there."""
    sc.setCheckpointDir(str(tmp_path))
    try:
        result = served(sc, pairs, result_bytes_max=1)
        assert result.isCheckpointed()
        result.unpersist(blocking=True)
        assert [row[:2] for row in result.collect()] == [(0, 5), (1, 5)]
    finally:
        _forget_checkpoint_dir(sc)


def test_large_result_stays_on_the_executors_and_is_never_served_again(sc: Any, pairs: Any, caplog: Any) -> None:
    """Above the limit a lost block is an error that says what to do, at once: it does not start a server."""
    result = served(sc, pairs, result_bytes_max=1)
    assert "sc.setCheckpointDir() keeps it" in caplog.text
    assert [row[:2] for row in result.collect()] == [(0, 5), (1, 5)]
    result.unpersist(blocking=True)
    with pytest.raises(Exception, match=r"partition [01] of a stopped cluster is not served again"):
        result.collect()


def _forget_checkpoint_dir(sc: Any) -> None:
    """Spark has no way back from setCheckpointDir; the other tests want none."""
    scala = sc._jsc.sc()
    field = scala.getClass().getDeclaredField("checkpointDir")
    field.setAccessible(True)
    field.set(scala, sc._jvm.scala.Option.empty())
