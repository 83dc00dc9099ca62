"""Buffer specifications as mpi4py reads them: memory, counts and types; what does not fit is refused, unsent."""

from __future__ import annotations

import array
import ctypes
import pickle

import numpy
import pytest

from spark_partition_server.core import datatypes, ops
from spark_partition_server.core.buffers import (
    BOTTOM,
    IN_PLACE,
    check_alike,
    read_blocks,
    read_buffer,
)

NUMBERS = numpy.arange(6.0)


@pytest.mark.parametrize(
    ("data", "count", "dtype"),
    [
        (NUMBERS, 6, "float64"),
        (NUMBERS.reshape(2, 3), 6, "float64"),
        (numpy.asfortranarray(NUMBERS.reshape(2, 3)), 6, "float64"),
        (numpy.array(3.0), 1, "float64"),
        (numpy.zeros((0, 3)), 0, "float64"),
        (numpy.zeros(2, "c16"), 2, "complex128"),
        (numpy.zeros(2, "g"), 2, "longdouble"),
        (numpy.zeros(2, "f2"), 2, "float16"),
        (numpy.zeros(2, "?"), 2, "bool"),
        (numpy.zeros(2, "i8"), 2, "int64"),
        (numpy.zeros(2, "q"), 2, "int64"),
        (numpy.zeros(2, "u2"), 2, "uint16"),
        (numpy.array([b"a", b"b"]), 2, "S1"),
        (array.array("i", [1, 2, 3]), 3, "int32"),
        ((ctypes.c_double * 2)(), 2, "float64"),
        ((ctypes.c_long * 2)(), 2, "int64"),
        (b"abc", 3, "uint8"),
        (bytearray(b"abc"), 3, "uint8"),
        (memoryview(b"abc"), 3, "uint8"),
        (memoryview(b"abcdefgh").cast("d"), 1, "float64"),
        (memoryview(b"abc").cast("c"), 3, "S1"),
        (b"", 0, "uint8"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_knows_its_type_is_a_buffer_by_itself(data, count, dtype):
    """Its memory in order, without a copy; its items, counted."""
    buffer = read_buffer(data)
    assert (buffer.count, buffer.dtype) == (count, dtype)
    assert (buffer.octets.format, buffer.octets.ndim) == ("B", 1)
    assert len(buffer.octets) == count * buffer.datatype.extent == memoryview(data).nbytes


def test_nothing_is_copied():
    """What is received into the memory is in the array."""
    target = numpy.zeros((2, 3), order="F")
    read_buffer(target, writable=True).octets[:8] = numpy.float64(7).tobytes()
    assert target[0, 0] == 7


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ([NUMBERS, datatypes.DOUBLE], [0, 1, 2, 3, 4, 5]),
        ((NUMBERS, "d"), [0, 1, 2, 3, 4, 5]),
        ([NUMBERS, "f8"], [0, 1, 2, 3, 4, 5]),
        ([NUMBERS, 2], [0, 1]),
        ([NUMBERS, numpy.int64(2)], [0, 1]),
        ([NUMBERS, 2, datatypes.DOUBLE], [0, 1]),
        ([NUMBERS, None, datatypes.DOUBLE], [0, 1, 2, 3, 4, 5]),
        ([NUMBERS, (2, 3)], [3, 4]),
        ([NUMBERS, [2, 3]], [3, 4]),
        ([NUMBERS, (None, 4), "d"], [4, 5]),
        ([NUMBERS, (2, 1), datatypes.DOUBLE], [1, 2]),
        ([NUMBERS, 3, 2, datatypes.DOUBLE], [2, 3, 4]),
        ([NUMBERS.tobytes(), datatypes.DOUBLE], [0, 1, 2, 3, 4, 5]),
        ([bytearray(NUMBERS.tobytes() + b"xyz"), 1, datatypes.DOUBLE], [0]),
        ([None, datatypes.DOUBLE], []),
        ([None, 0, datatypes.DOUBLE], []),
        ([NUMBERS, 0], []),
        ([NUMBERS, (0, 6)], []),
    ],
)
def test_counts_displacements_and_types_may_be_named(spec, values):
    """In every form that mpi4py takes."""
    buffer = read_buffer(spec)
    assert (buffer.count, buffer.dtype) == (len(values), "float64")
    assert numpy.frombuffer(buffer.octets, "f8").tolist() == values if values else not buffer.octets


def test_a_buffer_may_hold_a_block_for_each_rank():
    """Divided among them, or by the count that is given of each."""
    buffer = read_buffer(NUMBERS, blocks=3)
    assert (buffer.count, len(buffer.octets)) == (2, 48)
    assert [numpy.frombuffer(buffer.block(rank)).tolist() for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    buffer = read_buffer([NUMBERS, (1, 2), "d"], blocks=3)
    assert [numpy.frombuffer(buffer.block(rank)).tolist() for rank in range(3)] == [[2], [3], [4]]


@pytest.mark.parametrize(
    ("spec", "counts", "displacements"),
    [
        (NUMBERS, (2, 2, 1, 1), (0, 2, 4, 5)),
        ([NUMBERS, [1, 0, 2, 3]], (1, 0, 2, 3), (0, 1, 1, 3)),
        ([NUMBERS, numpy.array([1, 0, 2, 3]), "d"], (1, 0, 2, 3), (0, 1, 1, 3)),
        ([NUMBERS, ([1, 0, 2, 1], [5, 99, 0, 3]), "d"], (1, 0, 2, 1), (5, 99, 0, 3)),
        ([NUMBERS, (1, 1), "d"], (1, 1, 1, 1), (0, 1, 2, 3)),
        ([NUMBERS, 1], (1, 1, 1, 1), (0, 1, 2, 3)),
        ([NUMBERS, [1, 1, 1, 1], [3, 2, 1, 0], datatypes.DOUBLE], (1, 1, 1, 1), (3, 2, 1, 0)),
        ([NUMBERS, None, "d"], (2, 2, 1, 1), (0, 2, 4, 5)),
        ([None, [0, 0, 0, 0], "d"], (0, 0, 0, 0), (0, 0, 0, 0)),
    ],
)
def test_blocks_have_their_own_counts_and_places(spec, counts, displacements):
    """The forms of Scatterv and Gatherv; a block without items may be anywhere."""
    found = read_blocks(spec, 4)
    assert (found.counts, found.displacements, found.dtype) == (counts, displacements, "float64")
    for rank in range(4):
        wanted = NUMBERS[displacements[rank] : displacements[rank] + counts[rank]]
        assert bytes(found.block(rank)) == wanted.tobytes()


@pytest.mark.parametrize("spec", [NUMBERS, [NUMBERS, []], [NUMBERS, ([], []), "d"]])
def test_no_ranks_have_no_blocks(spec):
    """Nothing is divided by their number."""
    if spec is NUMBERS:
        spec = [NUMBERS, []]
    assert read_blocks(spec, 0).counts == ()


def wrong_order() -> numpy.ndarray:
    return numpy.zeros(2, ">f8" if numpy.dtype("<f8").isnative else "<f8")


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        (None, TypeError, r"None is no buffer; \[None, datatype\]"),
        ([1.0, 2.0], TypeError, "a builtins.float is no buffer; methods in lower case take any object"),
        ("text", TypeError, "a builtins.str is no buffer"),
        (IN_PLACE, TypeError, "IN_PLACE is no buffer: here it means nothing"),
        (BOTTOM, TypeError, "BOTTOM is no buffer: there are no absolute addresses here"),
        ([BOTTOM, 1, datatypes.INT], TypeError, "BOTTOM is no buffer"),
        ([NUMBERS], ValueError, "2 to 4 things, .* not by 1"),
        ([NUMBERS, 1, 2, 3, 4], ValueError, "not by 5"),
        ([NUMBERS, (1, 2, 3)], ValueError, "a count and a displacement are two numbers, not 3"),
        (NUMBERS[::2], ValueError, "not in one piece"),
        (numpy.zeros((4, 4))[:, :2], ValueError, "not in one piece"),
        (numpy.array([None]), TypeError, "an array of objects is no buffer"),
        (wrong_order(), TypeError, "the other way round"),
        (numpy.zeros(2, "M8[s]"), TypeError, "array.view"),
        (numpy.zeros(2, "i4,f8"), TypeError, "no MPI datatype of their own; name one"),
        (numpy.zeros(2, "U2"), TypeError, "format '2w' have no MPI datatype"),
        ([NUMBERS, "x9"], TypeError, "no MPI datatype has the code 'x9'"),
        ([NUMBERS, 1, float], TypeError, "<class 'float'> is no datatype; give one of MPI's"),
        ([NUMBERS, datatypes.DATATYPE_NULL], TypeError, "DATATYPE_NULL is no type of items"),
        ([NUMBERS, 7], ValueError, "7 items of MPI.DOUBLE are more than the 6 of the buffer"),
        ([NUMBERS, (4, 3)], ValueError, "4 items of MPI.DOUBLE behind the first 3 are more than the 6"),
        ([NUMBERS, (None, 7)], ValueError, "the displacement 7 is beyond the 6 items"),
        ([NUMBERS, -1], ValueError, "the count -1 is negative"),
        ([NUMBERS, (1, -1)], ValueError, "the displacement -1 is negative"),
        ([NUMBERS, 1.5], TypeError, "a count is an integer, not 1.5"),
        ([None, 1, datatypes.INT], ValueError, "1 items of MPI.INT are more than the 0"),
        ([b"abc", datatypes.INT], ValueError, "3 octets are no whole number of MPI.INT, which takes 4"),
    ],
)
def test_what_is_no_buffer_is_refused_with_the_reason(spec, error, text):
    """Nothing was sent, and nothing beyond the memory is ever looked at."""
    with pytest.raises(error, match=text):
        read_buffer(spec)


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ([NUMBERS, [1, 2]], ValueError, "there are 2 counts for 3 ranks"),
        ([NUMBERS, ([1, 1, 1], [0, 1]), "d"], ValueError, "there are 2 displacements for 3 ranks"),
        ([NUMBERS, ([1, 1, 1], [0, 1, 6]), "d"], ValueError, "the 1 items of rank 2 from item 6 on are beyond the 6"),
        ([NUMBERS, [3, 3, 1]], ValueError, "the 1 items of rank 2 from item 6 on"),
        ([NUMBERS, [1, -1, 1]], ValueError, "the count -1 is negative"),
        ([NUMBERS, 1.5], TypeError, "a count is an integer, or there is one for each rank, not 1.5"),
        ([NUMBERS, [1, 1.5, 1]], TypeError, "a count is an integer, or there is one for each rank"),
        ([b"abc", datatypes.INT], ValueError, "no whole number of MPI.INT"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(spec, error, text):
    """Named by their rank."""
    with pytest.raises(error, match=text):
        read_blocks(spec, 3)


def test_blocks_that_cannot_be_divided_are_refused():
    """Six items for four ranks."""
    with pytest.raises(ValueError, match=r"6 items of MPI.DOUBLE cannot be divided among 4 ranks"):
        read_buffer(NUMBERS, blocks=4)
    with pytest.raises(ValueError, match=r"4 times 2 items of MPI.DOUBLE are more than the 6"):
        read_buffer([NUMBERS, 2], blocks=4)


@pytest.mark.parametrize("data", [b"abcdefgh", memoryview(b"abcdefgh")])
def test_what_cannot_be_written_receives_nothing(data):
    """It can be sent."""
    read_buffer(data)
    for receive in (lambda: read_buffer(data, writable=True), lambda: read_blocks(data, 2, writable=True)):
        with pytest.raises(TypeError, match="that cannot be written receives nothing"):
            receive()
    frozen = numpy.zeros(2)
    frozen.flags.writeable = False
    with pytest.raises(TypeError, match=r"a numpy.ndarray that cannot be written"):
        read_buffer(frozen, writable=True)


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        *(("f8", datatypes.INT), ("f8", datatypes.LONG), ("f8", datatypes.FLOAT), ("f4", datatypes.DOUBLE)),
        *(("i8", datatypes.INT), ("i4", datatypes.FLOAT), ("c16", datatypes.FLOAT), ("c16", datatypes.COMPLEX)),
    ],
)
def test_numbers_are_not_read_as_other_numbers(dtype, datatype):
    """A wrong name would make nonsense of every item, and say nothing."""
    with pytest.raises(TypeError, match=r"the items of the buffer are .*, and MPI.* would read them as"):
        read_buffer([numpy.zeros(4, dtype), datatype])


