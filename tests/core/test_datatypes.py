"""The types of items by mpi4py's names: their octets are this machine's, and every one of them is one object."""

from __future__ import annotations

import ctypes
import pickle
import struct

import numpy
import pytest

from spark_partition_server.core import datatypes
from spark_partition_server.core.datatypes import CODES, Datatype
from spark_partition_server.wire.arithmetic import PAIRS

ALL = {name: value for name, value in vars(datatypes).items() if isinstance(value, Datatype)}
PLAIN = {name: kind for name, kind in ALL.items() if kind and not kind.is_pair}


@pytest.mark.parametrize("name", PLAIN)
def test_a_type_is_the_type_of_numpy_that_it_names(name):
    """Code, string and octets: an array of one is read as an array of the other."""
    kind = PLAIN[name]
    for code in (kind.dtype, kind.typestr) if kind.typechar == "U" else (kind.dtype, kind.typestr, kind.typechar):
        assert numpy.dtype(code).itemsize == kind.size == kind.extent
        assert numpy.dtype(code).kind == numpy.dtype(kind.dtype).kind
    assert kind.Get_size() == kind.size
    assert kind.Get_extent() == (kind.lb, kind.ub) == (0, kind.extent)
    assert kind.items_in(3 * kind.size) == 3
    assert kind.items_in(kind.size + 1) == (None if kind.size > 1 else 2)


@pytest.mark.parametrize("name", [name for name, kind in ALL.items() if kind.is_pair])
def test_a_pair_is_laid_out_as_a_c_compiler_does(name):
    """The value, its place, and padding up to the next one."""
    kind = ALL[name]
    value = PAIRS[kind.dtype][0]
    pair = numpy.dtype([("value", value), ("index", "i4")], align=True)
    assert (kind.extent, kind.size) == (pair.itemsize, numpy.dtype(value).itemsize + 4)
    if PAIRS[kind.dtype][1]:
        assert struct.calcsize(PAIRS[kind.dtype][1]) == kind.extent


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("SHORT", ctypes.c_short), ("INT", ctypes.c_int), ("LONG", ctypes.c_long), ("LONG_LONG", ctypes.c_longlong)),
        *(("FLOAT", ctypes.c_float), ("DOUBLE", ctypes.c_double), ("LONG_DOUBLE", ctypes.c_longdouble)),
        *(("AINT", ctypes.c_ssize_t), ("C_BOOL", ctypes.c_bool), ("UNSIGNED_LONG", ctypes.c_ulong)),
    ],
)
def test_the_types_of_c_are_as_wide_as_the_compiler_s(name, kind):
    """A LONG of 4 octets would read half of each number."""
    assert ALL[name].size == ctypes.sizeof(kind)


@pytest.mark.parametrize("name", ALL)
def test_a_type_travels_as_itself(name):
    """A function that was shipped to the executors compares it with ``is``."""
    assert pickle.loads(pickle.dumps(ALL[name])) is ALL[name]
    assert ALL[name].Get_name() == ALL[name].name == f"MPI_{repr(ALL[name]).removeprefix('MPI.')}"
    assert ALL[name].is_named
    assert ALL[name].is_predefined


def test_a_code_names_its_type_and_back():
    """``fromcode`` and ``tocode``; what is no code is said to be none."""
    assert Datatype.fromcode("d") is Datatype.fromcode("f8") is Datatype.fromcode("float64") is datatypes.DOUBLE
    assert datatypes.DOUBLE.tocode() == "d"
    assert all(CODES[kind.tocode()].size == kind.size for kind in PLAIN.values())
    with pytest.raises(ValueError, match="no MPI datatype has the code 'V8'"):
        Datatype.fromcode("V8")


def test_nothing_is_to_be_done_to_a_predefined_type():
    """Programs that commit and free what they use go on working."""
    assert datatypes.INT.Commit() is datatypes.INT
    datatypes.INT.Free()
    assert datatypes.INT
    assert not datatypes.DATATYPE_NULL
    assert datatypes.DATATYPE_NULL.items_in(0) is None
