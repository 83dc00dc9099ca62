"""``spark_hash``: the keys that a DataFrame's columns can have, and those that they cannot."""

from __future__ import annotations

import pickle
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy
import pytest

from spark_partition_server import spark_hash
from spark_partition_server.core.murmur import murmur_int, murmur_long, murmur_octets
from spark_partition_server.keys import Keys, describe

DAY = date(2026, 11, 23)
NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)

# Where Spark 4 has put the numbers 0 to 9, by how many partitions: df.repartition(size, "n") of an int column
PLACED = {
    3: [0, 1, 0, 0, 0, 0, 1, 0, 0, 0],
    8: [7, 3, 6, 3, 6, 2, 1, 3, 7, 1],
    10: [1, 3, 4, 1, 2, 6, 9, 7, 3, 9],
    200: [191, 43, 174, 51, 102, 66, 49, 107, 103, 89],
}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("boolean", True, murmur_int(1, 42)),
        ("int", numpy.int64(-5), murmur_int(-5, 42)),
        ("bigint", 5, murmur_long(5, 42)),
        ("float", 1, murmur_int(0x3F800000, 42)),
        ("double", -0.0, murmur_long(0, 42)),
        ("double", numpy.float64("nan"), murmur_long(0x7FF8 << 48, 42)),
        ("string", "π", murmur_octets(b"\xcf\x80", 42)),
        ("binary", bytearray(b"x"), murmur_octets(b"x", 42)),
        ("date", DAY, murmur_int(20780, 42)),
        ("timestamp", NOON, murmur_long(20780 * 86400 * 10**6 + 43200 * 10**6, 42)),
        ("timestamp", NOON.astimezone(timezone(timedelta(hours=9))), murmur_long(1795435200 * 10**6, 42)),
        ("string", None, 42),
    ],
)
def test_a_key_is_hashed_as_its_column_is(kind, value, expected):
    """[7.4.5]: 5 is another key as an int than as a bigint."""
    assert spark_hash(column=kind)(value) % 2**32 == expected


@pytest.mark.parametrize(("size", "partitions"), sorted(PLACED.items()))
def test_a_key_lives_where_spark_has_put_it(size, partitions):
    """[7.4.5]: the hash has a sign, which only a number of partitions that is no power of two shows."""
    keys, told = Keys(), describe(spark_hash(column="int"), None)
    assert [keys.partition_of(key, told, size) for key in range(10)] == partitions


def test_several_columns_are_one_key():
    """[7.4.5]: in the order of repartition("name", "number"); a null leaves the hash as it is."""
    both = spark_hash(name="string", number="int")
    assert both(("a", 7)) == murmur_int(7, murmur_octets(b"a", 42))
    assert both((None, 7)) == murmur_int(7, 42)
    assert both(("a", None)) == spark_hash(name="string")("a")
    assert spark_hash(number="int", name="string")((7, "a")) != both(("a", 7))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "7"),
        ("int", 7.0),
        ("int", 2**31),
        ("tinyint", -129),
        ("bigint", 2**63),
        ("float", 1e300),
        ("double", "1.5"),
        ("string", b"a"),
        ("string", "\ud800"),
        ("binary", "a"),
        ("boolean", 2),
        ("date", NOON),
        ("date", "2026-11-23"),
        ("timestamp", DAY),
        ("timestamp", NOON.replace(tzinfo=None)),
    ],
    ids=str,
)
def test_a_key_that_no_row_can_have_is_a_type_error(kind, value):
    """A text where the column has numbers would be looked for, and not found, in some partition."""
    with pytest.raises(TypeError, match=f"{type(value).__qualname__} is no {kind} of Spark's"):
        spark_hash(column=kind)(value)


@pytest.mark.parametrize("key", ["a", ("a",), ("a", 1, 2), ["a", 1]])
def test_a_key_of_several_columns_is_a_tuple_of_as_many(key):
    """call_key("alice", ...) where the rows were placed by two columns."""
    with pytest.raises(TypeError, match="a tuple of name, number is wanted"):
        spark_hash(name="string", number="int")(key)


@pytest.mark.parametrize("columns", [{}, {"a": "map<string,int>"}, {"a": "int", "b": "decimal(10,2)"}, {"a": "String"}])
def test_a_type_that_is_not_known_is_told_where_it_is_named(columns):
    """On the driver, not in a client a week later."""
    with pytest.raises(ValueError, match="spark_hash takes columns of the types boolean, tinyint"):
        spark_hash(**columns)


def test_it_is_shipped_to_executors_and_compared():
    """Plain data."""
    made: Any = spark_hash(name="string")
    assert pickle.loads(pickle.dumps(made)) == made != spark_hash(name="binary")
