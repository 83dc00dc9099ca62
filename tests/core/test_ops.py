"""Reduction operations on Python objects and on buffers: what they give, what they refuse, and in whose order."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from spark_partition_server.core import datatypes, ops
from spark_partition_server.core.ops import Op, commutes

NAMES = ["SUM", "PROD", "MAX", "MIN", "LAND", "LOR", "LXOR", "BAND", "BOR", "BXOR", "MAXLOC", "MINLOC"]
ORDERED = ["REPLACE", "NO_OP"]


@pytest.mark.parametrize(
    ("name", "x", "y", "result"),
    [
        ("SUM", 1, 2.5, 3.5),
        ("SUM", [1], [2], [1, 2]),
        ("SUM", "ab", "c", "abc"),
        ("PROD", 3, -2, -6),
        ("PROD", [1], 2, [1, 1]),
        ("MAX", (1, 2), (1, 3), (1, 3)),
        ("MAX", "b", "a", "b"),
        ("MIN", (1, 2), (1, 3), (1, 2)),
        ("MIN", 2, 1, 1),
        ("LAND", [1], "", False),
        ("LAND", 2, 5, True),
        ("LOR", 0, "", False),
        ("LOR", 0, "x", True),
        ("LXOR", 3, 5, False),
        ("LXOR", 0, 5, True),
        ("BAND", 6, 3, 2),
        ("BAND", {1, 2}, {2, 3}, {2}),
        ("BOR", {1}, {2}, {1, 2}),
        ("BXOR", 6, 3, 5),
        ("MAXLOC", (1, 5), (2, 7), (2, 7)),
        ("MAXLOC", (2, 5), (1, 0), (2, 5)),
        ("MAXLOC", (2, 5), (2, 3), (2, 3)),
        ("MAXLOC", (2, 3), (2, 5), (2, 3)),
        ("MINLOC", (1, 5), (2, 0), (1, 5)),
        ("MINLOC", (2, 5), (1, 7), (1, 7)),
        ("MINLOC", (2, 5), (2, 3), (2, 3)),
        ("MINLOC", (2, 3), (2, 5), (2, 3)),
        ("REPLACE", 1, 2, 2),
        ("NO_OP", 1, 2, 1),
    ],
)
def test_with_objects_an_operation_is_what_python_makes_of_it(name, x, y, result):
    """``x`` is the left operand; of equal values the lower place wins MAXLOC and MINLOC."""
    found = getattr(ops, name)(x, y)
    assert (found, type(found)) == (result, type(result))


def test_of_two_equal_objects_max_and_min_keep_the_left_one():
    """1 and 1.0 are equal; which one comes out must not depend on anything but the order."""
    assert type(ops.MAX(1, 1.0)) is type(ops.MIN(1, 1.0)) is int


def test_what_an_operation_of_pairs_is_not_given_a_pair_for_raises():
    """As Python says it."""
    with pytest.raises(TypeError):
        ops.MAXLOC(1, 2)


def test_only_operations_whose_order_is_all_there_is_do_not_commute():
    """REPLACE that commutes would give any rank's value."""
    assert all(getattr(ops, name).Is_commutative() for name in NAMES)
    assert not any(getattr(ops, name).is_commutative for name in ORDERED)
    assert [commutes(ops.SUM), commutes(ops.REPLACE), commutes(max)] == [True, False, False]


# ------------------------------------------------------------------------------------------------ users' own


def test_a_function_of_the_user_is_called_with_objects_and_returns():
    """The third argument is the type of the items, which objects have none of."""
    op = Op.Create(lambda x, y, datatype: (x, y, datatype), commute=False)
    assert op(1, 2) == (1, 2, None)
    assert not op.is_commutative
    assert not op.is_predefined
    assert Op.Create(max, True).Is_commutative()


def test_a_function_of_the_user_is_called_with_buffers_and_changes_the_second():
    """In the order of the ranks: the source is the lower one's."""
    seen = []

    def subtract(source, target, datatype):
        seen.append(datatype)
        target[:] = bytes(one - other for one, other in zip(source, target, strict=True))

    target = bytearray([1, 2])
    Op.Create(subtract).reduce(memoryview(b"\x09\x08"), memoryview(target), datatypes.BYTE)
    assert target == bytearray([8, 6])
    assert seen == [datatypes.BYTE]


def test_what_cannot_be_called_is_no_operation():
    """Said where it is made, not on every rank in the middle of a reduction."""
    with pytest.raises(TypeError, match="needs a function, not a int"):
        Op.Create(3)  # type: ignore[arg-type]


