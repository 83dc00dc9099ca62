"""mpi4py beside our ``MPI``, where it is installed: the same names, the same operations, statuses and buffers.

mpi4py runs in a process of its own: to load an MPI into the one that runs all tests would be felt by the others.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from spark_partition_server import MPI as OURS
from spark_partition_server.core.datatypes import Datatype

# What runs on both: a module MPI goes in, plain data comes out, errors as their kind.
PROGRAM = r'''
import json, sys
import numpy as np

def attempt(function):
    try:
        return function()
    except Exception as error:
        return "refused"

PAIRS = [((1, 2), (1, 3)), ((3, 4), (1, 1)), ((3, 4), (3, 1))]
OBJECTS = [*PAIRS, (1.5, 2), (True, False), (0, 5), ([1], [2]), ("a", "b")]
OPS = "SUM PROD MAX MIN LAND LOR LXOR BAND BOR BXOR MAXLOC MINLOC".split()

def local(MPI, op, dtype):
    source, target = np.array([0, 1, 2, 5]).astype(dtype), np.array([3, 0, 2, 1]).astype(dtype)
    getattr(MPI, op).Reduce_local(source, target)
    return [repr(item) for item in target.tolist()]

def located(MPI, op):
    pair = np.dtype([("value", "d"), ("index", "i")], align=True)
    source, target = np.array([(1, 5), (2, 3), (3, 4)], pair), np.array([(2, 1), (2, 1), (3, 9)], pair)
    getattr(MPI, op).Reduce_local([source, MPI.DOUBLE_INT], [target, MPI.DOUBLE_INT])
    return target.tolist()

def part(MPI, make):
    source, target = make(MPI, np.arange(4.0)), np.zeros(4)
    count = source[1] if isinstance(source, (list, tuple)) else 4
    if isinstance(count, (list, tuple)):
        count = count[0]
    MPI.SUM.Reduce_local(source, target[: count if isinstance(count, int) else 4])
    return target.tolist()

SPECS = {
    "array": lambda MPI, x: x, "type": lambda MPI, x: [x, MPI.DOUBLE], "char": lambda MPI, x: [x, "d"],
    "string": lambda MPI, x: [x, "f8"], "count": lambda MPI, x: [x, 2], "all": lambda MPI, x: [x, 2, MPI.DOUBLE],
    "displacement": lambda MPI, x: [x, (2, 1)], "both": lambda MPI, x: [x, (2, 1), MPI.DOUBLE],
    "four": lambda MPI, x: [x, 2, 1, MPI.DOUBLE], "five": lambda MPI, x: [x, 1, 1, 1, 1],
    "bytes": lambda MPI, x: [x.tobytes(), MPI.DOUBLE], "negative": lambda MPI, x: [x, -1, MPI.DOUBLE],
    "none": lambda MPI, x: None, "text": lambda MPI, x: "abc", "floats": lambda MPI, x: [1.0, 2.0],
    "strided": lambda MPI, x: np.arange(8.0)[::2], "objects": lambda MPI, x: np.array([None] * 4),
    "other order": lambda MPI, x: x.astype(">f8"), "other type": lambda MPI, x: x.astype("f4"),
    "moments": lambda MPI, x: np.zeros(4, "M8[s]"), "structures": lambda MPI, x: np.zeros(4, "i4,f4"),
    "fortran": lambda MPI, x: np.asfortranarray(x.reshape(2, 2)).T, "frozen": lambda MPI, x: bytes(x),
}

def status(MPI, octets, kind):
    one = MPI.Status()
    first = [one.source, one.tag, one.count, one.error, one.cancelled]
    one.count = octets
    kind = getattr(MPI, kind)
    counts = [one.Get_count(), one.Get_count(kind), one.Get_elements(kind), one.Get_elements(MPI.BYTE)]
    one.Set_source(3), one.Set_tag(4), one.Set_error(1), one.Set_cancelled(True)
    copy = MPI.Status(one)
    seen = [one.Get_source(), one.Get_tag(), one.Get_error(), one.Is_cancelled(), copy == one, copy == MPI.Status()]
    return [first, counts, seen]

def users(MPI):
    def add(source, target, datatype):
        items = np.frombuffer(target, datatype.typestr)
        items += np.frombuffer(source, datatype.typestr)
    op, target = MPI.Op.Create(add, True), np.ones(3)
    op.Reduce_local(np.arange(3.0), target)
    called = MPI.Op.Create(lambda x, y, datatype: [x, y, datatype])
    seen = [called(1, 2), called.Is_commutative(), called.is_predefined, op.Is_commutative(), bool(op)]
    op.Free(), called.Free()
    return [target.tolist(), seen, bool(op), op == MPI.OP_NULL, attempt(lambda: op(1, 2))]

def everything(MPI):
    found = {}
    for name in (*OPS, "REPLACE", "NO_OP"):
        op = getattr(MPI, name)
        found[f"{name} of objects"] = [attempt(lambda: repr(op(x, y))) for x, y in OBJECTS]
        found[f"{name} free"] = attempt(op.Free)
    for name in OPS:
        for dtype in ("?", "i1", "u1", "i8", "u8", "f4", "f8", "c16"):
            found[f"{name} of {dtype}"] = attempt(lambda: local(MPI, name, dtype))
    found["located"] = [located(MPI, "MAXLOC"), located(MPI, "MINLOC")]
    found["specs"] = {name: attempt(lambda: part(MPI, make)) for name, make in SPECS.items()}
    found["status"] = [status(MPI, *case) for case in [(8, "INT"), (7, "INT"), (24, "DOUBLE_INT"), (20, "DOUBLE_INT")]]
    found["users"] = users(MPI)
    found["null"] = attempt(lambda: MPI.OP_NULL(1, 2))
    found["hashable"] = [attempt(lambda: hash(thing) and 1) for thing in (MPI.Status(), MPI.SUM)]
    return found
'''
ASK = r'''
from mpi4py import MPI
kinds = {}
for name in dir(MPI):
    value = getattr(MPI, name)
    if isinstance(value, MPI.Datatype):
        try:
            kinds[name] = [value.Get_size(), value.Get_extent()[1], value.typestr, value.Get_name()]
        except Exception:
            kinds[name] = None
numbers = {name: getattr(MPI, name) for name in dir(MPI) if name.isupper() and type(getattr(MPI, name)) is int}
members = {kind: [name for name in dir(getattr(MPI, kind)) if name[0] != "_"] for kind in ("Op", "Status", "Exception")}
print(json.dumps([dir(MPI), numbers, kinds, members, everything(MPI), MPI.Get_library_version()]))
'''


@pytest.fixture(scope="module")
def theirs() -> Any:
    """What mpi4py is, and what it makes of the program."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + ASK], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode and "cannot load MPI library" in done.stderr:
        pytest.skip("mpi4py is installed, and no MPI")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ours() -> Any:
    """What our names make of the program."""
    space: dict[str, Any] = {}
    exec(compile(PROGRAM, "program", "exec"), space)
    return json.loads(json.dumps(space["everything"](OURS)))


