"""Where a key lives: the partitioners of an RDD, as a client in any process can compute them (docs/keys.md).

``stable_hash`` is ours: the same number on every machine. ``portable_hash`` is pyspark's, and follows the ``hash()`` of
the executors' Python; it is computed here from what the cluster tells of that Python.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, reduce
from hashlib import sha256
from math import isnan
from operator import index
from typing import Any
from uuid import UUID

from .core.siphash import ROUNDS, SEED_MAX, memory_of, secret, text_hash
from .errors import NoPartitioner, UnroutableKey
from .frame_keys import SparkHash

__all__ = ["CUSTOM", "PORTABLE", "SPARK", "STABLE", "Function", "Keys", "describe", "stable_hash"]

Function = Callable[[Any], int]

PORTABLE, STABLE, SPARK, CUSTOM = "portable_hash", "stable_hash", "spark_hash", "custom"
MODULUS = (1 << 61) - 1  # of the hashes of numbers in a Python of 64 bits
INFINITE = 314159
MAXSIZE = (1 << 63) - 1
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
PROBES = ("a", "π", "\U00010000x", "probe")  # texts of every width
NAME_CHARS_MAX = 200
CACHED_TEXTS = 1 << 14
CACHED_CHARS = 128
NUMBERS: tuple[Any, ...] = (int, float, Decimal, Fraction)
NUMBER_HASHES = frozenset({int.__hash__, float.__hash__, Decimal.__hash__, Fraction.__hash__})
FIX = "Place the keys with rdd.partitionBy(n, stable_hash), which needs to know nothing of the executors"


# ------------------------------------------------------------------------------------------------ stable_hash


def stable_hash(key: Hashable) -> int:
    """A hash of a key that needs no seed: the same in every Python, on every machine, in every release of this library.

    For ``rdd.partitionBy(8, stable_hash)``. Keys that compare equal have equal hashes: 1, 1.0, True and Decimal(1) do.

    Args:
        key: None, a bool, an int, float, Decimal or Fraction, a numpy number, a str, bytes, a date, a datetime, a UUID,
            or a tuple of such.

    Returns:
        0..2^63-1.

    Raises:
        TypeError: a key of another type.
    """
    return int.from_bytes(sha256(_octets(key)).digest()[:8], "big") >> 1


def _octets(key: Any) -> bytes:
    """What is hashed: a letter for the type, and the value. Equal keys give equal octets, others different ones."""
    if isinstance(key, str):
        return b"s" + key.encode("utf-8", "surrogatepass")
    if isinstance(key, NUMBERS):
        return b"n" + number_hash(key).to_bytes(8, "big", signed=True) if _is_number(key) else b"q"
    if isinstance(key, bytes):
        return b"b" + key
    if isinstance(key, tuple):
        return b"(" + b"".join(stable_hash(part).to_bytes(8, "big") for part in key)
    if key is None:
        return b"-"
    if isinstance(key, datetime):
        return _moment(key)
    if isinstance(key, date):
        return b"d" + key.toordinal().to_bytes(8, "big")
    if isinstance(key, UUID):
        return b"u" + key.bytes
    number = _of_numpy(key)
    if number is None:
        kind = f"{type(key).__module__}.{type(key).__qualname__}"
        raise TypeError(f"stable_hash takes no {kind}: use a text, a number or a tuple of such, for instance str(key)")
    return _octets(number)


def _moment(key: datetime) -> bytes:
    """Microseconds since 0001-01-01 of a naive time; of an aware one, in UTC, whatever its zone."""
    plain = key.replace(tzinfo=None, fold=0)
    since = (plain - datetime.min) // MICROSECOND
    offset = key.replace(fold=0).utcoffset()
    if offset is None:
        return b"t" + since.to_bytes(8, "big", signed=True)
    return b"z" + (since - offset // MICROSECOND).to_bytes(8, "big", signed=True)


def _of_numpy(key: Any) -> Any:
    """A numpy number as Python's, None for anything else. numpy need not be there."""
    kind: Any = type(key)
    if kind.__module__ != "numpy" or kind.__hash__ is None:  # an array cannot be hashed, so it is no key
        return None
    if getattr(getattr(key, "dtype", None), "kind", "none") not in "biuf":
        return None
    number = key.item()
    return number if type(number) in (bool, int, float) else None  # a long double stays numpy's


def _is_number(key: Any) -> bool:
    return not (key.is_nan() if isinstance(key, Decimal) else isinstance(key, float) and isnan(key))


