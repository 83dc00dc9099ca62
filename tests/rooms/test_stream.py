"""``Client.stream``: items in order, flow control, early ends, lost servers, connections that are used again."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.generators import Source
from support.probe import LONG, switches
from support.wait import wait_until

from spark_partition_server import ClientOptions
from spark_partition_server.errors import (
    CallOutcomeUnknown,
    CallTimeout,
    HandlerError,
    InvalidArguments,
    MethodNotFound,
    Overloaded,
    StreamLost,
    Unavailable,
)
from spark_partition_server.testing import LocalCluster, local_cluster

LATE = 0.6  # seconds over a deadline, on a shared machine


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    switches.reset()
    with local_cluster(Source(), [[], [], []]) as made:
        yield made
        switches.gate.set()


def closed(count: int = 1) -> None:
    wait_until(lambda: switches.runs["closed"] == count, what="the generator to be closed")


# ------------------------------------------------------------------------------------------------- items


@pytest.mark.parametrize("credit", [1, 2, 3, 64, 128, 10_000])
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_items_come_in_order_and_all_of_them(client, count, credit):
    """Whatever the credit."""
    assert list(client.stream(1, "count", count, credit=credit)) == list(range(count))


def test_what_the_generator_returned_is_the_value_of_yield_from(client):
    """As with a generator of one's own; afterwards the stream is over, and stays so."""

    def around() -> Any:
        got = yield from client.stream(1, "count", 3)
        yield got

    assert list(around()) == [0, 1, 2, "done"]
    stream = client.stream(1, "count", 2)
    assert list(stream) == [0, 1]
    assert list(stream) == []
    assert stream.items == 2


def test_arrays_are_items_too(client):
    """Hundreds of them, over several messages."""
    got = list(client.stream(2, "arrays", 300))
    assert [int(array[0]) for array in got] == list(range(300))


def test_calls_and_streams_do_not_wait_for_each_other(client):
    """In one thread, on several servers: each stream has a connection of its own."""
    one, other = client.stream(1, "count", 500), client.stream(1, "count", 500)
    for number in range(500):
        assert (next(one), next(other)) == (number, number)
        if number % 100 == 0:
            assert client.call(1, "plain") == 7


# ------------------------------------------------------------------------------------------ flow control


def test_a_reader_that_stops_stops_the_generator(client):
    """It has made as many items as were granted and not one more."""
    stream = client.stream(1, "count", 1_000_000, credit=32)
    next(stream)
    wait_until(lambda: switches.runs["made"] >= 32)
    assert client.call(1, "plain") == 7
    assert switches.runs["made"] <= 33
    assert len(stream._buffer) < 32
    for _ in range(100):
        next(stream)
    wait_until(lambda: switches.runs["made"] >= 101)
    assert switches.runs["made"] <= 101 + 32
    stream.close()
    closed()


@pytest.mark.parametrize("credit", [0, -1, 1.5, None, True, 1 << 32])
def test_a_credit_is_a_number_of_items(client, credit):
    """Nothing is sent for what is none."""
    with pytest.raises(ValueError, match="credit must be a number of items"):
        client.stream(1, "count", 3, credit=credit)


# -------------------------------------------------------------------------------------------- early ends


def test_closing_early_closes_the_generator(client):
    """By hand, by its block, by an exception in it, by being dropped, before the first item."""
    stream = client.stream(1, "count", 10**6)
    next(stream)
    stream.close()
    stream.close()
    closed(1)
    assert list(stream) == []
    with client.stream(1, "count", 10**6) as stream:
        next(stream)
    closed(2)
    with pytest.raises(ZeroDivisionError), client.stream(1, "count", 10**6) as stream:
        _ = 1 / next(stream)  # of 0
    closed(3)
    for item in client.stream(1, "count", 10**6):
        if item == 5:
            break
    del item
    gc.collect()
    closed(4)
    client.stream(1, "count", 10**6)
    gc.collect()
    wait_until(lambda: client.call(1, "sps.status")["streams"] == 0)


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


# ------------------------------------------------------------------------------------------------ errors


def test_an_error_comes_after_the_items_before_it(client):
    """And says how many there were."""
    got: list[int] = []
    with pytest.raises(HandlerError, match="raised ValueError: enough; 5 items had come") as caught:
        got.extend(client.stream(1, "fail", 5))
    assert got == [0, 1, 2, 3, 4]
    assert caught.value.remote_type == "ValueError"


