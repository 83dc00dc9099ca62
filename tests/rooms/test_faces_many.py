"""Each face of a client calls many at once: order, batches, errors one by one, limits, readiness."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from support.faces import FACES, Face
from support.probe import LATE, LONG, PAIRS, Probe, switches
from support.threads import begin
from support.wait import wait_until

from spark_partition_server import ClientOptions, NotReady, QueryServer, method
from spark_partition_server.errors import (
    CallOutcomeUnknown,
    CallTimeout,
    ClusterClosed,
    ClusterError,
    HandlerError,
    InvalidArguments,
    MessageTooLarge,
    MethodNotFound,
    Overloaded,
    StartTimeout,
    Unavailable,
)
from spark_partition_server.testing import LocalCluster, local_cluster


@pytest.fixture(params=["blocking", "asyncio", "uvloop"])
def face_type(request: pytest.FixtureRequest) -> type[Face]:
    """``submit`` is the blocking client here."""
    return FACES[request.param]


def fresh(cluster: LocalCluster, face_type: type[Face], **options: Any) -> Face:
    coordinator = cluster.coordinator
    assert coordinator is not None
    return face_type(coordinator.get_url(), coordinator.run_id, ClientOptions(**{"timeout": LONG, **options}))


# ------------------------------------------------------------------------------------------------ answers


def test_answers_come_in_the_order_of_the_calls_by_each_face(face):
    """Whichever partition they belong to, from a list or an iterator, none at all."""
    calls = [(2, "c"), (0, "a"), (1, "b"), (0, "b"), (2, "c"), (1, "a")]
    assert face.call_many("get", calls) == [3, 1, 2, None, 3, None]
    assert face.call_many("get", iter([[1, "b"], (numpy.int64(0), "a")])) == [2, 1]
    assert face.call_many("get", []) == []
    assert face.call_many("rank", [(1,), (2,)]) == [1, 2]
    calls = [(numpy.int64(1),), (True, 1), (1, 1, [2, {"x": b"y"}], None)]
    assert face.call_many("echo", calls) == [[[], {}], [[1], {}], [[1, [2, {"x": b"y"}], None], {}]]


@pytest.mark.parametrize("count", [1, 16, 17, 255, 256, 257, 1024, 1025, 5000])
def test_more_than_a_window_of_batches_by_each_face(face, count):
    """On three servers at once, the first time and when the sizes are known."""
    calls = [(number % 3, number) for number in range(count)]
    for _ in range(2):
        assert face.call_many("echo", calls) == [[[number], {}] for number in range(count)]


def test_large_arguments_and_many_arrays_by_each_face(face):
    """Each a message of its own where it has to be; 61 arrays are the most of one."""
    large = [bytes([number]) * 700_000 for number in range(9)]
    mixed = [*((number % 3, value) for number, value in enumerate(large)), *((1, number) for number in range(600))]
    mixed.append((1, large[4]))
    assert face.call_many("echo", mixed) == [[list(call[1:]), {}] for call in mixed]
    arrays = [numpy.arange(number, number + 3) for number in range(300)]
    answers = face.call_many("echo", [(1, array) for array in arrays])
    assert all((answer[0][0] == array).all() for answer, array in zip(answers, arrays, strict=True))


class Growing(QueryServer):
    """Its results are large, its arguments are not."""

    @method
    def fetch(self, number: int) -> Any:
        switches.runs[str(number)] += 1
        return numpy.full(4, number)

    @method(idempotent=True)
    def grow(self, number: int) -> Any:
        return [numpy.full(2, number)] * number


def test_results_that_have_no_room_by_each_face(face_type):
    """Where a method may run twice they are fetched again in smaller batches; of another each run is made once."""
    switches.reset()
    with local_cluster(Growing(), [[]]) as cluster, fresh(cluster, face_type) as face:
        got = face.call_many("grow", [(0, number) for number in range(60)])
        assert [len(arrays) for arrays in got] == list(range(60))
        got = face.call_many("fetch", [(0, number) for number in range(700)])
        assert [int(array[0]) for array in got] == list(range(700))
        assert set(switches.runs.values()) == {1}


def test_one_server_that_hangs_holds_nobody_up_by_each_face(face):
    """The others have answered long before it does, and its own calls end by the deadline."""
    calls = [(0, "slow"), *((rank, f"{rank}-{number}") for number in range(1000) for rank in (1, 2))]
    slow = face.begin(0, "wait", timeout=LONG)
    assert switches.entered.wait(LONG)
    with pytest.raises(CallTimeout) as caught:
        face.call_many("run", calls, timeout=1.5)
    assert caught.value.rank == 0
    assert sum(switches.runs.values()) == 2001  # and the one that hangs
    switches.gate.set()
    assert slow.result(LONG) == "wait"
    assert face.call(0, "run", "after") == 1


# ------------------------------------------------------------------------------------------------ errors


def test_the_first_error_in_order_is_raised_by_each_face(face):
    """It says which of the calls it was; the others have been made."""
    with pytest.raises(HandlerError, match=r"partition 0 .*raised ValueError: x; this was calls\[0\]"):
        face.call_many("fail", [(0, "x"), (1, "no"), (2, "y"), (1, "z")])
    with pytest.raises(InvalidArguments, match=r"do not fit.*this was calls\[1\]") as caught:
        face.call_many("run", [(0, "a"), (1,), (2, "b", "c"), (1, "d")])
    assert caught.value.rank == 1
    assert switches.runs == {"a": 1, "d": 1}


def test_errors_are_returned_in_their_places_by_each_face(face):
    """Nothing is raised, and nothing else is lost; ``call_all`` too."""
    got = face.call_many("run", [(0, "a"), (1,), (2, "b"), (1, "c", 4)], return_errors=True)
    assert [type(one) for one in got] == [int, InvalidArguments, int, InvalidArguments]
    got = face.call_many("fail", [(1, "x"), (2, "y")], return_errors=True)
    assert all(isinstance(one, HandlerError) for one in got)
    assert [(one.remote_message, one.rank) for one in got] == [("x", 1), ("y", 2)]
    got = face.call_all("fail", "z", return_errors=True)
    assert [(type(one), one.rank) for one in got] == [(HandlerError, rank) for rank in range(3)]
    with pytest.raises(HandlerError) as caught:
        face.call_all("fail", "z")
    assert caught.value.rank == 0
    got = face.call_many("nothing", [(rank, 1) for rank in (0, 1, 2, 1)], return_errors=True)
    assert all(isinstance(one, MethodNotFound) and one.definite for one in got)


def raising() -> Iterator[Any]:
    yield (0, "a")
    raise KeyError("the generator's own")


BAD: list[tuple[Any, type[Exception], str]] = [  # what is called makes the calls anew
    ([(0, "a"), 7], TypeError, r"calls\[1\] is 7, and a tuple \(partition, argument, ...\) is wanted"),
    ([(0, "a"), ()], TypeError, r"calls\[1\] is empty"),
    (["ab"], TypeError, r"calls\[0\] is 'ab'"),
    ([(0, "a"), ("alice", 1)], TypeError, r"calls\[1\]: the partition must be an integer, not 'alice'"),
    ([(0, "a"), (1.0, 1)], TypeError, r"calls\[1\]: the partition must be an integer, not 1.0"),
    ([(0, "a"), (None, 1)], TypeError, r"calls\[1\]: the partition must be an integer, not None"),
    ([(0, "a"), (1, "b"), (3, "c")], InvalidArguments, r"partition 3.*the cluster has 3; this was calls\[2\]"),
    ([(0, "a"), (-1, "b")], InvalidArguments, r"partition -1.*this was calls\[1\]"),
    ([(0, "a"), (1, 2, {3})], TypeError, r"calls\[1\]: argument \[1\] is of type builtins.set"),
    ([(1, 1)] * 400 + [(1, object())], TypeError, r"calls\[400\]: argument \[0\] is of type builtins.object"),
    ([(0, "a"), (1, 1 << 70)], TypeError, r"calls\[1\]: argument \[0\] is an int of 71 bits"),
    ([(0, "a"), (1, [numpy.zeros(1)] * 62)], TypeError, r"calls\[1\].*more than 61 arrays"),
    (raising, KeyError, "the generator's own"),
    (5, TypeError, "not iterable"),
    (None, TypeError, "not iterable"),
]


@pytest.mark.parametrize("return_errors", [False, True])
def test_nothing_is_sent_if_something_cannot_be_by_each_face(face, return_errors):
    """Also when what is wrong comes last, and whether errors are to be returned or raised: it is the caller's."""
    for calls, kind, text in BAD:
        with pytest.raises(kind, match=text):
            face.call_many("run", calls() if callable(calls) else calls, return_errors=return_errors)
    with pytest.raises(TypeError, match=r"of type builtins\.object"):
        face.call_all("run", object(), return_errors=return_errors)
    assert not switches.runs
    assert face.call_many("run", [(0, "fine")]) == [1]


