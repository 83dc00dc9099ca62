"""``Client.stream`` alone: Ctrl-C, errors before an item, connections. What each face does: test_faces_streams.py."""

from __future__ import annotations

import signal
import threading

import pytest
from support.probe import switches
from support.wait import wait_until

from spark_partition_server.errors import HandlerError, InvalidArguments, Unavailable
from spark_partition_server.testing import LocalCluster


@pytest.fixture
def cluster(sources: LocalCluster) -> LocalCluster:
    return sources


def test_an_interrupted_stream_is_over_and_its_generator_closed(client):
    """Ctrl-C while it waits for the next item."""
    stream = client.stream(1, "wait")
    assert next(stream) == 1
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    signal.signal(signal.SIGINT, before)
    timer.join()
    switches.gate.set()
    assert list(stream) == []
    assert client.call(1, "plain") == 7


def test_a_partition_that_cannot_be_had_is_told_where_the_stream_is_made(cluster, client):
    """And not at its first item: one that is not there, and one that nobody serves before the timeout."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    with pytest.raises(Unavailable, match="nobody serves it"):
        client.stream(1, "count", 3, timeout=0.2)
    with pytest.raises(InvalidArguments, match="no such partition"):
        client.stream(3, "count", 1)
    assert not switches.runs


def test_a_stream_that_has_ended_leaves_its_connection_to_the_next(cluster, client):
    """Twenty streams one after the other, one connection; an error that the server tells is an end in order too."""
    for _ in range(10):
        assert list(client.stream(1, "count", 3)) == [0, 1, 2]
        with pytest.raises(HandlerError):
            list(client.stream(1, "fail", 1))
    (server,) = [one for one in switches.servers if one.partition_ind == 1]
    assert server._listener.connections == 1
    cluster.launch(1, 1)
    wait_until(lambda: len(switches.servers) == 4)
    wait_until(lambda: not server._life._loop.alive)
    assert list(client.stream(1, "count", 3)) == [0, 1, 2]