def test_an_operation_that_was_freed_is_null():
    """And can do nothing; freeing it a second time by ``free`` is harmless."""
    op = Op.Create(max)
    other = Op(op)
    assert op == other
    op.Free()
    assert op == ops.OP_NULL
    assert not op
    assert other
    op.free()
    other.free()
    assert not other
    with pytest.raises(ValueError, match="OP_NULL"):
        op(1, 2)
    with pytest.raises(ValueError, match="OP_NULL"):
        op.reduce(memoryview(b""), memoryview(b""), datatypes.INT)


@pytest.mark.parametrize("name", [*NAMES, *ORDERED, "OP_NULL"])
def test_a_predefined_operation_cannot_be_freed(name):
    """It is everybody's."""
    op = getattr(ops, name)
    with pytest.raises(ValueError, match="predefined"):
        op.Free()
    op.free()
    assert op.is_predefined
    assert bool(op) == (name != "OP_NULL")


def multiply(x, y, datatype):
    return x * y


@pytest.mark.parametrize("name", [*NAMES, *ORDERED, "OP_NULL"])
def test_a_predefined_operation_travels_as_itself(name):
    """A function that was shipped to the executors has MPI.SUM in it."""
    op = getattr(ops, name)
    for again in (pickle.loads(pickle.dumps(op)), copy.deepcopy(op)):
        assert again == op
        assert again.is_commutative == op.is_commutative


def test_an_operation_of_the_user_travels_with_its_function():
    """And with what it said of its order."""
    op = pickle.loads(pickle.dumps(Op.Create(multiply, True)))
    assert op(3, 4) == 12
    assert op.is_commutative
    assert op == Op.Create(multiply)


def test_operations_are_told_apart():
    """In errors and signatures by their names; nothing else is equal to one."""
    assert [op.name for op in (ops.SUM, ops.OP_NULL, Op.Create(multiply))] == ["SUM", "OP_NULL", "multiply"]
    assert [repr(op) for op in (ops.SUM, ops.OP_NULL)] == ["<MPI.SUM>", "MPI.OP_NULL"]
    assert repr(Op.Create(multiply)) == "<MPI.Op multiply>"
    assert ops.SUM != ops.PROD
    assert ops.SUM != "SUM"
    with pytest.raises(TypeError, match="unhashable"):
        hash(ops.SUM)


# --------------------------------------------------------------------------------------------------- buffers


@pytest.mark.parametrize(
    ("op", "datatype", "text"),
    [
        (ops.SUM, datatypes.BOOL, "MPI.SUM is not defined for items of type bool .*; use LAND, LOR or LXOR"),
        (ops.MAX, datatypes.COMPLEX, "MPI.MAX is not defined for items of type complex64 .MPI.COMPLEX."),
        (ops.MAXLOC, datatypes.DOUBLE, "MAXLOC is not defined for items of type float64 .*; it takes pairs: FLOAT_INT"),
        (ops.BAND, datatypes.DOUBLE, "BAND is not defined for items of type float64"),
        (ops.LAND, datatypes.FLOAT, "LAND is not defined for items of type float32"),
        (ops.SUM, datatypes.DOUBLE_INT, "SUM is not defined for items of type float64.int32"),
        (ops.SUM, datatypes.DATATYPE_NULL, "SUM is not defined for items of type no type"),
        (ops.REPLACE, datatypes.INT, "MPI.REPLACE reduces no buffers"),
        (ops.NO_OP, datatypes.INT, "MPI.NO_OP reduces no buffers"),
    ],
)
def test_an_operation_that_has_no_meaning_for_the_items_is_refused_by_name(op, datatype, text):
    """Before anything was sent: check says it as well."""
    for refuses in (op.check, lambda kind: op.reduce(memoryview(b""), memoryview(bytearray()), kind)):
        with pytest.raises(TypeError, match=text):
            refuses(datatype)


def test_a_user_s_function_may_take_any_items():
    """Nobody but it knows."""
    Op.Create(multiply).check(datatypes.DOUBLE_INT)


def test_buffers_without_items_are_nothing_to_do():
    """A memoryview of no octets has no format that numpy accepts."""
    ops.SUM.reduce(memoryview(b""), memoryview(bytearray()), datatypes.DOUBLE)


def test_items_are_combined_in_the_target():
    """The source stays as it is."""
    source, target = memoryview(bytearray(b"\x05\xff")), memoryview(bytearray(b"\x06\x02"))
    ops.SUM.reduce(source, target, datatypes.BYTE)
    assert (bytes(source), bytes(target)) == (b"\x05\xff", b"\x0b\x01")
    assert math.isclose(ops.SUM(0.1, 0.2), 0.3)
