"""The same-host lane: taken where it works, told to nobody it is not for, and never missed where it does not."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support.lanes import Raw
from support.probe import LONG, PAIRS, Probe
from support.wait import wait_until

from spark_partition_server import Client, ClientOptions, connect
from spark_partition_server.calling import ways
from spark_partition_server.errors import CallOutcomeUnknown, CoordinatorLost, Unavailable
from spark_partition_server.net import accepting, endpoints
from spark_partition_server.net.endpoints import bind_local, parse
from spark_partition_server.options import ServerOptions
from spark_partition_server.testing import LocalCluster, local_cluster

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has sockets without a file")
pytestmark = LINUX


def scheme_of(client: Client, rank: int = 0) -> str:
    """Over what this thread's calls go."""
    family = client._lanes.local.lanes[rank][1]._socket.family
    return "ipc" if family == socket.AF_UNIX else "tcp"


def told(cluster: LocalCluster, rank: int = 0) -> str:
    client = cluster.client()
    client.refresh()
    return client._routes.calls.members[rank].local


# --------------------------------------------------------------------------------------------- which way


def test_on_one_host_calls_go_over_the_unix_socket(cluster, client):
    """Nobody has to ask for it."""
    assert client.call(0, "get", "a") == 1
    assert scheme_of(client) == "ipc"


def test_a_client_that_wants_tcp_gets_tcp(cluster):
    """ClientOptions.local = False."""
    client = cluster.client(options=ClientOptions(local=False))
    assert client.call(0, "get", "a") == 1
    assert scheme_of(client) == "tcp"


def test_a_server_without_one_tells_none():
    """ServerOptions.local = False: no socket is bound."""
    with local_cluster(Probe(options=ServerOptions(local=False)), PAIRS) as cluster:
        client = cluster.client(timeout=LONG)
        assert client.call(0, "get", "a") == 1
        assert scheme_of(client) == "tcp"
        assert told(cluster) == ""


def test_a_lane_that_leads_nowhere(cluster, client, caplog):
    """[5.6] A client MUST fall back to `endpoint` when `local` cannot be used. The view is that of another host."""
    caplog.set_level("DEBUG")
    client.refresh()
    for rank, member in list(client._routes.calls.members.items()):
        object.__setattr__(member, "local", f"ipc://@nobody-{rank}")
    assert client.call_all("rank") == [0, 1, 2]
    assert scheme_of(client) == "tcp"
    assert "no same-host lane partition=0 endpoint=ipc://@nobody-0" in caplog.text


@pytest.mark.parametrize("endpoint", ["ipc:///nobody/here", "ipc://@", "ipc://@" + "x" * 200, "tcp:nonsense", "x"])
def test_a_lane_whose_endpoint_means_nothing_here(endpoint, cluster, client):
    """A server on another system tells a path that this one has not got."""
    client.refresh()
    object.__setattr__(client._routes.calls.members[0], "local", endpoint)
    assert client.call(0, "rank") == 0


def test_somebody_who_accepts_and_says_nothing(cluster, client, monkeypatch):
    """A stopped process on the other end takes a moment of the call, not all of it."""
    monkeypatch.setattr(ways, "LOCAL_TIMEOUT", 0.05)
    client.refresh()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("")  # the kernel finds a name
        silent.listen()
        name = silent.getsockname()[1:].decode()
        object.__setattr__(client._routes.calls.members[0], "local", f"ipc://@{name}")
        assert client.call(0, "rank") == 0
    assert scheme_of(client) == "tcp"


# -------------------------------------------------------------------------------------------- who is there


def credentials(user: int) -> bytes:
    return struct.pack("@iII", 1, user, 0)


@pytest.mark.parametrize(("user", "may"), [(os.geteuid(), True), (0, True), (os.geteuid() + 1, False)])
def test_whose_process_it_is(user, may):
    """The kernel says who is at the other end; only the same user and root count."""

    class Peer:
        def getsockopt(self, *arguments: int) -> bytes:
            return credentials(user)

    assert endpoints.may_share(Peer()) is may  # type: ignore[arg-type]


def test_a_process_of_another_user_is_refused(cluster, client, monkeypatch, caplog):
    """[5.6] A server MUST close a connection over `local` whose other end belongs to another user."""
    monkeypatch.setattr(accepting, "may_share", lambda connected: False)
    address = parse(told(cluster))[1]
    with Raw(address, shake=False) as stranger:
        assert stranger.read_to_the_end() == 0
    assert client.call(0, "rank") == 0
    assert scheme_of(client) == "tcp"
    assert "another user" in caplog.text


def test_a_server_of_another_user_is_not_talked_to(cluster, client, monkeypatch):
    """[5.6] A client MUST NOT send anything over `local` to a process of another user: the name is free for anybody."""
    monkeypatch.setattr(endpoints, "may_share", lambda connected: False)
    assert client.call(0, "rank") == 0
    assert scheme_of(client) == "tcp"


def test_another_server_behind_the_name(cluster, client):
    """It cannot answer in the other's place, since the request names rank and incarnation."""
    client.refresh()
    members = client._routes.calls.members
    object.__setattr__(members[0], "local", members[1].local)
    assert client.call(0, "rank") == 0
    assert client._routes.calls.members[0].local != members[1].local, "the client has looked where it belongs"


# ------------------------------------------------------------------------------------------- what is left


def listening(name: str) -> bool:
    return f"@{name}" in Path("/proc/net/unix").read_text()


def test_the_name_goes_with_the_cluster(cluster):
    """stop() leaves no socket."""
    name = told(cluster).removeprefix("ipc://@")
    assert listening(name)
    cluster.stop()
    assert not listening(name)


SERVER = """
import sys
from support.probe import PAIRS, Probe
from spark_partition_server.testing import local_cluster
with local_cluster(Probe(), PAIRS) as cluster:
    print(cluster.connection_file, flush=True)
    sys.stdin.read()
"""


def test_the_name_goes_with_a_process_that_is_killed(tmp_path):
    """SIGKILL: no file, no name; the client finds out at once."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            with connect(process.stdout.readline().strip(), timeout=LONG) as client:
                assert client.call(0, "rank") == 0
                assert scheme_of(client) == "ipc"
                name = client._routes.calls.members[0].local.removeprefix("ipc://@")
                assert listening(name)
                process.send_signal(signal.SIGKILL)
                process.wait(LONG)
                wait_until(lambda: not listening(name), LONG, "the name to go")
                with pytest.raises((Unavailable, CallOutcomeUnknown, CoordinatorLost)):
                    client.call(0, "rank", timeout=1.0)
        finally:
            process.kill()


def test_binding_is_refused_by_the_system(monkeypatch):
    """A sandbox without Unix sockets: the server is there all the same, over tcp."""

    def refused(*arguments: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(endpoints.socket.socket, "bind", refused)
    assert bind_local() is None
