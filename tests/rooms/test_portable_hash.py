"""pyspark's ``portable_hash`` of the executors, computed by a client that has another seed."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections import namedtuple
from datetime import date, datetime, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pythons import pythons

from spark_partition_server import NoPartitioner, UnroutableKey
from spark_partition_server.keys import PortableHash, describe

ROOT = Path(__file__).parents[2]
Pair = namedtuple("Pair", "name number")  # a tuple with names, as Spark's Row is

# every type of key that has one, as Python's source, because it goes to a process with another seed
KEYS = [
    "None", "True", "0", "-1", "-2", "2**61 - 1", "-2**70", "1.0", "-1.0", "0.1", "1e300", "float('-inf')",
    "Decimal('1.50')", "Decimal('1E+5000')", "Fraction(1, 3)",
    "''", "'a'", "'alice'", "'Zürich'", "'π'", "'😀x'", "'\\ud800'", "'x' * 1000",
    "b''", "b'alice'", "bytes(range(256))",
    "()", "('a',)", "('a', 1)", "(None, ('π', b'x', -1.5), ())", "Pair('a', 1)", "(-1,)",
    "date(2026, 11, 23)", "datetime(2026, 11, 23, 12, 34, 56, 789012)", "datetime(2026, 11, 1, 2, fold=1)",
    "datetime(2026, 11, 23, tzinfo=timezone.utc)", "UUID(int=2**100 + 5)",
]  # fmt: skip
REFUSED = ["frozenset('a')", "object()", "float('nan')", "Decimal('NaN')", "[1]", "('a', frozenset())", "1j", "Odd(1)"]


class Odd(int):
    def __hash__(self) -> int:
        return id(self)


def key_of(source: str) -> Any:
    names = (Decimal, Fraction, Odd, Pair, UUID, date, datetime, timezone)
    return eval(source, {kind.__name__: kind for kind in names})


# What a Python that has nothing but itself tells of itself, and what pyspark's own function returns there.
ASK = """
import json, os, sys
from collections import namedtuple
from collections.abc import Hashable
from datetime import date, datetime, timezone
from decimal import Decimal
from fractions import Fraction
from uuid import UUID
Pair = namedtuple("Pair", "name number")
{source}
python = sys.hash_info
told = dict(name="portable_hash", seed=int(os.environ["PYTHONHASHSEED"]), algorithm=python.algorithm)
told.update(width=python.width, modulus=python.modulus, cutoff=python.cutoff, byteorder=sys.byteorder)
told.update(implementation=sys.implementation.name)
print(json.dumps([told, [portable_hash(eval(one)) for one in json.loads(sys.argv[1])]]))
"""


@cache
def asked_of(python: str, seed: str) -> tuple[dict[str, Any], list[int]]:
    """The map of an executors' Python with this seed, and its hashes of the keys."""
    portable_hash = pytest.importorskip("pyspark.rdd").portable_hash
    script = ASK.format(source=inspect.getsource(portable_hash))
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    arguments = [python, "-c", script, json.dumps(KEYS)]
    done = subprocess.run(arguments, env=environment, capture_output=True, timeout=60, check=True)
    told, hashes = json.loads(done.stdout)
    assert set(told) == set(describe(portable_hash, seed) or ())
    return told, hashes


@pytest.mark.parametrize("seed", ["0", "1", "42"])
@pytest.mark.parametrize("version", pythons())
def test_it_is_pysparks_own_in_the_executors_python(version, seed):
    """[7.4.4]: in every version that is on this machine; 3.11 changed the algorithm."""
    told, hashes = asked_of(pythons()[version], seed)
    for by_rule in (False, True):
        portable = PortableHash(told, by_rule)
        assert {one: portable(key_of(one)) for one in KEYS} == dict(zip(KEYS, hashes, strict=True))


CLIENT = """
import json, sys; sys.path[:0] = sys.argv[1:3]
from rooms.test_portable_hash import *
for portable in map(PortableHash, json.loads(sys.argv[3])):
    print(json.dumps([portable._native, [portable(key_of(one)) for one in KEYS]]))
"""


@pytest.mark.parametrize("seed", ["0", "42", "random"])
def test_the_clients_own_seed_changes_nothing(seed):
    """[7.4.4]: a service that was started without PYTHONHASHSEED would look in the wrong partitions, without a word."""
    executors = {own: asked_of(sys.executable, own) for own in ("0", "42")}
    maps = json.dumps([told for told, _ in executors.values()])
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    arguments = [sys.executable, "-c", CLIENT, ROOT, ROOT / "tests", maps]
    done = subprocess.run(arguments, env=environment, capture_output=True, timeout=60, check=True)
    answers = map(json.loads, done.stdout.splitlines())
    for (executors_seed, (_, hashes)), (native, found) in zip(executors.items(), answers, strict=True):
        assert found == hashes
        assert native == (executors_seed == seed)  # where it is the same, hash() itself is used, which is far faster


