"""What mpi4py's methods with a capital take as buffers, read: memory, how many items, of which type.

* ``data``: anything with the buffer protocol, in one piece and of a known type: an array of numpy or ``array``, bytes;
* ``[data, count]``, ``[data, datatype]``, ``[data, count, datatype]``, ``[data, (count, displacement), datatype]``,
  ``[data, count, displacement, datatype]``, for one block or for blocks that lie one behind the other;
* the same with a list of counts, and of displacements, for blocks of their own lengths (``Scatterv`` and the like).

A datatype is one of ``MPI``'s, or a code: ``"d"``, ``"f8"``. Counts and displacements are in items. Nothing is copied.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import index
from pickle import PickleBuffer  # the only way in Python to memory as it lies, whatever its format says
from typing import Any, Final

from .datatypes import BYTE, CHAR, CODES, Datatype

__all__ = [
    "BOTTOM",
    "IN_PLACE",
    "Blocks",
    "Buffer",
    "Constant",
    "check_alike",
    "read_blocks",
    "read_buffer",
]

FOREIGN_ORDER: Final = ">!" if sys.byteorder == "little" else "<"


class Constant:
    """An argument that stands for itself: ``IN_PLACE``, ``BOTTOM``."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name  # one of this module's: there is one of each in a process


IN_PLACE: Final = Constant("IN_PLACE")
BOTTOM: Final = Constant("BOTTOM")


@dataclass(slots=True)
class Buffer:
    """Memory for a message, or for ``blocks`` messages of ``count`` items that lie one behind the other.

    Attributes:
        octets: the memory, flat: exactly that of all items.
        count: items of one message.
        datatype: of the items.
    """

    octets: memoryview
    count: int
    datatype: Datatype

    @property
    def dtype(self) -> str:
        """The type of the items as signatures have it: ``float64``."""
        return self.datatype.dtype

    def block(self, number: int) -> memoryview:
        """The memory of one of the messages."""
        size = self.count * self.datatype.extent
        return self.octets[number * size : (number + 1) * size]


@dataclass(slots=True)
class Blocks:
    """Memory for messages of their own lengths and places.

    Attributes:
        octets: all of the memory, flat.
        counts: items of each message.
        displacements: where each of them begins, in items.
        datatype: of the items.
    """

    octets: memoryview
    counts: tuple[int, ...]
    displacements: tuple[int, ...]
    datatype: Datatype

    @property
    def dtype(self) -> str:
        """The type of the items as signatures have it: ``float64``."""
        return self.datatype.dtype

    def block(self, number: int) -> memoryview:
        """The memory of one of the messages."""
        start = self.displacements[number] * self.datatype.extent
        return self.octets[start : start + self.counts[number] * self.datatype.extent]


def read_buffer(spec: Any, *, writable: bool = False, blocks: int = 1) -> Buffer:
    """The buffer that a specification means.

    Args:
        spec: as above.
        writable: whether something is to be received into it.
        blocks: how many messages lie in it; a count in the specification is that of one of them.

    Raises:
        TypeError: it is no buffer, or of no known type, or cannot be written.
        ValueError: its counts do not fit its memory, or it is not in one piece.
    """
    data, count, displacement, datatype = _parts(spec, blocks_of_their_own=False)
    octets, kind = _memory(data, datatype, writable)
    skipped = 0 if displacement is None else _natural(displacement, "displacement")
    there = len(octets) // kind.extent
    if count is None:
        if len(octets) % kind.extent:
            raise ValueError(f"{len(octets)} octets are no whole number of {kind!r}, which takes {kind.extent}")
        if skipped > there:
            raise ValueError(f"the displacement {skipped} is beyond the {there} items of the buffer")
        number, rest = divmod(there - skipped, blocks)
        if rest:
            raise ValueError(f"{there - skipped} items of {kind!r} cannot be divided among {blocks} ranks")
    else:
        number = _natural(count, "count")
        if skipped + number * blocks > there:
            many = f"{blocks} times " if blocks != 1 else ""
            behind = f" behind the first {skipped}" if skipped else ""
            raise ValueError(f"{many}{number} items of {kind!r}{behind} are more than the {there} of the buffer")
    start = skipped * kind.extent
    return Buffer(octets[start : start + number * blocks * kind.extent], number, kind)


