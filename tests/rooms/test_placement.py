"""The sample of a partition's first rows: what it finds, and that nobody notices it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from spark_partition_server.frame_keys import spark_hash
from spark_partition_server.keys import PortableHash, stable_hash
from spark_partition_server.placement import SAMPLE_ROWS, complaint, placement_of


def sample(function: Any = lambda key: key, rank: int = 1, size: int = 4) -> Any:
    made = placement_of(function, "0", size).sample(rank)
    assert made is not None
    return made


def test_rows_are_read_one_at_a_time_and_only_as_they_are_asked_for():
    """A partition larger than memory, or one whose reader stops half-way, must be read as it was."""
    read = []

    def rows() -> Any:
        for number in itertools.count():
            read.append(number)
            yield number, "value"

    watched = sample().watch(rows())
    assert read == []
    for expected in range(SAMPLE_ROWS + 5):
        assert next(watched) == (expected, "value")
        assert read == list(range(expected + 1))


@pytest.mark.parametrize("size", [0, 1, SAMPLE_ROWS - 1, SAMPLE_ROWS, SAMPLE_ROWS + 1, 1000])
def test_every_row_arrives_as_it_was(size):
    """The same objects, in the same order, whatever they are."""
    rows = [object() if number % 3 else (number, number) for number in range(size)]
    assert all(one is other for one, other in zip(sample().watch(rows), rows, strict=True))


def test_what_the_rows_raise_arrives_too():
    """A broken partition is Spark's to tell."""

    def rows() -> Any:
        yield 1, 1
        raise OSError("a block was lost")

    watched = sample().watch(rows())
    assert next(watched) == (1, 1)
    with pytest.raises(OSError, match="lost"):
        next(watched)


def test_the_first_rows_are_counted_and_one_that_is_elsewhere_is_shown():
    """The first one, as its repr; the rest of a large partition is not looked at."""
    made = sample(rank=1, size=4)
    for _ in made.watch((number, None) for number in range(1000)):
        pass
    assert made.report() == {"keys": {"sampled": 100, "misplaced": 75, "example": "0", "expected": 0}}
    right = sample(rank=1, size=4)
    list(right.watch((number, None) for number in range(1, 1000, 4)))
    assert right.report() == {"keys": {"sampled": 100, "misplaced": 0}}


@pytest.mark.parametrize("row", [1, "ab", None, (1,), (1, 2, 3), {"a": 1, "b": 2}, {1, 2}])
def test_only_a_pair_has_a_key(row):
    """mapPartitions may have made anything of the pairs."""
    made = sample()
    assert list(made.watch([row])) == [row]
    assert made.report() == {}


class Row(tuple):
    """A row of a DataFrame."""

    def __new__(cls, **values: Any) -> Row:
        row = super().__new__(cls, values.values())
        row.__fields__ = list(values)
        return row


def test_the_key_of_a_data_frames_row_is_in_its_columns():
    """Two columns make a pair of another kind; the key may be the second, or both."""
    hashed = spark_hash(name="string")
    size = 4
    rows = [Row(number=number, name=f"key{number}") for number in range(50)]
    made = sample(hashed, rank=1, size=size)
    assert list(made.watch([*rows, (1, 2), Row(name="x"), Row(other=1), "ab"])) == [*rows, (1, 2), ("x",), (1,), "ab"]
    wrong = sum(hashed(row[1]) % size != 1 for row in [*rows, (0, "x")])
    assert made.report()["keys"]["sampled"] == 51
    assert made.report()["keys"]["misplaced"] == wrong
    both = sample(spark_hash(name="string", number="int"), rank=1, size=size)
    list(both.watch(rows))
    assert both.report()["keys"]["sampled"] == 50


def test_a_key_that_cannot_be_placed_is_passed_over():
    """Whether anybody will ever call by it, nobody knows; who does gets the error."""
    made = sample(lambda key: 1 // key)
    list(made.watch([(0, "x"), (1, "y")]))
    assert made.report() == {"keys": {"sampled": 1, "misplaced": 0}}


def test_a_reader_that_takes_no_row_has_no_sample():
    """init_partition may read them later, or never."""
    made = sample()
    made.watch([(1, 1)])
    assert made.report() == {}


def test_a_key_that_cannot_be_printed_is_no_obstacle():
    """What is wrong with the data is told all the same."""

    class Silent:
        def __repr__(self) -> str:
            raise ValueError("no")

    made = sample(lambda key: 0)
    list(made.watch([(Silent(), 1)]))
    assert made.report()["keys"]["example"] == f"<a {Silent.__qualname__} that cannot be printed>"
    long = sample(lambda key: 0)
    list(long.watch([("k" * 1000, 1)]))
    assert len(long.report()["keys"]["example"]) == 100


def test_what_is_sampled_is_what_a_client_elsewhere_computes():
    """Its hash() is another: the rule is what must agree with where Spark put the keys."""
    portable = pytest.importorskip("pyspark.rdd").portable_hash
    made = placement_of(portable, "0", 4)
    assert made.function is None  # clients compute it from what they are told
    found = made.sample(0)
    assert found is not None
    by_rule = PortableHash(made.told, by_rule=True)
    keys = [f"key{number}" for number in range(50)]
    list(found.watch((key, 1) for key in keys))
    assert found.misplaced == sum(by_rule(key) % 4 != 0 for key in keys)


def test_data_without_a_partitioner_is_not_watched():
    """Nothing is between the rows and their reader."""
    assert placement_of(None, "0", 4).sample(0) is None


def test_the_complaint_names_the_key_and_both_partitions():
    """It is all that most users will read of it."""
    told = placement_of(stable_hash, None, 4).told
    meta = {"keys": {"sampled": 100, "misplaced": 75, "example": "'alice'", "expected": 2}}
    text = complaint(3, meta, told)
    assert text is not None
    assert text.startswith("75 of the first 100 keys of partition 3 do not belong there: 'alice' lives in partition 3")
    assert "the partitioner (stable_hash) says 2" in text
    named = {"name": "custom", "function": "m.f"}
    assert "(m.f)" in (complaint(3, meta, named) or "")
    assert complaint(3, meta, None) is None
    assert complaint(3, {"keys": {"sampled": 5, "misplaced": 0}}, told) is None
    assert complaint(3, {}, told) is None
