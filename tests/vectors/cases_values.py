"""The vectors of values: what payload frames hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy
from msgpack import ExtType, packb

from .cases_messages import Case, case
from .notation import EPOCH, value_to

__all__ = ["groups"]


def groups() -> Iterator[dict[str, Any]]:
    """Every group of this file."""
    plain = [*_plain(), *_wide(), *_broken()]
    yield {"kind": "value", "cases": plain}
    yield {"kind": "value with arrays", "cases": [*_arrays(), *_unusual_arrays(), *_broken_arrays()]}


def valid(name: str, value: Any, frames: list[bytes], comment: str = "") -> Case:
    """``value`` becomes these frames, and they become it."""
    return case(f"value.{name}", comment or name, "valid", frames, value=value_to(value))


def acceptable(name: str, value: Any, frames: list[bytes], comment: str) -> Case:
    """The frames become ``value``, which becomes others."""
    return case(f"value.{name}", comment, "acceptable", frames, value=value_to(value))


def invalid(name: str, frames: list[bytes], comment: str = "") -> Case:
    """The frames are MALFORMED."""
    return case(f"value.{name}", comment or name, "invalid", frames, error="MALFORMED")


# ----------------------------------------------------------------------------------------------- plain

INTEGERS = (0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53, 2**63, 2**64 - 1)
NEGATIVE = (-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.5, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"))


def _plain() -> Iterator[Case]:
    for value, octets in ((None, b"\xc0"), (False, b"\xc2"), (True, b"\xc3")):
        yield valid(str(value).lower(), value, [octets])
    for number in (*INTEGERS, *NEGATIVE):
        yield valid(f"integer.{number}", number, [packb(number)])
    for number in FLOATS:
        yield valid(f"float.{number}", number, [packb(number)])
    for size in (0, 1, 31, 32, 255, 256, 65536):
        yield valid(f"text.{size}", "t" * size, [packb("t" * size)])
        yield valid(f"octets.{size}", b"\xff" * size, [packb(b"\xff" * size)])
    yield valid("text.unicode", "Zürich, \U0001f600, \0", [packb("Zürich, \U0001f600, \0")])
    for size in (0, 1, 15, 16, 40):
        yield valid(f"list.{size}", [0] * size, [packb([0] * size)])
        yield valid(f"map.{size}", {f"{key}": 0 for key in range(size)}, [packb({f"{key}": 0 for key in range(size)})])
    nested = {"a": [1, {"b": [[], {}, None]}], "c": {"d": {"e": b"f"}}}
    yield valid("nested", nested, [packb(nested)])
    yield valid("call", [["alice", 3], {"limit": 10}], [b"\x92\x92\xa5alice\x03\x81\xa5limit\x0a"], "args and kwargs")
    keys = {None: 1, True: 2, -5: 3, 1.5: 4, "text": 5, b"octets": 6, (1, ("two", b"3")): 7}
    yield valid("map.keys", keys, [packb(keys)], "a key may be of any type that can be one; an array becomes a tuple")
    for name, instant, octets in (
        ("epoch", EPOCH, b"\xd6\xff" + bytes(4)),
        ("seconds", EPOCH + timedelta(seconds=2**32 - 1), b"\xd6\xff" + b"\xff" * 4),
        ("microseconds", EPOCH + timedelta(microseconds=1), b"\xd7\xff" + (1000 << 34).to_bytes(8, "big")),
        ("before", EPOCH - timedelta(seconds=1), b"\xc7\x0c\xff" + bytes(4) + b"\xff" * 8),
        ("year-9999", datetime(9999, 12, 31, tzinfo=timezone.utc), None),
        ("year-1", datetime(1, 1, 1, tzinfo=timezone.utc), None),
    ):
        yield valid(f"time.{name}", instant, [octets or packb(instant, datetime=True)])


def _wide() -> Iterator[Case]:
    for name, value, octets in (
        ("integer", 5, b"\xcf" + bytes(7) + b"\x05"),
        ("negative", -1, b"\xd3" + b"\xff" * 8),
        ("float32", 1.5, b"\xca\x3f\xc0\x00\x00"),
        ("text", "a", b"\xdb\x00\x00\x00\x01a"),
        ("octets", b"a", b"\xc6\x00\x00\x00\x01a"),
        ("list", [5], b"\xdd\x00\x00\x00\x01\x05"),
        ("map", {"a": 5}, b"\xdf\x00\x00\x00\x01\xa1a\x05"),
        ("time", EPOCH, b"\xd7\xff" + bytes(8)),
    ):
        yield acceptable(f"wide.{name}", value, [octets], "not the shortest form")
    yield acceptable("unused-frames", [1], [b"\x91\x01", b"x", b""], "frames that no array names")
    yield acceptable("repeated-key", {"a": 2}, [b"\x82\xa1a\x01\xa1a\x02"], "the later one counts")
    yield acceptable("nanoseconds", EPOCH, [b"\xd7\xff" + (999 << 34).to_bytes(8, "big")], "cut to microseconds")


def _broken() -> Iterator[Case]:
    yield invalid("no-frames", [], "no frames")
    yield invalid("empty", [b""])
    yield invalid("reserved-octet", [b"\xc1"])
    yield invalid("trailing", [b"\x05\x05"])
    yield invalid("deep", [b"\x91" * 2000 + b"\xc0"], "nested deeper than any value we send")
    yield invalid("not-utf-8", [b"\xa2\xc3\x28"])
    yield invalid("surrogate", [b"\xa3\xed\xa0\x80"])
    yield invalid("huge-list", [b"\xdd\xff\xff\xff\xff\x01"])
    yield invalid("huge-map", [b"\xdf\xff\xff\xff\xff\x01"])
    yield invalid("huge-text", [b"\xdb\xff\xff\xff\xff\x01"])
    yield invalid("huge-ext", [b"\xc9\xff\xff\xff\xff\x01"])
    yield invalid("key-map", [b"\x81\x80\x01"], "a map cannot be a key")
    yield invalid("key-list-of-map", [b"\x81\x91\x80\x01"])
    yield invalid("time-size", [b"\xc7\x05\xff" + bytes(5)])
    yield invalid("time-too-late", [b"\xc7\x0c\xff" + bytes(4) + b"\x7f" + bytes(7)])
    for code in (0, 3, 42, 127, -2, -128):
        yield invalid(f"ext.{code}", [b"\xd5" + code.to_bytes(1, "big", signed=True) + b"ab"])
    whole = packb({"a": [1, 1.5, "text", b"octets", None], "b": 2**40})
    for cut in range(1, len(whole)):
        yield invalid(f"cut-{cut}", [whole[:cut]], f"the value ends after {cut} octets")


# ---------------------------------------------------------------------------------------------- arrays


def array_frames(array: Any, *, wrap: Any = lambda ext: ext) -> list[bytes]:
    """The frames of a value that holds one array; ``wrap`` puts it somewhere."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    fields = [1, array.dtype.str, list(array.shape), order]
    return [packb(wrap(ExtType(1, packb(fields)))), array.tobytes(order=order)]