def read_blocks(spec: Any, blocks: int, *, writable: bool = False) -> Blocks:
    """The buffer of messages of their own lengths that a specification means: one for each of ``blocks`` ranks.

    Without counts the items are divided as evenly as they can be, lower ranks having one more; without displacements
    the messages lie one behind the other.

    Raises:
        TypeError, ValueError: as ``read_buffer``; there are not as many counts or displacements as ranks.
    """
    data, counts, displacements, datatype = _parts(spec, blocks_of_their_own=True)
    octets, kind = _memory(data, datatype, writable)
    there = len(octets) // kind.extent
    if counts is None:
        if len(octets) % kind.extent:
            raise ValueError(f"{len(octets)} octets are no whole number of {kind!r}, which takes {kind.extent}")
        each, more = divmod(there, blocks)
        numbers = tuple(each + (rank < more) for rank in range(blocks))
    else:
        numbers = _numbers(counts, blocks, "count", 0)
    if displacements is None:
        places = tuple(accumulate(numbers[:-1], initial=0)) if numbers else ()
    else:
        places = _numbers(displacements, blocks, "displacement", 1)
    for rank, (number, place) in enumerate(zip(numbers, places, strict=True)):
        if number and place + number > there:
            raise ValueError(
                f"the {number} items of rank {rank} from item {place} on are beyond the {there} items of the buffer"
            )
    return Blocks(octets, numbers, places, kind)


def check_alike(source: Buffer, target: Buffer) -> None:
    """Raises where the buffers of a reduction are not of the same items.

    Raises:
        ValueError: their types or their counts differ.
    """
    if source.dtype != target.dtype:
        raise ValueError(f"items of type {source.dtype} are sent and items of type {target.dtype} received")
    if source.count != target.count:
        raise ValueError(f"{source.count} items are sent and {target.count} received")


# ---------------------------------------------------------------------------------- the parts of a specification


def _parts(spec: Any, *, blocks_of_their_own: bool) -> tuple[Any, Any, Any, Any]:
    """Data, count or counts, displacement or displacements, datatype; None for what is not given."""
    if not isinstance(spec, (list, tuple)):
        return spec, None, None, None
    if len(spec) == 4:
        return spec[0], spec[1], spec[2], spec[3]
    if len(spec) == 3:
        data, count, datatype = spec
    elif len(spec) == 2:
        data, count = spec
        if isinstance(count, (Datatype, str)):
            return data, None, None, count
        datatype = None
    else:
        raise ValueError(f"a buffer is given by 2 to 4 things, [data, count, datatype] say, not by {len(spec)}")
    # A list of counts is one, where blocks have their own; a tuple is a pair of counts and displacements.
    if isinstance(count, tuple) or (isinstance(count, list) and not blocks_of_their_own):
        if len(count) != 2:
            raise ValueError(f"a count and a displacement are two numbers, not {len(count)}")
        return data, count[0], count[1], datatype
    return data, count, None, datatype