@pytest.mark.parametrize(
    ("dtype", "datatype", "count"),
    [
        *(("f8", datatypes.BYTE, 32), ("u1", datatypes.FLOAT, 1), ("i8", datatypes.UNSIGNED_LONG, 4)),
        *(("c16", datatypes.DOUBLE, 8), ("f8", datatypes.C_DOUBLE_COMPLEX, 2), ("i8", datatypes.LONG_LONG, 4)),
        *(("f4,i4", datatypes.FLOAT_INT, 4), ("S4", datatypes.INT, 4), ("i4", datatypes.TWOINT, 2)),
    ],
)
def test_octets_may_be_read_as_anything_and_numbers_as_their_parts(dtype, datatype, count):
    """As programs for MPI do."""
    assert read_buffer([numpy.zeros(4, dtype), datatype]).count == count


def test_buffers_of_a_reduction_are_alike():
    """Else ranks would combine one item with another."""
    check_alike(read_buffer(NUMBERS), read_buffer([numpy.zeros(6), "d"]))
    with pytest.raises(ValueError, match="float64 are sent and items of type int64 received"):
        check_alike(read_buffer(NUMBERS), read_buffer(numpy.zeros(6, "i8")))
    with pytest.raises(ValueError, match="6 items are sent and 5 received"):
        check_alike(read_buffer(NUMBERS), read_buffer([NUMBERS, 5]))


