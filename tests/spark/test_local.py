"""A cluster on ``local[2]``: no retries, two slots."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.gate import Gate
from support.servers import failing_server, lookup_server
from support.spark import spark_application
from support.wait import wait_until

from spark_partition_server import (
    CallOutcomeUnknown,
    ClientOptions,
    Cluster,
    ClusterClosed,
    ClusterError,
    ClusterOptions,
    InsufficientSlots,
    InvalidCluster,
    JobFailed,
    NotSerializable,
    NotStarted,
    PartitionInitError,
    PortUnavailable,
    StartTimeout,
    Unavailable,
    connect,
)
from spark_partition_server.net.endpoints import bind_tcp

FORGETFUL = """
import os, sys
os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
from pyspark import SparkContext
from spark_partition_server import Cluster, QueryServer, method

class Count(QueryServer):
    def init_partition(self, rows):
        self.rows = list(rows)

    @method
    def count(self):
        return len(self.rows)

sc = SparkContext("local[2]")
cluster = Cluster(sc, sc.parallelize([1, 2], 2), Count())
cluster.start()
print(cluster.client().call_all("count"))
"""

LOOKUP = "lookup_server.<locals>.Lookup"

PLAIN_CLIENT = """
import sys
from spark_partition_server import connect
with connect(sys.argv[1]) as client:
    print(client.call(0, "get", "k2"), client.call_all("count"))
assert "pyspark" not in sys.modules
"""


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local[2]") as context:
        yield context


@pytest.fixture(scope="module")
def pairs(sc: Any) -> Any:
    return sc.parallelize([(f"k{i}", i) for i in range(100)], 2)


@pytest.mark.smoke
def test_query_stop_and_result(sc: Any, pairs: Any) -> None:
    """The whole length: serve, ask, stop, and the result is an RDD with a partition for each server."""
    with Cluster(sc, pairs, lookup_server(), cache_result=True, verbose=False) as cluster:
        client = cluster.client(timeout=10)
        assert client.partitions == 2
        assert client.call_all("count") == [50, 50]
        assert client.call(0, "get", "k2") == 2
        assert client.partition(1).get("k99") == 99
        assert cluster.is_active()
        assert sorted(cluster.get_hosts()) == [0, 1]
        url = cluster.coordinator.get_url()
        assert repr(cluster) == f"<Cluster of {LOOKUP}: 2 of 2 partitions served, coordinator at {url}>"
    assert not cluster.is_active()
    assert repr(cluster) == f"<Cluster of {LOOKUP}, not running>"
    result = cluster.get_result_rdd()
    assert result.getNumPartitions() == 2
    assert [row[:2] for row in result.collect()] == [(0, 50), (1, 50)]


@pytest.mark.smoke
def test_client_in_a_process_without_spark(sc: Any, pairs: Any) -> None:
    """Another process needs the connection file and nothing of Spark."""
    with Cluster(sc, pairs, lookup_server(), verbose=False) as cluster:
        path = cluster.connection_file
        assert os.stat(path).st_mode & 0o777 == 0o600
        done = subprocess.run(
            [sys.executable, "-c", PLAIN_CLIENT, path], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.split() == ["2", "[50,", "50]"], done.stderr
    assert not os.path.exists(path)
    with pytest.raises(ClusterClosed, match="no connection file"):
        connect(path)


@pytest.mark.smoke
def test_restart_after_stop(sc: Any, pairs: Any) -> None:
    """A stopped cluster starts again; start, stop and a client's close may be repeated."""
    cluster = Cluster(sc, pairs, lookup_server(), verbose=False)
    runs = set()
    for _ in range(2):
        cluster.start()
        cluster.start()
        runs.add(cluster.coordinator.run_id)
        client = cluster.client()
        assert client.call_all("count") == [50, 50]
        cluster.stop()
        cluster.stop()
        client.close()
        with pytest.raises(ClusterError):
            cluster.client()
    assert len(runs) == 2


def test_client_of_an_earlier_run_is_told(sc: Any, pairs: Any) -> None:
    """A client that outlives its run does not reach the next one by accident."""
    cluster = Cluster(sc, pairs, lookup_server(), verbose=False)
    with cluster:
        url, run_id = cluster.coordinator.get_url(), cluster.coordinator.run_id
        old = cluster.client(timeout=2)
        assert old.call(0, "count") == 50
    with cluster:
        with pytest.raises(Unavailable, match="the client is closed"):
            old.call(0, "count")
        assert cluster.coordinator.run_id != run_id
        assert cluster.coordinator.get_url() != url or cluster.client().call(0, "count") == 50


@pytest.mark.smoke
def test_empty_partition_serves(sc: Any) -> None:
    """An empty partition's server has an empty iterator and answers."""
    rdd = sc.parallelize([("a", 1)], 2)
    with Cluster(sc, rdd, lookup_server(), verbose=False) as cluster:
        assert sorted(cluster.client().call_all("count")) == [0, 1]