def number_hash(number: Any) -> int:
    """``hash()`` of a number as every Python of 64 bits computes it: modulo 2^61-1, and -2 for -1."""
    if sys.hash_info.modulus == MODULUS:
        if type(number) is int or type(number) is float:
            return hash(number)
        for kind in NUMBERS:
            if isinstance(number, kind):
                found: int = kind.__hash__(number)  # a subclass may hash in a way of its own
                return found
    return number_hash_by_rule(number)  # pragma: no cover - this Python has 32 bits


def number_hash_by_rule(number: Any) -> int:
    """The same, by the rule in Python's documentation, for a Python of other bits."""
    found: int
    if isinstance(number, (float, Decimal)) and number in (float("inf"), float("-inf")):
        return INFINITE if number > 0 else -INFINITE
    if isinstance(number, Decimal):
        sign, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int)
        found = reduce(lambda whole, digit: (whole * 10 + digit) % MODULUS, digits, 0)
        found = found * pow(10, exponent, MODULUS) % MODULUS
        negative = bool(sign)
    else:
        numerator, denominator = number.as_integer_ratio()
        negative = numerator < 0
        divisible = denominator % MODULUS == 0
        found = INFINITE if divisible else abs(numerator) * pow(denominator, -1, MODULUS) % MODULUS
    found = -found if negative else found
    return -2 if found == -1 else found


# ---------------------------------------------------------------------------------------------- portable_hash


class PortableHash:
    """pyspark's ``portable_hash``, as the Python of the executors computes it.

    Args:
        facts: of that Python, from ``describe``.
        by_rule: compute every text by rule, even where this process's own ``hash()`` is known to be the same.

    Raises:
        NoPartitioner: a Python that is not known here, so its hashes are not either.
    """

    def __init__(self, facts: dict[str, Any], by_rule: bool = False) -> None:
        if facts.get("width") != 64 or facts.get("modulus") != MODULUS or facts.get("implementation") != "cpython":
            python = f"{facts.get('implementation')} of {facts.get('width')} bits"
            raise NoPartitioner(f"the executors' Python ({python}) hashes in a way that is not known here. {FIX}")
        self._algorithm = str(facts.get("algorithm"))
        self._byteorder = str(facts.get("byteorder"))
        seed = facts.get("seed")
        known = type(seed) is int and 0 <= seed <= SEED_MAX and self._algorithm in ROUNDS and not facts.get("cutoff")
        self._key = secret(seed) if known and type(seed) is int else None
        self._native = not by_rule and all(hash(probe) == self._text(probe) for probe in PROBES) if known else False
        self._cached = lru_cache(CACHED_TEXTS)(self._text)  # the rule takes 6 us; services ask for the same keys again

    def __call__(self, key: Any) -> int:
        """Raises ``UnroutableKey`` for a key whose hash cannot be known outside of the executors."""
        if key is None:
            return 0
        if isinstance(key, tuple):
            found = 0x345678
            for part in key:
                found = (found ^ self(part)) * 1000003 & MAXSIZE
            return found ^ len(key)
        return self._plain(key)

    def _plain(self, key: Any) -> int:
        kind = type(key)
        if kind is str and not self._native and len(key) <= CACHED_CHARS:
            return self._cached(key)
        hashed: Any = kind.__hash__
        if hashed is str.__hash__ or (kind.__module__ == "numpy" and isinstance(key, str)):
            return hash(key) if self._native else self._text(key)
        if hashed in NUMBER_HASHES:
            if _is_number(key):
                return number_hash(key)
            raise UnroutableKey("each NaN has a hash of its own, so no partition can be told", key)
        if hashed is bytes.__hash__:
            return hash(key) if self._native else self._memory(key, key)
        if hashed is UUID.__hash__:
            return number_hash(key.int)
        if hashed is date.__hash__:
            return self._memory(_packed(date, key), key)
        if hashed is datetime.__hash__ and sys.hash_info.modulus == MODULUS:
            return hash(key) if key.utcoffset() is not None else self._memory(_packed(datetime, key), key)
        number = _of_numpy(key)
        if number is not None:
            return self._plain(number)
        if hashed is None:
            raise UnroutableKey(f"a {kind.__qualname__} cannot be hashed, so it is no key", key)
        name = f"{kind.__module__}.{kind.__qualname__}"
        text = f"what hash() of a {name} is on the executors cannot be told here. Use texts, numbers or tuples as keys"
        raise UnroutableKey(text, key)

    def _text(self, text: str) -> int:
        return self._memory(memory_of(text, self._byteorder), text)

    def _memory(self, octets: bytes, key: Any) -> int:
        if self._key is None:
            text = "the executors hash texts with a seed that is random or not known. Set PYTHONHASHSEED to a number "
            raise UnroutableKey(f"{text}before the driver starts. Or: {FIX[0].lower()}{FIX[1:]}", key)
        return text_hash(octets, self._key, self._algorithm)




