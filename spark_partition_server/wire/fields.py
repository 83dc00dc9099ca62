"""The fields of messages: their types and limits, and how one is declared (PROTOCOL.md, sections 6.3 and 12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, field
from typing import Any

from .codes import Code
from .framing import Frame

__all__ = [
    "BATCH_MAX",
    "DETAIL_CHARS_MAX",
    "ENDPOINT_CHARS_MAX",
    "FIELDS_BYTES_MAX",
    "FRAMES_MAX",
    "GROUP_MAX",
    "HOST_CHARS_MAX",
    "METHOD_CHARS_MAX",
    "RANKS_MAX",
    "ROUTE_BYTES_MAX",
    "SIGNATURE_CHARS_MAX",
    "TAG_MAX",
    "TEXT_CHARS_MAX",
    "TOKEN_BYTES_MAX",
    "U32",
    "U64",
    "Check",
    "Frame",
    "a_code",
    "a_map",
    "a_text",
    "an_integer",
    "declared",
    "some_frames",
    "some_octets",
]

# Limits, each with its reason; PROTOCOL.md, section 12, repeats them.
FIELDS_BYTES_MAX = 64 * 1024  # decoding msgpack can cost a hundred times its size
FRAMES_MAX = 64  # preamble, fields and 62 payload frames: a value and 61 arrays
RANKS_MAX = 1 << 20  # partitions of one cluster
METHOD_CHARS_MAX = 256
HOST_CHARS_MAX = 255  # the longest DNS name
ENDPOINT_CHARS_MAX = 512
TOKEN_BYTES_MAX = 64
ROUTE_BYTES_MAX = 255  # the longest name ZeroMQ has for a connection
TEXT_CHARS_MAX = 4096
DETAIL_CHARS_MAX = 16 * 1024  # a traceback, cut in the middle by its sender
BATCH_MAX = 1024  # runs of one BATCH: its answer comes when all of them are over
GROUP_MAX = 1 << 16  # ranks of one communicator: sets of them travel a bit each, beside other fields
SIGNATURE_CHARS_MAX = 256
TAG_MAX = (1 << 31) - 1  # as C's int has it
U32 = (1 << 32) - 1
U64 = (1 << 64) - 1

Check = Callable[[Any], "str | None"]


def an_integer(last: int) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not int:
            return f"an integer is wanted, not {type(value).__name__}"
        return None if 0 <= value <= last else f"{value} is not within 0..{last}"

    return check


def a_text(chars_max: int, chars_min: int = 0) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not str:
            return f"text is wanted, not {type(value).__name__}"
        if not chars_min <= len(value) <= chars_max:
            return f"{len(value)} characters are not within {chars_min}..{chars_max}"
        return None

    return check


def some_octets(octets_max: int) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not bytes:
            return f"octets are wanted, not {type(value).__name__}"
        return None if len(value) <= octets_max else f"{len(value)} octets are more than {octets_max}"

    return check


def a_code(value: Any) -> str | None:
    # any number: a later version may add codes, and 1000 and above are the application's
    return an_integer(U32)(int(value) if isinstance(value, Code) else value)


def a_map(value: Any) -> str | None:
    if type(value) is not dict:
        return f"a map is wanted, not {type(value).__name__}"
    if not all(type(key) is str and len(key) <= METHOD_CHARS_MAX for key in value):
        return "its keys must be short texts"
    return None


def some_frames(value: Any) -> str | None:
    if type(value) is not tuple:
        return f"a tuple of frames is wanted, not {type(value).__name__}"
    if len(value) > FRAMES_MAX - 2:
        return f"{len(value)} frames are more than {FRAMES_MAX - 2}"
    return None


def declared(check: Check, default: Any = MISSING) -> Any:
    if default is MISSING:
        return field(metadata={"check": check})
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"check": check})
    return field(default=default, metadata={"check": check})
