"""How values and octets are written in frames.json, so that any language can read them without loss.

Octets are a text of hex digits, or ``{"repeat": [hex, times]}``, or a list of such pieces, to be joined. A value is
itself where JSON has it: null, true, false, a text, a list, an integer up to 2^53. Everything else is an object with
one key: ``int`` (decimal digits), ``float`` (C's hexadecimal notation), ``octets``, ``repeat`` (of a text:
[text, times]), ``map`` (a list of pairs), ``tuple`` (only in the key of a map), ``time`` (microseconds since 1970,
UTC), ``array`` (dtype, shape, order, octets) and ``scalar`` (dtype, octets).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy

__all__ = ["octets_from", "octets_to", "value_from", "value_to"]

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
RUN = re.compile(rb"(.)\1{23,}", re.DOTALL)  # from 24 equal octets on the short notation is shorter


def octets_to(data: bytes) -> Any:
    """The notation of octets."""
    pieces: list[Any] = []
    start = 0
    for run in RUN.finditer(data):
        if run.start() > start:
            pieces.append(data[start : run.start()].hex())
        pieces.append({"repeat": [run[1].hex(), len(run[0])]})
        start = run.end()
    if start < len(data) or not pieces:
        pieces.append(data[start:].hex())
    return pieces[0] if len(pieces) == 1 else pieces


def octets_from(notation: Any) -> bytes:
    """The octets of a notation."""
    if isinstance(notation, list):
        return b"".join(map(octets_from, notation))
    if isinstance(notation, dict):
        digits, times = notation["repeat"]
        return bytes.fromhex(digits) * times
    return bytes.fromhex(notation)


def _text_to(text: str) -> Any:
    return {"repeat": [text[0], len(text)]} if len(text) >= 24 and len(set(text)) == 1 else text


def value_to(value: Any) -> Any:
    """The notation of a value."""
    match value:
        case None | bool():
            return value
        case numpy.ndarray():
            order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
            octets = octets_to(value.tobytes(order=order))
            return {"array": {"dtype": value.dtype.str, "shape": list(value.shape), "order": order, "octets": octets}}
        case str():
            return _text_to(value)
        case float():
            return {"float": value.hex()}
        case int():
            return value if abs(value) < 2**53 else {"int": str(value)}
        case numpy.generic():
            return {"scalar": {"dtype": value.dtype.str, "octets": octets_to(value.tobytes())}}
        case bytes():
            return {"octets": octets_to(value)}
        case list():
            return [value_to(item) for item in value]
        case tuple():
            return {"tuple": [value_to(item) for item in value]}
        case dict():
            return {"map": [[value_to(key), value_to(item)] for key, item in value.items()]}
        case datetime():
            return {"time": (value - EPOCH) // timedelta(microseconds=1)}
    raise TypeError(f"no notation for {value!r}")


def _array_from(notation: dict[str, Any]) -> Any:
    octets = octets_from(notation["octets"])
    flat = numpy.frombuffer(octets, notation["dtype"]) if octets else numpy.zeros(0, notation["dtype"])
    return flat.reshape(notation["shape"], order=notation["order"])


def value_from(notation: Any) -> Any:
    """The value of a notation."""
    if isinstance(notation, list):
        return [value_from(item) for item in notation]
    if not isinstance(notation, dict):
        return notation
    ((name, content),) = notation.items()
    match name:
        case "int":
            return int(content)
        case "float":
            return float.fromhex(content)
        case "octets":
            return octets_from(content)
        case "repeat":
            return content[0] * content[1]
        case "map":
            return {value_from(key): value_from(item) for key, item in content}
        case "tuple":
            return tuple(value_from(item) for item in content)
        case "time":
            return EPOCH + timedelta(microseconds=content)
        case "array":
            return _array_from(content)
        case "scalar":
            return numpy.frombuffer(octets_from(content["octets"]), dtype=content["dtype"])[0]
    raise ValueError(f"unknown notation {name!r}")
