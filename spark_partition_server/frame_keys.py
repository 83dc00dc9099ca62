"""``spark_hash``: the partitioner of a DataFrame that ``repartition(n, column)`` has placed, computed without a JVM."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from operator import index
from typing import Any

from .core.murmur import SEED, murmur_int, murmur_long, murmur_octets

__all__ = ["SparkHash", "spark_hash"]

EPOCH_DAY = date(1970, 1, 1).toordinal()
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)


def spark_hash(**columns: str) -> SparkHash:
    """The partitioner of ``df.repartition(n, "name")``: ``Cluster(..., partitioner=spark_hash(name="string"))``.

    Args:
        columns: the columns of ``repartition``, in its order, each with its type as ``df.dtypes`` names it: boolean,
            tinyint, smallint, int, bigint, float, double, string, binary, date or timestamp.

    Returns:
        key -> int; the key is the column's value, of several columns the tuple of their values.

    Raises:
        ValueError: no column, or a type that is not among these.
    """
    return SparkHash(tuple(columns), tuple(columns.values()))


@dataclass(frozen=True)
class SparkHash:
    """See ``spark_hash``.

    Attributes:
        columns: their names.
        types: their types, as many.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.types if kind not in HASHES]
        if unknown or not self.types or len(self.columns) != len(self.types):
            found = f"not {unknown[0]!r}" if unknown else "and at least one column"
            raise ValueError(f"spark_hash takes columns of the types {', '.join(HASHES)}, {found}")

    def __call__(self, key: Any) -> int:
        """The hash, -2^31..2^31-1. Raises ``TypeError`` for a key that no row of these types can have."""
        values = (key,) if len(self.types) == 1 else key
        if not isinstance(values, tuple) or len(values) != len(self.types):
            raise TypeError(f"a tuple of {', '.join(self.columns)} is wanted")
        found = SEED
        for kind, value in zip(self.types, values, strict=True):
            if value is None:
                continue
            try:
                found = HASHES[kind](value, found)
            except (TypeError, ValueError, OverflowError, AttributeError) as error:
                raise TypeError(f"{type(value).__qualname__} is no {kind} of Spark's: {error}") from error
        return found - (1 << 32) if found >> 31 else found  # an int of the JVM: the sign changes its remainder


def _integer(bits: int, hashed: Callable[[int, int], int]) -> Callable[[Any, int], int]:
    def integer(value: Any, seed: int) -> int:
        number = index(value)
        if not -(1 << bits - 1) <= number < 1 << bits - 1:
            raise ValueError(f"{number} has more than {bits} bits")
        return hashed(number, seed)

    return integer


def _float(value: Any, seed: int) -> int:
    return murmur_int(int.from_bytes(struct.pack("<f", _number(value)), "little"), seed)


def _double(value: Any, seed: int) -> int:
    return murmur_long(int.from_bytes(struct.pack("<d", _number(value)), "little"), seed)


def _number(value: Any) -> float:
    if isinstance(value, str):  # which float() would read
        raise TypeError("a number is wanted")
    number = float(value)
    return float("nan") if number != number else number + 0.0  # noqa: PLR0124 - one NaN, and one zero: no -0.0


def _boolean(value: Any, seed: int) -> int:
    if value not in (False, True):
        raise ValueError("True or False is wanted")
    return murmur_int(int(value), seed)


def _date(value: Any, seed: int) -> int:
    if isinstance(value, datetime):
        raise TypeError("a date without a time is wanted")
    return murmur_int(value.toordinal() - EPOCH_DAY, seed)


def _timestamp(value: Any, seed: int) -> int:
    if value.tzinfo is None:
        raise TypeError("its zone is not known")
    return murmur_long((value - EPOCH) // MICROSECOND, seed)


def _string(value: Any, seed: int) -> int:
    if not isinstance(value, str):
        raise TypeError("a str is wanted")
    return murmur_octets(value.encode(), seed)


def _binary(value: Any, seed: int) -> int:
    return murmur_octets(bytes(memoryview(value)), seed)


HASHES: dict[str, Callable[[Any, int], int]] = {
    "boolean": _boolean,
    "tinyint": _integer(8, murmur_int),
    "smallint": _integer(16, murmur_int),
    "int": _integer(32, murmur_int),
    "bigint": _integer(64, murmur_long),
    "float": _float,
    "double": _double,
    "string": _string,
    "binary": _binary,
    "date": _date,
    "timestamp": _timestamp,
}
