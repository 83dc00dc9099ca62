"""What a client bounds, gives up and tries again: calls under way, cancels, retries and their budget, readiness."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.astray import StandIn, lead_astray
from support.lanes import serving
from support.probe import LATE, LONG, Page, Probe, switches
from support.threads import at_once, begin
from support.wait import wait_until

from spark_partition_server import Client, ClientOptions
from spark_partition_server.calling.room import Room
from spark_partition_server.errors import (
    CallTimeout,
    MessageTooLarge,
    MethodNotFound,
    Overloaded,
    Unavailable,
)
from spark_partition_server.options import ServerOptions
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Cancel, Error, Reply, Request


def client_of(cluster: LocalCluster, **options: Any) -> Client:
    given = ClientOptions(**{"timeout": LONG, **options})
    return Client(cluster.coordinator.get_url(), cluster.coordinator.run_id, given)


# ------------------------------------------------------------------------------------- calls under way


def test_a_client_has_a_bounded_number_of_calls_under_way(cluster):
    """Over all threads and ways to call; one more is refused at once, definitely, with a hint when to come again."""
    with client_of(cluster, calls_max=2) as client:
        client.call_all("rank")  # three messages, two at a time
        busy = [begin(client.call, rank, "wait") for rank in (0, 1)]
        wait_until(lambda: switches.runs["wait"] == 2)
        ways = [
            lambda: client.call(2, "rank"),
            lambda: client.call_all("rank"),
            lambda: client.call_many("run", [(2, "x")]),
            lambda: client.submit(2, "rank"),
            lambda: client.stream(2, "rank"),
        ]
        for way in ways:
            began = time.monotonic()
            with pytest.raises(Overloaded, match=r"calls_max") as caught:
                way()
            assert caught.value.definite
            assert 0 < caught.value.retry_after < 1
            assert time.monotonic() - began < LATE
        switches.gate.set()
        assert [one.result(LONG) for one in busy] == ["wait"] * 2
        assert client.call(2, "rank") == 2
        assert client.submit(2, "rank").result() == 2
        assert client.call_all("rank") == [0, 1, 2]
        assert not client._room.active


def test_submitted_calls_take_places_too(cluster):
    """Those that wait and those that were submitted share the limit."""
    with client_of(cluster, calls_max=2) as client:
        futures = [client.submit(0, "wait"), client.submit(1, "wait")]
        with pytest.raises(Overloaded):
            client.call(2, "rank")
        switches.gate.set()
        assert [future.result() for future in futures] == ["wait", "wait"]
        assert client.call(2, "rank") == 2


def test_large_requests_are_bounded_together(cluster):
    """One alone may be larger than the bound; two are not sent at one time."""
    with client_of(cluster, calls_bytes_max=100_000) as client:
        assert len(client.call(1, "echo", bytes(200_000))[0][0]) == 200_000
        switches.entered.clear()
        busy = begin(client.call, 0, "wait", "x" * 90_000)
        assert switches.entered.wait(LONG)
        with pytest.raises(Overloaded, match="100000 octets"):
            client.call(1, "echo", bytes(90_000))
        assert client.call(1, "get", "b") == 2  # small ones are bounded by their number
        switches.gate.set()
        assert len(busy.result(LONG)) == 90_000
        assert len(client.call(1, "echo", bytes(90_000))[0][0]) == 90_000


def test_a_place_is_given_back_whatever_happens(cluster, client):
    """Errors, timeouts, bad arguments."""
    for _ in range(3):
        with pytest.raises(MethodNotFound):
            client.call(2, "nothing")
        with pytest.raises(CallTimeout):
            client.call_many("wait", [(1, "x")], timeout=0.05)
        with pytest.raises(TypeError):
            client.call(1, "echo", object())
    assert not client._room.active


def test_a_room_counts_without_a_lock():
    """A hundred threads come and go: never more than there are places and threads, and none is lost."""
    room = Room(10, 1000)
    most = 0

    def go(number: int) -> None:
        nonlocal most
        for _ in range(300):
            if room.take(number, 1):
                most = max(most, len(room.active))
                room.give(number)

    at_once(100, go)
    assert not room.active
    assert 1 <= most <= 100


# ----------------------------------------------------------------------------------- taken back, too large


def test_a_call_that_timed_out_is_taken_back(cluster, client):
    """The server is told without waiting, by the call's own id."""
    stand_in = StandIn(cluster.coordinator.run_id, lambda message: None)
    with serving(stand_in) as served:
        lead_astray(cluster, client, served.address[1])
        with pytest.raises(CallTimeout):
            client.call(1, "run", "x", timeout=0.1)
        wait_until(lambda: len(stand_in.came) == 2)
        request, cancel = stand_in.came
        assert isinstance(cancel, Cancel)
        assert cancel.call_id == request.call_id


