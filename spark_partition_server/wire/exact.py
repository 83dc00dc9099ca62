"""Python values between ranks, which arrive as exactly what they were (PROTOCOL.md, section 9.11).

One frame of msgpack, and behind it the octets of large arrays and byte strings, where they lie. None, bool, int of any
size, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict, numpy's arrays and scalars, and date,
time, datetime, timedelta and timezone keep their type and every bit; a subclass of one of them is something else and is
refused, unless the sender may pickle.

What msgpack knows its packer writes in C, and asks here for the rest: the answer is an array whose first item is a
mark, and the packer goes on with that in C. Only bytearrays and large byte strings take a second pass, because the
packer would write both as byte strings, in place.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from functools import partial
from itertools import chain
from typing import Any, Final

import msgpack

from .arrays import flatten
from .exact_kinds import ExactKind, integer_octets
from .exact_reading import decode_exact
from .fields import FRAMES_MAX, Frame

__all__ = ["ARRAY_BESIDE_MIN", "BESIDE_MAX", "OCTETS_BESIDE_MIN", "ExactEncoder", "decode_exact", "encode_exact"]

ARRAY_BESIDE_MIN: Final = 4096  # octets of an array that gets a frame of its own; a smaller one is copied for less
OCTETS_BESIDE_MIN: Final = 65536  # the same of bytes and bytearray, which take a second pass
BESIDE_MAX: Final = FRAMES_MAX - 3  # preamble, fields, the value itself; what is beyond goes in place
PACKER_BYTES: Final = 4096  # of a packer's memory at first; it grows
KEPT_BYTES: Final = 64 * 1024  # a packer that has grown beyond this is given up
ROWS_MIN: Final = 8  # tuples of one length in a list that are written as one; fewer gain nothing
DEEP: Final = 200  # levels at which somebody who looks for the culprit stops looking

Dumps = Callable[[Any], bytes]
_MARK: Final = {kind: msgpack.ExtType(kind, b"") for kind in ExactKind}
_TUPLE: Final = _MARK[ExactKind.TUPLE]
_COMPLEX: Final = struct.Struct(">dd")
_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})
_MISREAD: Final = frozenset({bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})  # as something else


class _Apart:
    """Something that the packer would misread, or copy: it comes back to ask about this."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


class _Rows:
    """A list of tuples of one length: the packer comes back to ask about it, rather than about each of them."""

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[Any, ...]]) -> None:
        self.items = items


class ExactEncoder:
    """Encodes values one after the other with one packer: to make one costs more than to encode a small value.

    Belongs to one thread.

    Args:
        dumps: pickles what cannot be sent otherwise, ``pickle.dumps`` say; None: a TypeError says so instead.
    """

    __slots__ = ("_dumps", "_frames", "_pack")

    def __init__(self, dumps: Dumps | None = None) -> None:
        self._dumps = dumps
        self._frames: list[Frame] = []
        self._pack: Any = self._packer()

    def encode(self, value: Any) -> list[Frame]:
        """The frames of a value: one of msgpack, then those that lie beside it.

        Frames beside it are memory of the value's: it must not change before they have left.

        Raises:
            TypeError: something in the value cannot be sent; the text names its path and its type.
        """
        pack, self._pack = self._pack, None
        if pack is None:  # a value that is under way is pickled by code of its own, which encodes another
            return encode_exact(value, self._dumps)
        try:
            octets = self._packed(pack, value)
            if len(octets) <= KEPT_BYTES:
                self._pack = pack
            return [octets, *self._frames] if self._frames else [octets]
        except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
            raise TypeError(_culprit(value, self._dumps, error)) from error.__cause__
        finally:
            self._frames.clear()
            if self._pack is None:  # it has failed half-way, or holds memory for a large value
                self._pack = self._packer()

    def _packed(self, pack: Any, value: Any) -> bytes:
        kind = type(value)
        if kind in _MISREAD or (kind is bytes and len(value) >= OCTETS_BESIDE_MIN):
            shaped: Any = _Apart(value)
        else:
            shaped = _Rows(value) if kind is list and _is_rows(value) else value
        try:
            octets: bytes = pack(shaped)
        except UnicodeEncodeError:  # a surrogate that stands alone; to let them pass makes every text slower
            self._frames.clear()
            pack = self._packer("surrogatepass")
            octets = pack(shaped)
        # Without the header of a byte string there is none, and nothing that was taken for one.
        if kind in _CONTAINERS and (b"\xc4" in octets or b"\xc5" in octets or b"\xc6" in octets) and _is_apart(value):
            self._frames.clear()
            octets = pack(_set_apart(value))
        return octets

    def _packer(self, unicode_errors: str | None = None) -> Any:
        special = partial(_special, self._frames, self._dumps)
        return msgpack.Packer(
            default=special, strict_types=True, unicode_errors=unicode_errors, buf_size=PACKER_BYTES
        ).pack


