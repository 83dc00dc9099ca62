"""Calls by key: which function places keys, who is asked, and what is said when nobody can tell."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from support.joining import Member, coordinating
from support.probe import LONG, Probe, switches

from spark_partition_server import (
    Client,
    InvalidCluster,
    NoPartitioner,
    UnroutableKey,
    aio,
    connect,
    spark_hash,
    stable_hash,
)
from spark_partition_server.keys import Keys, describe
from spark_partition_server.spark.partitioner import hash_seed, partitioner_of
from spark_partition_server.testing import local_cluster

SIZE = 3
NAMES = [f"key{number}" for number in range(30)]


def placed(function: Any, keys: Any = NAMES) -> list[list[tuple[Any, str]]]:
    """Pairs, each in the partition that the function says."""
    return [[(key, f"value of {key}") for key in keys if function(key) % SIZE == rank] for rank in range(SIZE)]


def by_length(key: str) -> int:
    return len(key) * 7 - 50  # negative for most


@pytest.fixture
def stable() -> Any:
    switches.reset()
    with local_cluster(Probe(), placed(stable_hash), partitioner=stable_hash) as made:
        yield made
        switches.gate.set()


# ------------------------------------------------------------------------------- functions of the application


def test_a_function_of_the_application_is_given_to_whoever_calls():
    """The driver's clients have it; a client elsewhere is told its name, and to bring it."""
    switches.reset()
    pairs = placed(by_length, ["a" * size for size in range(1, 20)])
    with local_cluster(Probe(), pairs, partitioner=by_length) as made:
        assert made.client(timeout=LONG).call_key("aaaa", "get", "aaaa") == "value of aaaa"
        assert made.connection_file is not None
        with connect(made.connection_file, timeout=LONG) as bare:
            with pytest.raises(NoPartitioner, match=r"test_keys\.by_length.*connect\(path, partitioner=function\)"):
                bare.call_key("aaaa", "get", "aaaa")
            assert bare.call(0, "rank") == 0  # it can still call by number
        with connect(made.connection_file, timeout=LONG, partitioner=by_length) as client:
            assert client.call_keys("get", ["a" * 9, "a"]) == ["value of aaaaaaaaa", "value of a"]


def test_a_function_is_given_to_an_asyncio_client_in_the_same_way():
    """The same words in both faces."""
    pairs = placed(by_length, ["a" * size for size in range(1, 20)])

    async def look(path: str) -> None:
        async with aio.connect(path, timeout=LONG) as bare:
            with pytest.raises(NoPartitioner, match=r"test_keys\.by_length"):
                await bare.call_key("aaaa", "get", "aaaa")
        async with aio.connect(path, timeout=LONG, partitioner=by_length) as client:
            assert await client.call_keys("get", ["a" * 9, "a"]) == ["value of aaaaaaaaa", "value of a"]

    with local_cluster(Probe(), pairs, partitioner=by_length) as made:
        asyncio.run(look(str(made.connection_file)))


def test_the_argument_goes_before_what_the_cluster_tells(stable):
    """Whoever names a function means it."""
    with connect(stable.connection_file, timeout=LONG, partitioner=lambda key: 5) as client:
        assert client.partition_of("whatever") == 2


@pytest.mark.parametrize(
    ("function", "reason"),
    [(lambda key: "3", "'str'"), (lambda key: 0.5, "'float'"), (lambda: 3, "positional argument")],
)
def test_a_function_that_places_nowhere_is_an_error_of_its_key(function, reason):
    """A float is no partition, though Python can take its remainder."""
    with pytest.raises(UnroutableKey, match=f"key 'a': the partitioner cannot place it: .*{reason}"):
        Keys(function).partition_of("a", None, SIZE)


