"""``local[2,4]`` starts a failed task again: a server may come back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from support.servers import lookup_server
from support.spark import spark_application
from support.wait import wait_until

from spark_partition_server import CallOutcomeUnknown, Cluster, PartitionInitError, QueryServer, connect, method


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local[2,4]") as context:
        yield context


@pytest.fixture
def pairs(sc: Any) -> Any:
    return sc.parallelize([(f"k{i}", i) for i in range(10)], 2)


def test_killed_server_comes_back(sc: Any, pairs: Any) -> None:
    """SIGKILL: the outcome of the call under way is unknown, and the next call finds Spark's replacement."""
    with Cluster(sc, pairs, lookup_server(), cache_result=True, verbose=False) as cluster:
        client = cluster.client(timeout=20)
        with connect(cluster.connection_file, timeout=20) as outside:
            assert outside.call(0, "count") == 5
            old = client.call(0, "pid")
            os.kill(old, signal.SIGKILL)
            with pytest.raises(CallOutcomeUnknown):
                client.call(0, "count")
            assert client.call(0, "count") == 5
            assert client.call(0, "pid") != old
            assert outside.call(0, "get", "k1") == 1  # idempotent: repeated without anybody noticing
    assert [row[:2] for row in cluster.get_result_rdd().collect()] == [(0, 5), (1, 5)]


def test_idempotent_calls_survive_a_kill(sc: Any, pairs: Any) -> None:
    """A method declared idempotent is repeated by the client when its server dies."""
    with Cluster(sc, pairs, lookup_server(), verbose=False) as cluster:
        client = cluster.client(timeout=20)
        os.kill(client.call(1, "pid"), signal.SIGKILL)
        assert client.call(1, "get", "k9") == 9
        assert client.call_all("get", "k9") == [None, 9]


def test_register_callback_sees_the_replacement(sc: Any, pairs: Any) -> None:
    """The callback gets the old and the new address; `hosts` follows."""
    entries: list[dict[str, Any]] = []
    with Cluster(sc, pairs, lookup_server(), verbose=False) as cluster:
        cluster.coordinator.set_register_callback(entries.append)
        before = dict(cluster.get_hosts())
        os.kill(cluster.client().call(0, "pid"), signal.SIGKILL)
        wait_until(lambda: entries, 20, "the replacement to register")
        assert entries[0]["partition_ind"] == 0
        assert entries[0]["old_entry"] == before[0]
        assert entries[0]["new_entry"] == cluster.get_hosts()[0]
        assert entries[0]["full_cluster"] is True


def test_init_that_fails_once_is_forgiven(sc: Any, pairs: Any, tmp_path: Any) -> None:
    """One failure of init_partition is Spark's to repair; the cluster starts."""
    flag = str(tmp_path / "failed")

    class Flaky(QueryServer):
        def init_partition(self, rows: Any) -> None:
            import os

            if self.partition_ind == 0 and not os.path.exists(flag):
                with open(flag, "w"):
                    raise OSError("only once")
            self.rows = list(rows)

        @method
        def count(self) -> int:
            return len(self.rows)

    with Cluster(sc, pairs, Flaky(), verbose=False) as cluster:
        assert cluster.client().call_all("count") == [5, 5]
        assert len(cluster.coordinator.init_failures) == 1


def test_init_that_fails_again_and_again_is_an_error(sc: Any, pairs: Any) -> None:
    """start() gives up after two failures of a partition, before Spark has used up its four attempts."""

    class Broken(QueryServer):
        def init_partition(self, rows: Any) -> None:
            raise OSError("never")

    cluster = Cluster(sc, pairs, Broken(), verbose=False)
    with pytest.raises(PartitionInitError, match="never"):
        cluster.start()
    assert not cluster.is_active()
