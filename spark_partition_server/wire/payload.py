"""User values to payload frames and back (PROTOCOL.md, section 9).

A value is one msgpack frame. Arrays and tables travel behind it as raw frames, one each, and are decoded without a
copy. Plain msgpack types, numpy arrays and numpy scalars, Arrow tables and record batches, and timezone-aware datetimes
can be sent; a tuple arrives as a list. numpy is imported only when a value holds an array, pyarrow for a table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgpack

from ..errors import RemoteProtocolError
from .arrays import check_dtype, flatten, view
from .codec import describe
from .codes import Code
from .messages import FRAMES_MAX, Frame
from .tables import is_table, read_table, write_table

__all__ = ["ARRAY", "SCALAR", "TABLE", "ValueEncoder", "decode_value", "encode_value", "size_of"]

ARRAY = 1  # ext: [frame, dtype, shape, order]
SCALAR = 2  # ext: [dtype, octets]
TABLE = 3  # ext: [frame, kind]
ARRAYS_MAX = FRAMES_MAX - 3  # preamble, fields, the value itself
PACKER_BYTES = 4096  # of a packer's memory at first; it grows
KEPT_BYTES = 64 * 1024  # a packer that has grown beyond this is given up


class ValueEncoder:
    """Encodes values one after the other with one packer: to make one costs more than to encode a small value.

    Belongs to one thread.
    """

    __slots__ = ("_arrays", "_pack")

    def __init__(self) -> None:
        self._arrays: list[Frame] = []
        self._pack: Any = self._packer()

    def encode(self, value: Any, names: Sequence[str] = ()) -> list[Frame]:
        """The frames of a value: one of msgpack, then one for each array in it.

        Args:
            value: what to send.
            names: what an error calls the items of ``value``, where it is a tuple of separate things.

        Raises:
            TypeError: something in the value cannot be sent; the text names its path and its type.
        """
        pack, self._pack = self._pack, None
        if pack is None:  # a value that is under way runs code of its own (a lazy dict, say), which encodes another
            return encode_value(value, names)
        try:
            octets: bytes = pack(value)
            if len(octets) <= KEPT_BYTES:
                self._pack = pack
            return [octets, *self._arrays]
        except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError, BufferError) as error:
            raise TypeError(_culprit(value, names, error)) from None
        finally:
            self._arrays.clear()
            if self._pack is None:  # it has failed half-way, or holds memory for a large value
                self._pack = self._packer()

    def _packer(self) -> Any:
        special = partial(_special, buffers=self._arrays)
        return msgpack.Packer(default=special, datetime=True, buf_size=PACKER_BYTES).pack


def encode_value(value: Any, names: Sequence[str] = ()) -> list[Frame]:
    """One value, for those who encode few; see ``ValueEncoder.encode``."""
    return ValueEncoder().encode(value, names)


def decode_value(frames: Sequence[Frame]) -> Any:
    """The value that frames hold. Arrays are views of their frames: writable where the frame is.

    Raises:
        RemoteProtocolError: with MALFORMED: the frames break the format.
        ImportError: the value holds an array or a table, and numpy or pyarrow is not installed here.
    """
    if not frames:
        raise RemoteProtocolError("a value has at least one frame", Code.MALFORMED)
    first = frames[0]
    extension = _ALONE if len(frames) == 1 else partial(_extension, frames=frames)
    try:
        return msgpack.unpackb(first, strict_map_key=False, timestamp=3, ext_hook=extension)
    except TypeError:
        pass  # an array as a map's key: once more, slowly, with keys made hashable
    except (RemoteProtocolError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 - msgpack raises six kinds of exception on foreign bytes
        raise RemoteProtocolError(f"the value is not msgpack: {describe(error)}", Code.MALFORMED) from None
    try:
        return msgpack.unpackb(
            first, strict_map_key=False, timestamp=3, ext_hook=extension, object_pairs_hook=_with_hashable_keys
        )
    except (RemoteProtocolError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001
        raise RemoteProtocolError(f"the value is not msgpack: {describe(error)}", Code.MALFORMED) from None


def size_of(frames: Sequence[Frame]) -> int:
    """Octets of all frames together."""
    return sum(map(len, frames))


# -------------------------------------------------------------------------------------------- encoding


def _special(item: Any, buffers: list[Frame]) -> Any:
    """What msgpack has no type for. Called by the packer; a TypeError from here is given a path by the caller."""
    numpy = sys.modules.get("numpy")  # a value can hold an array only where numpy is loaded
    if numpy is not None:
        if isinstance(item, numpy.ndarray):
            return _array(item, buffers, numpy)
        if isinstance(item, numpy.generic):
            check_dtype(item.dtype.str)
            return msgpack.ExtType(SCALAR, msgpack.packb([item.dtype.str, item.tobytes()]))
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and is_table(pyarrow, item):
        _make_room(buffers)
        frame, kind = write_table(pyarrow, item)
        buffers.append(frame)  # type: ignore[arg-type]  # pieces are for those who send (framing.encode_vector)
        return msgpack.ExtType(TABLE, msgpack.packb([len(buffers), kind]))
    raise TypeError(f"cannot send a {type(item).__module__}.{type(item).__qualname__}")


def _make_room(buffers: list[Frame]) -> None:
    if len(buffers) >= ARRAYS_MAX:
        raise TypeError(f"cannot send more than {ARRAYS_MAX} arrays and tables in one value")


def _array(array: Any, buffers: list[Frame], numpy: Any) -> msgpack.ExtType:
    _make_room(buffers)
    frame, dtype, shape, order = flatten(numpy, array)
    buffers.append(frame)
    return msgpack.ExtType(ARRAY, msgpack.packb([len(buffers), dtype, shape, order]))


def _culprit(value: Any, names: Sequence[str], error: BaseException) -> str:
    """The text of a TypeError that names the first thing in ``value`` that cannot be sent."""
    parts = zip(names, value, strict=True) if names else [("value", value)]
    found = (_find(part, name, 0) for name, part in parts)
    return next(filter(None, found), f"the value cannot be sent: {error}")


def _find(value: Any, path: str, depth: int) -> str | None:
    if depth > 500:
        return f"{path} is nested too deeply, or refers to itself"
    if isinstance(value, dict):
        for key, item in value.items():
            found = _find(key, f"{path} key {key!r:.60}", depth + 1) or _find(item, f"{path}[{key!r:.60}]", depth + 1)
            if found:
                return found
        return None
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            found = _find(item, f"{path}[{index}]", depth + 1)
            if found:
                return found
        return None
    return _judge(value, path)


def _judge(value: Any, path: str) -> str | None:
    """Whether one value that is no container can be packed."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return f"{path} is an int of {value.bit_length()} bits; only 64-bit integers can be sent"
    if isinstance(value, datetime) and value.tzinfo is None:
        return f"{path} is a datetime without a time zone; give it one, for instance tzinfo=timezone.utc"
    try:
        msgpack.packb(value, default=lambda item: _special(item, []), datetime=True)
    except TypeError as error:
        detail = str(error)
        return f"{path} is of type {name}, which cannot be sent" + ("" if name in detail else f" ({detail})")
    except Exception as error:  # noqa: BLE001 - lone surrogates, octets over 4 GiB, ...
        return f"{path} of type {name} cannot be sent: {error}"
    return None


