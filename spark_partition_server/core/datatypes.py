"""The types of items in buffers, by mpi4py's names: ``DOUBLE``, ``INT64_T``, ``BYTE``, ``DOUBLE_INT``, ...

Predefined ones only, as numpy's arrays are made of; derived types (vectors, structures) are not part of this.
``spark_partition_server.MPI`` exports all names.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["CODES", "Datatype"]


class Datatype:
    """The type of the items of a buffer.

    Attributes:
        name: as MPI spells it: ``MPI_DOUBLE``; what ``Get_name`` returns.
        dtype: as this library names it in signatures and errors, and numpy does: ``float64``; of a pair of a value and
            its place ``float64+int32``.
        size: octets of what is in an item.
        extent: octets from one item to the next; over ``size`` only where a pair is padded.
        typestr: as numpy's array interface has it: ``f8``.
        typechar: as numpy, ``array`` and ``struct`` have it: ``d``.
        is_pair: whether an item is a value and its place.
    """

    __slots__ = ("_symbol", "dtype", "extent", "is_pair", "name", "size", "typechar", "typestr")

    def __init__(self, symbol: str, dtype: str, typestr: str, typechar: str, size: int, extent: int = 0) -> None:
        self._symbol = symbol
        self.name = f"MPI_{symbol}"
        self.dtype = dtype
        self.size = size
        self.extent = extent or size
        self.typestr = typestr
        self.typechar = typechar
        self.is_pair = "+" in dtype

    def __repr__(self) -> str:
        return f"MPI.{self._symbol}"

    def __reduce__(self) -> str:
        return self._symbol  # one of this module's: there is one of each in a process

    def __bool__(self) -> bool:
        return self.size > 0

    @property
    def lb(self) -> int:
        """Where an item begins: 0."""
        return 0

    @property
    def ub(self) -> int:
        """Where an item ends: ``extent``."""
        return self.extent

    @property
    def is_named(self) -> bool:
        """Always: there are no derived types."""
        return True

    @property
    def is_predefined(self) -> bool:
        """Always: there are no derived types."""
        return True

    def Get_name(self) -> str:
        """``MPI_DOUBLE``."""
        return self.name

    def Get_size(self) -> int:
        """Octets of what is in an item."""
        return self.size

    def Get_extent(self) -> tuple[int, int]:
        """Where an item begins, 0, and the octets from one item to the next."""
        return 0, self.extent

    def Commit(self) -> Datatype:
        """Nothing is to be done; returns the type itself."""
        return self

    def Free(self) -> None:
        """Nothing is to be done: a predefined type stays."""

    def tocode(self) -> str:
        """``typechar``, from which ``fromcode`` makes the type again."""
        return self.typechar

    @staticmethod
    def fromcode(code: str) -> Datatype:
        """The type of a code of numpy, ``array`` or ``struct``: ``"d"``, ``"f8"``, ``"float64"``.

        Raises:
            ValueError: there is no such type.
        """
        try:
            return CODES[code]
        except KeyError:
            raise ValueError(f"no MPI datatype has the code {code!r}") from None

    def items_in(self, octets: int) -> int | None:
        """How many whole items so many octets of data hold; None: not a whole number of them."""
        if not self.size:
            return None
        count, rest = divmod(octets, self.size)
        return None if rest else count


DATATYPE_NULL: Final = Datatype("DATATYPE_NULL", "", "", "", 0)
BYTE: Final = Datatype("BYTE", "uint8", "u1", "B", 1)
PACKED: Final = Datatype("PACKED", "uint8", "u1", "B", 1)
CHAR: Final = Datatype("CHAR", "S1", "S1", "c", 1)
SIGNED_CHAR: Final = Datatype("SIGNED_CHAR", "int8", "i1", "b", 1)
UNSIGNED_CHAR: Final = Datatype("UNSIGNED_CHAR", "uint8", "u1", "B", 1)
BOOL: Final = Datatype("C_BOOL", "bool", "b1", "?", 1)
C_BOOL: Final = BOOL
CXX_BOOL: Final = BOOL

INT8_T: Final = Datatype("INT8_T", "int8", "i1", "b", 1)
INT16_T: Final = Datatype("INT16_T", "int16", "i2", "h", 2)
INT32_T: Final = Datatype("INT32_T", "int32", "i4", "i", 4)
INT64_T: Final = Datatype("INT64_T", "int64", "i8", "q", 8)
UINT8_T: Final = Datatype("UINT8_T", "uint8", "u1", "B", 1)
UINT16_T: Final = Datatype("UINT16_T", "uint16", "u2", "H", 2)
UINT32_T: Final = Datatype("UINT32_T", "uint32", "u4", "I", 4)
UINT64_T: Final = Datatype("UINT64_T", "uint64", "u8", "Q", 8)
SINT8_T: Final = INT8_T
SINT16_T: Final = INT16_T
SINT32_T: Final = INT32_T
SINT64_T: Final = INT64_T


def _integer(symbol: str, code: str) -> Datatype:
    """An integer of C, as wide as this machine's."""
    size = struct.calcsize(code)
    sign = "i" if code.islower() else "u"
    return Datatype(symbol, f"{'u' * (sign == 'u')}int{8 * size}", f"{sign}{size}", code, size)