def encode_exact(value: Any, dumps: Dumps | None = None) -> list[Frame]:
    """One value, for those who encode few; see ``ExactEncoder``."""
    return ExactEncoder(dumps).encode(value)


# ------------------------------------------------------------------------------- what the packer asks about


def _special(frames: list[Frame], dumps: Dumps | None, item: Any) -> Any:
    """What stands for something that msgpack has no type for."""
    kind = type(item)
    if kind is tuple:
        return [_TUPLE, *item]
    make = _MAKERS.get(kind)
    if make is not None:
        return make(item)
    if kind is _Apart:
        return _octets(item.item, frames)
    if kind is _Rows:
        return [_MARK[ExactKind.ROWS], len(item.items[0]), *chain.from_iterable(item.items)]
    numpy = sys.modules.get("numpy")  # a value can hold an array only where numpy is loaded
    if numpy is not None:
        if (kind is numpy.ndarray or kind is numpy.memmap) and (not item.dtype.hasobject or dumps is None):
            return _array(numpy, item, frames)
        if isinstance(item, numpy.generic) and kind is item.dtype.type and item.dtype.kind in "biufcmMSU":
            return _scalar(item)
    if kind is datetime or kind is time:
        if item.tzinfo is None or type(item.tzinfo) is timezone:
            return _time(item)
        if dumps is None:
            zone = f"{type(item.tzinfo).__module__}.{type(item.tzinfo).__qualname__}"
            raise TypeError(f"cannot send a time whose zone is a {zone}; use astimezone(timezone.utc)")
    if dumps is not None:
        return [_MARK[ExactKind.PICKLE], _place(_pickled(item, dumps), frames, OCTETS_BESIDE_MIN)]
    raise TypeError(f"cannot send a {kind.__module__}.{kind.__qualname__}")


def _integer(item: int) -> Any:
    return msgpack.ExtType(ExactKind.INTEGER, item.to_bytes(integer_octets(item), "big", signed=True))


def _complex(item: complex) -> Any:
    return msgpack.ExtType(ExactKind.COMPLEX, _COMPLEX.pack(item.real, item.imag))


def _date(item: date) -> Any:
    return [_MARK[ExactKind.DATE], item.year, item.month, item.day]


def _timedelta(item: timedelta) -> Any:
    return [_MARK[ExactKind.TIMEDELTA], item.days, item.seconds, item.microseconds]


def _timezone(item: timezone) -> Any:
    offset, *name = item.__getinitargs__()  # type: ignore[attr-defined]  # a name that was given, not one made up
    return [_MARK[ExactKind.TIMEZONE], offset.days, offset.seconds, offset.microseconds, *name]


def _time(item: Any) -> Any:
    clock = [item.hour, item.minute, item.second, item.microsecond, item.fold, item.tzinfo]
    if type(item) is time:
        return [_MARK[ExactKind.TIME], *clock]
    return [_MARK[ExactKind.DATETIME], item.year, item.month, item.day, *clock]


_MAKERS: Final[dict[type, Callable[[Any], Any]]] = {
    set: lambda item: [_MARK[ExactKind.SET], *item],
    frozenset: lambda item: [_MARK[ExactKind.FROZENSET], *item],
    int: _integer,  # of more than 64 bits
    complex: _complex,
    date: _date,
    timedelta: _timedelta,
    timezone: _timezone,
}


def _array(numpy: Any, item: Any, frames: list[Frame]) -> Any:
    if item.dtype.names is not None:
        raise TypeError("cannot send a structured array; send its fields, each an array")
    octets, dtype, shape, order = flatten(numpy, item)
    return [_MARK[ExactKind.ARRAY], _place(octets, frames, ARRAY_BESIDE_MIN), dtype, shape, order]


def _scalar(item: Any) -> Any:
    kind = item.dtype.kind
    if kind in "US":  # their octets would lose zeros at the end
        return [_MARK[ExactKind.SCALAR], kind, str(item) if kind == "U" else bytes(item)]
    return [_MARK[ExactKind.SCALAR], item.dtype.str, item.tobytes()]


