"""The table of messages, written down a second time: numbers, fields in order, types, limits, defaults.

The code has the same table in ``wire/messages.py``; tests and vectors hold the two against each other. Nothing of the
library is imported here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

__all__ = ["CODES", "FIELDS_OCTETS", "FRAMES", "KINDS", "MEMBER", "RUN_ID", "Field", "Kind", "preamble"]

U32 = 2**32 - 1
U64 = 2**64 - 1
RANK = 2**20 - 1
GROUP = 2**16
FIELDS_OCTETS = 65536
FRAMES = 64
RUN_ID = bytes.fromhex("00112233445566ff")
REQUIRED = object()  # the mark of a field without a default

CODES = {
    "OK": 0,
    "TIMEOUT": 1,
    "WRONG_MEMBER": 2,
    "UNIMPLEMENTED": 3,
    "INVALID_ARGUMENT": 4,
    "OVERLOADED": 5,
    "UNAVAILABLE": 6,
    "HANDLER": 7,
    "CANCELLED": 8,
    "STALE": 9,
    "BAD_TOKEN": 10,
    "VERSION": 11,
    "UNKNOWN_KIND": 12,
    "TOO_LARGE": 13,
    "MALFORMED": 14,
    "WRONG_RUN": 15,
    "NOT_MEMBER": 16,
    "CLOSED": 17,
    "INIT_FAILED": 18,
    "JOB_FAILED": 19,
    "REPLY_TOO_LARGE": 20,
    "UNEXPECTED": 21,
    "PORT_UNAVAILABLE": 22,
    "LOST": 23,
}


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        type: ``int``, ``text``, ``octets``, ``code`` or ``map``.
        most: the greatest number, characters or octets.
        least: the smallest.
        default: what an absent trailing field means; ``REQUIRED``: it may not be absent.
    """

    name: str
    type: str
    example: Any
    most: int = 0
    least: int = 0
    default: Any = REQUIRED

    def smallest(self) -> Any:
        """A value at the lower limit."""
        return {"int": self.least, "code": 0, "text": "t" * self.least, "octets": b"", "map": {}}[self.type]

    def largest(self) -> Any:
        """A value at the upper limit."""
        if self.type in ("int", "code"):
            return self.most
        if self.type == "map":
            return {"k" * 256: ["v", 1, None, {"deep": True}], "": 0}
        return "T" * self.most if self.type == "text" else b"\xee" * self.most

    def outside(self) -> dict[str, Any]:
        """Values just outside the limits, by what is wrong with them; those that msgpack can carry."""
        wrong: dict[str, Any] = {}
        if self.type in ("int", "code"):
            wrong["below 0"] = -1
            if self.most < U64:
                wrong["over its limit"] = self.most + 1
        if self.type in ("text", "octets"):
            wrong["over its limit"] = ("T" if self.type == "text" else b"T") * (self.most + 1)
        if self.type == "text" and self.least:
            wrong["empty"] = ""
        if self.type == "map":
            wrong["a key over its limit"] = {"k" * 257: 0}
            wrong["a key of octets"] = {b"k": 0}
        return wrong

    def mistyped(self) -> dict[str, Any]:
        """Values of other types, by type."""
        others: dict[str, Any] = {"nil": None, "true": True, "a float": 1.0, "an array": []}
        others["octets" if self.type == "text" else "a text"] = b"7" if self.type == "text" else "7"
        if self.type not in ("int", "code"):
            others["an integer"] = 7
        return others


@dataclass(frozen=True)
class Kind:
    """One kind of message."""

    name: str
    number: int
    fields: tuple[Field, ...]
    payload: bool = False

    @property
    def required(self) -> int:
        """How many of the fields may not be absent."""
        return sum(field.default is REQUIRED for field in self.fields)

    def values(self, which: str) -> dict[str, Any]:
        """The fields of an example: ``smallest``, ``example`` or ``largest``."""
        if which == "example":
            return {field.name: field.example for field in self.fields}
        return {field.name: getattr(field, which)() for field in self.fields}