SHORT: Final = _integer("SHORT", "h")
INT: Final = _integer("INT", "i")
LONG: Final = _integer("LONG", "l")
LONG_LONG: Final = _integer("LONG_LONG", "q")
UNSIGNED_SHORT: Final = _integer("UNSIGNED_SHORT", "H")
UNSIGNED: Final = _integer("UNSIGNED", "I")
UNSIGNED_LONG: Final = _integer("UNSIGNED_LONG", "L")
UNSIGNED_LONG_LONG: Final = _integer("UNSIGNED_LONG_LONG", "Q")
UNSIGNED_INT: Final = UNSIGNED
SIGNED_SHORT: Final = SHORT
SIGNED_INT: Final = INT
SIGNED_LONG: Final = LONG
SIGNED_LONG_LONG: Final = LONG_LONG
AINT: Final = _integer("AINT", "n")
OFFSET: Final = Datatype("OFFSET", "int64", "i8", "q", 8)
COUNT: Final = Datatype("COUNT", "int64", "i8", "q", 8)
WCHAR: Final = Datatype("WCHAR", "U1", "U1", "U", 4)

FLOAT16_T: Final = Datatype("FLOAT16_T", "float16", "f2", "e", 2)
FLOAT: Final = Datatype("FLOAT", "float32", "f4", "f", 4)
DOUBLE: Final = Datatype("DOUBLE", "float64", "f8", "d", 8)
# The C compilers of Linux pad it to 16 octets on x86 and ARM alike.
LONG_DOUBLE: Final = Datatype("LONG_DOUBLE", "longdouble", "f16", "g", 16)
FLOAT32_T: Final = FLOAT
FLOAT64_T: Final = DOUBLE
C_FLOAT_COMPLEX: Final = Datatype("C_FLOAT_COMPLEX", "complex64", "c8", "F", 8)
C_DOUBLE_COMPLEX: Final = Datatype("C_DOUBLE_COMPLEX", "complex128", "c16", "D", 16)
C_LONG_DOUBLE_COMPLEX: Final = Datatype("C_LONG_DOUBLE_COMPLEX", "clongdouble", "c32", "G", 32)
C_COMPLEX: Final = C_FLOAT_COMPLEX
CXX_FLOAT_COMPLEX: Final = C_FLOAT_COMPLEX
CXX_DOUBLE_COMPLEX: Final = C_DOUBLE_COMPLEX
CXX_LONG_DOUBLE_COMPLEX: Final = C_LONG_DOUBLE_COMPLEX

