"""A driver that only serves, and the command line beside it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers import lookup_server
from support.spark import spark_application
from support.wait import wait_until

from spark_partition_server import Cluster, JobFailed
from spark_partition_server.cli import main

pytestmark = pytest.mark.spark

PAIRS = [("a", 1), ("b", 2)]


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local[2]") as context:
        yield context


def test_a_driver_that_waits_is_stopped_from_a_shell(sc: Any) -> None:
    """Provoked: ``stop`` while the driver's main thread is in ``wait``; the block ends in order, with results."""
    output = io.StringIO()
    with Cluster(sc, sc.parallelize(PAIRS, 2), lookup_server(), cache_result=True, verbose=False) as cluster:
        path = cluster.connection_file
        assert path is not None
        assert not cluster.wait(timeout=0.01)
        assert main(["status", path, "--timeout", "20"], output) == 0
        stopper = threading.Thread(target=main, args=(["stop", path, "--timeout", "30"], output))
        stopper.start()
        assert cluster.wait(timeout=30.0)
        stopper.join(30.0)
    assert output.getvalue().endswith("stopped\n")
    assert not Path(path).parent.exists()
    assert [(rank, count) for rank, count, _ in cluster.get_result_rdd().collect()] == [(0, 1), (1, 1)]
    assert cluster.wait(), "a cluster that is not running has stopped"


def test_a_driver_that_waits_hears_of_a_failed_job(sc: Any) -> None:
    """Provoked: the job is cancelled from outside; ``wait`` must not go on for ever."""
    cluster = Cluster(sc, sc.parallelize(PAIRS, 2), lookup_server(), verbose=False)
    cluster.start()
    try:
        sc.cancelAllJobs()
        with pytest.raises(JobFailed, match="job"):
            cluster.wait(timeout=60.0)
    finally:
        with pytest.raises(JobFailed, match="job"):
            cluster.stop()
    wait_until(lambda: not cluster.is_active(), 20.0, "the end")