def test_the_reason_of_a_partitioner_of_ours_is_told_as_it_is():
    """Not wrapped in another one: the text begins with what to do."""
    told = {"name": "portable_hash", "seed": None, "algorithm": "siphash13", "width": 64, "modulus": 2**61 - 1}
    told |= {"cutoff": 0, "byteorder": "little", "implementation": "cpython"}
    with pytest.raises(UnroutableKey, match=r"^key 'a': the executors hash texts with a seed"):
        Keys().partition_of("a", told, SIZE)
    assert Keys().partition_of(5, told, SIZE) == 2


def test_what_the_function_raises_is_what_the_caller_gets():
    """A bug in it should look like one."""

    def broken(key: str) -> int:
        raise ZeroDivisionError(key)

    with pytest.raises(ZeroDivisionError):
        Keys(broken).partition_of("a", None, SIZE)


def test_only_a_function_is_a_partitioner(stable):
    """partitioner=8, meant as the number of partitions, is told at once."""
    with pytest.raises(TypeError, match="a partitioner is a function from a key to an int, not a int"):
        connect(stable.connection_file, partitioner=8)


# ------------------------------------------------------------------------------------- nobody knows where


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (None, r"without a partitioner.*partitionBy\(n, stable_hash\).*DataFrame.*partitioner=.*spark_hash\(name="),
        ({}, "without a partitioner"),
        ("stable_hash", "without a partitioner"),
        ({"name": 7}, "partitioner 7 is not known here"),
        ({"name": "murmur"}, "partitioner 'murmur' is not known here"),
        ({"name": "spark_hash"}, "not known here: 'types'|not known here: 'columns'"),
        ({"name": "spark_hash", "columns": ["a"], "types": ["map"]}, "not known here: .*'map'"),
        ({"name": "spark_hash", "columns": 3, "types": ["int"]}, "not known here"),
        ({"name": "spark_hash", "columns": ["a"], "types": [["int"]]}, "not known here"),
        ({"name": "portable_hash"}, "hashes in a way that is not known here"),
    ],
    ids=str,
)
def test_a_partitioner_that_is_not_known_is_never_guessed(told, text):
    """[7.4.2]: whatever a coordinator, or a later release of one, tells in its place."""
    with pytest.raises(NoPartitioner, match=text):
        Keys().partition_of("a", told, SIZE)


def test_a_cluster_without_a_partitioner_refuses_calls_by_key_only():
    """Data that was never partitioned by key is served as before."""
    switches.reset()
    with local_cluster(Probe(), placed(stable_hash)) as made:
        client = made.client(timeout=LONG)
        with pytest.raises(NoPartitioner, match="nobody knows where a key lives"):
            client.call_key("key0", "get", "key0")
        assert client.call_all("rank") == [0, 1, 2]


def test_a_view_that_names_another_partitioner_is_followed():
    """A cluster's never changes; whoever compares only once would take the first for ever."""
    keys, stable = Keys(), {"name": "stable_hash"}
    assert keys.partition_of("a", stable, 1000) == stable_hash("a") % 1000
    with pytest.raises(NoPartitioner):
        keys.partition_of("a", {"name": "other"}, 1000)
    assert keys.partition_of("a", stable, 1000) == stable_hash("a") % 1000


# ------------------------------------------------------------------------------------- the RDD's partitioner


class Rdd:
    def __init__(self, partitioner: Any) -> None:
        self.partitioner = partitioner


class Partitioner:
    """Spark's, as far as it matters."""

    def __init__(self, numPartitions: int, partitionFunc: Any) -> None:
        self.numPartitions = numPartitions
        self.partitionFunc = partitionFunc


