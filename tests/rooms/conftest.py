"""Every test in this folder is watched for what it leaves behind. And a cluster of three ``Probe`` servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.faces import FACES, Face
from support.generators import Source
from support.leaks import leaves_nothing
from support.loops import run
from support.probe import LONG, PAIRS, Probe, switches

from spark_partition_server import Client, ClientOptions
from spark_partition_server.testing import LocalCluster, local_cluster

__all__ = ["leaves_nothing", "run"]


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    switches.reset()
    with local_cluster(Probe(), PAIRS) as made:
        yield made
        switches.gate.set()


@pytest.fixture
def sources() -> Iterator[LocalCluster]:
    """Three servers whose methods are generators."""
    switches.reset()
    with local_cluster(Source(), [[], [], []]) as made:
        yield made
        switches.gate.set()


@pytest.fixture
def client(cluster: LocalCluster) -> Client:
    return cluster.client(timeout=LONG)


@pytest.fixture(params=sorted(FACES))
def face_type(request: pytest.FixtureRequest) -> type[Face]:
    """Each of the faces of a client."""
    return FACES[request.param]


@pytest.fixture
def face(cluster: LocalCluster, face_type: type[Face]) -> Iterator[Face]:
    """A client of the cluster, by each of its faces."""
    options = ClientOptions(timeout=LONG)
    with face_type(cluster.coordinator.get_url(), cluster.coordinator.run_id, options) as made:
        yield made
