"""The messages: one frozen dataclass a kind, their numbers, their fields' types and limits (PROTOCOL.md, section 7).

The fields of a message are encoded in the order of declaration, as one positional msgpack array; ``payload`` fields
travel as raw frames behind it. Constructors check every field, so a message that breaks a limit cannot exist, and the
decoder builds messages through the same constructors, so one that arrives is checked the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from enum import IntEnum
from typing import Any, ClassVar, TypeAlias

from ..errors import LocalProtocolError
from .codes import Code

__all__ = [
    "FIELDS_BYTES_MAX",
    "FRAMES_MAX",
    "KINDS",
    "METHOD_CHARS_MAX",
    "RANKS_MAX",
    "Error",
    "Frame",
    "Goodbye",
    "Heartbeat",
    "Hello",
    "Kind",
    "Lookup",
    "Member",
    "Message",
    "Refuse",
    "Reply",
    "Request",
    "Shutdown",
    "View",
    "Welcome",
]

Frame: TypeAlias = "bytes | bytearray | memoryview"

# Limits, each with its reason; PROTOCOL.md, section 12, repeats them.
FIELDS_BYTES_MAX = 64 * 1024  # decoding msgpack can cost a hundred times its size
FRAMES_MAX = 64  # preamble, fields and 62 payload frames: a value and 61 arrays
RANKS_MAX = 1 << 20  # partitions of one cluster
METHOD_CHARS_MAX = 256
HOST_CHARS_MAX = 255  # the longest DNS name
ENDPOINT_CHARS_MAX = 512
TOKEN_BYTES_MAX = 64
TEXT_CHARS_MAX = 4096
DETAIL_CHARS_MAX = 16 * 1024  # a traceback, cut in the middle by its sender
U32 = (1 << 32) - 1
U64 = (1 << 64) - 1


class Kind(IntEnum):
    """Message numbers. ONLY APPEND: the numbers are the protocol. Gaps separate the planes."""

    HELLO = 1
    WELCOME = 2
    HEARTBEAT = 3
    VIEW = 4
    SHUTDOWN = 5
    GOODBYE = 6
    REFUSE = 7
    LOOKUP = 8
    REQUEST = 32
    REPLY = 33
    ERROR = 34


Check = Callable[[Any], "str | None"]


def _integer(last: int) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not int:
            return f"an integer is wanted, not {type(value).__name__}"
        return None if 0 <= value <= last else f"{value} is not within 0..{last}"

    return check


def _text(chars_max: int, chars_min: int = 0) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not str:
            return f"text is wanted, not {type(value).__name__}"
        if not chars_min <= len(value) <= chars_max:
            return f"{len(value)} characters are not within {chars_min}..{chars_max}"
        return None

    return check


def _octets(octets_max: int) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not bytes:
            return f"octets are wanted, not {type(value).__name__}"
        return None if len(value) <= octets_max else f"{len(value)} octets are more than {octets_max}"

    return check


def _code(value: Any) -> str | None:
    # any number: a later version may add codes, and 1000 and above are the application's
    return _integer(U32)(int(value) if isinstance(value, Code) else value)


def _meta(value: Any) -> str | None:
    if type(value) is not dict:
        return f"a map is wanted, not {type(value).__name__}"
    if not all(type(key) is str and len(key) <= METHOD_CHARS_MAX for key in value):
        return "its keys must be short texts"
    return None


def _frames(value: Any) -> str | None:
    if type(value) is not tuple:
        return f"a tuple of frames is wanted, not {type(value).__name__}"
    if len(value) > FRAMES_MAX - 2:
        return f"{len(value)} frames are more than {FRAMES_MAX - 2}"
    return None


def _spec(check: Check, default: Any = MISSING) -> Any:
    if default is MISSING:
        return field(metadata={"check": check})
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"check": check})
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages: checks every field when it is made."""

    kind: ClassVar[Kind]

    def __post_init__(self) -> None:
        for spec in fields(self):
            problem = spec.metadata["check"](getattr(self, spec.name))
            if problem is not None:
                raise LocalProtocolError(f"{type(self).__name__}.{spec.name}: {problem}")


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """M->C. A partition server asks to be the member of its rank (7.1)."""

    kind: ClassVar[Kind] = Kind.HELLO
    rank: int = _spec(_integer(RANKS_MAX - 1))
    incarnation: int = _spec(_integer(U64))
    attempt: int = _spec(_integer(U32))
    host: str = _spec(_text(HOST_CHARS_MAX, 1))
    port: int = _spec(_integer(65535))
    endpoint: str = _spec(_text(ENDPOINT_CHARS_MAX))
    token: bytes = _spec(_octets(TOKEN_BYTES_MAX))
    version_min: int = _spec(_integer(255))
    version_max: int = _spec(_integer(255))
    meta: dict[str, Any] = _spec(_meta, {})


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """C->M. The rank is yours; keep the heartbeat (7.2)."""

    kind: ClassVar[Kind] = Kind.WELCOME
    view: int = _spec(_integer(U64))
    heartbeat_ms: int = _spec(_integer(U32))
    lease_ms: int = _spec(_integer(U32))