@pytest.mark.parametrize("name", [None, 5, b"get", "", "x" * 257])
def test_what_is_no_name_of_a_method_by_each_face(face, name):
    """For every way to call; ``TypeError`` for what is no text, and no hang for any of it."""
    for way in (
        lambda: face.call(1, name),
        lambda: face.call_all(name),
        lambda: face.call_many(name, [(1, 1)]),
        lambda: list(face.stream(1, name)),
    ):
        with pytest.raises(MethodNotFound if isinstance(name, str) else TypeError, match="method"):
            way()


def test_a_request_over_the_limit_by_each_face(cluster, face_type):
    """Refused before anything is sent."""
    with fresh(cluster, face_type, message_bytes_max=100_000) as face:
        with pytest.raises(MessageTooLarge, match="limit is 100000") as caught:
            face.call_many("run", [(0, "a"), (1, "x" * 200_000), (2, "b")])
        assert caught.value.definite
        with pytest.raises(MessageTooLarge):
            face.call_all("run", "x" * 200_000)
        assert not switches.runs


def test_a_connection_that_is_lost_by_each_face(face):
    """A batch that may run twice is made again; of another nobody knows, and the other servers' calls stand."""
    got = face.call_many("cut_and_repeat", [(rank, "x") for rank in range(3) for _ in range(5)])
    assert len(set(got)) == 15
    assert face.call_many("run", [(0, "0"), (1, "1"), (2, "2")]) == [1, 1, 1]
    got = face.call_many("cut", [(0, "y"), (0, "z")], return_errors=True)
    assert all(isinstance(one, CallOutcomeUnknown) and not one.definite for one in got)
    assert sorted(face.call_many("cut", [(0, "y"), (1, "y"), (2, "y")])) == [2, 3, 4]


