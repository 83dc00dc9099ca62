"""Every test in this folder is watched for what it leaves behind. And a cluster of three ``Probe`` servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.leaks import leaves_nothing
from support.probe import LONG, PAIRS, Probe, switches

from spark_partition_server import Client
from spark_partition_server.testing import LocalCluster, local_cluster

__all__ = ["leaves_nothing"]


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    switches.reset()
    with local_cluster(Probe(), PAIRS) as made:
        yield made
        switches.gate.set()


@pytest.fixture
def client(cluster: LocalCluster) -> Client:
    return cluster.client(timeout=LONG)
