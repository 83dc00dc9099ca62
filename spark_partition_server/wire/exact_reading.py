"""The decoder of values between ranks (PROTOCOL.md, section 9.11)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final

import msgpack

from ..errors import RemoteProtocolError
from .arrays import check_dtype, view
from .codec import describe
from .codes import Code
from .exact_kinds import EMPTY_MARK, ExactKind, integer_octets
from .fields import Frame

__all__ = ["decode_exact"]

Loads = Callable[[Any], Any]
_COMPLEX: Final = struct.Struct(">dd")


def decode_exact(frames: Sequence[Frame], *, lent: bool = False, loads: Loads | None = None) -> Any:
    """The value that frames hold, as it was sent. Arrays and bytearrays in it can be written.

    An array whose frame can be written (a bytearray, say) is a view of it: give the frames away with this call.

    Args:
        lent: the frames are somebody's memory: copy what would be a view of it.
        loads: unpickles what the sender has pickled, ``pickle.loads`` say; None: it is refused. Unpickling runs
            whatever code the sender chose.

    Raises:
        RemoteProtocolError: with MALFORMED: the frames break the format, or hold something pickled.
        ImportError: the value holds an array, and numpy is not installed here.
    """
    if not frames:
        raise RemoteProtocolError("a value has at least one frame", Code.MALFORMED)
    head = frames[0]
    if type(head) is memoryview:
        head = bytes(head)
    try:
        if len(frames) == 1 and EMPTY_MARK not in head:
            try:
                return msgpack.unpackb(head, strict_map_key=False, timestamp=3, ext_hook=_datum)
            except UnicodeDecodeError:
                pass
        try:
            return _Reading(frames, lent, loads).read(head, None)
        except UnicodeDecodeError:  # a surrogate that stands alone, or no UTF-8 at all
            return _Reading(frames, lent, loads).read(head, "surrogatepass")
    except (RemoteProtocolError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever foreign bytes provoke is one protocol error
        raise RemoteProtocolError(f"the value is malformed: {describe(error)}", Code.MALFORMED) from None


class _Mark:
    """The first item of an array that stands for something else."""

    __slots__ = ("kind", "make")

    def __init__(self, kind: ExactKind, make: Callable[[_Reading, list[Any]], Any]) -> None:
        self.kind = kind
        self.make = make


class _Reading:
    """One value with marks in it, or frames beside it."""

    __slots__ = ("frames", "lent", "loads", "marks", "next")

    def __init__(self, frames: Sequence[Frame], lent: bool, loads: Loads | None) -> None:
        self.frames = frames
        self.lent = lent
        self.loads = loads
        self.marks = 0  # that have not met their array
        self.next = 1  # the frame that the next place must name

    def read(self, head: Frame, unicode_errors: str | None) -> Any:
        """The value."""
        value = msgpack.unpackb(
            head,
            strict_map_key=False,
            timestamp=3,
            ext_hook=self.ext,
            list_hook=self.array,
            unicode_errors=unicode_errors,
        )
        if self.marks:
            raise ValueError("a mark stands where none belongs")
        if self.next != len(self.frames):
            raise ValueError(f"{len(self.frames) - self.next} frames belong to nothing")
        return value

    def ext(self, code: int, data: bytes) -> Any:
        """A mark, or a number."""
        mark = _MARKS.get(code)
        if mark is None or data:
            return _datum(code, data)
        self.marks += 1
        return mark

    def array(self, items: list[Any]) -> Any:
        """A list, or what an array with a mark stands for."""
        mark = items[0] if items else None
        if type(mark) is not _Mark:
            return items
        self.marks -= 1
        del items[0]
        return mark.make(self, items)

    def place(self, where: Any) -> Frame:
        """The octets at a place: those that stand there, or the frame of that number, which must be the next."""
        if type(where) is bytes:
            return where
        if type(where) is not int or where != self.next or where >= len(self.frames):
            raise ValueError(f"{where!r} is not the next frame")
        self.next += 1
        return self.frames[where]


def _datum(code: int, data: bytes) -> Any:
    if code == ExactKind.INTEGER:
        number = int.from_bytes(data, "big", signed=True)
        if -(1 << 63) <= number < 1 << 64 or len(data) != integer_octets(number):
            raise ValueError("an integer is not in its shortest form")
        return number
    if code == ExactKind.COMPLEX:
        return complex(*_COMPLEX.unpack(data))
    raise ValueError(f"no value has extension type {code} with {len(data)} octets")


# ---------------------------------------------------------------------- what arrays with a mark stand for


def _unique(made: Any, items: list[Any]) -> Any:
    if len(made) != len(items):
        raise ValueError("an item is twice in a set")
    return made


def _rows(reading: _Reading, items: list[Any]) -> list[tuple[Any, ...]]:
    width, count = items[0], len(items) - 1
    if type(width) is not int or not 0 < width <= count or count % width:
        raise ValueError(f"{count} items are no rows of {width!r:.40}")
    del items[0]
    return list(zip(*[iter(items)] * width, strict=True))


def _octets(reading: _Reading, items: list[Any]) -> bytes:
    (where,) = items
    return bytes(reading.place(where))  # no copy of what is bytes already


def _bytearray(reading: _Reading, items: list[Any]) -> bytearray:
    (where,) = items
    octets = reading.place(where)
    return octets if type(octets) is bytearray and not reading.lent else bytearray(octets)


def _array(reading: _Reading, items: list[Any]) -> Any:
    numpy = _numpy()
    where, dtype, shape, order = items
    octets = reading.place(where)
    if type(where) is bytes:
        return view(numpy, bytearray(octets), dtype, shape, order)
    array = view(numpy, octets, dtype, shape, order)
    return array.copy(order) if reading.lent or not array.flags.writeable else array


def _scalar(reading: _Reading, items: list[Any]) -> Any:
    numpy = _numpy()
    dtype, octets = items
    if dtype == "U" and type(octets) is str:
        return numpy.str_(octets)
    if type(octets) is not bytes:
        raise ValueError("the octets of a scalar are none")
    if dtype == "S":
        return numpy.bytes_(octets)
    (scalar,) = numpy.frombuffer(octets, check_dtype(dtype))
    return scalar


def _numpy() -> Any:
    try:
        import numpy  # noqa: PLC0415 - only where an array has arrived
    except ImportError as error:
        raise ImportError("the value holds a numpy array, and numpy is not installed here") from error
    return numpy


def _zone(zone: Any) -> timezone | None:
    if zone is not None and type(zone) is not timezone:
        raise ValueError("the zone of a time is none")
    return zone


def _time(reading: _Reading, items: list[Any]) -> time:
    hour, minute, second, microsecond, fold, zone = items
    return time(hour, minute, second, microsecond, _zone(zone), fold=fold)


def _datetime(reading: _Reading, items: list[Any]) -> datetime:
    *fields, fold, zone = items
    year, month, day, hour, minute, second, microsecond = fields
    return datetime(year, month, day, hour, minute, second, microsecond, _zone(zone), fold=fold)


def _timedelta(reading: _Reading, items: list[Any]) -> timedelta:
    if not all(type(item) is int for item in items):  # timedelta takes floats, and rounds
        raise ValueError("a part of a timedelta is no integer")
    days, seconds, microseconds = items
    return timedelta(days, seconds, microseconds)


def _timezone(reading: _Reading, items: list[Any]) -> timezone:
    return timezone(_timedelta(reading, items[:3]), *items[3:])


def _pickle(reading: _Reading, items: list[Any]) -> Any:
    (where,) = items
    octets = reading.place(where)
    if reading.loads is None:
        text = "the sender has pickled something (allow_pickle=True), and here nothing may be unpickled"
        raise RemoteProtocolError(text, Code.MALFORMED)
    try:
        return reading.loads(octets)
    except Exception as error:
        text = f"what was pickled cannot be unpickled: {error!r:.300}"
        raise RemoteProtocolError(text, Code.MALFORMED) from error


_MARKS: Final[dict[int, _Mark]] = {
    int(kind): _Mark(kind, make)  # a plain number is found sooner than an equal one
    for kind, make in (
        (ExactKind.TUPLE, lambda reading, items: tuple(items)),
        (ExactKind.SET, lambda reading, items: _unique(set(items), items)),
        (ExactKind.FROZENSET, lambda reading, items: _unique(frozenset(items), items)),
        (ExactKind.OCTETS, _octets),
        (ExactKind.BYTEARRAY, _bytearray),
        (ExactKind.ARRAY, _array),
        (ExactKind.SCALAR, _scalar),
        (ExactKind.DATE, lambda reading, items: date(*items)),
        (ExactKind.TIME, _time),
        (ExactKind.DATETIME, _datetime),
        (ExactKind.TIMEDELTA, _timedelta),
        (ExactKind.TIMEZONE, _timezone),
        (ExactKind.PICKLE, _pickle),
        (ExactKind.ROWS, _rows),
    )
}