def test_many_calls_find_a_partition_that_comes_back_by_each_face(cluster, face):
    """Within the deadline; those to the others do not wait for it."""
    assert face.call_many("rank", [(1,)]) == [1]
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    timer = threading.Timer(0.4, cluster.launch, (1, 1))
    timer.start()
    assert face.call_many("run", [(0, "a"), (1, "b"), (2, "c")] * 2) == [1, 1, 1, 2, 2, 2]
    assert face.call_all("rank") == [0, 1, 2]
    timer.join()


def test_a_partition_that_nobody_serves_by_each_face(cluster, face):
    """Its calls fail by the deadline, in the error that they had; the others have been answered."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    got = face.call_many("run", [(0, "a"), (1, "b"), (2, "c")], timeout=0.4, return_errors=True)
    assert (got[0], got[2]) == (1, 1)
    assert isinstance(got[1], Unavailable)
    assert got[1].definite
    got = face.call_all("rank", timeout=0.4, return_errors=True)
    assert (got[0], got[2]) == (0, 2)
    assert isinstance(got[1], Unavailable)


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
def test_without_time_nothing_is_sent_by_each_face(face, timeout):
    """And the error is definite: it was certainly not run."""
    face.call_all("rank")
    began = time.monotonic()
    got = face.call_many("run", [(0, "a"), (1, "b")], timeout=timeout, return_errors=True)
    assert time.monotonic() - began < LATE
    assert all(isinstance(one, CallTimeout) and one.definite for one in got)
    assert not switches.runs


def test_a_cluster_that_is_over_is_told_whatever_is_returned_by_each_face(cluster, face):
    """It is the end of all calls and not the error of one."""
    cluster.coordinator.shutdown_hosts("maintenance")
    wait_until(lambda: not cluster.coordinator.hosts)
    for return_errors in (False, True):
        with pytest.raises(ClusterClosed, match="maintenance"):
            face.call_many("get", [(1, "b")], return_errors=return_errors)
        with pytest.raises(ClusterClosed, match="maintenance"):
            face.call_all("rank", return_errors=return_errors)


def test_close_ends_many_calls_that_wait_by_each_face(face):
    """In another thread, long before their deadline."""
    calling = begin(face.call_many, "wait", [(0, "a"), (1, "b"), (2, "c")], timeout=1000.0)
    wait_until(lambda: sum(switches.runs.values()) == 3)
    face.close()
    assert isinstance(calling.exception(LONG), (CallOutcomeUnknown, Unavailable))
    with pytest.raises(Unavailable, match="client is closed"):
        face.call_many("get", [(1, "b")])


def test_the_end_of_the_cluster_ends_many_calls_by_each_face(face_type):
    """One error of the cluster, and none for each call."""
    switches.reset()
    with local_cluster(Probe(), PAIRS) as cluster:
        face = fresh(cluster, face_type)
        assert face.call_all("rank") == [0, 1, 2]
    with face, pytest.raises(ClusterError):
        face.call_many("rank", [(0,), (1,)], return_errors=True)


# ------------------------------------------------------------------------------------------------ limits


def test_more_messages_than_a_client_may_have_under_way_by_each_face(cluster, face_type):
    """Those of one operation wait for each other; another operation's are not waited for."""
    with fresh(cluster, face_type, calls_max=2) as face:
        assert face.call_all("rank") == [0, 1, 2]
        calls = [(number % 3, number) for number in range(3000)]
        assert face.call_many("echo", calls) == [[[number], {}] for number in range(3000)]
        taken = [face.begin(1, "wait"), face.begin(1, "wait")]
        assert switches.entered.wait(LONG)
        wait_until(lambda: _full(face))
        switches.gate.set()
        assert [one.result(LONG) for one in taken] == ["wait"] * 2