@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """M->C, and echoed C->M. Still here, still this incarnation (7.3)."""

    kind: ClassVar[Kind] = Kind.HEARTBEAT
    rank: int = _spec(_integer(RANKS_MAX - 1))
    incarnation: int = _spec(_integer(U64))
    sequence: int = _spec(_integer(U64))


@dataclass(frozen=True, slots=True)
class View(Message):
    """C->any. The members, whole; a later view replaces an earlier one (7.4). ``payload``: one msgpack frame."""

    kind: ClassVar[Kind] = Kind.VIEW
    number: int = _spec(_integer(U64))
    size: int = _spec(_integer(RANKS_MAX))
    meta: dict[str, Any] = _spec(_meta, {})
    payload: tuple[Frame, ...] = _spec(_frames, ())


@dataclass(frozen=True, slots=True)
class Shutdown(Message):
    """C->M. Stop serving, answer what is under way, say GOODBYE (7.5)."""

    kind: ClassVar[Kind] = Kind.SHUTDOWN
    reason: str = _spec(_text(TEXT_CHARS_MAX))
    grace_ms: int = _spec(_integer(U32))


@dataclass(frozen=True, slots=True)
class Goodbye(Message):
    """M->C. The member leaves, and why (7.6). ``detail`` is a traceback where there is one."""

    kind: ClassVar[Kind] = Kind.GOODBYE
    rank: int = _spec(_integer(RANKS_MAX - 1))
    incarnation: int = _spec(_integer(U64))
    attempt: int = _spec(_integer(U32))
    token: bytes = _spec(_octets(TOKEN_BYTES_MAX))
    code: int = _spec(_code)
    text: str = _spec(_text(TEXT_CHARS_MAX), "")
    detail: str = _spec(_text(DETAIL_CHARS_MAX), "")
    host: str = _spec(_text(HOST_CHARS_MAX), "")


@dataclass(frozen=True, slots=True)
class Refuse(Message):
    """C->any, S->K. No, and why (7.7)."""

    kind: ClassVar[Kind] = Kind.REFUSE
    code: int = _spec(_code)
    text: str = _spec(_text(TEXT_CHARS_MAX), "")


@dataclass(frozen=True, slots=True)
class Lookup(Message):
    """K->C. Who are the members? Answered by VIEW, or by REFUSE once the cluster is over (7.8)."""

    kind: ClassVar[Kind] = Kind.LOOKUP
    view: int = _spec(_integer(U64))


@dataclass(frozen=True, slots=True)
class Request(Message):
    """K->S. Run a method of one partition (7.32). ``payload``: the value [args, kwargs]."""

    kind: ClassVar[Kind] = Kind.REQUEST
    call_id: int = _spec(_integer(U64))
    method: str = _spec(_text(METHOD_CHARS_MAX, 1))
    remaining_ms: int = _spec(_integer(U32))
    rank: int = _spec(_integer(RANKS_MAX - 1))
    incarnation: int = _spec(_integer(U64))
    payload: tuple[Frame, ...] = _spec(_frames, ())


@dataclass(frozen=True, slots=True)
class Reply(Message):
    """S->K. What the method returned (7.33). ``payload``: the value."""

    kind: ClassVar[Kind] = Kind.REPLY
    call_id: int = _spec(_integer(U64))
    payload: tuple[Frame, ...] = _spec(_frames, ())


@dataclass(frozen=True, slots=True)
class Error(Message):
    """S->K. The call failed (7.34). For HANDLER: the exception's class name, text and traceback."""

    kind: ClassVar[Kind] = Kind.ERROR
    call_id: int = _spec(_integer(U64))
    code: int = _spec(_code)
    text: str = _spec(_text(TEXT_CHARS_MAX), "")
    remote_type: str = _spec(_text(METHOD_CHARS_MAX), "")
    detail: str = _spec(_text(DETAIL_CHARS_MAX), "")


KINDS: dict[Kind, type[Message]] = {
    message.kind: message
    for message in (Hello, Welcome, Heartbeat, View, Shutdown, Goodbye, Refuse, Lookup, Request, Reply, Error)
}


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a view: who serves a rank, and where.

    Attributes:
        rank: the partition's index in the RDD.
        incarnation: this life of the server; a later life of the same rank has a greater number.
        attempt: Spark's attempt number.
        host: the address clients and HTTP users connect to.
        port: its port; 0 for a server that listens nowhere.
        endpoint: the direct lane, ``tcp://host:port`` or ``ipc://path``; empty for a server without one.
    """

    rank: int
    incarnation: int
    attempt: int
    host: str
    port: int
    endpoint: str

    def __post_init__(self) -> None:
        for name, check in _MEMBER:
            problem = check(getattr(self, name))
            if problem is not None:
                raise LocalProtocolError(f"Member.{name}: {problem}")


_MEMBER: tuple[tuple[str, Check], ...] = (
    ("rank", _integer(RANKS_MAX - 1)),
    ("incarnation", _integer(U64)),
    ("attempt", _integer(U32)),
    ("host", _text(HOST_CHARS_MAX, 1)),
    ("port", _integer(65535)),
    ("endpoint", _text(ENDPOINT_CHARS_MAX)),
)
