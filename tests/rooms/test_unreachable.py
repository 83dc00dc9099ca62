"""Servers that cannot be connected to: what they cost the calls of many partitions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.astray import lead_astray
from support.lanes import Deaf
from support.probe import LATE, LONG, switches
from support.wait import wait_until

from spark_partition_server import Client, ClientOptions
from spark_partition_server.errors import CallTimeout, Unavailable
from spark_partition_server.net import lane
from spark_partition_server.testing import LocalCluster

MANY = {
    "call_all": lambda client, name: client.call_all("run", name, return_errors=True),
    "call_many": lambda client, name: client.call_many(
        "run", [(rank, name) for rank in range(3)], return_errors=True
    ),
}


@pytest.fixture
def astray(cluster: LocalCluster) -> Iterator[Callable[..., Client]]:
    """Makes clients for which the host of partition 1 drops all packets."""
    with Deaf() as deaf:

        def made(**options: Any) -> Client:
            client = cluster.client(options=ClientOptions(local=False, **options))
            lead_astray(cluster, client, deaf.port)
            return client

        yield made


@pytest.mark.parametrize("way", MANY)
def test_an_attempt_to_connect_holds_up_no_other_server(astray, way):
    """The others have run what was asked while it still goes on; the end of the client ends it."""
    client = astray(timeout=LONG, connect_timeout=LONG, route="direct")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(MANY[way](client, "x")))
    thread.start()
    wait_until(lambda: switches.runs["x"] == 2)
    assert not found
    client.close()
    thread.join(LONG)
    assert not thread.is_alive()
    assert isinstance(found[1], Unavailable)


@pytest.mark.parametrize("way", MANY)
def test_without_the_relay_it_is_unavailable_by_the_deadline(astray, way):
    """In its place, and definite: nothing can have run there."""
    client = astray(timeout=0.5, route="direct")
    began = time.monotonic()
    found = MANY[way](client, "x")
    assert time.monotonic() - began < 0.5 + LATE
    assert [found[0], found[2]] == [1, 2] or [found[0], found[2]] == [2, 1]
    assert isinstance(found[1], Unavailable)
    assert found[1].definite
    assert "cannot connect" in str(found[1])


@pytest.mark.parametrize("way", MANY)
def test_the_relay_is_taken_instead_and_told_of_once(astray, way, caplog):
    """After one attempt; the next operation makes none."""
    client = astray(timeout=LONG, connect_timeout=0.2)
    for name in ("x", "y"):
        assert sorted(MANY[way](client, name)) == [1, 2, 3]
    told = [record.getMessage() for record in caplog.records if "cannot be reached" in record.getMessage()]
    assert len(told) == 1
    assert "no answer within 0.2 s" in told[0]


@pytest.mark.parametrize("way", ["call_all", "call_many"])
def test_a_connection_over_which_nothing_arrives_is_left_after_they_have_timed_out(cluster, monkeypatch, way):
    """As after a single call: a firewall that has forgotten it would cost each later call its whole time."""
    client = cluster.client(options=ClientOptions(local=False, timeout=LONG))
    assert client.call(1, "rank") == 1
    (_, before) = client._lanes.local.lanes[1]
    found = {
        "call_all": lambda: client.call_all("wait", timeout=0.3, return_errors=True),
        "call_many": lambda: client.call_many("wait", [(1,)], timeout=0.3, return_errors=True),
    }[way]()
    assert all(isinstance(one, CallTimeout) for one in found)
    monkeypatch.setattr(lane, "cut", lambda _: True)
    with pytest.raises(CallTimeout):  # its server is still at the other method
        client.call(1, "rank", timeout=0.3)
    assert client._lanes.local.lanes[1][1] is not before
