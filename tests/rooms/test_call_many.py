"""``Client.call_many`` alone: what it learns and how far it runs ahead. What each face does: test_faces_many.py."""

from __future__ import annotations

import time

import numpy
import pytest
from support.probe import LATE, LONG, switches

from spark_partition_server import Client
from spark_partition_server.errors import CallTimeout
from spark_partition_server.testing import LocalCluster


@pytest.fixture(params=["direct", "relay"])
def client(cluster: LocalCluster, request: pytest.FixtureRequest) -> Client:
    return cluster.client(timeout=LONG, route=request.param)


def test_a_client_learns_how_many_results_of_a_method_fit_one_answer(client):
    """Sixty-one arrays are the most of one message, both ways: of pairs thirty."""
    arrays = [numpy.arange(number, number + 3) for number in range(100)]
    pairs = client.call_many("echo", [(1, array, array) for array in arrays])
    assert all((answer[0][1] == array).all() for answer, array in zip(pairs, arrays, strict=True))
    assert client._sizes.of("echo") <= 30


def test_at_the_deadline_what_is_under_way_is_told_from_what_was_never_sent(cluster, client):
    """The server hangs in the first run of the first batch: four batches have left, the others have not."""
    client.call_many("echo", [(1, 1)])
    client._sizes.learn("wait", 1, 1, 0)
    calls = [(1, f"{number}") for number in range(256 * 5)]
    began = time.monotonic()
    got = client.call_many("wait", calls, timeout=0.5, return_errors=True)
    assert time.monotonic() - began < 0.5 + LATE
    assert all(isinstance(one, CallTimeout) and one.rank == 1 for one in got)
    assert [one.definite for one in got] == [False] * 1024 + [True] * 256
    switches.gate.set()
    assert client.call(1, "get", "b") == 2
    assert sum(switches.runs.values()) <= 256  # the batches that waited were taken back
