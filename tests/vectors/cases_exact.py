"""The vectors of values between ranks, written with struct and msgpack and nothing of the library.

A value is a Python expression, for these are Python's types: with ``inf``, ``nan``, the names of ``datetime``
(``date``, ``time``, ``datetime``, ``timedelta``, ``timezone``), ``array(dtype, shape, order, hex)`` and
``scalar(dtype, hex)`` for numpy's, and texts and octets times a number where they are long.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from msgpack import ExtType, packb

from .notation import octets_to

__all__ = ["exact_cases", "exact_text"]

TUPLE, SET, FROZENSET, OCTETS, BYTEARRAY, ARRAY, SCALAR = (ExtType(code, b"") for code in range(16, 23))
DATE, TIME, DATETIME, TIMEDELTA, TIMEZONE, PICKLE = (ExtType(code, b"") for code in range(23, 29))
INTEGER, COMPLEX = 29, 30
ROWS = ExtType(31, b"")

Case = dict[str, Any]


def exact_text() -> str:
    """The whole of exact.json: one line a case."""
    cases = list(exact_cases())
    head = {
        "protocol": "SPS 1",
        "generator": "tests/vectors/generate.py",
        "section": "9.11",
        "count": len(cases),
        "notes": [*(" ".join(part.split()) for part in (__doc__ or "").strip().split("\n\n")[1:])],
    }
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in cases)
    return json.dumps(head, indent=1)[:-2] + ',\n "cases": [\n' + lines + "\n]}\n"


def case(name: str, result: str, expression: str | None, *frames: Any) -> Case:
    """``frames``: octets, or what msgpack makes of anything else."""
    octets = [octets_to(frame if isinstance(frame, bytes) else packb(frame)) for frame in frames]
    value = {} if expression is None else {"value": expression}
    return {"id": f"exact.{name}", "result": result, **value, "frames": octets}


def exact_cases() -> Iterator[Case]:
    """All of them."""
    yield from _plain()
    yield from _marked()
    yield from _numpy()
    yield from _acceptable()
    yield from _broken()
    yield from _broken_items()
    yield from _cut()


def valid(name: str, expression: str, *frames: Any) -> Case:
    """The expression's value becomes these frames, and they become it."""
    return case(name, "valid", expression, *frames)


def _plain() -> Iterator[Case]:
    for expression, item in (
        ("None", None),
        ("True", True),
        ("0", 0),
        ("-1", -1),
        ("2**64 - 1", 2**64 - 1),
        ("-2**63", -(2**63)),
        ("-0.0", -0.0),
        ("inf", float("inf")),
        ("'Zürich'", "Zürich"),
        ("b'\\xff'", packb(b"\xff")),
        ("[]", []),
        ("[1, [2.5, None]]", [1, [2.5, None]]),
        ("{'b': 1, 'a': 2}", {"b": 1, "a": 2}),
        ("{1: 'a', None: b'b', 1.5: True}", {1: "a", None: b"b", 1.5: True}),
    ):
        yield valid(f"plain.{expression}", expression, item)
    yield valid("surrogate", "'\\ud800'", b"\xa3\xed\xa0\x80")
    yield valid("surrogates", "'\\ud800\\udc00'", b"\xa6\xed\xa0\x80\xed\xb0\x80")
    for expression, octets in (
        ("2**64", "010000000000000000"),
        ("-2**63 - 1", "ff7fffffffffffffff"),
        ("2**71 - 1", "7fffffffffffffffff"),
        ("-2**71", "800000000000000000"),
        ("2**800", "01" + "00" * 100),
    ):
        yield valid(f"integer.{expression}", expression, ExtType(INTEGER, bytes.fromhex(octets)))
    yield valid("complex", "complex(1.5, -0.0)", ExtType(COMPLEX, struct.pack(">dd", 1.5, -0.0)))