def told_of(**changes: Any) -> dict[str, Any]:
    told = {"name": "portable_hash", "seed": 42, "algorithm": "siphash13", "width": 64, "modulus": 2**61 - 1}
    return {**told, "cutoff": 0, "byteorder": "little", "implementation": "cpython", **changes}


@given(st.text(), st.binary())
def test_both_ways_to_hash_agree(text, octets):
    """This process's own hash() against the rule, for its own seed where that is known."""
    own = os.environ.get("PYTHONHASHSEED", "random")
    told = told_of(seed=int(own) if own.isdecimal() else 0, algorithm=sys.hash_info.algorithm)
    fast, slow = PortableHash(told), PortableHash(told, by_rule=True)
    for key in (text, octets, (text, octets)):
        assert fast(key) == slow(key)


def test_texts_that_are_asked_for_again_are_remembered_within_bounds():
    """Memory that grows with the keys, or with their size, is a service that dies at night."""
    portable = PortableHash(told_of(), by_rule=True)
    fresh = [PortableHash(told_of(), by_rule=True)(f"key{number}") for number in range(20)]
    for _ in range(3):
        assert [portable(f"key{number}") for number in range(20)] == fresh
        assert portable("x" * 129) == PortableHash(told_of(), by_rule=True)("x" * 129)
    found = portable._cached.cache_info()
    assert (found.hits, found.currsize) == (40, 20)
    assert found.maxsize == 1 << 14


def test_numpy_scalars_are_the_numbers_and_texts_they_equal():
    """A key out of an array is looked for where the plain one was put."""
    portable = PortableHash(told_of())
    assert portable(numpy.int64(-5)) == portable(numpy.float32(-5)) == portable(-5)
    assert portable(numpy.str_("alice")) == portable("alice")
    assert portable(numpy.bool_(True)) == portable(1)
    assert portable(numpy.float64(0.1)) == portable(0.1)


@pytest.mark.parametrize("source", REFUSED)
def test_a_key_whose_hash_cannot_be_known_is_refused(source):
    """[7.4.2]: a guess would be an answer from the wrong partition: None, where there is a value."""
    with pytest.raises(UnroutableKey) as caught:
        PortableHash(told_of())(key_of(source))
    assert isinstance(caught.value, TypeError)


def test_the_refusal_names_the_key_and_the_way_out():
    """Whoever reads it has not written the cluster."""
    with pytest.raises(UnroutableKey, match=r"key frozenset.*builtins\.frozenset.*Use texts, numbers or tuples"):
        PortableHash(told_of())(frozenset("a"))
    with pytest.raises(UnroutableKey, match="NaN"):
        PortableHash(told_of())(numpy.float64("nan"))
    with pytest.raises(UnroutableKey, match="cannot be hashed"):
        PortableHash(told_of())({"a": 1})


@pytest.mark.parametrize(
    "changes",
    [{"seed": None}, {"seed": -1}, {"seed": 2**32}, {"seed": "0"}, {"seed": True}, {"algorithm": "fnv"}, {"cutoff": 7}],
    ids=str,
)
def test_texts_need_a_seed_and_an_algorithm_that_are_known(changes):
    """[7.4.4]: PYTHONHASHSEED=random in the driver's environment; numbers are hashed without one."""
    portable = PortableHash(told_of(**changes))
    assert portable(7) == 7
    assert portable((None, 1)) == PortableHash(told_of())((None, 1))
    for key in ("a", b"a", ("a",), date(2026, 1, 1)):
        with pytest.raises(UnroutableKey, match=r"Set PYTHONHASHSEED.*partitionBy\(n, stable_hash\)"):
            portable(key)


@pytest.mark.parametrize("changes", [{"width": 32}, {"modulus": 2**31 - 1}, {"implementation": "pypy"}], ids=str)
def test_a_python_that_is_not_known_is_refused_whole(changes):
    """[7.4.4]: not even its numbers are hashed as here."""
    with pytest.raises(NoPartitioner, match=r"not known here.*partitionBy\(n, stable_hash\)"):
        PortableHash(told_of(**changes))


@pytest.mark.parametrize(("seed", "expected"), [("0", 0), ("42", 42), ("4294967295", 2**32 - 1), ("4294967296", None),
                                                ("random", None), ("", None), (None, None), ("-1", None)])  # fmt: skip
def test_what_the_cluster_tells_of_its_seed(seed, expected):
    """Spark hands PYTHONHASHSEED of the driver's environment on, whatever it is."""
    rdd = pytest.importorskip("pyspark.rdd")
    told = describe(rdd.portable_hash, seed)
    assert told is not None
    assert told["seed"] == expected
    assert told["algorithm"] == sys.hash_info.algorithm
