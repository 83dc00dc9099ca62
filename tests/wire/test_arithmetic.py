"""Arithmetic on numbers in memory: with numpy and without it the same octets, and those that C would give."""

from __future__ import annotations

import array
import struct
import sys

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.wire import arithmetic
from spark_partition_server.wire.arithmetic import BITS, EXTREMES, LOCATIONS, LOGIC, PAIRS, SUMS, apply, is_defined

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
PLAIN = [*INTEGERS, "float32", "float64", "bool"]
OPS = sorted(SUMS | EXTREMES | LOGIC | BITS)


def combined(op, dtype, source, target):
    """What comes out of two sequences of items."""
    left, right = numpy.array(source, dtype), numpy.array(target, dtype)
    apply(op, memoryview(left).cast("B"), memoryview(right).cast("B"), dtype)
    return right


@pytest.fixture
def no_numpy(monkeypatch):
    """As if numpy had not been loaded."""
    monkeypatch.setitem(sys.modules, "numpy", None)


@pytest.mark.parametrize(
    ("op", "dtype", "source", "target", "wanted"),
    [
        ("SUM", "int8", [100, -100], [100, -100], [-56, 56]),
        ("SUM", "uint8", [200], [100], [44]),
        ("PROD", "int32", [2**30, -3], [4, 5], [0, -15]),
        ("PROD", "uint64", [2**63], [3], [2**63]),
        ("SUM", "float32", [3e38], [3e38], [float("inf")]),
        ("SUM", "float64", [0.1], [0.2], [0.1 + 0.2]),
        ("MAX", "int16", [3, -4], [2, -3], [3, -3]),
        ("MIN", "uint32", [3, 4], [2, 5], [2, 4]),
        ("LAND", "int64", [2, 2, 0], [4, 0, 0], [1, 0, 0]),
        ("LOR", "uint8", [2, 2, 0], [4, 0, 0], [1, 1, 0]),
        ("LXOR", "bool", [True, True, False], [True, False, False], [False, True, False]),
        ("BAND", "int8", [-1], [5], [5]),
        ("BOR", "uint16", [1], [6], [7]),
        ("BXOR", "int32", [-1], [1], [-2]),
    ],
)
@pytest.mark.parametrize("way", ["with numpy", "without"])
def test_items_are_combined_as_c_combines_them(op, dtype, source, target, wanted, way, monkeypatch):
    """Integers wrap around, floats overflow to infinity, logic gives 0 and 1; nothing warns."""
    left, right = numpy.array(source, dtype), numpy.array(target, dtype)
    if way == "without":
        monkeypatch.setitem(sys.modules, "numpy", None)
    apply(op, memoryview(left).cast("B"), memoryview(right).cast("B"), dtype)
    assert right.tolist() == wanted
    assert left.tolist() == numpy.array(source, dtype).tolist()


@pytest.mark.parametrize("op", sorted(EXTREMES))
def test_not_a_number_wins_from_either_side(op, monkeypatch):
    """Else ranks that were combined in another order would have another result."""
    nan = float("nan")
    for module in (sys.modules["numpy"], None):
        with monkeypatch.context() as patch:
            left, right = array.array("d", [nan, 1.0, nan]), array.array("d", [1.0, nan, nan])
            patch.setitem(sys.modules, "numpy", module)
            apply(op, memoryview(left).cast("B"), memoryview(right).cast("B"), "float64")
            assert all(item != item for item in right)  # noqa: PLR0124


@given(data=st.data(), op=st.sampled_from(OPS), dtype=st.sampled_from(PLAIN))
def test_the_loop_and_numpy_agree_to_the_last_bit(data, op, dtype):
    """One rank has numpy loaded and another has not: their results are one result."""
    if not is_defined(op, dtype):
        return
    size = numpy.dtype(dtype).itemsize
    octets = st.binary(min_size=4 * size, max_size=4 * size)
    if dtype == "bool":
        octets = octets.map(lambda some: bytes(octet & 1 for octet in some))
    source, target = data.draw(octets), data.draw(octets)
    with_numpy, without = bytearray(target), bytearray(target)
    apply(op, memoryview(source), memoryview(with_numpy), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numpy", None)
        apply(op, memoryview(source), memoryview(without), dtype)
    if dtype.startswith("float"):  # which NaN it is, and which zero is the greater, nobody says
        form = {"float32": "4f", "float64": "4d"}[dtype]
        ours, theirs = struct.unpack(form, without), struct.unpack(form, with_numpy)
        assert [repr(item).removeprefix("-") if item in (0, item) else "nan" for item in ours] == [
            repr(item).removeprefix("-") if item in (0, item) else "nan" for item in theirs
        ]
    else:
        assert without == with_numpy


PAIR_VALUES = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2)), min_size=1, max_size=6)


@given(
    op=st.sampled_from(sorted(LOCATIONS)),
    dtype=st.sampled_from(sorted(PAIRS)),
    sources=PAIR_VALUES,
    seed=PAIR_VALUES,
)
def test_the_better_value_wins_and_of_equal_ones_the_lower_place(op, dtype, sources, seed):
    """Against the sentence itself, with numpy and without."""
    targets = (seed * len(sources))[: len(sources)]
    kind = numpy.dtype([("value", PAIRS[dtype][0]), ("index", "i4")], align=True)
    sign = 1 if op == "MINLOC" else -1
    pairs = zip(sources, targets, strict=True)
    wanted = [min(pair, key=lambda item: (sign * item[0], item[1])) for pair in pairs]
    for module in (numpy, None):
        if module is None and not PAIRS[dtype][1]:
            continue
        left, right = numpy.array(sources, kind), numpy.array(targets, kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "numpy", module)
            apply(op, memoryview(left.view("u1")), memoryview(right.view("u1")), dtype)
        assert [tuple(item) for item in right.tolist()] == wanted


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "complex64", "complex128", "clongdouble"])
def test_wide_and_complex_numbers_are_combined_by_numpy(dtype):
    """Python has no type for them."""
    assert combined("SUM", dtype, [1, 2], [3, 4]).tolist() == [4, 6]


@pytest.mark.parametrize("dtype", ["complex128", "longdouble", "float16", "longdouble+int32"])
def test_without_numpy_they_are_refused(no_numpy, dtype):
    """And the text says what to do."""
    with pytest.raises(TypeError, match="numpy must be loaded: import numpy"):
        apply("MAXLOC" if "+" in dtype else "SUM", memoryview(bytes(32)), memoryview(bytearray(32)), dtype)


def test_what_has_no_meaning_is_not_defined():
    """Truth values have no sum, complex numbers no order, floats no bits."""
    assert is_defined("SUM", "complex64")
    for op, dtype in [("SUM", "bool"), ("MAX", "complex64"), ("BOR", "float64"), ("LAND", "float32"), ("SUM", "S1")]:
        assert not is_defined(op, dtype)
    assert not is_defined("REPLACE", "int32")
    assert arithmetic.is_defined("MAXLOC", "float64+int32")
