"""Ranks on Spark: ``run`` and ``PeerServer``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.spark import spark_application

from spark_partition_server import Cluster, InsufficientSlots, PeerServer, RankFailed, RankLost, run


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local[2,4]") as context:
        yield context


def test_a_function_runs_on_all_partitions_at_once(sc: Any) -> None:
    """Values come back in rank order, numbers add up, arrays too."""

    def total(comm: Any, rows: Any) -> Any:
        import numpy as np

        numbers = np.array(list(rows), dtype="f8")
        into = np.empty_like(numbers)
        comm.Allreduce(numbers, into)
        received = comm.sendrecv(("from", comm.rank), 1 - comm.rank)
        return comm.allreduce(sum(numbers)), into.tolist(), received

    assert run(sc, sc.parallelize(range(4), 2), total, timeout=30) == [
        (6.0, [2.0, 4.0], ("from", 1)),
        (6.0, [2.0, 4.0], ("from", 0)),
    ]


def test_an_exception_reaches_the_driver_with_its_traceback(sc: Any) -> None:
    """One rank raises while the other is in a barrier: nobody waits, and Spark begins nothing again."""

    def fails(comm: Any, rows: Any) -> None:
        if comm.rank == 1:
            raise KeyError("nothing of that name")
        comm.barrier()

    with pytest.raises(RankFailed, match="raised on rank 1: KeyError") as caught:
        run(sc, sc.parallelize(range(2), 2), fails, timeout=60)
    assert "in fails" in caught.value.remote_traceback


def test_a_rank_whose_process_dies_ends_the_run(sc: Any) -> None:
    """Spark begins the task again; the run is over all the same, and says who was lost."""

    def dies(comm: Any, rows: Any) -> None:
        import os

        comm.barrier()
        if comm.rank == 1:
            os.kill(os.getpid(), 9)
        comm.barrier()

    with pytest.raises(RankLost) as caught:
        run(sc, sc.parallelize(range(2), 2), dies, timeout=60)
    assert caught.value.ranks == (1,)


def test_more_partitions_than_slots_are_refused_at_once(sc: Any) -> None:
    """All ranks must run at the same time."""
    with pytest.raises(InsufficientSlots):
        run(sc, sc.parallelize(range(3), 3), lambda comm, rows: None)


def test_a_peer_server_leaves_its_result(sc: Any) -> None:
    """``run`` of the class, then ``_build_result``, then the RDD."""

    class Total(PeerServer):
        def run(self, comm: Any) -> None:
            self.total = comm.allreduce(sum(self.itr))

        def _build_result(self) -> list[Any]:
            return [(self.partition_ind, self.total)]

    with Cluster(sc, sc.parallelize(range(4), 2), Total(timeout=30), cache_result=True, verbose=False) as cluster:
        assert cluster.wait(60)
    assert cluster.get_result_rdd().collect() == [(0, 6), (1, 6)]
