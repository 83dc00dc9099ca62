"""Keys where real Spark has put them: a client in a process without Spark finds every one of them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime, timezone
from typing import Any

import pytest
from support.servers import lookup_server
from support.spark import spark_application

from spark_partition_server import (
    Cluster,
    InvalidCluster,
    NoPartitioner,
    NotSerializable,
    connect,
    spark_hash,
    stable_hash,
)
from spark_partition_server.frame_keys import HASHES

KEYS = ["", "alice", "Zürich", "π", "😀x", "x" * 100, *(f"user:{number}" for number in range(60)), *range(-3, 40)]
ELSEWHERE = """
import json, sys
from spark_partition_server import connect
with connect(sys.argv[1], timeout=20) as client:
    keys = json.loads(sys.argv[2])
    answers = client.call_keys("get", keys)
    partitions = [client.partition_of(key) for key in keys]
    assert answers == [client.call_key(key, "get", key) for key in keys]
assert "pyspark" not in sys.modules
print(json.dumps([answers, partitions]))
"""


@pytest.fixture(scope="module")
def sc() -> Iterator[Any]:
    with spark_application("local-cluster[2,1,1024]") as context:
        yield context


@pytest.fixture
def pairs(sc: Any) -> Any:
    return sc.parallelize([(key, str(key)) for key in KEYS], 3)


def elsewhere(path: str | None, seed: str) -> Any:
    """What a client in a process with another seed gets for every key."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(path), json.dumps(KEYS)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def truly(rdd: Any) -> dict[Any, int]:
    """Key -> the partition that it is in."""
    return dict(rdd.mapPartitionsWithIndex(lambda rank, rows: [(key, rank) for key, _ in rows]).collect())


@pytest.mark.smoke
@pytest.mark.parametrize("function", ["portable_hash", "stable_hash"])
def test_clients_with_any_seed_find_every_key(sc: Any, pairs: Any, function: str, caplog: Any) -> None:
    """[7.4.3] [7.4.4]: the executors hash with Spark's seed, the clients with theirs."""
    rdd = pairs.partitionBy(2, stable_hash) if function == "stable_hash" else pairs.partitionBy(2)
    rdd = rdd.mapValues(str)  # keeps the partitioner
    where = truly(rdd)
    with caplog.at_level(logging.WARNING), Cluster(sc, rdd, lookup_server(), verbose=False) as cluster:
        for seed in ("0", "42", "random"):
            answers, partitions = elsewhere(cluster.connection_file, seed)
            assert answers == [str(key) for key in KEYS]
            assert partitions == [where[key] for key in KEYS]
        assert set(partitions) == {0, 1}
        assert cluster.client().call_keys("get", KEYS) == [str(key) for key in KEYS]
    assert not [one for one in caplog.records if "misplaced" in one.getMessage()]


