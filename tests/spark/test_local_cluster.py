"""``local-cluster[2,1,1024]``: two executor JVMs, as on a real cluster, on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from support.processes import python_workers
from support.servers import lookup_server
from support.spark import spark_application
from support.wait import wait_until

from spark_partition_server import CallOutcomeUnknown, Cluster, FlaskPartitionServer, InsufficientSlots, run


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local-cluster[2,1,1024]") as context:
        yield context


@pytest.fixture
def pairs(sc: Any) -> Any:
    return sc.parallelize([(f"k{i}", i) for i in range(10)], 2)


def test_query_servers_on_two_executors(sc: Any, pairs: Any) -> None:
    """Started before the executors have registered: start() waits for them, and each runs one server."""
    with Cluster(sc, pairs, lookup_server(), cache_result=True, verbose=False) as cluster:
        client = cluster.client()
        assert client.call_all("count") == [5, 5]
        assert len(set(client.call_all("parent"))) == 2  # two Spark daemons: two executors
    assert [row[:2] for row in cluster.get_result_rdd().collect()] == [(0, 5), (1, 5)]


def test_flask_servers_on_two_executors(sc: Any) -> None:
    """The original's kind of server: starts, answers, returns its result RDD, stops."""
    import requests
    from flask import Blueprint

    class Sums(FlaskPartitionServer):
        def __init__(self) -> None:
            blueprint = Blueprint("app", __name__)

            @blueprint.route("/sum")
            def show() -> str:
                return str(sum(self.values))

            super().__init__(blueprint=blueprint)

        def init_partition(self, itr: Any, app: Any, config: Any) -> None:
            self.values = list(itr)

        def _build_result(self) -> list[int]:
            return [sum(self.values)]

    with Cluster(sc, sc.parallelize(range(100), 2), Sums(), cache_result=True, verbose=False) as cluster:
        urls = ["http://{}:{}/app/sum".format(*cluster.coordinator.hosts[ind]) for ind in range(2)]
        answers = [int(requests.get(url, timeout=10).text) for url in urls]
    assert answers == cluster.get_result_rdd().collect() == [1225, 3725]
    for url in urls:
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=10)


def test_nothing_is_left_in_the_executors_python(sc: Any, pairs: Any) -> None:
    """Spark uses a worker again: a thread, socket or ZeroMQ context of ours must not live on in it."""
    with Cluster(sc, pairs, lookup_server(), verbose=False) as cluster:
        served_in = set(cluster.client().call_all("pid"))
        assert served_in <= {process.pid for process in python_workers()}

    def look(rows: Any) -> Any:
        import os
        import threading

        list(rows)
        targets = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_there(fd)]
        sockets = sum(target.startswith("socket:") for target in targets)
        events = sum("eventfd" in target or "eventpoll" in target for target in targets)
        return [(os.getpid(), sorted(thread.name for thread in threading.enumerate()), sockets, events)]

    def _is_there(fd: str) -> bool:
        return os.path.islink(f"/proc/self/fd/{fd}")

    found = sc.parallelize(range(2), 2).mapPartitions(look).collect()
    looked_at = {pid for pid, *_ in found}
    assert looked_at & served_in, "no worker was used again: this run proves nothing"
    for _, threads, sockets, events in found:
        assert threads == ["MainThread"]
        assert sockets <= 3  # Spark's own connections to its JVM
        assert events == 0


def test_killed_server_is_replaced(sc: Any, pairs: Any) -> None:
    """Spark starts a killed worker's task again, on either executor, and clients find it."""
    with Cluster(sc, pairs, lookup_server(), verbose=False) as cluster:
        client = cluster.client(timeout=30)
        os.kill(client.call(1, "pid"), signal.SIGKILL)
        with pytest.raises(CallOutcomeUnknown):
            client.call(1, "count")
        assert client.call_all("count") == [5, 5]


def test_too_few_slots(sc: Any) -> None:
    """The executors' slots are counted, those still to come included."""
    with pytest.raises(InsufficientSlots) as caught:
        Cluster(sc, sc.parallelize(range(3), 3), lookup_server(), verbose=False).start()
    assert (caught.value.needed, caught.value.available) == (3, 2)


def test_killed_executor_loses_no_result(sc: Any, pairs: Any) -> None:
    """The executor that computed the result is killed: the result is still there, and no server starts."""
    with Cluster(sc, pairs, lookup_server(), cache_result=True, verbose=False) as cluster:
        pass
    result = cluster.get_result_rdd()
    expected = result.collect()
    executors = [one for one in psutil.Process().children(recursive=True) if _is_executor(one)]
    assert len(executors) == 2
    executors[0].kill()
    wait_until(lambda: not executors[0].is_running() or executors[0].status() == "zombie", 10, "it to die")
    assert result.collect() == expected


def _is_executor(process: psutil.Process) -> bool:
    try:
        return any("CoarseGrainedExecutorBackend" in part for part in process.cmdline())
    except psutil.Error:
        return False


def test_ranks_on_two_executors_compute_together(sc: Any) -> None:
    """Every rank reaches every other, in its own process: collectives of objects and of arrays, and messages."""

    def program(comm: Any, rows: Any) -> Any:
        import os

        import numpy as np

        from spark_partition_server import MPI

        mine = np.full(200_000, float(sum(rows)))
        comm.Allreduce(MPI.IN_PLACE, mine)
        into = np.zeros((comm.size, 3))
        comm.Allgather(np.full(3, float(comm.rank)), into)
        pids = comm.allgather(os.getpid())
        swapped = comm.alltoall([(comm.rank, other) for other in range(comm.size)])
        return mine[-1], into[:, 0].tolist(), len(set(pids)), swapped

    assert run(sc, sc.parallelize(range(4), 2), program, timeout=60) == [
        (6.0, [0.0, 1.0], 2, [(0, 0), (1, 0)]),
        (6.0, [0.0, 1.0], 2, [(0, 1), (1, 1)]),
    ]