def _full(face: Face) -> bool:
    try:
        face.call_all("rank")
    except Overloaded as error:
        return "calls_max" in str(error)
    return False


# ----------------------------------------------------------------------------------------------- readiness


@pytest.mark.parametrize("waits", [True, False])
def test_wait_for_ready_names_who_does_not_answer_by_each_face(cluster, face_type, waits):
    """And returns once every partition answers; also for a client whose calls would not wait themselves."""
    with fresh(cluster, face_type, wait_for_ready=waits) as face:
        face.wait_for_ready()
        cluster.coordinator.shutdown_host(1)
        wait_until(lambda: 1 not in cluster.coordinator.hosts)
        with pytest.raises(NotReady) as caught:
            face.wait_for_ready(0.3)
        assert (caught.value.ready, caught.value.missing, caught.value.timeout) == ([0, 2], [1], 0.3)
        assert "2 of 3 partitions answer after 0.3 s; missing: 1 (partition 1" in str(caught.value)
        assert isinstance(caught.value, TimeoutError)
        assert not isinstance(caught.value, StartTimeout)
        timer = threading.Timer(0.3, cluster.launch, (1, 1))
        timer.start()
        face.wait_for_ready()
        assert face.call(1, "rank") == 1
        timer.join()


def test_wait_for_ready_means_that_they_answer_by_each_face(cluster, face, face_type):
    """A server that is busy is served, and not ready."""
    busy = face.begin(1, "wait")
    assert switches.entered.wait(LONG)
    with fresh(cluster, face_type) as other, pytest.raises(NotReady) as caught:
        other.wait_for_ready(0.3)
    assert caught.value.missing == [1]
    switches.gate.set()
    assert busy.result(LONG) == "wait"


def test_a_cluster_that_is_over_is_never_ready_by_each_face(cluster, face):
    """And says so at once."""
    cluster.coordinator.shutdown_hosts("maintenance")
    wait_until(lambda: not cluster.coordinator.hosts)
    with pytest.raises(ClusterClosed, match="maintenance"):
        face.wait_for_ready()
