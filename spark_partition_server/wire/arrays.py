"""Arrays of numbers as octets and back, for values of both planes (PROTOCOL.md, [9.2] to [9.4])."""

from __future__ import annotations

import re
from typing import Any

from .fields import Frame

__all__ = ["DIMENSIONS_MAX", "check_dtype", "flatten", "view"]

DIMENSIONS_MAX = 32

# Fixed-size values only: no objects (they would need pickle), no structures, no void.
_DTYPE = re.compile(r"[<>|](?:[biufc][1-9]\d{0,2}|[mM]8(?:\[(?:[1-9]\d{0,8})?[a-zA-Z]{1,2}\])?|[SU][1-9]\d{0,8})")


def check_dtype(dtype: Any) -> str:
    """The text of a dtype that can be sent.

    Raises:
        TypeError: it is none.
    """
    if type(dtype) is not str or not _DTYPE.fullmatch(dtype):
        raise TypeError(f"cannot send arrays of dtype {dtype!r}")
    return dtype


def flatten(numpy: Any, array: Any) -> tuple[Frame, str, list[int], str]:
    """The octets of an array, where they lie if that is in one piece; its dtype, shape, and order (``"C"``, ``"F"``).

    Raises:
        TypeError: it cannot be sent.
    """
    if isinstance(array, numpy.ma.MaskedArray):
        raise TypeError("cannot send a masked array; send its data and its mask")
    dtype = check_dtype(array.dtype.str)
    if array.ndim > DIMENSIONS_MAX:
        raise TypeError(f"cannot send an array of {array.ndim} dimensions, more than {DIMENSIONS_MAX}")
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = array.T if order == "F" else numpy.ascontiguousarray(array)
    frame = memoryview(flat.reshape(-1).view(numpy.uint8)) if array.size else b""
    return frame, dtype, list(array.shape), order


def view(numpy: Any, frame: Any, dtype: str, shape: list[int], order: str) -> Any:
    """The array that octets are, without a copy: it can be written where they can.

    Raises:
        TypeError, ValueError: they are not such an array.
    """
    if order not in ("C", "F") or len(shape) > DIMENSIONS_MAX:
        raise ValueError(f"order {order!r}, {len(shape)} dimensions")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("a length is not a natural number")
    # ndarray checks that the frame is long enough; that it is not longer is ours to check
    array = numpy.ndarray(tuple(shape), dtype=check_dtype(dtype), buffer=frame, order=order)
    if array.nbytes != len(frame):
        raise ValueError(f"the array takes {array.nbytes} octets, its frame has {len(frame)}")
    return array