def _marked() -> Iterator[Case]:
    yield valid("tuple.empty", "()", b"\x91\xc7\x00\x10")
    yield valid("tuple", "(1, 'a')", b"\x93\xc7\x00\x10\x01\xa1a")
    yield valid("tuple.key", "{(1, (2,)): [()]}", {(TUPLE, 1, (TUPLE, 2)): [[TUPLE]]})
    yield valid("rows", "[(1, 'a')] * 8", [ROWS, 2, *[1, "a"] * 8])
    yield valid("rows.too-few", "[(1, 'a')] * 7", [[TUPLE, 1, "a"]] * 7)
    yield valid("rows.of-nothing", "[()] * 8", [[TUPLE]] * 8)
    yield valid("rows.not-alike", "[(1,)] * 8 + [()]", [*[[TUPLE, 1]] * 8, [TUPLE]])
    yield valid("rows.not-all", "[(1,)] * 8 + [1]", [*[[TUPLE, 1]] * 8, 1])
    yield valid("rows.within", "[[(1,)] * 8]", [[[TUPLE, 1]] * 8])
    yield valid("set.empty", "set()", [SET])
    yield valid("set", "{7}", [SET, 7])
    yield valid("frozenset", "{frozenset(), frozenset([(1,)])} - {frozenset()}", [SET, [FROZENSET, [TUPLE, 1]]])
    yield valid("bytearray", "bytearray(b'ab')", [BYTEARRAY, b"ab"])
    yield valid("octets.in-place", "[b'x' * 65535]", [b"x" * 65535])
    yield valid("octets.beside", "[b'x' * 65536]", [[OCTETS, 1]], b"x" * 65536)
    yield valid("bytearray.beside", "(1, bytearray(b'x' * 65536))", [TUPLE, 1, [BYTEARRAY, 1]], b"x" * 65536)
    both = {1: [OCTETS, 1], 2: [OCTETS, 2]}
    yield valid("beside.two", "{1: b'x' * 65536, 2: b'y' * 65536}", both, b"x" * 65536, b"y" * 65536)
    yield valid("date", "date(2024, 2, 29)", [DATE, 2024, 2, 29])
    yield valid("time", "time(1, 2, 3, 4)", [TIME, 1, 2, 3, 4, 0, None])
    yield valid("datetime", "datetime(2024, 2, 29, 1, 2, 3, 4, fold=1)", [DATETIME, 2024, 2, 29, 1, 2, 3, 4, 1, None])
    utc = [TIMEZONE, 0, 0, 0]
    yield valid("datetime.utc", "datetime(1, 1, 1, tzinfo=timezone.utc)", [DATETIME, 1, 1, 1, 0, 0, 0, 0, 0, utc])
    yield valid("timedelta", "timedelta(-1, 86399, 999999)", [TIMEDELTA, -1, 86399, 999999])
    yield valid("timezone", "timezone(timedelta(hours=-1))", [TIMEZONE, -1, 82800, 0])
    yield valid("timezone.named", "timezone(timedelta(0), 'Z')", [TIMEZONE, 0, 0, 0, "Z"])


def _numpy() -> Iterator[Case]:
    pair = bytes.fromhex("01000200")
    yield valid("array", "array('<i2', (2,), 'C', '01000200')", [ARRAY, pair, "<i2", [2], "C"])
    yield valid("array.0-d", "array('>i2', (), 'C', '0102')", [ARRAY, b"\1\2", ">i2", [], "C"])
    yield valid("array.empty", "array('<f8', (0, 3), 'C', '')", [ARRAY, b"", "<f8", [0, 3], "C"])
    yield valid("array.fortran", "array('|u1', (2, 2), 'F', '01020304')", [ARRAY, b"\1\2\3\4", "|u1", [2, 2], "F"])
    yield valid("array.in-place", "array('|u1', (4095,), 'C', '07' * 4095)", [ARRAY, b"\7" * 4095, "|u1", [4095], "C"])
    yield valid("array.beside", "array('|u1', (4096,), 'C', '07' * 4096)", [ARRAY, 1, "|u1", [4096], "C"], b"\7" * 4096)
    yield valid("scalar", "scalar('<f8', '000000000000f83f')", [SCALAR, "<f8", struct.pack("<d", 1.5)])
    yield valid("scalar.bool", "scalar('|b1', '01')", [SCALAR, "|b1", b"\1"])
    yield valid("scalar.moment", "scalar('<M8[D]', '0100000000000000')", [SCALAR, "<M8[D]", b"\1" + bytes(7)])


def _acceptable() -> Iterator[Case]:
    def acceptable(name: str, expression: str, *frames: Any) -> Case:
        return case(name, "acceptable", expression, *frames)

    yield acceptable("wide.integer", "5", b"\xcf" + bytes(7) + b"\5")
    yield acceptable("wide.tuple", "(5,)", b"\xdc\x00\x02\xc7\x00\x10\x05")
    yield acceptable("rows.few", "[(1, 2), (3, 4)]", [ROWS, 2, 1, 2, 3, 4])
    yield acceptable("rows.one-by-one", "[(1,)] * 8", [[TUPLE, 1]] * 8)
    yield acceptable("small-beside", "bytearray(b'ab')", [BYTEARRAY, 1], b"ab")
    yield acceptable("octets.small-beside", "b'ab'", [OCTETS, 1], b"ab")
    yield acceptable("array.small-beside", "array('|u1', (1,), 'C', '07')", [ARRAY, 1, "|u1", [1], "C"], b"\7")
    yield acceptable("moment", "datetime(1970, 1, 1, tzinfo=timezone.utc)", b"\xd6\xff" + bytes(4))


