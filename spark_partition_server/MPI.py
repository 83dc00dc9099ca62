"""mpi4py's names: ``from spark_partition_server import MPI``, then ``MPI.SUM``, ``MPI.DOUBLE``, ``MPI.Status()``, ...

What is here has mpi4py's meaning, numbers those of Open MPI; what is not here has none between partitions: windows,
files, topologies, spawning, derived datatypes. A communicator comes from the library rather than from
``MPI.COMM_WORLD``, for a process may hold partitions of several clusters.
"""

# ruff: noqa: F401 - names for others
from __future__ import annotations

from typing import Final as _Final

from .core.buffers import BOTTOM, IN_PLACE
from .core.datatypes import (
    AINT,
    BOOL,
    BYTE,
    C_BOOL,
    C_COMPLEX,
    C_DOUBLE_COMPLEX,
    C_FLOAT_COMPLEX,
    C_LONG_DOUBLE_COMPLEX,
    CHAR,
    CHARACTER,
    COMPLEX,
    COMPLEX8,
    COMPLEX16,
    COMPLEX32,
    COUNT,
    CXX_BOOL,
    CXX_DOUBLE_COMPLEX,
    CXX_FLOAT_COMPLEX,
    CXX_LONG_DOUBLE_COMPLEX,
    DATATYPE_NULL,
    DOUBLE,
    DOUBLE_COMPLEX,
    DOUBLE_INT,
    DOUBLE_PRECISION,
    F_BOOL,
    F_COMPLEX,
    F_DOUBLE,
    F_DOUBLE_COMPLEX,
    F_FLOAT,
    F_FLOAT_COMPLEX,
    F_INT,
    FLOAT,
    FLOAT16_T,
    FLOAT32_T,
    FLOAT64_T,
    FLOAT_INT,
    INT,
    INT8_T,
    INT16_T,
    INT32_T,
    INT64_T,
    INT_INT,
    INTEGER,
    INTEGER1,
    INTEGER2,
    INTEGER4,
    INTEGER8,
    LOGICAL,
    LOGICAL1,
    LOGICAL2,
    LOGICAL4,
    LOGICAL8,
    LONG,
    LONG_DOUBLE,
    LONG_DOUBLE_INT,
    LONG_INT,
    LONG_LONG,
    OFFSET,
    PACKED,
    REAL,
    REAL2,
    REAL4,
    REAL8,
    REAL16,
    SHORT,
    SHORT_INT,
    SIGNED_CHAR,
    SIGNED_INT,
    SIGNED_LONG,
    SIGNED_LONG_LONG,
    SIGNED_SHORT,
    SINT8_T,
    SINT16_T,
    SINT32_T,
    SINT64_T,
    TWOINT,
    UINT8_T,
    UINT16_T,
    UINT32_T,
    UINT64_T,
    UNSIGNED,
    UNSIGNED_CHAR,
    UNSIGNED_INT,
    UNSIGNED_LONG,
    UNSIGNED_LONG_LONG,
    UNSIGNED_SHORT,
    WCHAR,
    Datatype,
)
from .core.ops import (
    BAND,
    BOR,
    BXOR,
    LAND,
    LOR,
    LXOR,
    MAX,
    MAXLOC,
    MIN,
    MINLOC,
    NO_OP,
    OP_NULL,
    PROD,
    REPLACE,
    SUM,
    Op,
)
from .core.status import ANY_SOURCE, ANY_TAG, SUCCESS, UNDEFINED, Status
from .errors import CommError as Exception
from .net.clock import monotonic as _monotonic
from .utils import get_host as _get_host
from .version import __version__ as _version

PROC_NULL: _Final = -2
ROOT: _Final = -4
TAG_UB: _Final = 0  # the key of Get_attr
VERSION: _Final = 3
SUBVERSION: _Final = 1
MAX_PROCESSOR_NAME: _Final = 256

# How a group or communicator compares with another.
IDENT: _Final = 0
CONGRUENT: _Final = 1
SIMILAR: _Final = 2
UNEQUAL: _Final = 3

THREAD_SINGLE: _Final = 0
THREAD_FUNNELED: _Final = 1
THREAD_SERIALIZED: _Final = 2
THREAD_MULTIPLE: _Final = 3

# What ``Exception.Get_error_class`` returns.
ERR_BUFFER: _Final = 1
ERR_COUNT: _Final = 2
ERR_TYPE: _Final = 3
ERR_TAG: _Final = 4
ERR_COMM: _Final = 5
ERR_RANK: _Final = 6
ERR_REQUEST: _Final = 7
ERR_ROOT: _Final = 8
ERR_GROUP: _Final = 9
ERR_OP: _Final = 10
ERR_ARG: _Final = 13
ERR_UNKNOWN: _Final = 14
ERR_TRUNCATE: _Final = 15
ERR_OTHER: _Final = 16
ERR_INTERN: _Final = 17
ERR_IN_STATUS: _Final = 18
ERR_PENDING: _Final = 19
ERR_PROC_ABORTED: _Final = 74
ERR_PROC_FAILED: _Final = 75
ERR_PROC_FAILED_PENDING: _Final = 76
ERR_REVOKED: _Final = 77
ERR_LASTCODE: _Final = 92


def Wtime() -> float:
    """Seconds since some moment in the past; never back."""
    return _monotonic()


def Wtick() -> float:
    """Seconds between two values of ``Wtime``, about."""
    return 1e-9


def Get_processor_name() -> str:
    """The address of this host."""
    return _get_host()


def Get_version() -> tuple[int, int]:
    """The version of MPI whose names these are."""
    return VERSION, SUBVERSION


def Get_library_version() -> str:
    """This library and its version."""
    return f"spark-partition-server {_version}"


def Is_initialized() -> bool:
    """Always: nothing is to be initialized."""
    return True


def Is_finalized() -> bool:
    """Never: nothing is to be finalized."""
    return False


def Query_thread() -> int:
    """``THREAD_MULTIPLE``: any thread may call."""
    return THREAD_MULTIPLE