# Fortran's, which are C's of the same width.
CHARACTER: Final = CHAR
LOGICAL: Final = Datatype("LOGICAL", "int32", "i4", "i", 4)
INTEGER: Final = Datatype("INTEGER", "int32", "i4", "i", 4)
REAL: Final = Datatype("REAL", "float32", "f4", "f", 4)
DOUBLE_PRECISION: Final = Datatype("DOUBLE_PRECISION", "float64", "f8", "d", 8)
COMPLEX: Final = Datatype("COMPLEX", "complex64", "c8", "F", 8)
DOUBLE_COMPLEX: Final = Datatype("DOUBLE_COMPLEX", "complex128", "c16", "D", 16)
F_BOOL: Final = LOGICAL
F_INT: Final = INTEGER
F_FLOAT: Final = REAL
F_DOUBLE: Final = DOUBLE_PRECISION
F_COMPLEX: Final = COMPLEX
F_FLOAT_COMPLEX: Final = COMPLEX
F_DOUBLE_COMPLEX: Final = DOUBLE_COMPLEX
INTEGER1: Final = Datatype("INTEGER1", "int8", "i1", "b", 1)
INTEGER2: Final = Datatype("INTEGER2", "int16", "i2", "h", 2)
INTEGER4: Final = Datatype("INTEGER4", "int32", "i4", "i", 4)
INTEGER8: Final = Datatype("INTEGER8", "int64", "i8", "q", 8)
LOGICAL1: Final = Datatype("LOGICAL1", "bool", "b1", "?", 1)
LOGICAL2: Final = Datatype("LOGICAL2", "int16", "i2", "h", 2)
LOGICAL4: Final = Datatype("LOGICAL4", "int32", "i4", "i", 4)
LOGICAL8: Final = Datatype("LOGICAL8", "int64", "i8", "q", 8)
REAL2: Final = Datatype("REAL2", "float16", "f2", "e", 2)
REAL4: Final = Datatype("REAL4", "float32", "f4", "f", 4)
REAL8: Final = Datatype("REAL8", "float64", "f8", "d", 8)
REAL16: Final = Datatype("REAL16", "longdouble", "f16", "g", 16)
COMPLEX8: Final = Datatype("COMPLEX8", "complex64", "c8", "F", 8)
COMPLEX16: Final = Datatype("COMPLEX16", "complex128", "c16", "D", 16)
COMPLEX32: Final = Datatype("COMPLEX32", "clongdouble", "c32", "G", 32)

# Pairs for MAXLOC and MINLOC.
SHORT_INT: Final = Datatype("SHORT_INT", "int16+int32", "V8", "V", 6, 8)
INT_INT: Final = Datatype("INT_INT", "int32+int32", "V8", "V", 8, 8)
LONG_INT: Final = Datatype("LONG_INT", "int64+int32", "V16", "V", 12, 16)
FLOAT_INT: Final = Datatype("FLOAT_INT", "float32+int32", "V8", "V", 8, 8)
DOUBLE_INT: Final = Datatype("DOUBLE_INT", "float64+int32", "V16", "V", 12, 16)
LONG_DOUBLE_INT: Final = Datatype("LONG_DOUBLE_INT", "longdouble+int32", "V32", "V", 20, 32)
TWOINT: Final = INT_INT

_BY_KIND: Final = (
    *(CHAR, BOOL, INT8_T, INT16_T, INT32_T, INT64_T, UINT8_T, UINT16_T, UINT32_T, UINT64_T),
    *(WCHAR, FLOAT16_T, FLOAT, DOUBLE, LONG_DOUBLE, C_FLOAT_COMPLEX, C_DOUBLE_COMPLEX, C_LONG_DOUBLE_COMPLEX),
)
_BY_CODE: Final = (
    *(SIGNED_CHAR, UNSIGNED_CHAR, SHORT, INT, LONG, LONG_LONG),
    *(UNSIGNED_SHORT, UNSIGNED, UNSIGNED_LONG, UNSIGNED_LONG_LONG, AINT),
)
# What stands for a type in a buffer's format, in numpy and in ``[data, "d"]``. "Zd": a complex number in a format.
CODES: Final[dict[str, Datatype]] = {
    **{kind.dtype: kind for kind in _BY_KIND},
    **{kind.typestr: kind for kind in _BY_KIND},
    **{kind.typechar: kind for kind in (*_BY_KIND, *_BY_CODE)},
    **{"Zf": C_FLOAT_COMPLEX, "Zd": C_DOUBLE_COMPLEX, "Zg": C_LONG_DOUBLE_COMPLEX, "N": UNSIGNED_LONG},
}
