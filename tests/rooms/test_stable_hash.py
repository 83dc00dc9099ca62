"""``stable_hash``: the same number in every Python for ever, equal for keys that are equal."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pythons import pythons

from spark_partition_server import keys, stable_hash
from spark_partition_server.keys import number_hash_by_rule

VECTORS = Path(__file__).parents[1] / "vectors" / "keys.json"
TINY = Fraction(1, 2**61 - 1)  # whose denominator has no inverse


def key_from(notation: Any) -> Any:
    """A key of keys.json."""
    if not isinstance(notation, dict):
        return notation
    ((kind, content),) = notation.items()
    makers = {
        "int": int,
        "float": float.fromhex,
        "decimal": Decimal,
        "fraction": lambda parts: Fraction(*parts),
        "octets": bytes.fromhex,
        "tuple": lambda parts: tuple(map(key_from, parts)),
        "date": date.fromisoformat,
        "naive": datetime.fromisoformat,
        "aware": datetime.fromisoformat,
        "uuid": UUID,
    }
    return makers[kind](content)


def vectors() -> list[Any]:
    return json.loads(VECTORS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("notation", "expected"), vectors(), ids=lambda one: str(one)[:40])
def test_a_hash_never_changes(notation, expected):
    """[7.4.3]: data that was placed by an older release would be looked for in the wrong partitions."""
    assert stable_hash(key_from(notation)) == int(expected)


def test_a_hash_is_what_the_document_says():
    """[7.4.3]: computed here a second time, from the sentences alone."""

    def digest(octets: bytes) -> int:
        return int.from_bytes(sha256(octets).digest()[:8], "big") // 2

    assert stable_hash("é\ud800") == digest(b"s\xc3\xa9\xed\xa0\x80")
    assert stable_hash(-1) == digest(b"n" + b"\xff" * 7 + b"\xfe")
    assert stable_hash(0.5) == digest(b"n" + (2**60).to_bytes(8, "big"))
    assert stable_hash((None, b"x")) == digest(
        b"(" + digest(b"-").to_bytes(8, "big") + digest(b"bx").to_bytes(8, "big")
    )
    assert stable_hash(date(1, 1, 2)) == digest(b"d" + bytes(7) + b"\x02")
    assert stable_hash(datetime(1, 1, 1, 0, 0, 0, 5)) == digest(b"t" + bytes(7) + b"\x05")
    east = timezone(timedelta(microseconds=3))
    assert stable_hash(datetime(1, 1, 1, 0, 0, 0, 5, tzinfo=east)) == digest(b"z" + bytes(7) + b"\x02")
    assert stable_hash(UUID(int=9)) == digest(b"u" + bytes(15) + b"\x09")


edges = st.sampled_from([2**61 - 1, TINY, -TINY])
ASK = """
import json, sys, types
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
package = types.ModuleType("spark_partition_server")  # without what its __init__ needs: this Python may have nothing
package.__path__ = [sys.argv[1]]
sys.modules["spark_partition_server"] = package
from spark_partition_server.keys import stable_hash
{source}
vectors = json.load(open(sys.argv[2], encoding="utf-8"))
print([notation for notation, expected in vectors if stable_hash(key_from(notation)) != int(expected)])
"""


def wrong_in(python: str, seed: str) -> str:
    """The vectors that another process does not agree with, in an interpreter and with a seed of its own."""
    arguments = [python, "-c", ASK.format(source=inspect.getsource(key_from)), Path(keys.__file__).parent, VECTORS]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("seed", ["0", "1", "42", "random"])
def test_it_needs_no_seed(seed):
    """A client with another PYTHONHASHSEED than the executors' would look elsewhere."""
    assert wrong_in(sys.executable, seed) == "[]\n"


@pytest.mark.parametrize("version", pythons())
def test_it_needs_no_version(version):
    """Python changes its hash() from version to version; a service is updated before or after its cluster."""
    assert wrong_in(pythons()[version], "random") == "[]\n"


numbers = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.decimals(allow_nan=False), st.fractions(), edges
)


@given(numbers, numbers)
def test_numbers_that_are_equal_hash_equal(one, other):
    """A key that was 1 on the executors and is 1.0 in a client's JSON is the same key."""
    assert (stable_hash(one) == stable_hash(other)) or one != other


@given(st.integers(-(2**53), 2**53))
def test_an_integer_is_the_same_key_in_every_type(number):
    """The types that a key goes through on its way: arrays, decimals of a database, floats of JSON."""
    same = [float(number), Decimal(number), Decimal(f"{number}.00"), Fraction(number), numpy.int64(number)]
    same += [numpy.float64(number)] + ([numpy.uint8(number)] if 0 <= number < 256 else [])
    assert {stable_hash(one) for one in same} == {stable_hash(number)}


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.decimals(allow_nan=False), st.fractions()))
def test_the_numeric_hash_by_rule_is_that_of_python(number):
    """A Python of 32 bits computes by the rule; its keys would live elsewhere."""
    assert number_hash_by_rule(number) == hash(number)