def test_a_seed_of_the_drivers_is_followed(sc: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PYTHONHASHSEED was when the driver started, Spark gives to the executors."""
    monkeypatch.setitem(sc.environment, "PYTHONHASHSEED", "1234")
    rdd = pairs.partitionBy(2)
    where = truly(rdd)
    with Cluster(sc, rdd, lookup_server(), verbose=False) as cluster:
        _, partitions = elsewhere(cluster.connection_file, "0")
    assert partitions == [where[key] for key in KEYS]


def test_keys_of_tuples_and_times(sc: Any) -> None:
    """What reduceByKey and join leave behind; the methods get lists, so the test only asks where."""
    keys = [("a", 1), (None, ("π", b"x")), date(2026, 1, 1), datetime(2026, 1, 1, 2), b"octets", 1.5, None]
    keys += [datetime(2026, 1, 1, tzinfo=timezone.utc), ("a", date(2026, 1, 1))]
    for rdd in (
        sc.parallelize([(key, 1) for key in keys * 3], 2).reduceByKey(lambda one, other: one + other, 2),
        sc.parallelize([(key, 1) for key in keys], 2).partitionBy(2, stable_hash),
    ):
        where = truly(rdd)
        with Cluster(sc, rdd, lookup_server(), verbose=False) as cluster:
            client = cluster.client()
            assert {key: client.partition_of(key) for key in keys} == where


def test_a_function_of_the_application(sc: Any, pairs: Any) -> None:
    """sortByKey makes one of its own: the driver has it, others are told that they need it."""
    texts = pairs.filter(lambda pair: isinstance(pair[0], str)).sortByKey(numPartitions=2)
    with Cluster(sc, texts, lookup_server(), verbose=False) as cluster:
        assert cluster.client().call_key("alice", "get", "alice") == "alice"
        with connect(str(cluster.connection_file)) as client, pytest.raises(NoPartitioner, match="rangePartitioner"):
            client.call_key("alice", "get", "alice")


def test_a_partitioner_that_is_given(sc: Any, caplog: Any) -> None:
    """Of data that was placed by something else; and one that is not the right one is told at start."""
    rows = sc.parallelize(range(100), 2).map(lambda number: (number, number))  # 0..49, 50..99
    with caplog.at_level(logging.WARNING):
        with Cluster(sc, rows, lookup_server(), verbose=False, partitioner=lambda key: key // 50) as cluster:
            assert cluster.client().call_keys("get", [3, 77]) == [3, 77]
        assert not [one for one in caplog.records if "misplaced" in one.getMessage()]
        with Cluster(sc, rows, lookup_server(), verbose=False, partitioner=stable_hash):
            pass
    assert len([one for one in caplog.records if "misplaced" in one.getMessage()]) == 1
    with pytest.raises(InvalidCluster, match="a partitioner is a function"):
        Cluster(sc, rows, lookup_server(), verbose=False, partitioner=8).start()  # type: ignore[arg-type]
    lock = __import__("threading").Lock()
    with pytest.raises(NotSerializable, match="partitioner must be a function of plain data"):
        Cluster(sc, rows, lookup_server(), verbose=False, partitioner=lambda key: lock and 0).start()


def test_keys_that_were_changed_behind_sparks_back(sc: Any, pairs: Any, caplog: Any) -> None:
    """preservesPartitioning=True is a promise that nobody checks; here it is."""
    changed = pairs.partitionBy(2).map(lambda pair: (f"{pair[0]}!", pair[1]), preservesPartitioning=True)
    with caplog.at_level(logging.WARNING), Cluster(sc, changed, lookup_server(), verbose=False) as cluster:
        assert sum(cluster.client().call_all("count")) == len(KEYS)  # it serves all the same
    (text,) = [one.getMessage() for one in caplog.records if "misplaced" in one.getMessage()]
    # whichever of the wrong keys the shuffle delivered first; one of them is so long that its end is not shown
    assert "!' lives in partition" in text or "xxx... lives in partition" in text
    assert "portable_hash" in text


def test_data_frames_have_no_partitioner(sc: Any) -> None:
    """Their repartition() hashes on the JVM; the error names the way."""
    from pyspark.sql import SparkSession

    frame = SparkSession(sc).createDataFrame([("alice", 1), ("bob", 2)], ["name", "number"]).repartition(2, "name")
    with Cluster(sc, frame, lookup_server(), verbose=False) as cluster, pytest.raises(NoPartitioner, match=r"df\.rdd"):
        cluster.client().call_key("alice", "get", "alice")
    rows = frame.rdd.map(lambda row: (row.name, row.number)).partitionBy(2, stable_hash)
    with Cluster(sc, rows, lookup_server(), verbose=False) as cluster:
        assert cluster.client().call_key("alice", "get", "alice") == 1


COLUMNS = {
    "boolean": [True, False, None],
    "tinyint": [0, 1, -1, 127, -128],
    "smallint": [0, -1, 32767, -32768],
    "int": [0, 1, -1, 2**31 - 1, -(2**31), None],
    "bigint": [0, 1, -1, 2**63 - 1, -(2**63), 12345678901, None],
    "float": [0.0, -0.0, 0.5, -1.5, 0.1, float("nan"), float("inf")],
    "double": [0.0, -0.0, 0.5, 1e300, 0.1, float("nan"), float("-inf"), None],
    "string": ["", "a", "ab", "abc", "abcd", "abcde", "Zürich", "π", "😀x", "x" * 1000, None],
    "binary": [b"", b"a", bytes(range(256)), bytes(range(129, 132)), None],
    "date": [date(2026, 11, 23), date(1, 1, 1), date(1969, 12, 31), None],
    "timestamp": [datetime(2026, 11, 23, 12, 34, 56, 789012, timezone.utc), datetime(1950, 1, 1, tzinfo=timezone.utc)],
}


@pytest.mark.smoke
def test_the_hash_of_data_frames_is_that_of_the_jvm(sc: Any) -> None:
    """[7.4.5]: every type, against SQL's own hash()."""
    from pyspark.sql import SparkSession

    session = SparkSession(sc)
    assert set(COLUMNS) == set(HASHES)
    for kind, values in COLUMNS.items():
        frame = session.createDataFrame([(value,) for value in values], f"value {kind}")
        found = [row[0] for row in frame.selectExpr("hash(value)").collect()]
        hashed = spark_hash(value=kind)
        assert {str(value): hashed(value) for value in values} == {
            str(value): number for value, number in zip(values, found, strict=True)
        }, kind
    frame = session.createDataFrame([("π", 7), (None, -1)], "name string, number int")
    found = [row[0] for row in frame.selectExpr("hash(name, number)").collect()]
    assert [spark_hash(name="string", number="int")(key) for key in (("π", 7), (None, -1))] == found


@pytest.mark.smoke
def test_rows_are_in_the_partitions_that_their_hash_says(sc: Any) -> None:
    """[7.4.5]: also where their number is no power of two, and the sign of the hash counts."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    hashed = spark_hash(id="bigint")
    for size in (3, 4, 7):
        frame = SparkSession(sc).range(40).repartition(size, "id").select("id", F.spark_partition_id())
        assert all(hashed(key) % size == partition for key, partition in frame.collect()), size


@pytest.mark.smoke
def test_a_data_frame_that_was_repartitioned_by_a_column(sc: Any, caplog: Any) -> None:
    """The JVM has placed the rows; a client in a process without one finds them."""
    from pyspark.sql import SparkSession

    rows = [(number, key) for number, key in enumerate(KEYS) if isinstance(key, str)]
    frame = SparkSession(sc).createDataFrame(rows, "number int, name string").repartition(2, "name")
    hashed = spark_hash(name="string")
    server = lookup_server()
    with caplog.at_level(logging.WARNING):
        with Cluster(sc, frame, server, verbose=False, partitioner=hashed) as cluster:
            partitions = [cluster.client().partition_of(name) for _, name in rows]
            where = zip(partitions, rows, strict=True)
            answers = [cluster.client().call(partition, "get", number) for partition, (number, _) in where]
        assert answers == [name for _, name in rows]
        assert set(partitions) == {0, 1}
        assert not [one for one in caplog.records if "misplaced" in one.getMessage()]
        with Cluster(sc, frame, server, verbose=False, partitioner=spark_hash(number="int")):
            pass
    assert len([one for one in caplog.records if "misplaced" in one.getMessage()]) == 1