def test_an_operation_is_applied_to_buffers_of_this_process():
    """Reduce_local: into the second one."""
    target = array.array("d", [1, 1])
    ops.SUM.Reduce_local([NUMBERS, (2, 4), "d"], target)
    assert target.tolist() == [5, 6]
    pairs = numpy.array([(1, 5), (3, 2)], numpy.dtype("f8,i4", align=True))
    best = numpy.array([(2, 1), (3, 1)], pairs.dtype)
    ops.MAXLOC.Reduce_local([pairs, datatypes.DOUBLE_INT], [best, datatypes.DOUBLE_INT])
    assert best.tolist() == [(2, 1), (3, 1)]
    with pytest.raises(ValueError, match="6 items are sent and 2 received"):
        ops.SUM.Reduce_local(NUMBERS, target)


@pytest.mark.parametrize("constant", [IN_PLACE, BOTTOM])
def test_a_constant_travels_as_itself(constant):
    """A function that was shipped compares it with ``is``."""
    assert pickle.loads(pickle.dumps(constant)) is constant
    assert repr(constant) in ("IN_PLACE", "BOTTOM")


def test_a_buffer_of_blocks_names_its_type():
    """As signatures have it."""
    assert read_blocks([bytearray(8), "f4"], 2, writable=True).dtype == "float32"