DTYPES = (
    *("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"),
    *("<M8[us]", "<M8[25s]", "<m8[D]", "<m8", "|S3", "<U2", ">i4", ">f8", ">U2"),
)
NO_SCALARS = ("<f8", "|S3", "<U2", ">i4", ">f8", ">U2")  # floats, octets, texts; a scalar is never big-endian


def _arrays() -> Iterator[Case]:
    for dtype in DTYPES:
        items = numpy.frombuffer(bytes(numpy.dtype(dtype).itemsize * 2), dtype=dtype)
        yield valid(f"array.{dtype}", items, array_frames(items))
        if dtype not in NO_SCALARS:
            yield valid(f"scalar.{dtype}", items[0], [packb(ExtType(2, packb([dtype, items[0].tobytes()])))])
    numbers = numpy.arange(6, dtype="<i2")
    shapes = {
        "1-d": numbers,
        "2-d": numbers.reshape(2, 3),
        "fortran": numpy.asfortranarray(numbers.reshape(2, 3)),
        "transposed": numbers.reshape(3, 2).T,
        "3-d": numbers.reshape(1, 2, 3),
        "0-d": numpy.array(7, dtype="<i4"),
        "empty": numbers[:0],
        "empty-2-d": numbers[:0].reshape(0, 5),
        "32-d": numpy.ones((1,) * 32, dtype="|u1"),
        "specials": numpy.array([0.0, -0.0, float("inf"), float("nan")], dtype="<f4"),
    }
    for name, array in shapes.items():
        yield valid(f"array.{name}", array, array_frames(array))
    yield valid("array.in-a-map", {"m": [numbers]}, array_frames(numbers, wrap=lambda ext: {"m": [ext]}))
    ext = [ExtType(1, packb([at, "<i2", [6], "C"])) for at in (1, 2)]
    yield valid("array.two", [numbers, numbers[::-1]], [packb(ext), numbers.tobytes(), numbers[::-1].tobytes()])
    many = [ExtType(1, packb([at, "|u1", [1], "C"])) for at in range(1, 62)]
    ones = numpy.ones(1, dtype="|u1")
    yield valid("array.most", [ones] * 61, [packb(many), *[b"\x01"] * 61], "as many as a message can carry")


def ext_array(*fields: Any) -> bytes:
    """An array's place in a value, with any fields."""
    return packb(ExtType(1, packb(list(fields))))


