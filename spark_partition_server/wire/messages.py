"""The messages: one frozen dataclass a kind, their fields' types and limits (PROTOCOL.md, section 7).

Those between ranks are in ``peering.py``, the numbers in ``kinds.py``.

The fields of a message are encoded in the order of declaration, as one positional msgpack array; ``payload`` fields
travel as raw frames behind it. Constructors check every field, so a message that breaks a limit cannot exist, and the
decoder builds messages through the same constructors, so one that arrives is checked the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import LocalProtocolError
from . import peering
from .fields import (
    BATCH_MAX,
    DETAIL_CHARS_MAX,
    ENDPOINT_CHARS_MAX,
    FIELDS_BYTES_MAX,
    FRAMES_MAX,
    HOST_CHARS_MAX,
    METHOD_CHARS_MAX,
    RANKS_MAX,
    ROUTE_BYTES_MAX,
    TEXT_CHARS_MAX,
    TOKEN_BYTES_MAX,
    U32,
    U64,
    Check,
    Frame,
    a_code,
    a_map,
    a_text,
    an_integer,
    declared,
    some_frames,
    some_octets,
)
from .kinds import Kind, Message, checked

__all__ = [
    "BATCH_MAX",
    "DETAIL_CHARS_MAX",
    "ENDPOINT_CHARS_MAX",
    "FIELDS_BYTES_MAX",
    "FRAMES_MAX",
    "HOST_CHARS_MAX",
    "KINDS",
    "METHOD_CHARS_MAX",
    "RANKS_MAX",
    "ROUTE_BYTES_MAX",
    "TEXT_CHARS_MAX",
    "TOKEN_BYTES_MAX",
    "U32",
    "U64",
    "Attach",
    "Batch",
    "Cancel",
    "Credit",
    "Error",
    "Frame",
    "Goodbye",
    "Heartbeat",
    "Hello",
    "Items",
    "Kind",
    "Lookup",
    "Member",
    "Message",
    "Part",
    "Refuse",
    "Relay",
    "Reply",
    "Request",
    "Results",
    "Shutdown",
    "Stop",
    "Stream",
    "View",
    "Welcome",
]


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """M->C. A partition server asks to be the member of its rank (7.1)."""

    kind: ClassVar[Kind] = Kind.HELLO
    rank: int = declared(an_integer(RANKS_MAX - 1))
    incarnation: int = declared(an_integer(U64))
    attempt: int = declared(an_integer(U32))
    host: str = declared(a_text(HOST_CHARS_MAX, 1))
    port: int = declared(an_integer(65535))
    endpoint: str = declared(a_text(ENDPOINT_CHARS_MAX))
    token: bytes = declared(some_octets(TOKEN_BYTES_MAX))
    version_min: int = declared(an_integer(255))
    version_max: int = declared(an_integer(255))
    meta: dict[str, Any] = declared(a_map, {})
    local: str = declared(a_text(ENDPOINT_CHARS_MAX), "")


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """C->M. The rank is yours; keep the heartbeat (7.2)."""

    kind: ClassVar[Kind] = Kind.WELCOME
    view: int = declared(an_integer(U64))
    heartbeat_ms: int = declared(an_integer(U32))
    lease_ms: int = declared(an_integer(U32))
    relay_port: int = declared(an_integer(65535), 0)


@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """M->C, and echoed C->M. Still here, still this incarnation (7.3)."""

    kind: ClassVar[Kind] = Kind.HEARTBEAT
    rank: int = declared(an_integer(RANKS_MAX - 1))
    incarnation: int = declared(an_integer(U64))
    sequence: int = declared(an_integer(U64))


@dataclass(frozen=True, slots=True)
class View(Message):
    """C->any. The members, whole; a later view replaces an earlier one (7.4). ``payload``: one msgpack frame."""

    kind: ClassVar[Kind] = Kind.VIEW
    number: int = declared(an_integer(U64))
    size: int = declared(an_integer(RANKS_MAX))
    meta: dict[str, Any] = declared(a_map, {})
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Shutdown(Message):
    """C->M. Stop serving, answer what is under way, say GOODBYE (7.5)."""

    kind: ClassVar[Kind] = Kind.SHUTDOWN
    reason: str = declared(a_text(TEXT_CHARS_MAX))
    grace_ms: int = declared(an_integer(U32))


@dataclass(frozen=True, slots=True)
class Goodbye(Message):
    """M->C. The member leaves, and why (7.6). ``detail`` is a traceback where there is one."""

    kind: ClassVar[Kind] = Kind.GOODBYE
    rank: int = declared(an_integer(RANKS_MAX - 1))
    incarnation: int = declared(an_integer(U64))
    attempt: int = declared(an_integer(U32))
    token: bytes = declared(some_octets(TOKEN_BYTES_MAX))
    code: int = declared(a_code)
    text: str = declared(a_text(TEXT_CHARS_MAX), "")
    detail: str = declared(a_text(DETAIL_CHARS_MAX), "")
    host: str = declared(a_text(HOST_CHARS_MAX), "")


@dataclass(frozen=True, slots=True)
class Refuse(Message):
    """C->any, S->K. No, and why (7.7)."""

    kind: ClassVar[Kind] = Kind.REFUSE
    code: int = declared(a_code)
    text: str = declared(a_text(TEXT_CHARS_MAX), "")


@dataclass(frozen=True, slots=True)
class Lookup(Message):
    """K->C. Who are the members? Answered by VIEW, or by REFUSE once the cluster is over (7.8)."""

    kind: ClassVar[Kind] = Kind.LOOKUP
    view: int = declared(an_integer(U64))


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """K->C. Stop the cluster (7.9)."""

    kind: ClassVar[Kind] = Kind.STOP
    token: bytes = declared(some_octets(TOKEN_BYTES_MAX))
    reason: str = declared(a_text(TEXT_CHARS_MAX), "")


@dataclass(frozen=True, slots=True)
class Relay(Message):
    """C->M, M->C. A message of a client to a server, or back, by way of the coordinator (7.10).

    ``payload``: the frames of that message.
    """

    kind: ClassVar[Kind] = Kind.RELAY
    route: bytes = declared(some_octets(ROUTE_BYTES_MAX))
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Attach(Message):
    """M->C, at the relay's door. This connection is the member's: what is relayed to it may come here (7.11)."""

    kind: ClassVar[Kind] = Kind.ATTACH
    rank: int = declared(an_integer(RANKS_MAX - 1))
    incarnation: int = declared(an_integer(U64))
    token: bytes = declared(some_octets(TOKEN_BYTES_MAX))


@dataclass(frozen=True, slots=True)
class Call(Message):
    """What REQUEST, BATCH and STREAM begin with: which call, of what, for how long, and whom it is meant for."""

    call_id: int = declared(an_integer(U64))
    method: str = declared(a_text(METHOD_CHARS_MAX, 1))
    remaining_ms: int = declared(an_integer(U32))
    rank: int = declared(an_integer(RANKS_MAX - 1))
    incarnation: int = declared(an_integer(U64))


@dataclass(frozen=True, slots=True)
class Request(Call):
    """K->S. Run a method of one partition (7.32). ``payload``: the value [args, kwargs]."""

    kind: ClassVar[Kind] = Kind.REQUEST
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Reply(Message):
    """S->K. What the method returned (7.33). ``payload``: the value."""

    kind: ClassVar[Kind] = Kind.REPLY
    call_id: int = declared(an_integer(U64))
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Error(Message):
    """S->K. The call failed (7.34). For HANDLER: the exception's class name, text and traceback."""

    kind: ClassVar[Kind] = Kind.ERROR
    call_id: int = declared(an_integer(U64))
    code: int = declared(a_code)
    text: str = declared(a_text(TEXT_CHARS_MAX), "")
    remote_type: str = declared(a_text(METHOD_CHARS_MAX), "")
    detail: str = declared(a_text(DETAIL_CHARS_MAX), "")
    retry_ms: int = declared(an_integer(U32), 0)


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """K->S. The answer to a call is no longer wanted (7.35)."""

    kind: ClassVar[Kind] = Kind.CANCEL
    call_id: int = declared(an_integer(U64))


