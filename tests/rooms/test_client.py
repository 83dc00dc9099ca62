"""``Client`` and live servers: answers, deadlines, threads, forks, the end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.lanes import Raw
from support.octets import message
from support.probe import LONG, PAIRS, Probe, switches
from support.wait import wait_until

from spark_partition_server import Client, ClientOptions, connect
from spark_partition_server.errors import CallOutcomeUnknown, CallTimeout, CoordinatorLost, Unavailable
from spark_partition_server.testing import local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Error, Kind, Reply
from spark_partition_server.wire.payload import encode_value

LATE = 0.6  # seconds over a deadline; promised are 0.1, but a shared machine may hold any thread up


# ------------------------------------------------------------------------------------------ answers


def test_each_partition_answers_for_itself(client):
    """By number, by name, and all at once in their order."""
    assert [client.call(rank, "get", key) for rank, key in enumerate("abc")] == [1, 2, 3]
    assert client.call(0, "get", "b") is None
    assert client.partition(2).get("c") == 3
    assert client.call_all("rank") == [0, 1, 2]
    assert client.partitions == 3


def test_arguments_arrive_as_they_were_given(client):
    """Positional, by keyword, many, none; the names that a call has for itself can be keywords, but for timeout."""
    assert client.call(1, "echo") == [[], {}]
    assert client.call(1, "echo", 1, None, [2.5], x={"y": b"z"}) == [[1, None, [2.5]], {"x": {"y": b"z"}}]
    assert client.call(1, "echo", partition=5, method="m") == [[], {"partition": 5, "method": "m"}]
    assert client.call_all("echo", 7, method="m") == [[[7], {"method": "m"}]] * 3
    assert client.partition(1).echo(1, a=2, timeout=LONG) == [[1], {"a": 2}]


def test_a_partition_may_be_any_integer(client):
    """``hash(key) % n`` of an array of keys gives numpy's integers."""
    import numpy

    assert client.call(numpy.int64(1), "get", "b") == 2
    assert client.call(True, "get", "b") == 2


def test_a_partition_proxy_is_no_trap_for_those_who_look_at_it(client):
    """copy, pickle, notebooks and hasattr ask for special names: none of them is a call."""
    proxy = client.partition(1)
    assert repr(proxy) == "<partition 1>"
    assert not hasattr(proxy, "__array__")
    assert not hasattr(proxy, "__deepcopy__")


@pytest.mark.parametrize("timeout", [100_000.0, 10_000_000.0, float("inf")])
def test_a_timeout_may_be_very_long(client, timeout):
    """A day, four months, for ever: the field that carries it has 32 bits of milliseconds."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(client.call(0, "get", "a", timeout=timeout)), daemon=True)
    thread.start()
    thread.join(5.0)
    client.close()
    thread.join(LONG)
    assert got == [1]


@pytest.mark.parametrize("timeout", [0, 0.0, -1, 1e-9])
@pytest.mark.parametrize("used", [False, True])
def test_a_timeout_without_time_is_over_at_once(client, timeout, used):
    """Also on a connection that is there already."""
    if used:
        client.call(1, "rank")
    began = time.monotonic()
    with pytest.raises((CallTimeout, Unavailable, CoordinatorLost)):
        client.call(1, "wait", timeout=timeout)
    assert time.monotonic() - began < LATE
    switches.gate.set()
    assert client.call(1, "rank") == 1


# --------------------------------------------------------------------------------------------- deadlines


def test_an_answer_that_comes_too_late_goes_to_nobody(client):
    """The call timed out; the next call on the same connection gets its own answer."""
    with pytest.raises(CallTimeout):
        client.call(1, "wait", "first", timeout=0.1)
    switches.gate.set()
    assert client.call(1, "wait", "second") == "second"
    assert client.call(1, "get", "b") == 2


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


def test_call_all_has_one_deadline(cluster, client):
    """Two partitions that hang do not take two timeouts, nor does one that hangs behind one that was slow."""
    began = time.monotonic()
    with pytest.raises(CallTimeout) as caught:
        client.call_all("wait", timeout=0.5)
    assert time.monotonic() - began < 0.5 + LATE
    assert caught.value.rank == 0


def test_call_all_calls_the_others_when_one_fails(client):
    """The error is the first one in the order of the partitions."""

    def ran() -> bool:
        return switches.runs["wait"] == 3

    with pytest.raises(CallTimeout):
        client.call_all("wait", timeout=0.3)
    wait_until(ran)
    switches.gate.set()
    assert client.call_all("rank") == [0, 1, 2]


def test_a_call_waits_for_a_partition_that_comes_back_within_its_deadline(cluster, client):
    """Its server left; half a second later another one serves."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    timer = threading.Timer(0.5, cluster.launch, (1, 1))
    timer.start()
    assert client.call(1, "run", "x") == 1
    timer.join()