def test_ctrl_c_ends_many_calls_at_once(cluster, client):
    """What was under way is given up, and the client can be used on."""
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        client.call_all("wait")
    timer.join()
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        client.call_many("wait", [(1, "x"), (2, "y")])
    timer.join()
    signal.signal(signal.SIGINT, before)
    switches.gate.set()
    assert not client._room.active
    assert client.call_all("rank") == [0, 1, 2]


def test_the_first_request_of_all_is_measured_too():
    """Nobody has looked at the view yet: the servers' limit is asked for before a large request leaves."""
    switches.reset()
    with local_cluster(Probe(options=ServerOptions(message_bytes_max=100_000)), [[], []]) as cluster:
        for ask in (
            lambda one: one.call(1, "run", "x" * 200_000),
            lambda one: one.call_all("run", "x" * 200_000),
            lambda one: one.call_many("run", [(0, "x"), (1, "x" * 200_000)]),
        ):
            with pytest.raises(MessageTooLarge, match="limit is 100000") as caught:
                ask(cluster.client(timeout=LONG))
            assert caught.value.definite
        assert not switches.runs


# ---------------------------------------------------------------------------------------------- retries


class Refusing:
    """How often and with what hint partition 1 refuses, and when it was asked."""

    def __init__(self) -> None:
        self.left = self.retry_ms = 0
        self.times: list[float] = []


@pytest.fixture
def overloaded(cluster: LocalCluster) -> Iterator[Refusing]:
    """A stand-in for partition 1 that refuses as often as ``left`` says, then replies nil."""

    refusing = Refusing()

    def answer(message: Any) -> Any:
        if not isinstance(message, Request):
            return None
        refusing.times.append(time.monotonic())
        if refusing.left > 0:
            refusing.left -= 1
            return Error(message.call_id, Code.OVERLOADED, "eleven wait", retry_ms=refusing.retry_ms)
        return Reply(message.call_id, (b"\xc0",))

    with serving(StandIn(cluster.coordinator.run_id, answer)) as served:
        guide = cluster.client()
        lead_astray(cluster, guide, served.address[1])
        yield refusing


def test_an_overloaded_server_is_left_alone_for_as_long_as_it_says(client, overloaded):
    """Its hint is the least pause."""
    overloaded.left, overloaded.retry_ms = 2, 200
    assert client.call(1, "run", "x") is None
    first, second, third = overloaded.times
    assert second - first >= 0.2
    assert third - second >= 0.2


def test_a_hint_beyond_the_deadline_is_told_at_once(client, overloaded):
    """With the hint, so that the caller can do better."""
    overloaded.left, overloaded.retry_ms = 2, 60_000
    began = time.monotonic()
    with pytest.raises(Overloaded, match="eleven wait") as caught:
        client.call(1, "run", "x")
    assert time.monotonic() - began < LATE
    assert caught.value.retry_after == 60.0
    assert caught.value.definite


def test_retries_of_a_client_have_a_budget(client, overloaded):
    """Ten, then the error says that there are no more; calls that succeed earn new ones."""
    overloaded.left, overloaded.retry_ms = 1000, 1
    with pytest.raises(Overloaded, match=r"eleven wait; not tried again, .* budget \(10, 0.1 more a call\) is spent"):
        client.call(1, "run", "x")
    assert len(overloaded.times) == 11
    with pytest.raises(Overloaded, match="budget"):
        client.call(1, "run", "x")
    assert len(overloaded.times) == 12
    for _ in range(20):
        client.call(2, "rank")
    overloaded.left = 1
    assert client.call(1, "run", "x") is None


def test_waiting_for_a_partition_costs_nothing(cluster, client):
    """A thousand looks for it, and the budget is whole."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)

    at_once(16, lambda number: client.call_many("get", [(1, "b")] * 3, timeout=1.0, return_errors=True))
    assert client._retry.budget.left == 10.0


def test_who_does_not_wait_for_ready_learns_at_once_that_nobody_serves(cluster):
    """ClientOptions(wait_for_ready=False): after one fresh look at the view."""
    with client_of(cluster, wait_for_ready=False) as client:
        assert client.call_all("rank") == [0, 1, 2]
        cluster.coordinator.shutdown_host(1)
        wait_until(lambda: 1 not in cluster.coordinator.hosts)
        for ask in (
            lambda: client.call(1, "rank"),
            lambda: client.call_all("rank"),
            lambda: client.call_many("rank", [(0,), (1,)]),
            lambda: list(client.stream(1, "rank")),
        ):
            began = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                ask()
            assert caught.value.definite
            assert time.monotonic() - began < LATE
        cluster.launch(1, 1)
        wait_until(lambda: 1 in cluster.coordinator.hosts)
        assert client.call(1, "rank") == 1


# -------------------------------------------------------------------------------------------- readiness


def test_a_server_that_takes_no_calls_is_ready_when_it_is_there():
    """Servers of the HTTP kind."""
    with local_cluster(Page(), [[], []]) as cluster:
        cluster.client().wait_for_ready(LONG)