@dataclass(frozen=True, slots=True)
class Batch(Call):
    """K->S. Run a method of one partition many times (7.36). ``payload``: the value [[argument, ...], ...]."""

    kind: ClassVar[Kind] = Kind.BATCH
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Results(Message):
    """S->K. What the runs of a BATCH returned (7.37). ``payload``: the value [results, failures]."""

    kind: ClassVar[Kind] = Kind.RESULTS
    call_id: int = declared(an_integer(U64))
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Stream(Call):
    """K->S. Run a method of one partition that yields items (7.38). ``payload``: the value [args, kwargs]."""

    kind: ClassVar[Kind] = Kind.STREAM
    credit: int = declared(an_integer(U64))
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Items(Message):
    """S->K. The next items of a stream (7.39). ``payload``: the value [item, ...]."""

    kind: ClassVar[Kind] = Kind.ITEMS
    call_id: int = declared(an_integer(U64))
    sequence: int = declared(an_integer(U64))
    payload: tuple[Frame, ...] = declared(some_frames, ())


@dataclass(frozen=True, slots=True)
class Credit(Message):
    """K->S, S->K. How much of a call's items and parts may have been sent in all (7.40)."""

    kind: ClassVar[Kind] = Kind.CREDIT
    call_id: int = declared(an_integer(U64))
    items: int = declared(an_integer(U64))
    octets: int = declared(an_integer(U64), 0)


@dataclass(frozen=True, slots=True)
class Part(Message):
    """K->S, S->K, relayed. A piece of a message that is too large to be relayed whole (7.41).

    ``payload``: the piece, one frame.
    """

    kind: ClassVar[Kind] = Kind.PART
    call_id: int = declared(an_integer(U64))
    offset: int = declared(an_integer(U64))
    size: int = declared(an_integer(U64))
    payload: tuple[Frame, ...] = declared(some_frames, ())


KINDS: dict[Kind, type[Message]] = {
    **checked(Hello, Welcome, Heartbeat, View, Shutdown, Goodbye, Refuse, Lookup, Stop, Relay, Attach),
    **checked(Request, Reply, Error, Cancel, Batch, Results, Stream, Items, Credit, Part),
    **peering.KINDS,
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
        local: the same lane for processes on the server's own host, ``ipc://path``; empty: there is none.
    """

    rank: int
    incarnation: int
    attempt: int
    host: str
    port: int
    endpoint: str
    local: str = ""

    def __post_init__(self) -> None:
        for name, check in _MEMBER:
            problem = check(getattr(self, name))
            if problem is not None:
                raise LocalProtocolError(f"Member.{name}: {problem}")


_MEMBER: tuple[tuple[str, Check], ...] = (
    ("rank", an_integer(RANKS_MAX - 1)),
    ("incarnation", an_integer(U64)),
    ("attempt", an_integer(U32)),
    ("host", a_text(HOST_CHARS_MAX, 1)),
    ("port", an_integer(65535)),
    ("endpoint", a_text(ENDPOINT_CHARS_MAX)),
    ("local", a_text(ENDPOINT_CHARS_MAX)),
)