def _broken() -> Iterator[Case]:
    pair = bytes.fromhex("01000200")
    for name, frames in {
        "no-frames": (),
        "empty": (b"",),
        "trailing": (b"\5\5",),
        "mark-alone": (TUPLE,),
        "mark-second": ([1, TUPLE],),
        "mark-behind-mark": ([TUPLE, TUPLE],),
        "mark-in-map": ({1: SET},),
        "mark-as-key": (b"\x81\xc7\x00\x10\x01",),
        "mark-with-data": ([ExtType(16, b"a")],),
        "number-without-data": ([ExtType(INTEGER, b"")],),
        "unknown-mark": ([ExtType(32, b"")],),
        "rows-none": ([ROWS, 1],),
        "rows-no-length": ([ROWS],),
        "rows-cut": ([ROWS, 2, 1, 2, 3],),
        "rows-of-0": ([ROWS, 0, 1],),
        "rows-too-long": ([ROWS, 2**40, 1, 2],),
        "rows-negative": ([ROWS, -1, 1],),
        "rows-true": ([ROWS, True, 1],),
        "ext-of-the-query-plane": (ExtType(1, packb([1, "<i2", [2], "C"])), pair),
        "integer-that-fits": (ExtType(INTEGER, bytes(8) + b"\1"),),
        "integer-too-long": (ExtType(INTEGER, b"\0" + bytes.fromhex("010000000000000000")),),
        "complex-short": (ExtType(COMPLEX, bytes(15)),),
        "not-utf-8": (b"\xa1\xff",),
        "set-twice": ([SET, 1, 1],),
        "set-of-list": ([SET, []],),
        "key-list": (b"\x81\x90\x01",),
        "frame-of-nothing": (1, b"x"),
        "frame-0": ([OCTETS, 0], b"x"),
        "frame-2": ([OCTETS, 2], b"x"),
        "frame-absent": ([OCTETS, 1],),
        "frame-true": ([OCTETS, True], b"x"),
        "frame-twice": ([[OCTETS, 1], [OCTETS, 1]], b"x"),
        "frame-order": ([[OCTETS, 2], [OCTETS, 1]], b"x", b"y"),
        "frame-left": ([[OCTETS, 1]], b"x", b"y"),
        "octets-none": ([OCTETS],),
        "octets-text": ([OCTETS, "a"],),
        "bytearray-two": ([BYTEARRAY, b"a", b"b"],),
    }.items():
        yield case(f"broken.{name}", "invalid", None, *frames)


def _broken_items() -> Iterator[Case]:
    pair = bytes.fromhex("01000200")
    for name, frames in {
        "array-object": ([ARRAY, bytes(8), "|O", [1], "C"],),
        "array-short": ([ARRAY, pair, "<i2", [1], "C"],),
        "array-long": ([ARRAY, pair, "<i2", [3], "C"],),
        "array-order": ([ARRAY, pair, "<i2", [2], "A"],),
        "array-huge": ([ARRAY, pair, "<i2", [2**62, 2**62], "C"],),
        "array-negative": ([ARRAY, pair, "<i2", [-2], "C"],),
        "scalar-object": ([SCALAR, "|O", bytes(8)],),
        "scalar-two": ([SCALAR, "<i2", pair],),
        "scalar-text": ([SCALAR, "<i2", "ab"],),
        "date-none": ([DATE, 2023, 2, 29],),
        "date-float": ([DATE, 2023.0, 2, 1],),
        "time-zone": ([TIME, 0, 0, 0, 0, 0, 1],),
        "datetime-fold": ([DATETIME, 1, 1, 1, 0, 0, 0, 0, 2, None],),
        "timedelta-float": ([TIMEDELTA, 0.5, 0, 0],),
        "timedelta-huge": ([TIMEDELTA, 2**40, 0, 0],),
        "timezone-wide": ([TIMEZONE, 1, 0, 0],),
        "timezone-name": ([TIMEZONE, 0, 0, 0, 5],),
        "pickle": ([PICKLE, b"N."],),
        "deep": (b"\x91" * 2000 + b"\xc0",),
    }.items():
        yield case(f"broken.{name}", "invalid", None, *frames)


def _cut() -> Iterator[Case]:
    whole = packb({"a": [TUPLE, 1, [SET, "x"], [BYTEARRAY, b"y"]], "b": ExtType(INTEGER, b"\1" + bytes(8))})
    for cut in range(1, len(whole)):
        yield case(f"broken.cut-{cut}", "invalid", None, whole[:cut])