def _pickled(item: Any, dumps: Dumps) -> bytes:
    try:
        return dumps(item)
    except Exception as error:
        raise TypeError(f"it cannot be pickled either: {error}") from error


def _octets(item: Any, frames: list[Frame]) -> Any:
    if type(item) is bytearray:
        return [_MARK[ExactKind.BYTEARRAY], _place(item, frames, OCTETS_BESIDE_MIN)]
    if type(item) is bytes:
        return [_MARK[ExactKind.OCTETS], _place(item, frames, OCTETS_BESIDE_MIN)]
    raise TypeError(f"cannot send a {type(item).__module__}.{type(item).__qualname__}; send bytes(it)")


def _place(octets: Frame, frames: list[Frame], least: int) -> Any:
    """The number of the frame that octets got, or the octets themselves, to go in place."""
    if len(octets) < least or len(frames) >= BESIDE_MAX:
        return bytes(octets)
    frames.append(octets)
    return len(frames)


def _is_rows(items: list[Any]) -> bool:
    """Whether a list has nothing but tuples of one length, and enough of them."""
    if len(items) < ROWS_MIN or type(items[0]) is not tuple or not items[0]:
        return False
    return set(map(type, items)) == {tuple} and len(set(map(len, items))) == 1


# -------------------------------------------------------------------------------------- the second pass


def _is_apart(value: Any) -> bool:
    """Whether anything in the value is misread, or large. Level by level, so that most of it is done in C."""
    level: list[Any] = [value]
    while level:
        kinds = set(map(type, level))
        if kinds & _MISREAD:
            return True
        if bytes in kinds and any(type(item) is bytes and len(item) >= OCTETS_BESIDE_MIN for item in level):
            return True
        inner: list[Any] = []
        for kind in kinds & _CONTAINERS:
            some: list[Any] = level if len(kinds) == 1 else [item for item in level if type(item) is kind]
            inner.extend(chain.from_iterable(some))
            if kind is dict:
                inner.extend(chain.from_iterable(map(dict.values, some)))
        level = inner
    return False


def _set_apart(item: Any) -> Any:
    """The value, with everything that is misread or large wrapped up."""
    kind = type(item)
    if kind is dict:
        return {_set_apart(key): _set_apart(one) for key, one in item.items()}
    if kind in _CONTAINERS:
        return kind(map(_set_apart, item))
    if kind in _MISREAD or (kind is bytes and len(item) >= OCTETS_BESIDE_MIN):
        return _Apart(item)
    return item


# ----------------------------------------------------------------------------------------------- errors


def _culprit(value: Any, dumps: Dumps | None, error: BaseException) -> str:
    """The text of a TypeError that names the first thing in ``value`` that cannot be sent."""
    return _find(value, dumps, "value", 0) or f"the value cannot be sent: {error}"


def _find(value: Any, dumps: Dumps | None, path: str, depth: int) -> str | None:
    if depth > DEEP:
        return f"{path:.200}... is nested too deeply, or refers to itself"
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            found = _find(key, dumps, f"{path} key {key!r:.60}", depth + 1)
            found = found or _find(item, dumps, f"{path}[{key!r:.60}]", depth + 1)
            if found:
                return found
        return None
    if kind is list or kind is tuple:
        parts = (_find(item, dumps, f"{path}[{index}]", depth + 1) for index, item in enumerate(value))
        return next(filter(None, parts), None)
    if kind is set or kind is frozenset:
        return next(filter(None, (_find(item, dumps, f"{path} item {item!r:.60}", depth + 1) for item in value)), None)
    return _judge(value, dumps, path)


def _judge(value: Any, dumps: Dumps | None, path: str) -> str | None:
    """Whether one value that is no container can be packed."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    apart = _Apart(value) if type(value) in _MISREAD else value
    special = partial(_special, [], dumps)
    try:
        msgpack.packb(apart, default=special, strict_types=True, unicode_errors="surrogatepass")
    except TypeError as error:
        detail = str(error).removeprefix(f"cannot send a {name}").removeprefix("; ")
        hint = "" if dumps else "; convert it, or allow it to be pickled (allow_pickle=True)"
        return f"{path} is of type {name}, which cannot be sent{f' ({detail})' if detail else ''}{hint}"
    except Exception as error:  # noqa: BLE001 - octets over 4 GiB, whatever a pickler raises, ...
        return f"{path} of type {name} cannot be sent: {error}"
    return None