def test_dataframe(sc: Any) -> None:
    """A DataFrame is served through its rows."""
    from pyspark.sql import SparkSession

    frame = SparkSession(sc).createDataFrame([("a", 1), ("b", 2)], ["key", "value"]).repartition(2)
    with Cluster(sc, frame, lookup_server(), verbose=False) as cluster:
        client = cluster.client()
        assert sorted(filter(None, client.call_all("get", "a"))) == [1]


def test_too_few_slots_is_an_error_at_once(sc: Any) -> None:
    """Four servers on two slots: an error that counts them, before any job is submitted; not a hang."""
    before = len(sc.statusTracker().getJobIdsForGroup(None))
    with pytest.raises(InsufficientSlots) as caught:
        Cluster(sc, sc.parallelize(range(8), 4), lookup_server(), verbose=False).start()
    assert (caught.value.needed, caught.value.available, caught.value.total) == (4, 2, 2)
    assert "coalesce(2)" in str(caught.value)
    assert len(sc.statusTracker().getJobIdsForGroup(None)) == before


def test_slots_held_by_another_cluster_count(sc: Any, pairs: Any) -> None:
    """Servers hold their slots for ever, so a second cluster must not wait for them."""
    with Cluster(sc, pairs.coalesce(1), lookup_server(), verbose=False) as first:
        with pytest.raises(InsufficientSlots, match="1 of 2 are held by other partition servers") as caught:
            Cluster(sc, pairs, lookup_server(), verbose=False).start()
        assert caught.value.available == 1
        assert first.client().call(0, "count") == 100


def test_slots_held_by_other_jobs_time_out_with_the_reason(sc: Any, pairs: Any, tmp_path: Any) -> None:
    """Another job holds a slot: start() gives up for lack of progress and says who is missing."""
    with Gate(tmp_path / "gate") as gate:
        wait = gate.waiter()

        def hold(rows: Any) -> Any:
            wait()
            return rows

        thread = threading.Thread(target=sc.parallelize([1], 1).mapPartitions(hold).count)
        thread.start()
        wait_until(lambda: sc.statusTracker().getActiveJobsIds(), 10, "the other job to run")
        options = ClusterOptions(start_timeout=2.0)
        cluster = Cluster(sc, pairs, lookup_server(), verbose=False, options=options)
        with pytest.raises(StartTimeout) as caught:
            cluster.start()
        assert len(caught.value.registered) == len(caught.value.missing) == 1
        assert "Spark runs 1 of the 2 tasks on 2 slots" in str(caught.value)
        assert not cluster.is_active()
    thread.join(60)
    assert not thread.is_alive()


def test_no_partitions(sc: Any) -> None:
    """There is nothing to serve, and the error says so."""
    with pytest.raises(InvalidCluster, match="no partitions"):
        Cluster(sc, sc.emptyRDD(), lookup_server(), verbose=False).start()


def test_neither_rdd_nor_dataframe(sc: Any) -> None:
    """A list is no RDD."""
    with pytest.raises(TypeError, match=r"RDD or a DataFrame is wanted, not builtins\.list"):
        Cluster(sc, [1, 2], lookup_server())


def test_no_spark_context(sc: Any, pairs: Any) -> None:
    """Something else in its place is an error that names it; a SparkSession is as good."""
    from pyspark.sql import SparkSession

    with pytest.raises(InvalidCluster, match=r"a SparkContext is wanted, not builtins\.str"):
        Cluster("local[2]", pairs, lookup_server())
    assert Cluster(SparkSession(sc), pairs, lookup_server()).sc is sc


def test_forgotten_stop_does_not_keep_the_interpreter() -> None:
    """A script that ends without stop() ends, and its servers with it."""
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL], capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[1, 1]\n"), done.stderr[-3000:]


def test_server_that_cannot_be_pickled(sc: Any, pairs: Any, capsys: Any) -> None:
    """The error names the attribute that cannot be shipped, without Spark's own traceback before it."""
    server = lookup_server()
    server.guard = threading.Lock()
    with pytest.raises(NotSerializable, match=r"its attribute 'guard' \(a _thread\.lock\)"):
        Cluster(sc, pairs, server, verbose=False).start()
    assert "Traceback" not in capsys.readouterr().err


def test_init_failure_carries_the_remote_traceback(sc: Any, pairs: Any) -> None:
    """init_partition raises: start() says where and shows the executor's traceback; nothing is left running."""
    cluster = Cluster(sc, pairs, failing_server("these rows are bad"), verbose=False)
    with pytest.raises(PartitionInitError, match="these rows are bad") as caught:
        cluster.start()
    assert "init_partition" in caught.value.remote_traceback
    assert caught.value.rank in (0, 1)
    assert not cluster.is_active()
    with Cluster(sc, pairs, lookup_server(), verbose=False) as working:
        assert working.client().call_all("count") == [50, 50]


