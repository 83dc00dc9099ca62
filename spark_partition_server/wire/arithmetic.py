"""Arithmetic on numbers that lie in memory: ``target = source op target``, item by item, in place.

With numpy where numpy is loaded, which is wherever a buffer came from it; without, a plain loop of Python, which costs
about 0.2 us an item and knows every type but complex numbers and long doubles. Both give the same octets: integers wrap
around, floats overflow to infinity, and a NaN wins ``MAX`` and ``MIN`` from either side, so that the order in which
ranks are combined does not show. Nothing here warns or raises for what numbers do.
"""

from __future__ import annotations

import operator
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["BITS", "EXTREMES", "LOCATIONS", "LOGIC", "PAIRS", "SUMS", "apply", "is_defined"]

SUMS: Final = frozenset({"SUM", "PROD"})
EXTREMES: Final = frozenset({"MAX", "MIN"})
LOGIC: Final = frozenset({"LAND", "LOR", "LXOR"})
BITS: Final = frozenset({"BAND", "BOR", "BXOR"})
LOCATIONS: Final = frozenset({"MAXLOC", "MINLOC"})

# The formats of struct and memoryview for each type; those without one need numpy.
_INTEGERS: Final = {
    **{"int8": "b", "int16": "h", "int32": "i", "int64": "q"},
    **{"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"},
}
_FLOATS: Final = {"float32": "f", "float64": "d"}
_NUMPY_FLOATS: Final = ("float16", "longdouble")
_COMPLEX: Final = ("complex64", "complex128", "clongdouble")
# A value and where it was found, as a C compiler lays them out: padded to a multiple of the wider one.
PAIRS: Final = {
    "float32+int32": ("f4", "@fi0f"),
    "float64+int32": ("f8", "@di0d"),
    "int64+int32": ("i8", "@qi0q"),
    "int32+int32": ("i4", "@ii"),
    "int16+int32": ("i2", "@hi0i"),
    "longdouble+int32": ("g", ""),
}

_DEFINED: Final = (
    (SUMS, frozenset({*_INTEGERS, *_FLOATS, *_NUMPY_FLOATS, *_COMPLEX})),
    (EXTREMES, frozenset({*_INTEGERS, *_FLOATS, *_NUMPY_FLOATS})),
    (LOGIC, frozenset({*_INTEGERS, "bool"})),
    (BITS, frozenset(_INTEGERS)),
    (LOCATIONS, frozenset(PAIRS)),
)
_UFUNCS: Final = {
    **{"SUM": "add", "PROD": "multiply", "MAX": "maximum", "MIN": "minimum"},
    **{"LAND": "logical_and", "LOR": "logical_or", "LXOR": "logical_xor"},
    **{"BAND": "bitwise_and", "BOR": "bitwise_or", "BXOR": "bitwise_xor"},
}


def is_defined(op: str, dtype: str) -> bool:
    """Whether an operation can be applied to items of a type: ``("SUM", "float64")`` can, ``("SUM", "bool")`` not."""
    return any(op in ops and dtype in dtypes for ops, dtypes in _DEFINED)


def apply(op: str, source: memoryview, target: memoryview, dtype: str) -> None:
    """``target = source op target`` for every item. ``is_defined(op, dtype)`` holds.

    Args:
        source: octets; as many as those of ``target``, and whole items.
        target: octets that can be written.

    Raises:
        TypeError: the items are complex numbers or long doubles, and numpy is not loaded here.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        _loop(op, source, target, dtype)
    elif op in LOCATIONS:
        _locate(numpy, op, source, target, dtype)
    else:
        left, right = numpy.frombuffer(source, dtype), numpy.frombuffer(target, dtype)
        with numpy.errstate(all="ignore"):
            getattr(numpy, _UFUNCS[op])(left, right, out=right, casting="unsafe")  # "unsafe": logic gives booleans


def _locate(numpy: Any, op: str, source: memoryview, target: memoryview, dtype: str) -> None:
    pair = numpy.dtype([("value", PAIRS[dtype][0]), ("index", "i4")], align=True)
    left, right = numpy.frombuffer(source, pair), numpy.frombuffer(target, pair)
    better = numpy.greater if op == "MAXLOC" else numpy.less
    wins = better(left["value"], right["value"])
    wins |= (left["value"] == right["value"]) & (left["index"] < right["index"])
    for field in ("value", "index"):  # not whole items: their padding may hold anything
        numpy.copyto(right[field], left[field], where=wins)


# ----------------------------------------------------------------------------------------- without numpy


def _loop(op: str, source: memoryview, target: memoryview, dtype: str) -> None:
    if dtype in PAIRS and PAIRS[dtype][1]:
        _loop_pairs(op, source, target, struct.Struct(PAIRS[dtype][1]))
        return
    form: Any = _INTEGERS.get(dtype) or _FLOATS.get(dtype) or ("?" if dtype == "bool" else None)
    if form is None:
        raise TypeError(f"to combine items of type {dtype} numpy must be loaded: import numpy")
    combine = _COMBINE[op]
    if dtype in _INTEGERS and op in SUMS:
        combine = _wrapping(combine, 8 * struct.calcsize(form), signed=form.islower())
    left, right = source.cast("B").cast(form), target.cast("B").cast(form)
    for index, (one, other) in enumerate(zip(left, right, strict=True)):
        right[index] = combine(one, other)


def _loop_pairs(op: str, source: memoryview, target: memoryview, pair: struct.Struct) -> None:
    better = operator.gt if op == "MAXLOC" else operator.lt
    rights = list(pair.iter_unpack(target))
    for number, (left, right) in enumerate(zip(pair.iter_unpack(source), rights, strict=True)):
        if better(left[0], right[0]) or (left[0] == right[0] and left[1] < right[1]):
            pair.pack_into(target, number * pair.size, *left)


def _wrapping(combine: Callable[[Any, Any], Any], bits: int, signed: bool) -> Callable[[Any, Any], Any]:
    """Integers of C, which wrap around."""
    half, mask = (1 << (bits - 1) if signed else 0), (1 << bits) - 1
    return lambda one, other: ((combine(one, other) + half) & mask) - half


def _product(one: Any, other: Any) -> Any:
    return one * other


def _greater(one: Any, other: Any) -> Any:
    return one if one > other or one != one else other  # noqa: PLR0124 - only NaN differs from itself


def _lesser(one: Any, other: Any) -> Any:
    return one if one < other or one != one else other  # noqa: PLR0124


_COMBINE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    **{"SUM": operator.add, "PROD": _product, "MAX": _greater, "MIN": _lesser},
    "LAND": lambda one, other: bool(one) & bool(other),
    "LOR": lambda one, other: bool(one) | bool(other),
    "LXOR": lambda one, other: bool(one) ^ bool(other),
    **{"BAND": operator.and_, "BOR": operator.or_, "BXOR": operator.xor},
}