def _unusual_arrays() -> Iterator[Case]:
    pair = numpy.array([1, 2], dtype="<i2")
    both = packb([ExtType(1, packb([1, "<i2", [2], "C"]))] * 2)
    yield acceptable("array.twice", [pair, pair], [both, pair.tobytes()], "two arrays in one frame")
    late = ext_array(2, "<i2", [2], "C")
    yield acceptable("array.second-frame", pair, [late, b"skipped", pair.tobytes()], "a frame left out")
    flat = ext_array(1, "<i2", [2], "F")
    yield acceptable("array.1-d-fortran", pair, [flat, pair.tobytes()], "we call one dimension C")


# what an array's place says, by what is wrong with it; the frame that it means holds two items of two octets
BAD_ARRAYS: dict[str, tuple[Any, ...]] = {
    "frame-0": (0, "<i2", [2], "C"),
    "frame-2": (2, "<i2", [2], "C"),
    "frame-negative": (-1, "<i2", [2], "C"),
    "frame-true": (True, "<i2", [2], "C"),
    "frame-float": (1.0, "<i2", [2], "C"),
    "frame-nil": (None, "<i2", [2], "C"),
    "dtype-object": (1, "|O", [1], "C"),
    "dtype-void": (1, "|V4", [1], "C"),
    "dtype-structure": (1, [["a", "<i2"], ["b", "<i2"]], [1], "C"),
    "dtype-structure-text": (1, "<i2,<i2", [1], "C"),
    "dtype-subarray": (1, "2<i2", [1], "C"),
    "dtype-name": (1, "int16", [2], "C"),
    "dtype-no-order": (1, "i2", [2], "C"),
    "dtype-i3": (1, "<i3", [1], "C"),
    "dtype-i0": (1, "<i0", [2], "C"),
    "dtype-empty": (1, "", [2], "C"),
    "dtype-nil": (1, None, [2], "C"),
    "dtype-octets": (1, b"<i2", [2], "C"),
    "dtype-unit": (1, "<M8[xx]", [1], "C"),
    "shape-short": (1, "<i2", [1], "C"),
    "shape-long": (1, "<i2", [3], "C"),
    "shape-negative": (1, "<i2", [-1], "C"),
    "shape-two-negative": (1, "<i2", [-1, -2], "C"),
    "shape-float": (1, "<i2", [2.0], "C"),
    "shape-true": (1, "<i2", [2, True], "C"),
    "shape-nil": (1, "<i2", None, "C"),
    "shape-integer": (1, "<i2", 2, "C"),
    "shape-text": (1, "<i2", "2", "C"),
    "shape-huge": (1, "<i2", [2**62, 2**62], "C"),
    "shape-u64": (1, "<i2", [2**64 - 1], "C"),
    "shape-wraps": (1, "<i2", [2**32, 2**32], "C"),
    "shape-33-d": (1, "<i2", [2, *[1] * 32], "C"),
    "order-A": (1, "<i2", [2], "A"),
    "order-nil": (1, "<i2", [2], None),
    "order-empty": (1, "<i2", [2], ""),
    "three-fields": (1, "<i2", [2]),
    "five-fields": (1, "<i2", [2], "C", 0),
    "no-fields": (),
}


def _broken_arrays() -> Iterator[Case]:
    two = b"\1\0\2\0"
    for name, fields in BAD_ARRAYS.items():
        yield invalid(f"array.{name}", [ext_array(*fields), two])
    nothing = ext_array(1, "|S0", [2**40], "C")
    yield invalid("array.dtype-S0", [nothing, b""], "a million million items that take no octet")
    yield invalid("array.empty-wrong", [ext_array(1, "<i2", [0], "C"), two], "an empty array in a frame with octets")
    for name, content in {"nil": b"\xc0", "empty": b"", "not-msgpack": b"\xc1", "cut": b"\x94\x01\xa3<i2\x91"}.items():
        yield invalid(f"array.content-{name}", [packb(ExtType(1, content)), two])
        yield invalid(f"scalar.content-{name}", [packb(ExtType(2, content))])
    for name, fields in {
        "short": ("<i4", b"abc"),
        "empty": ("<i4", b""),
        "object": ("|O", b"12345678"),
        "text": ("<i4", "abcd"),
        "void": ("|V4", b"abcd"),
        "S0": ("|S0", b""),
        "one-field": ("<i4",),
        "three-fields": ("<i4", b"abcd", 0),
        "long": ("<i4", b"abcdefgh"),
    }.items():
        yield invalid(f"scalar.{name}", [packb(ExtType(2, packb(list(fields))))])
    key = b"\x81" + ext_array(1, "<i2", [2], "C") + b"\x01"
    yield invalid("array.as-key", [key, two], "an array cannot be a key")