@pytest.mark.parametrize(
    "number", [TINY, -TINY, 3 * TINY, Decimal("1E+5000"), Decimal("-7E-3000"), 2.0**-1074, -1, -1.0, Decimal(-1)]
)
def test_the_numeric_hash_by_rule_at_its_edges(number):
    """Denominators without an inverse, exponents of Decimal that no integer could hold in reasonable time, -1."""
    assert number_hash_by_rule(number) == hash(number)


def test_every_nan_is_one_key():
    """Python hashes each NaN object in a way of its own."""
    found = [float("nan"), float("nan"), Decimal("NaN"), Decimal("sNaN"), numpy.float64("nan"), numpy.float32("nan")]
    assert len({stable_hash(one) for one in found}) == 1


@given(st.text(), st.text())
def test_texts_that_differ_hash_differently(one, other):
    """And a text is no octets: b"a" != "a"."""
    assert (stable_hash(one) == stable_hash(other)) == (one == other)
    octets = one.encode("utf-8", "surrogatepass")
    assert stable_hash(octets) != stable_hash(one)


moments = st.datetimes(timezones=st.one_of(st.none(), st.timezones(), st.just(timezone.utc)))


@given(moments, moments)
def test_times_that_are_equal_hash_equal(one, other):
    """The same instant in two zones is one key; a time without a zone is none of them."""
    assert (stable_hash(one) == stable_hash(other)) or one != other
    if one.utcoffset() is not None and one.replace(fold=1).utcoffset() == one.utcoffset():
        assert stable_hash(one) == stable_hash(one.replace(fold=0))


def test_an_instant_is_one_key_in_every_zone():
    """The executors' zone is not the client's."""
    utc = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
    assert stable_hash(utc.astimezone(timezone(timedelta(hours=5, minutes=30)))) == stable_hash(utc)
    assert stable_hash(utc.replace(tzinfo=None)) != stable_hash(utc)
    assert stable_hash(utc.date()) != stable_hash(datetime(2026, 11, 23))


def test_tuples_nest_and_keep_their_bounds():
    """(("a",), "b") and ("a", ("b",)) are different keys; a named tuple is the tuple it equals."""
    from collections import namedtuple

    keys = [("a", "b"), (("a",), "b"), ("a", ("b",)), (("a", "b"),), ("ab",), ("b", "a"), ()]
    assert len({stable_hash(key) for key in keys}) == len(keys)
    assert stable_hash(namedtuple("Pair", "x y")("a", "b")) == stable_hash(("a", "b"))


def test_subclasses_are_what_they_equal():
    """Enums of texts and numbers, and numpy's texts, arrive at the executors as either."""

    class Colour(str, Enum):
        RED = "red"

    class Level(IntEnum):
        HIGH = 3

    class Odd(int):
        def __hash__(self) -> int:
            return id(self)

    assert stable_hash(Colour.RED) == stable_hash("red") == stable_hash(numpy.str_("red"))
    assert stable_hash(Level.HIGH) == stable_hash(3) == stable_hash(Odd(3))
    assert stable_hash(numpy.bytes_(b"x")) == stable_hash(b"x")
    assert stable_hash(numpy.bool_(True)) == stable_hash(1)
    assert stable_hash(numpy.float32(0.1)) == stable_hash(float(numpy.float32(0.1)))


@pytest.mark.parametrize(
    "key",
    [
        object(),
        [1],
        {"a": 1},
        frozenset("a"),
        bytearray(b"x"),
        1j,
        timedelta(1),
        numpy.datetime64("2026-01-01", "ns"),  # an integer in disguise
        numpy.longdouble(1),
        numpy.array(1),
        ("a", [1]),
    ],
    ids=lambda key: type(key).__name__,
)
def test_what_has_no_stable_hash_is_a_type_error_that_names_it(key):
    """A hash by address, or by a seed, would lose the key without a word."""
    inner = key[1] if isinstance(key, tuple) else key
    with pytest.raises(TypeError, match=rf"{type(inner).__module__}\.{type(inner).__qualname__}.*str\(key\)"):
        stable_hash(key)


def test_keys_spread_over_the_partitions():
    """Even numbers only, over 8 partitions: a hash that is the number itself leaves half of them empty."""
    for drawn in (range(0, 8000, 2), [f"user:{number}" for number in range(4000)], [(n, "x") for n in range(4000)]):
        counts = [0] * 8
        for key in drawn:
            counts[stable_hash(key) % 8] += 1
        assert min(counts) > 400
        assert max(counts) < 600