def _rank() -> Field:
    return Field("rank", "int", 3, RANK)


def _incarnation() -> Field:
    return Field("incarnation", "int", 7, U64)


def _attempt() -> Field:
    return Field("attempt", "int", 41, U32)


def _token() -> Field:
    return Field("token", "octets", bytes(range(32)), 64)


_HELLO = Kind(
    "HELLO",
    1,
    (
        _rank(),
        _incarnation(),
        _attempt(),
        Field("host", "text", "10.0.0.7", 255, 1),
        Field("port", "int", 50123, 65535),
        Field("endpoint", "text", "tcp://10.0.0.7:50124", 512),
        _token(),
        Field("version_min", "int", 1, 255),
        Field("version_max", "int", 1, 255),
        Field("meta", "map", {"methods": ["get", "count"]}, default={}),
        Field("local", "text", "ipc:///tmp/sps-1/3", 512, default=""),
    ),
)
_WELCOME = Kind(
    "WELCOME",
    2,
    (
        Field("view", "int", 2, U64),
        Field("heartbeat_ms", "int", 1000, U32),
        Field("lease_ms", "int", 15000, U32),
        Field("relay_port", "int", 50125, 65535, default=0),
    ),
)
_HEARTBEAT = Kind("HEARTBEAT", 3, (_rank(), _incarnation(), Field("sequence", "int", 300, U64)))
_VIEW = Kind(
    "VIEW",
    4,
    (
        Field("number", "int", 9, U64),
        Field("size", "int", 4, RANK + 1),
        Field("meta", "map", {"idempotent": ["get"]}, default={}),
    ),
    payload=True,
)
_SHUTDOWN = Kind(
    "SHUTDOWN", 5, (Field("reason", "text", "stop() was called", 4096), Field("grace_ms", "int", 5000, U32))
)
_GOODBYE = Kind(
    "GOODBYE",
    6,
    (
        _rank(),
        _incarnation(),
        _attempt(),
        _token(),
        Field("code", "code", 18, U32),
        Field("text", "text", "ValueError: no rows", 4096, default=""),
        Field("detail", "text", "Traceback (most recent call last): ...", 16384, default=""),
        Field("host", "text", "10.0.0.7", 255, default=""),
    ),
)
_REFUSE = Kind(
    "REFUSE", 7, (Field("code", "code", 9, U32), Field("text", "text", "incarnation 8 serves", 4096, default=""))
)
_LOOKUP = Kind("LOOKUP", 8, (Field("view", "int", 0, U64),))
_REQUEST = Kind(
    "REQUEST",
    32,
    (
        Field("call_id", "int", 1, U64),
        Field("method", "text", "get", 256, 1),
        Field("remaining_ms", "int", 1000, U32),
        _rank(),
        _incarnation(),
    ),
    payload=True,
)
_REPLY = Kind("REPLY", 33, (Field("call_id", "int", 1, U64),), payload=True)
_ERROR = Kind(
    "ERROR",
    34,
    (
        Field("call_id", "int", 1, U64),
        Field("code", "code", 7, U32),
        Field("text", "text", "'alice'", 4096, default=""),
        Field("remote_type", "text", "KeyError", 256, default=""),
        Field("detail", "text", "Traceback (most recent call last): ...", 16384, default=""),
        Field("retry_ms", "int", 50, U32, default=0),
    ),
)
_STOP = Kind("STOP", 9, (_token(), Field("reason", "text", "asked for", 4096, default="")))
_RELAY = Kind("RELAY", 10, (Field("route", "octets", bytes(5), 255),), payload=True)
_ATTACH = Kind("ATTACH", 11, (_rank(), _incarnation(), _token()))
_CALL = _REQUEST.fields
_CALL_ID = _CALL[0]
_CANCEL = Kind("CANCEL", 35, (_CALL_ID,))
_BATCH = Kind("BATCH", 36, _CALL, payload=True)
_RESULTS = Kind("RESULTS", 37, (_CALL_ID,), payload=True)
_STREAM = Kind("STREAM", 38, (*_CALL, Field("credit", "int", 64, U64)), payload=True)
_ITEMS = Kind("ITEMS", 39, (_CALL_ID, Field("sequence", "int", 128, U64)), payload=True)
_CREDIT = Kind("CREDIT", 40, (_CALL_ID, Field("items", "int", 192, U64), Field("octets", "int", 0, U64, default=0)))
_PART = Kind("PART", 41, (_CALL_ID, Field("offset", "int", 0, U64), Field("size", "int", 500000, U64)), payload=True)