def test_a_server_that_is_lost_half_way(client):
    """What has come stands; it is not begun again, idempotent or not."""
    got: list[int] = []
    with pytest.raises(StreamLost, match=r"[45] items had come; it is not begun again") as caught:
        got.extend(client.stream(1, "cut", 5, credit=4))
    assert got == list(range(caught.value.items))
    assert caught.value.items >= 4
    assert not caught.value.definite
    assert isinstance(caught.value, (CallOutcomeUnknown, ConnectionError))
    assert switches.runs["cut"] == 1
    assert list(client.stream(1, "count", 3)) == [0, 1, 2]


def test_a_server_that_is_lost_before_the_first_item(client):
    """An idempotent method is begun again; of another nobody knows how far it came."""
    assert list(client.stream(1, "cut_first", 3)) == [0, 1, 2]
    assert switches.runs["cut"] == 2
    with pytest.raises(CallOutcomeUnknown):
        list(client.stream(1, "cut", 0))
    assert switches.runs["cut"] == 3


@pytest.mark.parametrize(("name", "args", "kind"), [
    ("nothing", (), MethodNotFound), ("count", (), InvalidArguments), ("plain", (), InvalidArguments),
])  # fmt: skip
def test_what_cannot_be_streamed(client, name, args, kind):
    """A method that is not there, arguments that do not fit, a method that yields nothing."""
    with pytest.raises(kind) as caught:
        list(client.stream(1, name, *args))
    assert caught.value.definite
    assert list(client.stream(1, "count", 2)) == [0, 1]


def test_bad_arguments_raise_where_the_stream_is_made(client):
    """Before anything is sent."""
    with pytest.raises(TypeError, match=r"args\[0\] is of type builtins.object"):
        client.stream(1, "count", object())
    with pytest.raises(TypeError, match="partition must be an integer"):
        client.stream("one", "count", 1)
    with pytest.raises(InvalidArguments, match="no such partition"):
        client.stream(3, "count", 1)
    assert not switches.runs


def test_a_stream_waits_for_each_item_as_long_as_it_was_told(client):
    """Then it is over; the generator is closed as soon as it lets itself be."""
    stream = client.stream(1, "wait", timeout=0.3)
    assert next(stream) == 1
    began = time.monotonic()
    with pytest.raises(CallTimeout, match=r"no answer within 0.3 s.*; 1 items had come"):
        next(stream)
    assert time.monotonic() - began < 0.3 + LATE
    assert list(stream) == []
    switches.gate.set()
    assert client.call(1, "plain") == 7


def test_a_stream_waits_for_a_partition_that_comes_back(cluster, client):
    """Within its timeout, as a call does; and no longer than that."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    with pytest.raises(Unavailable, match="nobody serves it"):
        client.stream(1, "count", 3, timeout=0.2)
    timer = threading.Timer(0.4, cluster.launch, (1, 1))
    timer.start()
    assert list(client.stream(1, "count", 3)) == [0, 1, 2]
    timer.join()


def test_close_ends_a_stream(client):
    """Of another thread, while it waits."""
    caught: list[BaseException] = []

    def read() -> None:
        try:
            list(client.stream(1, "wait", timeout=1000.0))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert switches.entered.wait(LONG)
    client.close()
    thread.join(LONG)
    assert not thread.is_alive()
    assert isinstance(caught[0], CallOutcomeUnknown)
    assert "the client was closed" in str(caught[0]) or isinstance(caught[0], StreamLost)


# ------------------------------------------------------------------------------- connections, limits


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


def test_a_stream_is_a_call_under_way(cluster):
    """It takes one of the client's places until it is over."""
    options = ClientOptions(timeout=LONG, calls_max=1)
    client = type(cluster.client())(cluster.coordinator.get_url(), cluster.coordinator.run_id, options)
    with client:
        stream = client.stream(1, "count", 10**6)
        with pytest.raises(Overloaded, match="this client has 1 calls"):
            client.call(2, "plain")
        stream.close()
        assert client.call(2, "plain") == 7
        assert list(client.stream(1, "count", 2)) == [0, 1]
        assert client.call(2, "plain") == 7
