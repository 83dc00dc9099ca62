"""Whether two values are the same to the last bit: types, order of keys, dtypes, signs of zeros, NaN."""

from __future__ import annotations

import struct
from datetime import date, time, timezone
from typing import Any

import numpy

__all__ = ["same"]


def same(one: Any, other: Any) -> bool:
    """True when a value arrived exactly as it left."""
    if type(one) is not type(other):
        return False
    match one:
        case numpy.ndarray():
            contiguous = one.flags.c_contiguous == other.flags.c_contiguous
            alike = one.dtype == other.dtype and one.shape == other.shape and contiguous
            return bool(alike and one.tobytes() == other.tobytes())
        case float():
            return struct.pack("d", one) == struct.pack("d", other)
        case complex():
            return same(one.real, other.real) and same(one.imag, other.imag)
        case numpy.generic():
            return bool(one.dtype == other.dtype and one.tobytes() == other.tobytes())
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))
        case dict():
            return (
                len(one) == len(other) and all(map(same, one, other)) and all(map(same, one.values(), other.values()))
            )
        case set() | frozenset():  # of things that may not equal themselves
            return len(one) == len(other) and all(any(same(item, found) for found in other) for item in one)
        case date() | time() | timezone():  # equal ones may be in other zones, or on the other side of a fold
            return repr(one) == repr(other)
    return bool(one == other)