def _memory(data: Any, datatype: Any, writable: bool) -> tuple[memoryview, Datatype]:
    """The memory of a buffer and the type of its items."""
    if isinstance(data, Constant):
        why = "there are no absolute addresses here" if data is BOTTOM else "here it means nothing"
        raise TypeError(f"{data!r} is no buffer: {why}")
    if data is None:
        if datatype is None:
            raise TypeError("None is no buffer; [None, datatype] is one without items")
        return memoryview(b""), _datatype(datatype)
    try:
        found = memoryview(data)
    except TypeError:
        raise TypeError(
            f"a {type(data).__module__}.{type(data).__qualname__} is no buffer; "
            "methods in lower case take any object, those with a capital take arrays"
        ) from None
    except ValueError as error:  # numpy has no format for it, a moment say
        raise TypeError(f"{error}; give the array as integers: array.view('int64')") from None
    kind = _datatype_of(found) if datatype is None else _datatype(datatype)
    if datatype is not None:
        _check_meaning(found, kind)
    try:
        octets = PickleBuffer(data).raw()
    except BufferError:
        raise ValueError("the buffer is not in one piece; copy it first: numpy.ascontiguousarray(it)") from None
    if writable and octets.readonly:
        raise TypeError(f"a {type(data).__module__}.{type(data).__qualname__} that cannot be written receives nothing")
    return octets, kind


def _datatype(given: Any) -> Datatype:
    if isinstance(given, str):
        if given not in CODES:
            raise TypeError(f"no MPI datatype has the code {given!r}")
        return CODES[given]
    if not isinstance(given, Datatype):
        raise TypeError(f"{given!r:.60} is no datatype; give one of MPI's, MPI.DOUBLE say, or a code, 'd' say")
    if not given:
        raise TypeError("MPI.DATATYPE_NULL is no type of items")
    return given


def _datatype_of(found: memoryview) -> Datatype:
    """The type that a buffer says its items have."""
    kind = _named(found)
    if kind is not None:
        return kind
    form = found.format
    if form[:1] in FOREIGN_ORDER:
        raise TypeError("the octets of the items are the other way round; convert them: array.astype('=' + code)")
    if form == "O":
        raise TypeError("an array of objects is no buffer; methods in lower case take any object")
    raise TypeError(f"items of format {form!r} have no MPI datatype of their own; name one: [data, MPI.DOUBLE_INT] say")


def _named(found: memoryview) -> Datatype | None:
    form = found.format.removeprefix("@").removeprefix("=").removeprefix("<" if sys.byteorder == "little" else ">")
    if form == "B":
        return BYTE
    if form in ("c", "s", "1s"):
        return CHAR
    kind = CODES.get(form)
    return kind if kind is not None and kind.extent == found.itemsize else None


def _check_meaning(found: memoryview, given: Datatype) -> None:
    """Raises where a buffer of numbers would be read as other numbers.

    Octets may be read as anything, complex numbers as floats, and integers as others of their width.
    """
    kind = _named(found)
    if kind is None or kind.extent == 1 or given.extent == 1 or kind.dtype == given.dtype or given.is_pair:
        return
    families = {kind.typestr[0], given.typestr[0]}
    alike = families <= set("iu") and kind.extent == given.extent
    parts = families == {"c", "f"} and {kind.extent / given.extent} <= {2, 0.5}
    if not (alike or parts):
        raise TypeError(f"the items of the buffer are {kind.dtype}, and {given!r} would read them as {given.dtype}")


def _natural(given: Any, name: str) -> int:
    try:
        number = index(given)
    except TypeError:
        raise TypeError(f"a {name} is an integer, not {given!r:.60}") from None
    if number < 0:
        raise ValueError(f"the {name} {number} is negative")
    return number


def _numbers(given: Any, blocks: int, name: str, stride: int) -> tuple[int, ...]:
    """Counts or displacements of all ranks; a single one is the count of each, or the stride from one to the next."""
    if hasattr(given, "__index__") and not isinstance(given, Sequence) and not getattr(given, "shape", ()):
        number = _natural(given, name)
        return tuple(number * rank if stride else number for rank in range(blocks))
    try:
        numbers = tuple(_natural(one, name) for one in given)
    except TypeError:
        raise TypeError(f"a {name} is an integer, or there is one for each rank, not {given!r:.60}") from None
    if len(numbers) != blocks:
        raise ValueError(f"there are {len(numbers)} {name}s for {blocks} ranks")
    return numbers
