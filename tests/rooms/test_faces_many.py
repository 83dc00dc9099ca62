"""Each face of a client calls many at once: order, batches, errors one by one, limits, readiness."""

from __future__ import annotations

import threading
from typing import Any

import numpy
import pytest
from support.faces import Face
from support.probe import LONG, PAIRS, Probe, switches
from support.wait import wait_until

from spark_partition_server import ClientOptions, NotReady, QueryServer, method
from spark_partition_server.errors import (
    CallOutcomeUnknown,
    CallTimeout,
    ClusterError,
    HandlerError,
    InvalidArguments,
    MessageTooLarge,
    MethodNotFound,
    Overloaded,
)
from spark_partition_server.testing import LocalCluster, local_cluster


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


@pytest.mark.parametrize("count", [16, 17, 5000])
def test_more_than_a_window_of_batches_by_each_face(face, count):
    """On three servers at once, the first time and when the sizes are known."""
    calls = [(number % 3, number) for number in range(count)]
    for _ in range(2):
        assert face.call_many("echo", calls) == [[[number], {}] for number in range(count)]


def test_large_arguments_and_many_arrays_by_each_face(face):
    """Each a message of its own where it has to be; 61 arrays are the most of one."""
    large = [bytes([number]) * 700_000 for number in range(9)]
    assert face.call_many("echo", [(number % 3, value) for number, value in enumerate(large)]) == [
        [[value], {}] for value in large
    ]
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
        got = face.call_many("fetch", [(0, number) for number in range(300)])
        assert [int(array[0]) for array in got] == list(range(300))
        assert set(switches.runs.values()) == {1}


def test_one_server_that_hangs_holds_nobody_up_by_each_face(face):
    """The others have answered long before it does, and its own calls end by the deadline."""
    calls = [(0, "slow"), *((rank, f"{rank}-{number}") for number in range(1000) for rank in (1, 2))]
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(face.begin(0, "wait", timeout=LONG).result(LONG)))
    thread.start()
    assert switches.entered.wait(LONG)
    with pytest.raises(CallTimeout) as caught:
        face.call_many("run", calls, timeout=1.5)
    assert caught.value.rank == 0
    assert sum(switches.runs.values()) == 2001  # and the one that hangs
    switches.gate.set()
    thread.join(LONG)
    assert done == ["wait"]
    assert face.call(0, "run", "after") == 1


# ------------------------------------------------------------------------------------------------ errors


def test_the_first_error_in_order_is_raised_by_each_face(face):
    """It says which of the calls it was; the others have been made."""
    with pytest.raises(HandlerError, match=r"partition 0 .*raised ValueError: x; this was calls\[0\]"):
        face.call_many("fail", [(0, "x"), (1, "no"), (2, "y"), (1, "z")])
    with pytest.raises(InvalidArguments, match=r"this was calls\[1\]") as caught:
        face.call_many("run", [(0, "a"), (1,), (2, "b", "c"), (1, "d")])
    assert caught.value.rank == 1
    assert switches.runs == {"a": 1, "d": 1}


def test_errors_are_returned_in_their_places_by_each_face(face):
    """Nothing is raised, and nothing else is lost; ``call_all`` too."""
    got = face.call_many("run", [(0, "a"), (1,), (2, "b"), (1, "c", 4)], return_errors=True)
    assert [type(one) for one in got] == [int, InvalidArguments, int, InvalidArguments]
    got = face.call_all("fail", "z", return_errors=True)
    assert [(type(one), one.rank) for one in got] == [(HandlerError, rank) for rank in range(3)]
    with pytest.raises(HandlerError) as caught:
        face.call_all("fail", "z")
    assert caught.value.rank == 0
    got = face.call_many("nothing", [(1, 1)], return_errors=True)
    assert [type(one) for one in got] == [MethodNotFound]


def test_nothing_is_sent_if_something_cannot_be_by_each_face(face):
    """Wherever it stands."""
    for bad, text in [
        ((1, object()), r"calls\[1\]: argument \[0\]"),
        (7, r"calls\[1\] is 7"),
        ((), r"calls\[1\] is empty"),
        (("x",), r"calls\[1\]: the partition must be an integer"),
    ]:
        with pytest.raises(TypeError, match=text):
            face.call_many("run", [(0, "a"), bad])
    with pytest.raises(InvalidArguments, match=r"no such partition.*this was calls\[1\]"):
        face.call_many("run", [(0, "a"), (3, "b")])
    with pytest.raises(TypeError, match=r"of type builtins\.object"):
        face.call_all("run", object())
    assert not switches.runs


def test_a_request_over_the_limit_by_each_face(cluster, face_type):
    """Refused before anything is sent."""
    with fresh(cluster, face_type, message_bytes_max=100_000) as face:
        with pytest.raises(MessageTooLarge):
            face.call_many("run", [(0, "a"), (1, "x" * 200_000)])
        with pytest.raises(MessageTooLarge):
            face.call_all("run", "x" * 200_000)
        assert not switches.runs


def test_a_connection_that_is_lost_by_each_face(face):
    """A batch that may run twice is made again; of another nobody knows, and the other servers' calls stand."""
    got = face.call_many("cut", [(0, "a"), (1, "b")], return_errors=True)
    assert {type(one) for one in got} <= {CallOutcomeUnknown, int}
    assert CallOutcomeUnknown in {type(one) for one in got}
    assert face.call_many("cut_and_repeat", [(2, "c")]) == [2]


def test_many_calls_find_a_partition_that_comes_back_by_each_face(cluster, face):
    """Within the deadline."""
    assert face.call_many("rank", [(1,)]) == [1]
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    timer = threading.Timer(0.4, cluster.launch, (1, 1))
    timer.start()
    assert face.call_many("get", [(0, "a"), (1, "b"), (2, "c")]) == [1, 2, 3]
    timer.join()


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


def test_wait_for_ready_names_who_does_not_answer_by_each_face(cluster, face):
    """And returns once all do."""
    face.wait_for_ready()
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    with pytest.raises(NotReady) as caught:
        face.wait_for_ready(0.3)
    assert caught.value.ready == [0, 2]
    assert caught.value.missing == [1]
    timer = threading.Timer(0.3, cluster.launch, (1, 1))
    timer.start()
    face.wait_for_ready()
    timer.join()
    assert face.call(1, "rank") == 1
