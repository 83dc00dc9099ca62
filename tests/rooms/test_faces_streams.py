"""Each face of a client reads streams: order, flow control, early ends, errors, lost servers."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest
from support.faces import FACES, Face
from support.probe import LATE, LONG, switches
from support.threads import begin
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
from spark_partition_server.testing import LocalCluster


@pytest.fixture
def cluster(sources: LocalCluster) -> LocalCluster:
    return sources


@pytest.fixture(params=["blocking", "asyncio", "uvloop"])
def face_type(request: pytest.FixtureRequest) -> type[Face]:
    """``submit`` is the blocking client here."""
    return FACES[request.param]


def closed(count: int = 1) -> None:
    wait_until(lambda: switches.runs["closed"] == count, what="the generator to be closed")


@pytest.mark.parametrize("credit", [1, 2, 3, 64, 128, 10_000])
def test_items_come_in_order_by_each_face(face, credit):
    """All of them, whatever the credit; and what the generator returned."""
    for count in (0, 1, 2, 1000):
        assert list(face.stream(1, "count", count, credit=credit)) == list(range(count))

    def around() -> Any:
        got = yield from face.stream(1, "count", 3)
        yield got

    assert list(around()) == [0, 1, 2, "done"]


def test_arrays_are_items_by_each_face(face):
    """Hundreds of them, over several messages; a stream that is over stays so."""
    stream = face.stream(2, "arrays", 300)
    assert [int(array[0]) for array in stream] == list(range(300))
    assert list(stream) == []
    assert stream.items == 300


def test_calls_and_streams_do_not_wait_for_each_other_by_each_face(face):
    """Two streams of one server, and calls between their items."""
    one, other = face.stream(1, "count", 300), face.stream(1, "count", 300)
    for number in range(300):
        assert (next(one), next(other)) == (number, number)
        if number % 100 == 0:
            assert face.call(1, "plain") == 7


def test_a_reader_that_stops_stops_the_generator_by_each_face(face):
    """It has made as many items as were granted and not one more."""
    stream = face.stream(1, "count", 1_000_000, credit=32)
    next(stream)
    wait_until(lambda: switches.runs["made"] >= 32)
    assert face.call(1, "plain") == 7
    assert switches.runs["made"] <= 33
    for _ in range(100):
        next(stream)
    wait_until(lambda: switches.runs["made"] >= 101)
    assert switches.runs["made"] <= 101 + 32
    stream.close()
    closed()


def test_closing_early_closes_the_generator_by_each_face(face):
    """By hand, by its block, by an exception in it, by being dropped; one that nobody has read from takes no place."""
    stream = face.stream(1, "count", 10**6)
    next(stream)
    stream.close()
    stream.close()
    closed(1)
    assert list(stream) == []
    with face.stream(1, "count", 10**6) as stream:
        next(stream)
    closed(2)
    with pytest.raises(ZeroDivisionError), face.stream(1, "count", 10**6) as stream:
        _ = 1 / next(stream)  # of 0
    closed(3)
    for item in face.stream(1, "count", 10**6):
        if item == 5:
            break
    gc.collect()
    closed(4)
    face.stream(1, "count", 10**6)
    gc.collect()
    wait_until(lambda: face.call(1, "sps.status")["streams"] == 0)


def test_an_error_comes_after_the_items_before_it_by_each_face(face):
    """And says how many there were."""
    got: list[int] = []
    with pytest.raises(HandlerError, match="raised ValueError: enough; 5 items had come") as caught:
        got.extend(face.stream(1, "fail", 5))
    assert got == [0, 1, 2, 3, 4]
    assert caught.value.remote_type == "ValueError"


def test_a_server_that_is_lost_half_way_by_each_face(face):
    """What has come stands; it is not begun again, and the next stream is served. Before the first item it may be."""
    got: list[int] = []
    with pytest.raises(StreamLost, match=r"[45] items had come; it is not begun again") as caught:
        got.extend(face.stream(1, "cut", 5, credit=4))
    assert got == list(range(caught.value.items))
    assert not caught.value.definite
    assert isinstance(caught.value, (CallOutcomeUnknown, ConnectionError))
    assert switches.runs["cut"] == 1
    assert list(face.stream(1, "count", 3)) == [0, 1, 2]
    switches.runs["cut"] = 0
    assert list(face.stream(1, "cut_first", 3)) == [0, 1, 2]
    assert switches.runs["cut"] == 2
    with pytest.raises(CallOutcomeUnknown):
        list(face.stream(1, "cut", 0))
    assert switches.runs["cut"] == 3


@pytest.mark.parametrize(("name", "args", "kind"), [
    ("nothing", (), MethodNotFound), ("count", (), InvalidArguments), ("plain", (), InvalidArguments),
])  # fmt: skip
def test_what_cannot_be_streamed_by_each_face(face, name, args, kind):
    """A method that is not there, arguments that do not fit, a method that yields nothing."""
    with pytest.raises(kind) as caught:
        list(face.stream(1, name, *args))
    assert caught.value.definite
    assert list(face.stream(1, "count", 2)) == [0, 1]


def test_bad_arguments_of_a_stream_by_each_face(face):
    """Told before anything is sent."""
    with pytest.raises(TypeError, match=r"args\[0\] is of type builtins.object"):
        face.stream(1, "count", object())
    with pytest.raises(TypeError, match="partition must be an integer"):
        face.stream("one", "count", 1)
    for credit in (0, -1, 1.5, None, True, 1 << 32):
        with pytest.raises(ValueError, match="credit must be a number of items"):
            face.stream(1, "count", 3, credit=credit)
    with pytest.raises(InvalidArguments, match="no such partition"):
        list(face.stream(3, "count", 1))
    assert not switches.runs


def test_a_stream_waits_for_each_item_as_long_as_it_was_told_by_each_face(face):
    """Then it is over; calls go on."""
    stream = face.stream(1, "wait", timeout=0.3)
    assert next(stream) == 1
    began = time.monotonic()
    with pytest.raises(CallTimeout, match=r"no answer within 0.3 s.*; 1 items had come"):
        next(stream)
    assert time.monotonic() - began < 0.3 + LATE
    assert list(stream) == []
    switches.gate.set()
    assert face.call(1, "plain") == 7


def test_a_stream_waits_for_a_partition_that_comes_back_by_each_face(cluster, face):
    """Within its timeout, and no longer than that."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    with pytest.raises(Unavailable, match="nobody serves it"):
        list(face.stream(1, "count", 3, timeout=0.2))
    timer = threading.Timer(0.4, cluster.launch, (1, 1))
    timer.start()
    assert list(face.stream(1, "count", 3)) == [0, 1, 2]
    timer.join()


def test_closing_the_client_ends_a_stream_by_each_face(face):
    """While it waits for the next item."""
    reading = begin(lambda: list(face.stream(1, "wait", timeout=1000.0)))
    assert switches.entered.wait(LONG)
    face.close()
    assert isinstance(reading.exception(LONG), CallOutcomeUnknown)


def test_a_stream_is_a_call_under_way_by_each_face(cluster, face_type):
    """It takes one of the client's places until it is over."""
    options = ClientOptions(timeout=LONG, calls_max=1)
    with face_type(cluster.coordinator.get_url(), cluster.coordinator.run_id, options) as face:
        stream = face.stream(1, "count", 10**6)
        next(stream)
        with pytest.raises(Overloaded, match="this client has 1 calls"):
            face.call_all("plain")
        stream.close()
        assert face.call(2, "plain") == 7
        assert list(face.stream(1, "count", 2)) == [0, 1]
        assert face.call(2, "plain") == 7
