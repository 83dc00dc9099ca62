"""The blocking ``Client`` and live servers: threads, forks, signals, the end. What every face does: test_faces_*.py."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
from support.lanes import Raw
from support.octets import message
from support.probe import LONG, PAIRS, Probe, switches
from support.threads import at_once, begin
from support.wait import wait_until

from spark_partition_server import Client, ClientOptions, connect
from spark_partition_server.errors import CallOutcomeUnknown, ClusterClosed, CoordinatorLost, Unavailable
from spark_partition_server.testing import local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Error, Kind, Reply
from spark_partition_server.wire.payload import encode_value

# --------------------------------------------------------------------------------- threads, forks, the end


def test_a_request_whose_time_is_over_is_not_run(cluster, client):
    """It waits in the server behind a long one on the same connection; its caller has given up meanwhile."""
    run_id = cluster.coordinator.run_id
    client.refresh()
    member = client._routes.calls.members[1]

    def request(number: int, name: str, *args: str, remaining_ms: int) -> list[bytes]:
        fields = (number, name, remaining_ms, 1, member.incarnation)
        return codec.request_frames(codec.preamble(Kind.REQUEST, run_id), fields, encode_value((args, {})))

    with Raw((member.host, member.port)) as pipelined:
        octets = message(request(1, "wait", remaining_ms=60_000)) + message(request(2, "run", "x", remaining_ms=50))
        pipelined.plain.sendall(octets)
        assert switches.entered.wait(LONG)
        late = time.monotonic() + 0.1
        wait_until(lambda: time.monotonic() > late)
        switches.gate.set()
        assert isinstance(codec.decode(pipelined.receive(), run_id), Reply)
        refused = codec.decode(pipelined.receive(), run_id)
    assert isinstance(refused, Error)
    assert (refused.call_id, refused.code) == (2, Code.TIMEOUT)
    assert "50 ms were allowed; not run" in refused.text
    assert switches.runs["x"] == 0


def test_many_threads_share_a_client(cluster, client):
    """Sixty-four at once, each gets its own answers."""

    def call(number: int) -> None:
        for count in range(20):
            sent = f"{number}-{count}"
            assert client.call(count % 3, "echo", sent) == [[sent], {}]
        assert client.call_all("echo", number) == [[[number], {}]] * 3

    at_once(64, call)


def test_connections_of_threads_that_have_ended_are_closed(cluster, client):
    """A pool that comes and goes does not fill the servers with connections."""
    for _ in range(30):
        thread = threading.Thread(target=client.call_all, args=("rank",))
        thread.start()
        thread.join(LONG)
    wait_until(lambda: all(server._listener.connections <= 1 for server in switches.servers))


def test_close_is_harmless_twice_and_a_call_after_it_says_so(client):
    """At once, whatever the timeout of the call, and without opening anything again."""
    client.call_all("rank")
    client.close()
    client.close()
    for timeout in (None, 1.0, 5.0):
        with pytest.raises(Unavailable, match="client is closed") as caught:
            client.call(1, "rank", timeout=timeout)
        assert caught.value.definite
    with pytest.raises(Unavailable, match="client is closed"):
        client.call_all("rank")
    with pytest.raises(Unavailable, match="client is closed"):
        client.partition(1).rank()
    for ask in (client.refresh, lambda: Client.partitions.fget(client)):  # type: ignore[attr-defined]
        with pytest.raises((Unavailable, CoordinatorLost)):
            ask()


def test_a_client_that_was_never_used_is_closed(cluster):
    """And its block ends it."""
    with cluster.client() as client:
        pass
    with pytest.raises(Unavailable, match="client is closed"):
        client.call(1, "rank")


def test_another_process_needs_the_connection_file_only(cluster):
    """``connect`` reads it and looks the servers up."""
    with connect(cluster.connection_file, timeout=LONG) as client:
        assert client.call_all("rank") == [0, 1, 2]
    with connect(Path(cluster.connection_file)) as client:
        assert client.call(1, "get", "b") == 2


def test_a_cluster_that_has_stopped_does_not_answer():
    """A client that outlives it learns what has happened: from the file that is gone, or that nobody is there."""
    switches.reset()
    with local_cluster(Probe(), PAIRS) as cluster:
        client = Client(cluster.coordinator.get_url(), cluster.coordinator.run_id, ClientOptions(timeout=LONG))
        of_file = connect(cluster.connection_file, timeout=LONG)
        for one in (client, of_file):
            one.call_all("rank")
    with client:
        with pytest.raises((CoordinatorLost, CallOutcomeUnknown), match=r"coordinator.* does not answer"):
            client.call(1, "get", "b")
        with pytest.raises(CoordinatorLost, match="is the driver running"):
            client.call(1, "run", "x")
        with pytest.raises(CoordinatorLost, match="is the driver running"):
            client.call_many("run", [(2, "x")])
    with of_file:
        for ask in (lambda: of_file.call(1, "run", "x"), lambda: of_file.call_many("get", [(1, "b")])):
            with pytest.raises(ClusterClosed, match=r"the cluster has stopped: its connection file .* is gone"):
                ask()


def test_a_call_that_was_interrupted_leaves_the_client_in_order(cluster, client):
    """Ctrl-C while a large request leaves: what follows must not become a part of it."""
    class Stop(BaseException):
        pass

    def handler(number: int, where: object) -> None:
        raise Stop

    blocker = begin(client.call, 1, "wait")
    switches.entered.wait(LONG)
    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGUSR1))
    timer.start()
    with pytest.raises(Stop):
        client.call(1, "echo", bytes(64 << 20))
    signal.signal(signal.SIGUSR1, before)
    switches.gate.set()
    assert client.call(1, "get", "b", timeout=5.0) == 2
    assert blocker.result(LONG) == "wait"