def test_every_name_of_ours_is_one_of_mpi4py_s(theirs):
    """A program that runs here runs there."""
    names = {name for name in dir(OURS) if not name.startswith("_") and name != "annotations"}
    assert names - set(theirs[0]) == set()


def test_the_numbers_are_those_of_open_mpi(theirs):
    """So that numbers in logs of both mean the same."""
    if "Open MPI v4" not in theirs[5]:
        pytest.skip("another MPI has other numbers")
    ours = {name: getattr(OURS, name) for name in dir(OURS) if name.isupper() and type(getattr(OURS, name)) is int}
    assert ours == {name: theirs[1][name] for name in ours}


def test_the_datatypes_are_as_wide_and_of_the_same_kind(theirs):
    """An item that is read as another is wrong everywhere."""
    for name, value in vars(OURS).items():
        if isinstance(value, Datatype) and value and theirs[2][name] is not None:
            assert [value.size, value.extent, value.typestr] == theirs[2][name][:3], name


def test_statuses_operations_and_errors_have_their_methods(theirs):
    """But for handles of C and Fortran."""
    foreign = {"f2py", "py2f", "fromhandle", "handle", "tomemory", "fromint", "toint"}
    for kind, names in theirs[3].items():
        assert set(names) - set(dir(getattr(OURS, kind))) - foreign == set(), kind


def test_operations_statuses_and_buffers_do_the_same(theirs, ours):
    """Every case of the program; what one refuses the other does."""
    assert {key: (mine, theirs[4][key]) for key, mine in ours.items() if mine != theirs[4][key]} == {}


def test_the_program_runs_without_mpi4py(ours):
    """Where mpi4py is not installed, at least ours is looked at."""
    assert ours["SUM of f8"] == ["3.0", "1.0", "4.0", "6.0"]
    assert ours["specs"]["both"] == [1.0, 2.0, 0.0, 0.0]
    assert ours["users"] == [[1.0, 2.0, 3.0], [[1, 2, None], False, False, True, True], False, True, "refused"]