def test_the_rdds_own_partitioner_is_taken_unless_another_is_given():
    """And one that was made for another number of partitions is none: the keys have moved since."""
    assert partitioner_of(Rdd(None), None, 3) is None
    assert partitioner_of(object(), None, 3) is None
    assert partitioner_of(Rdd(Partitioner(3, by_length)), None, 3) is by_length
    assert partitioner_of(Rdd(Partitioner(4, by_length)), None, 3) is None
    assert partitioner_of(Rdd(Partitioner(3, by_length)), stable_hash, 3) is stable_hash
    assert partitioner_of(Rdd(None), Partitioner(3, by_length), 3) is by_length
    with pytest.raises(InvalidCluster, match="the partitioner is of 4 partitions, the RDD has 3"):
        partitioner_of(Rdd(None), Partitioner(4, by_length), 3)
    with pytest.raises(InvalidCluster, match="a partitioner is a function from a key to an int, not a int"):
        partitioner_of(Rdd(None), 8, 3)


def test_the_seed_is_that_of_the_executors_environment():
    """The driver's own has no part in it."""

    assert hash_seed(SimpleNamespace(environment={"PYTHONHASHSEED": "42"})) == "42"
    assert hash_seed(SimpleNamespace(environment={})) is None


def test_what_is_told_of_a_function_is_its_name():
    """And never more than a map of the view may hold."""
    assert describe(None, "0") is None
    assert describe(stable_hash, None) == {"name": "stable_hash"}
    frame = describe(spark_hash(name="string", number="int"), None)
    assert frame == {"name": "spark_hash", "columns": ["name", "number"], "types": ["string", "int"]}
    assert Keys().partition_of(("a", 1), frame, 1000) == spark_hash(name="string", number="int")(("a", 1)) % 1000
    assert describe(by_length, "0") == {"name": "custom", "function": f"{__name__}.by_length"}
    by_length_of = type("Name" * 100, (), {"__call__": lambda self, key: 1})()
    assert len(describe(by_length_of, "0")["function"]) == 200


# ------------------------------------------------------------------------------- keys that live elsewhere


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_keys_that_do_not_live_where_they_should_are_told_once(caplog):
    """call_key would answer None for data that is there; the warning names a key, and both partitions."""
    switches.reset()
    turned = placed(stable_hash)[1:] + placed(stable_hash)[:1]
    with caplog.at_level(logging.WARNING), local_cluster(Probe(), turned, partitioner=stable_hash):
        pass
    (text,) = warned(caplog)
    assert text.startswith("misplaced keys: ")
    assert "'key" in text
    assert "stable_hash" in text
    assert "lives in partition" in text


@pytest.mark.parametrize("rows", [placed(stable_hash), [["ab", "cd"], [1, 2], [("a", 1, 2)]], [[], [], []]])
def test_data_that_is_where_it_should_be_is_no_warning(caplog, rows):
    """Nor are rows that are no pairs, a text of two letters among them."""

    class Rows(Probe):
        def init_partition(self, rows: Any) -> None:
            self.values = dict(enumerate(rows))

    with caplog.at_level(logging.WARNING), local_cluster(Rows(), rows, partitioner=stable_hash):
        pass
    assert warned(caplog) == []


@pytest.mark.parametrize("found", [None, 7, {}, {"misplaced": 0}, {"misplaced": "many"}, {"misplaced": 3}], ids=str)
def test_whatever_a_server_tells_of_its_keys_it_becomes_a_member(found):
    """7.1: it is for people; a later release may tell it in another way."""
    with coordinating(1, partitioner={"name": "stable_hash"}) as coordinator, Member(coordinator) as member:
        assert member.join(0, meta={"keys": found, "more": 1}).kind.name == "WELCOME"


def test_the_view_tells_the_partitioner():
    """[7.4.2]: and of a cluster without one, nothing."""
    told = {"name": "custom", "function": "f"}
    for partitioner in (told, None):
        with coordinating(1, partitioner=partitioner) as coordinator:
            client = Client(coordinator.get_url() or "", coordinator.run_id)
            client.refresh(LONG)
            assert coordinator._membership is not None
            meta = coordinator._membership.view().meta
            assert ("partitioner" in meta, meta.get("partitioner")) == (partitioner is not None, partitioner)
            assert client._routes.calls.partitioner == partitioner
            client.close()