# -------------------------------------------------------------------------------------------- decoding


def _with_hashable_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_hashable(key): item for key, item in pairs}


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


def _extension(code: int, data: bytes, frames: Sequence[Frame]) -> Any:
    if code == TABLE:
        return _table(data, frames)
    if code not in (ARRAY, SCALAR):
        raise RemoteProtocolError(f"no value has extension type {code}", Code.MALFORMED)
    try:
        import numpy  # noqa: PLC0415 - only where an array has arrived
    except ImportError as error:
        raise ImportError("the value holds a numpy array, and numpy is not installed here") from error
    try:
        fields = msgpack.unpackb(data)
        if code == SCALAR:
            dtype, octets = fields
            return numpy.frombuffer(octets, dtype=check_dtype(dtype)).reshape(())[()]
        index, dtype, shape, order = fields
        return view(numpy, _frame(frames, index), dtype, shape, order)
    except Exception as error:  # noqa: BLE001 - whatever foreign bytes provoke is one protocol error
        raise RemoteProtocolError(f"malformed array: {describe(error)}", Code.MALFORMED) from None


def _table(data: bytes, frames: Sequence[Frame]) -> Any:
    try:
        import pyarrow  # noqa: PLC0415 - only where a table has arrived
    except ImportError as error:
        raise ImportError("the value holds an Arrow table, and pyarrow is not installed here") from error
    try:
        index, kind = msgpack.unpackb(data)
        return read_table(pyarrow, _frame(frames, index), kind)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever foreign bytes provoke is one protocol error
        raise RemoteProtocolError(f"malformed table: {describe(error)}", Code.MALFORMED) from None


def _frame(frames: Sequence[Frame], index: Any) -> Frame:
    if type(index) is not int or not 0 < index < len(frames):
        raise ValueError(f"there is no frame {index!r}")
    return frames[index]


_ALONE = partial(_extension, frames=())  # for values without arrays, which are most