# --------------------------------------------------------------------------------- threads, forks, the end


def test_many_threads_share_a_client(cluster, client):
    """Sixty-four at once, each gets its own answers."""
    mistakes: list[Any] = []
    ready = threading.Barrier(64)

    def call(number: int) -> None:
        ready.wait(LONG)
        for count in range(20):
            rank, sent = count % 3, f"{number}-{count}"
            answer = client.call(rank, "echo", sent)
            if answer != [[sent], {}]:
                mistakes.append((sent, answer))
        if client.call_all("echo", number) != [[[number], {}]] * 3:
            mistakes.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not mistakes


def test_connections_of_threads_that_have_ended_are_closed(cluster, client):
    """A pool that comes and goes does not fill the servers with connections."""
    for _ in range(30):
        thread = threading.Thread(target=client.call_all, args=("rank",))
        thread.start()
        thread.join(LONG)
    wait_until(lambda: all(server._listener.connections <= 1 for server in switches.servers))


FORK = """
import os, sys
from spark_partition_server import QueryServer, method
from spark_partition_server.testing import local_cluster

class Echo(QueryServer):
    @method
    def echo(self, value):
        return [self.partition_ind, value]

def ask(client, name):
    for count in range(50):
        for rank in range(2):
            assert client.call(rank, "echo", [name, count]) == [rank, [name, count]], name
    assert client.call_all("echo", name) == [[0, name], [1, name]]

with local_cluster(Echo(), [[], []]) as cluster:
    client = cluster.client()
    ask(client, "before")
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            try:
                ask(client, number)
                if number % 2:
                    client.close()
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    ask(client, "meanwhile")
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    ask(client, "after")
print(codes)
"""


def test_a_forked_child_uses_its_parents_client():
    """Each child gets connections of its own; parent and children get their own answers, at the same time."""
    folder = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", FORK], check=False, capture_output=True, text=True, cwd=folder, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 0, 0, 0]\n", "", 0)


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


def test_close_ends_the_calls_that_wait(cluster, client):
    """In other threads, long before their timeout."""
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.call(1, "wait", timeout=1000.0)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    switches.entered.wait(LONG)
    client.close()
    thread.join(LONG)
    assert not thread.is_alive()
    assert isinstance(caught[0], (CallOutcomeUnknown, Unavailable))


def test_another_process_needs_the_connection_file_only(cluster):
    """``connect`` reads it and looks the servers up."""
    with connect(cluster.connection_file, timeout=LONG) as client:
        assert client.call_all("rank") == [0, 1, 2]
    with connect(Path(cluster.connection_file)) as client:
        assert client.call(1, "get", "b") == 2


def test_a_cluster_that_has_stopped_does_not_answer():
    """A client that outlives it learns so within its deadline."""
    switches.reset()
    with local_cluster(Probe(), PAIRS) as cluster:
        client = Client(cluster.coordinator.get_url(), cluster.coordinator.run_id, ClientOptions(timeout=LONG))
        client.call_all("rank")
    with client, pytest.raises((Unavailable, CallOutcomeUnknown)) as caught:
        client.call(1, "get", "b", timeout=1.0)
    assert caught.value.rank == 1