_CONTEXT = Field("context", "int", 1 << 24, U64)
_SEQUENCE = Field("sequence", "int", 12, U64)
_ENVELOPE = (
    _CONTEXT,
    Field("sequence", "int", 0, U64),
    Field("tag", "int", 5, 2**31 - 1),
    Field("signature", "text", "float32", 256),
)
_TRANSFER = Field("transfer", "int", 4, U64)
_MEET = Kind(
    "MEET",
    64,
    (
        _rank(),
        _incarnation(),
        Field("to_rank", "int", 0, RANK),
        Field("to_incarnation", "int", 2, U64),
        _token(),
    ),
)
_TELL = Kind("TELL", 65, _ENVELOPE, payload=True)
_OFFER = Kind("OFFER", 66, (*_ENVELOPE, _TRANSFER, Field("octets", "int", 16777216, U64)))
_GRANT = Kind("GRANT", 67, (_TRANSFER,))
_DATA = Kind("DATA", 68, (_TRANSFER,), payload=True)
_ROOM = Kind("ROOM", 69, (Field("lane", "int", 1, 1), Field("octets", "int", 6291456, U64)))
_ALARM = Kind(
    "ALARM",
    70,
    (
        _CONTEXT,
        Field("cause", "int", 3, 255),
        _SEQUENCE,
        Field("rank", "int", 0, GROUP - 1),
        Field("other", "int", 2, GROUP - 1),
        Field("here", "text", "barrier()", 256),
        Field("there", "text", "bcast(object, root=0)", 256),
        Field("ranks", "octets", b"\x05", GROUP // 8),
    ),
)
_ASK = Kind("ASK", 71, (_CONTEXT, Field("number", "int", 1, U64), _SEQUENCE))
_STAND = Kind(
    "STAND",
    72,
    (
        _CONTEXT,
        Field("number", "int", 1, U64),
        _SEQUENCE,
        Field("doing", "text", "barrier()", 256),
        Field("signature", "text", "barrier()", 256),
        Field("waiting", "octets", b"\x02", GROUP // 8),
    ),
)
_BALLOT = Kind(
    "BALLOT",
    73,
    (
        _CONTEXT,
        Field("number", "int", 1, U64),
        Field("phase", "int", 2, 255),
        Field("round", "int", 1, GROUP - 1),
        Field("stamp", "int", 0, GROUP),
        Field("flag", "int", 1, U64),
        Field("failed", "octets", b"\x01", GROUP // 8),
        Field("next", "int", 16777217, U64),
    ),
)

KINDS = (
    *(_HELLO, _WELCOME, _HEARTBEAT, _VIEW, _SHUTDOWN, _GOODBYE, _REFUSE, _LOOKUP, _STOP, _RELAY, _ATTACH),
    *(_REQUEST, _REPLY, _ERROR, _CANCEL, _BATCH, _RESULTS, _STREAM, _ITEMS, _CREDIT, _PART),
    *(_MEET, _TELL, _OFFER, _GRANT, _DATA, _ROOM, _ALARM, _ASK, _STAND, _BALLOT),
)
# an entry of a view: rank, incarnation, attempt, host, port, endpoint, and local, which may be absent
MEMBER = (*_HELLO.fields[:6], _HELLO.fields[-1])


def preamble(
    kind: int, *, magic: bytes = b"SPS", version: int = 1, flags: int = 0, reserved: int = 0, run_id: bytes = RUN_ID
) -> bytes:
    """The 16 octets in front of a message."""
    return struct.pack("!3sBBBH8s", magic, version, kind, flags, reserved, run_id)