def _packed(kind: Any, key: Any) -> bytes:
    """The octets that CPython packs a date or a naive time into, and hashes."""
    packed: bytes = kind.__reduce__(key)[1][0]
    return packed


# --------------------------------------------------------------------------------------------- of one cluster


def describe(function: Function | None, seed: str | None) -> dict[str, Any] | None:
    """What clients are told of a partitioner, in the meta of the view; None: there is none.

    Args:
        function: key -> int.
        seed: PYTHONHASHSEED of the executors; their Python is taken to be this process's, which Spark checks.
    """
    if function is None:
        return None
    if function is stable_hash:
        return {"name": STABLE}
    if isinstance(function, SparkHash):
        return {"name": SPARK, "columns": list(function.columns), "types": list(function.types)}
    module, name = str(getattr(function, "__module__", "")), getattr(function, "__qualname__", type(function).__name__)
    if name != PORTABLE or module not in ("pyspark.rdd", "pyspark.core.rdd"):
        return {"name": CUSTOM, "function": f"{module}.{name}"[:NAME_CHARS_MAX]}
    python = sys.hash_info
    return {
        "name": PORTABLE,
        "seed": int(seed) if seed is not None and seed.isdecimal() and int(seed) <= SEED_MAX else None,
        "algorithm": python.algorithm,
        "width": python.width,
        "modulus": python.modulus,
        "cutoff": python.cutoff,
        "byteorder": sys.byteorder,
        "implementation": sys.implementation.name,
    }


class Keys:
    """The partitions of keys, for one client. May be shared between threads.

    Args:
        function: the partitioner, key -> int, where the caller knows it; it goes before what the cluster tells.
        by_rule: as ``PortableHash`` has it.

    Raises:
        TypeError: the function cannot be called.
    """

    def __init__(self, function: Function | None = None, by_rule: bool = False) -> None:
        if function is not None and not callable(function):
            raise TypeError(f"a partitioner is a function from a key to an int, not a {type(function).__qualname__}")
        self._given = function
        self._by_rule = by_rule
        self._found: tuple[Any, Function] | None = None if function is None else (None, function)

    def partition_of(self, key: Any, told: Any, size: int) -> int:
        """The partition that a key lives in.

        Args:
            told: of the partitioner, by the view's meta; None: nothing.
            size: partitions of the cluster.

        Raises:
            NoPartitioner: there is none, or only a function that this client was not given.
            UnroutableKey: the partitioner cannot place this key, or not outside of the executors.
        """
        found = self._found
        if found is None or (found[0] is not told and self._given is None):
            found = self._found = (told, self._function(told))
        function = found[1]
        try:
            return index(function(key)) % size
        except TypeError as error:
            if isinstance(error, UnroutableKey):
                raise
            raise UnroutableKey(f"the partitioner cannot place it: {error}", key) from error

    def _function(self, told: Any) -> Function:
        name = told.get("name") if isinstance(told, dict) else None
        if name == PORTABLE:
            return PortableHash(told, self._by_rule)
        if name == STABLE:
            return stable_hash
        if name == SPARK:
            return _spark_hash(told)
        if name == CUSTOM:
            raise NoPartitioner(
                f"the cluster's keys were placed by a function of its own ({told.get('function')}): give it to the "
                "client, connect(path, partitioner=function)"
            )
        if name is not None:
            raise NoPartitioner(f"the cluster's partitioner {name!r} is not known here: install the cluster's release")
        raise NoPartitioner(
            f"the cluster was made from data without a partitioner, so nobody knows where a key lives. {FIX}; "
            "of a DataFrame, df.rdd.map(lambda row: (row.key, row)).partitionBy(n, stable_hash). Where the data does "
            "follow a function, name it: Cluster(..., partitioner=function), for instance spark_hash(name=\"string\") "
            "after df.repartition(n, \"name\")"
        )


def _spark_hash(told: dict[str, Any]) -> SparkHash:
    try:
        return SparkHash(tuple(told["columns"]), tuple(told["types"]))
    except (KeyError, TypeError, ValueError) as error:
        raise NoPartitioner(f"the cluster's partitioner is not known here: {error}") from error
