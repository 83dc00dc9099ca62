"""The relay between hosts: a driver, executors that nobody can connect to, and clients, in network namespaces.

Skipped where network namespaces cannot be made; on Linux that takes root, or user namespaces for everybody.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.apart import DRIVER_PORTS, EXECUTOR_PORTS, Apart
from support.callers import EXPECTED, asyncio_calls, blocking_calls, cut_off, direct_calls, healed, one_slow
from support.forwarding import forward
from support.hosts import DRIVER, EXECUTORS, Hosts, hosts, missing

from spark_partition_server import ClientOptions

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no hosts of our own: {missing()}")

SERVERS = f"to {EXECUTORS} ipproto tcp dport {EXECUTOR_PORTS[0]}-{EXECUTOR_PORTS[1]}"
PACKETS = {"dropped": "blackhole", "rejected": "prohibit"}


@pytest.fixture(scope="module")
def network() -> Iterator[Hosts]:
    with hosts() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(network: Hosts) -> Iterator[Apart]:
    with apart(network) as made:
        yield made


def apart(network: Hosts) -> Apart:
    """Four partitions, on two executors."""
    executors = [(network.executors.start, ranks) for ranks in ((0, 1), (2, 3))]
    return Apart(network.driver.start, DRIVER, executors, fixed=True)


@pytest.fixture(params=sorted(PACKETS))
def firewall(request: pytest.FixtureRequest, network: Hosts, cluster: Apart) -> Iterator[None]:
    """Nobody can connect to an executor; executors can to others."""
    network.forbid(PACKETS[request.param], SERVERS)
    yield
    network.permit()


@pytest.fixture
def dropping(network: Hosts, cluster: Apart) -> Iterator[None]:
    """The same: what comes for an executor is dropped."""
    network.forbid("blackhole", SERVERS)
    yield
    network.permit()


@pytest.mark.parametrize("calls", [blocking_calls, asyncio_calls])
def test_auto_takes_the_relay_for_every_kind_of_call(network, cluster, firewall, calls):
    """Each ends in its deadline with its result, no server has seen a connection, and the log says once why."""
    found, told = network.clients.run(calls, cluster.path, ClientOptions(timeout=10.0, connect_timeout=0.5))
    assert found == EXPECTED
    assert len(told) == 1
    assert "timed out" in told[0] or "no answer" in told[0] or "No route" in told[0]
    assert f"tcp://{EXECUTORS}:7" in told[0]
    assert cluster.url in told[0]


@pytest.mark.parametrize("calls", [blocking_calls, asyncio_calls])
def test_relay_needs_the_drivers_ports_alone(network, cluster, calls):
    """Clients that may connect to nothing else in the world, and no attempt at it is told of."""
    network.forbid("blackhole", "iif port2")
    first, last = DRIVER_PORTS
    network.allow(f"iif port2 to {DRIVER} ipproto tcp dport {first}-{last}")
    try:
        found, told = network.clients.run(calls, cluster.path, ClientOptions(timeout=10.0, route="relay"))
    finally:
        network.permit()
    assert found == EXPECTED
    assert not told


def test_direct_is_a_typed_error_by_the_deadline(network, cluster, firewall):
    """A lost SYN is sent again for two minutes; a call does not wait for that."""
    found = network.clients.run(direct_calls, cluster.path, 0.4)
    assert list(found) == ["call", "call_all", "call_many", "submit", "stream", "asyncio"]
    for name, (kind, definite, seconds) in found.items():
        # where the time is over before the last attempt at a connection, a future says just that
        assert kind in ("Unavailable", *(["CallTimeout"] if name == "submit" else [])), name
        assert definite, name
        assert seconds < 10.0, name


def test_a_server_that_does_not_answer_holds_up_no_other(network, cluster):
    """One server's packets are dropped: calls to the others go straight, and end before its attempt is given up."""
    _, port = cluster.driver("addresses")[0]
    network.forbid("blackhole", f"to {EXECUTORS} ipproto tcp dport {port}")
    try:
        found = network.clients.run(one_slow, cluster.path, ClientOptions(timeout=20.0, connect_timeout=1.5))
    finally:
        network.permit()
    assert found["connections"] == [False, True, True, True]
    for way in ("submit", "call", "asyncio"):
        assert found[way] == [1, 2, 3]
        assert found[f"{way} first"], way
        assert found[f"{way} slow"] == 0


def test_a_connection_that_is_cut_off_is_left(network):
    """A firewall that forgets connections says nothing, and the kernel tries for a quarter of an hour; callers do not.

    The calls that were under way time out; soon after a new connection is tried, and the relay taken.
    """
    options = ClientOptions(timeout=0.7, connect_timeout=0.3)
    with apart(network) as cluster, network.clients.start(cut_off, cluster.path, options) as client:
        assert client.get() == [1, 2, 3]
        network.forbid("blackhole", SERVERS)
        try:
            assert client.ask() == {"call": 1, "submit": 2, "asyncio": 3}
        finally:
            network.permit()


def test_auto_finds_the_straight_way_once_it_is_open(network):
    """Clients that call all the time leave the relay without an error, though nothing has ended their connection."""
    options = ClientOptions(timeout=10.0, connect_timeout=0.3)
    with apart(network) as cluster:
        network.forbid("blackhole", SERVERS)
        with contextlib.ExitStack() as ended:
            ended.callback(network.permit)
            client = ended.enter_context(network.clients.start(healed, cluster.path, options))
            assert client.get() == "by relay"
            network.permit()
            assert client.ask() == [None, None, None]


@pytest.mark.parametrize("calls", [blocking_calls, asyncio_calls])
def test_the_connection_file_by_way_of_a_forwarded_port(network, cluster, tmp_path, calls):
    """``ssh -L 7100:driver:7100``: a client that has that one port, and a connection file that names it, has all."""
    network.forbid("blackhole", "iif port2")
    far, wire = int(cluster.url.rpartition(":")[2]), str(tmp_path / "ssh")
    with contextlib.ExitStack() as ended:
        ended.callback(network.permit)
        there = ended.enter_context(network.driver.start(forward, wire, (DRIVER, far)))
        there.get()
        here = ended.enter_context(network.clients.start(forward, ("127.0.0.1", 0), wire))
        _, port = here.get()
        path = tmp_path / "cluster.json"
        known = json.loads(Path(cluster.path).read_text())
        path.touch(0o600)
        path.write_text(json.dumps({**known, "coordinator": f"tcp://127.0.0.1:{port}"}))
        options = ClientOptions(timeout=10.0, connect_timeout=0.5)
        for route in ("relay", "auto"):
            found, told = network.clients.run(calls, os.fspath(path), replace(options, route=route))
            assert found == EXPECTED
            assert len(told) == 1 + (route == "auto")
            assert any("the relay's door" in one for one in told)