def test_init_failure_is_told_as_such_while_the_jobs_thread_still_ends(sc: Any, pairs: Any) -> None:
    """The job is over before its thread is: in between, start() must not take the failure for Spark's own."""
    gate = threading.Event()

    class Held(Cluster):
        def _job_ended(self) -> None:
            gate.wait(3)
            super()._job_ended()

    try:
        with pytest.raises(PartitionInitError, match="bad rows"):
            Held(sc, pairs, failing_server("bad rows"), verbose=False).start()
    finally:
        gate.set()


def test_full_port_range(sc: Any, pairs: Any) -> None:
    """No port of the server's range is free: a typed error with the range."""
    with bind_tcp("127.0.0.1") as taken:
        port = taken.getsockname()[1]
        cluster = Cluster(sc, pairs, lookup_server(port=port), verbose=False)
        with pytest.raises(PortUnavailable) as caught:
            cluster.start()
        assert caught.value.ports == (port, port)
        options = ClusterOptions(ports=(port, port))
        with pytest.raises(PortUnavailable):
            Cluster(sc, pairs, lookup_server(), verbose=False, options=options).start()


def test_killed_server_without_retries(sc: Any, pairs: Any) -> None:
    """local[2] retries nothing: the job's failure reaches the next call and stop(), with Spark's cause."""
    cluster = Cluster(sc, pairs, lookup_server(), verbose=False)
    cluster.start()
    client = cluster.client(timeout=10)
    path = cluster.connection_file
    with connect(path, timeout=10) as outside:
        os.kill(client.call(0, "pid"), signal.SIGKILL)
        with pytest.raises(CallOutcomeUnknown):
            client.call(0, "count")
        wait_until(lambda: cluster._job.done, 20, "Spark to notice")
        with pytest.raises(JobFailed, match="crashed") as caught:
            client.call(0, "count")
        assert caught.value.__cause__ is not None
        with pytest.raises(JobFailed, match="crashed"):
            outside.call(0, "count")
    with pytest.raises(JobFailed):
        cluster.stop()
    cluster.stop()
    assert not cluster.is_active()


def test_stop_while_starting(sc: Any, pairs: Any, tmp_path: Any) -> None:
    """stop() from another thread ends a start() that waits, and the tasks that are still in init_partition."""
    with Gate(tmp_path / "gate") as gate:
        _stopped_while_starting(sc, pairs, gate)


def _stopped_while_starting(sc: Any, pairs: Any, gate: Gate) -> None:
    wait = gate.waiter()

    class Slow(type(lookup_server())):  # type: ignore[misc]
        def init_partition(self, rows: Any) -> None:
            wait()

    cluster = Cluster(sc, pairs, Slow(), verbose=False)
    raised: list[BaseException] = []

    def start() -> None:
        try:
            cluster.start()
        except ClusterClosed as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: sc.statusTracker().getActiveJobsIds(), 20, "the job to run")
    cluster.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert "stop() was called" in str(raised[0])
    wait_until(lambda: not sc.statusTracker().getActiveJobsIds(), 20, "the job to be cancelled")


def test_not_started(sc: Any, pairs: Any) -> None:
    """Before start there are no hosts, no result and no client."""
    cluster = Cluster(sc, pairs, lookup_server())
    assert cluster.get_hosts() is None
    assert cluster.get_result_rdd() is None
    with pytest.raises(NotStarted):
        cluster.client()
    cluster.stop()


def test_start_without_waiting(sc: Any, pairs: Any) -> None:
    """start(await_hosts=False) returns at once, and the cluster becomes complete by itself."""
    cluster = Cluster(sc, pairs, lookup_server(), verbose=False)
    cluster.start(await_hosts=False)
    try:
        wait_until(lambda: cluster.coordinator.full_cluster, 20, "every partition")
        client = cluster.client(options=ClientOptions(timeout=5))
        assert client.call_all("count") == [50, 50]
    finally:
        cluster.stop()


def test_the_users_job_group_stays(sc: Any, pairs: Any) -> None:
    """The servers' job runs under a group of its own; the caller's thread keeps the user's."""
    sc.setJobGroup("mine", "my jobs")
    try:
        with Cluster(sc, pairs, lookup_server(), verbose=False):
            assert sc.getLocalProperty("spark.jobGroup.id") == "mine"
    finally:
        sc.setLocalProperty("spark.jobGroup.id", None)
        sc.setLocalProperty("spark.job.description", None)


def test_an_error_in_the_block_is_the_one_that_is_raised(sc: Any, pairs: Any) -> None:
    """The with block's own error is not hidden by the stop."""
    with pytest.raises(ZeroDivisionError), Cluster(sc, pairs, lookup_server(), verbose=False) as cluster:
        1 / 0
    assert not cluster.is_active()
