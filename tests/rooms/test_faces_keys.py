"""Each face of a client calls by key: the partition that owns it, many at once, and errors before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.faces import Face
from support.probe import LONG, Probe, switches

from spark_partition_server import (
    CallError,
    CallTimeout,
    ClientOptions,
    HandlerError,
    NoPartitioner,
    RoutingError,
    UnroutableKey,
    stable_hash,
)
from spark_partition_server.testing import LocalCluster, local_cluster

SIZE = 3
NAMES = [f"key{number}" for number in range(600)]  # more than are under way at once


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    switches.reset()
    pairs = [[(key, f"value of {key}") for key in NAMES if stable_hash(key) % SIZE == rank] for rank in range(SIZE)]
    with local_cluster(Probe(), pairs, partitioner=stable_hash) as made:
        yield made
        switches.gate.set()


def fresh(cluster: LocalCluster, face_type: type[Face], **options: Any) -> Face:
    """A client that has not asked for the view yet."""
    coordinator = cluster.coordinator
    assert coordinator is not None
    return face_type(coordinator.get_url(), coordinator.run_id, ClientOptions(**{"timeout": LONG, **options}))


def test_a_call_by_key_reaches_the_partition_that_owns_it(face):
    """A key that is looked for elsewhere is None, where there is a value."""
    some = NAMES[:20]
    assert {key: face.call_key(key, "get", key) for key in some} == {key: f"value of {key}" for key in some}
    assert {face.call_key(key, "rank") for key in some} == set(range(SIZE))
    assert face.call_key("key0", "echo", 1, two=2) == [[1], {"two": 2}]
    assert face.partition_of("key0") == stable_hash("key0") % SIZE


def test_the_first_call_may_be_one_by_key(cluster, face_type):
    """Who serves what, and by which partitioner, is asked within the call's own time."""
    with fresh(cluster, face_type) as face:
        assert face.call_key("key1", "get", "key1", timeout=LONG) == "value of key1"
    with fresh(cluster, face_type) as face:
        assert face.call_keys("get", ["key1"], timeout=LONG) == ["value of key1"]
    with fresh(cluster, face_type) as face:
        assert face.partition_of("key1") == stable_hash("key1") % SIZE
    with fresh(cluster, face_type) as face, pytest.raises(CallTimeout):
        face.call_key("key1", "wait", timeout=0.3)


def test_calls_by_many_keys_answer_in_the_order_of_the_keys(face):
    """Grouped by partition on their way; a key that is there twice is asked for twice."""
    keys = [*reversed(NAMES), "key3", "nobody"]
    answers = [*(f"value of {key}" for key in keys[:-1]), None]
    assert face.call_keys("get", keys) == answers
    assert face.call_keys("get", iter(keys)) == answers
    assert face.call_keys("echo", ["a", "b"], 7) == [[["a", 7], {}], [["b", 7], {}]]
    assert face.call_keys("get", []) == []


def test_nothing_is_called_when_one_key_has_no_partition(face):
    """[7.4.2]: half of the keys written, and an error for the other half, is what nobody can repair."""
    with pytest.raises(UnroutableKey, match="frozenset") as caught:
        face.call_keys("run", ["key0", frozenset("a"), "key1"])
    assert isinstance(caught.value, RoutingError)
    with pytest.raises(UnroutableKey, match=r"key \[1\]"):
        face.call_key([1], "run", "x")
    assert not switches.runs


def test_the_first_error_in_the_order_of_the_keys_is_raised_or_all_stand_in_the_list(face):
    """One bad key of a thousand: the others have been called, and their answers can be had."""
    with pytest.raises(HandlerError, match="ValueError: key0"):
        face.call_keys("fail", ["key0", "key1", "key2"])
    found = face.call_keys("fail", ["key0", "key1"], return_errors=True)
    assert [type(one) for one in found] == [HandlerError, HandlerError]
    assert ["ValueError: key1" in str(one) for one in found] == [False, True]


def test_calls_by_many_keys_have_one_deadline(face):
    """Not one each: a thousand slow keys would take a thousand timeouts."""
    with pytest.raises(CallError):
        face.call_keys("wait", NAMES, timeout=0.5)
    switches.gate.set()
    assert face.call_keys("get", ["key1"]) == ["value of key1"]


def test_without_a_partitioner_only_calls_by_key_are_refused(face_type):
    """Data that was never partitioned by key is served as before."""
    with local_cluster(Probe(), [[("a", 1)], [("b", 2)]]) as made, fresh(made, face_type) as face:
        with pytest.raises(NoPartitioner, match="nobody knows where a key lives"):
            face.call_key("a", "get", "a")
        with pytest.raises(NoPartitioner):
            face.call_keys("get", ["a"])
        assert face.call_all("rank") == [0, 1]
