"""Each face of a client while servers come and go: the next call finds them, and nothing that must not runs twice."""

from __future__ import annotations

import threading
import time

import pytest
from support.probe import LONG, PAIRS, Probe, switches
from support.wait import wait_until

from spark_partition_server.errors import CallOutcomeUnknown
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire.messages import Member


def restart(cluster: LocalCluster, rank: int) -> None:
    """A later life of a server takes over, and the earlier one has ended."""
    before = len(switches.servers)
    (old,) = [server for server in switches.servers if server.partition_ind == rank]
    cluster.launch(rank, attempt=1)
    wait_until(lambda: len(switches.servers) > before)
    new = switches.servers[-1]
    wait_until(lambda: cluster.coordinator.hosts[rank] == (new.host, new.port))
    wait_until(lambda: not old._life._loop.alive)


def test_the_next_call_finds_a_server_that_was_restarted(cluster, face):
    """The connection of the earlier life is of no use any more; nobody tells the client."""
    assert face.call_all("get", "b") == [None, 2, None]
    restart(cluster, 1)
    assert face.call(1, "get", "b") == 2
    assert face.call_all("get", "b") == [None, 2, None]


def test_an_idle_connection_is_looked_at_before_it_is_used(cluster, face):
    """So a method that is not idempotent is not sent to a server that has gone."""
    face.call(1, "run", "x")
    restart(cluster, 1)
    idle = time.monotonic() + 0.6
    wait_until(lambda: time.monotonic() > idle)
    assert face.call(1, "run", "x") == 2


def test_a_call_to_an_earlier_life_is_refused_and_finds_the_later_one(cluster, face):
    """A view that is out of date: the server says that it is another one, nothing has run, the call goes on."""
    face.refresh()
    members = face._routes.calls.members
    real = members[1]
    members[1] = Member(1, real.incarnation + 5, 0, real.host, real.port, real.endpoint)
    assert face.call(1, "run", "x") == 1
    assert face._routes.calls.members[1] == real


def test_a_call_to_the_server_of_another_partition_is_refused_and_finds_its_own(cluster, face):
    """Ports are given again by the kernel: another partition's server may have got this one's."""
    face.refresh()
    members = face._routes.calls.members
    other, real = members[2], members[1]
    members[1] = Member(1, real.incarnation, 0, other.host, other.port, other.endpoint)
    assert face.call(1, "rank") == 1


def test_a_call_to_another_cluster_is_refused_and_finds_its_own(cluster, face):
    """The same with a server of another run."""
    with local_cluster(Probe(), PAIRS) as other:
        elsewhere = other.client()
        elsewhere.refresh()
        face.refresh()
        face._routes.calls.members[1] = elsewhere._routes.calls.members[1]
        assert face.call(1, "run", "x") == 1


def test_an_idempotent_method_is_repeated_when_its_connection_is_cut(cluster, face):
    """It may have run: running it again is as good."""
    assert face.call(1, "cut_and_repeat", "x") == 2


def test_call_all_repeats_idempotent_methods_too(cluster, face):
    """Each of the three servers cuts its first caller off."""
    assert sorted(face.call_all("cut_and_repeat", "x")) == [2, 3, 4]


def test_another_method_is_not_repeated_and_its_outcome_is_unknown(cluster, face):
    """It ran once; the caller decides."""
    with pytest.raises(CallOutcomeUnknown) as caught:
        face.call(1, "cut", "x")
    assert not caught.value.definite
    assert isinstance(caught.value, ConnectionError)
    assert switches.runs["x"] == 1
    assert face.call(1, "cut", "x") == 2


def test_calls_that_are_no_part_of_the_story_run_at_most_once(cluster, face):
    """Four threads call while the server is cut off from them and started again and again: nothing runs twice."""
    stop = threading.Event()
    outcomes: dict[str, str] = {}

    def call(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            name = f"{number}-{count}"
            try:
                outcomes[name] = "done" if face.call(1, "run", name, timeout=5.0) == 1 else "twice"
            except CallOutcomeUnknown:
                outcomes[name] = "unknown"

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for attempt in range(1, 6):
        wait_until(lambda: sum(switches.runs.values()) > 100 * attempt)  # noqa: B023 - called at once
        cluster.launch(1, attempt)
        wait_until(lambda: len(switches.servers) == 3 + attempt)  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(LONG)
    assert max(switches.runs.values()) == 1
    assert all(switches.runs[name] == 1 for name, outcome in outcomes.items() if outcome == "done")
    assert set(outcomes.values()) <= {"done", "unknown"}
