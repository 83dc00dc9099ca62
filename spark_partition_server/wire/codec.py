"""Messages to frames and frames to messages (PROTOCOL.md, section 6). The only reader of the preamble.

Frame 0 is the preamble, frame 1 the fields, the rest is payload. ``encode`` and ``decode`` serve every kind; the
functions below them do the same for the three kinds of the query plane without building a dataclass, because a call
passes here four times. A property test holds the two against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from operator import attrgetter
from typing import Any

import msgpack

from ..errors import LocalProtocolError, RemoteProtocolError
from .codes import Code
from .messages import (
    FIELDS_BYTES_MAX,
    FRAMES_MAX,
    KINDS,
    METHOD_CHARS_MAX,
    U32,
    U64,
    Frame,
    Kind,
    Member,
    Message,
    View,
)

__all__ = [
    "MAGIC",
    "PREAMBLE_BYTES",
    "RUN_ID_BYTES",
    "VERSION",
    "VIEW_BYTES_MAX",
    "Fields",
    "call_fields",
    "decode",
    "decode_fields",
    "describe",
    "encode",
    "field_packer",
    "members_of",
    "preamble",
    "read_heartbeat",
    "read_preamble",
    "read_reply",
    "read_request",
    "reply_frames",
    "request_frames",
    "run_id_of",
    "stream_fields",
    "view_of",
]

MAGIC = b"SPS"
VERSION = 1
RUN_ID_BYTES = 8
PREAMBLE = struct.Struct("!3sBBBH8s")
PREAMBLE_BYTES = PREAMBLE.size  # 16
ONE_NUMBER_BYTES = 14  # an array of one integer, in its longest encodings
THREE_NUMBERS_BYTES = 28  # an array of three such numbers
FEW_FIELDS_BYTES = 64  # so few octets can announce no more than there is
FIELDS_ITEMS_MAX = 1024  # of one array or map: msgpack makes room for as many as a header announces
VIEW_BYTES_MAX = 16 * 1024 * 1024  # a hundred thousand members of 160 octets

_ENCODED: dict[Kind, tuple[str, ...]] = {
    kind: tuple(spec.name for spec in dataclass_fields(message) if spec.name != "payload")
    for kind, message in KINDS.items()
}
_REQUIRED: dict[Kind, int] = {
    # Trailing fields with a default may be absent (section 14).
    kind: sum(
        1
        for spec in dataclass_fields(message)
        if spec.name != "payload" and spec.default is MISSING and spec.default_factory is MISSING
    )
    for kind, message in KINDS.items()
}
_CARRIES_PAYLOAD = frozenset(kind for kind, message in KINDS.items() if "payload" in message.__slots__)


def preamble(kind: Kind, run_id: bytes) -> bytes:
    """The 16 octets that open every message of ``kind`` in this run."""
    if len(run_id) != RUN_ID_BYTES:
        raise LocalProtocolError(f"a run id has {RUN_ID_BYTES} octets, not {len(run_id)}")
    return PREAMBLE.pack(MAGIC, VERSION, kind, 0, 0, run_id)


def read_preamble(frame: Frame, run_id: bytes) -> Kind:
    """The kind of a message, once its preamble has proved that it is meant for this run.

    Raises:
        RemoteProtocolError: with MALFORMED, VERSION, WRONG_RUN or UNKNOWN_KIND.
    """
    if len(frame) != PREAMBLE_BYTES:
        raise RemoteProtocolError(f"a preamble has {PREAMBLE_BYTES} octets, not {len(frame)}", Code.MALFORMED)
    magic, version, kind, _flags, _reserved, run = PREAMBLE.unpack(frame)
    if magic != MAGIC:
        raise RemoteProtocolError("this is not a message of this protocol", Code.MALFORMED)
    if version != VERSION:
        raise RemoteProtocolError(f"protocol version {version} is not {VERSION}", Code.VERSION)
    if run != run_id:
        raise RemoteProtocolError("the message belongs to another run", Code.WRONG_RUN)
    try:
        return Kind(kind)
    except ValueError:
        raise RemoteProtocolError(f"no message has kind {kind}", Code.UNKNOWN_KIND) from None


def describe(error: BaseException) -> str:
    """A decoder's exception as text. msgpack's ExtraData holds all that was decoded, which must not be printed."""
    return "there are octets behind its end" if isinstance(error, msgpack.ExtraData) else f"{error!r:.200}"


def run_id_of(frame: Frame, otherwise: bytes) -> bytes:
    """The run id in a foreign preamble. Its refusal carries that one: ours is nothing to tell a stranger."""
    if len(frame) != PREAMBLE_BYTES:
        return otherwise
    run_id: bytes = PREAMBLE.unpack(frame)[5]
    return run_id


def encode(message: Message, run_id: bytes) -> list[Frame]:
    """The frames of a message.

    Raises:
        LocalProtocolError: the fields are over their limit together.
    """
    kind = message.kind
    try:
        fields = msgpack.packb([getattr(message, name) for name in _ENCODED[kind]])
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"the fields of {kind.name} cannot be encoded: {error}") from None
    if len(fields) > FIELDS_BYTES_MAX:
        raise LocalProtocolError(f"the fields of {kind.name} take {len(fields)} octets, over {FIELDS_BYTES_MAX}")
    payload = message.payload if kind in _CARRIES_PAYLOAD else ()  # type: ignore[attr-defined]  # those kinds have it
    return [preamble(kind, run_id), fields, *payload]


def decode(frames: Sequence[Frame], run_id: bytes) -> Message:
    """The message that frames hold.

    Raises:
        RemoteProtocolError: anything at all is wrong with them; its ``code`` says what to answer.
    """
    if not 2 <= len(frames) <= FRAMES_MAX:
        raise RemoteProtocolError(f"{len(frames)} frames are not within 2..{FRAMES_MAX}", Code.MALFORMED)
    kind = read_preamble(frames[0], run_id)
    values = decode_fields(frames[1])
    names = _ENCODED[kind]
    if len(values) < _REQUIRED[kind]:
        raise RemoteProtocolError(
            f"{kind.name} has {len(values)} fields, {_REQUIRED[kind]} are required", Code.MALFORMED
        )
    arguments: dict[str, Any] = dict(zip(names, values, strict=False))  # later versions may append fields
    if kind in _CARRIES_PAYLOAD:
        arguments["payload"] = tuple(frames[2:])
    elif len(frames) > 2:
        raise RemoteProtocolError(f"{kind.name} carries no payload", Code.MALFORMED)
    try:
        return KINDS[kind](**arguments)
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error), Code.MALFORMED) from None


def decode_fields(frame: Frame) -> list[Any]:
    """The positional array of a fields frame.

    Raises:
        RemoteProtocolError: with MALFORMED: over the limit, not msgpack, or not an array.
    """
    if len(frame) > FIELDS_BYTES_MAX:
        raise RemoteProtocolError(f"the fields take {len(frame)} octets, over {FIELDS_BYTES_MAX}", Code.MALFORMED)
    try:
        if len(frame) <= FEW_FIELDS_BYTES:
            values = msgpack.unpackb(frame)
        else:
            values = msgpack.unpackb(frame, max_array_len=FIELDS_ITEMS_MAX, max_map_len=FIELDS_ITEMS_MAX)
    except Exception as error:  # noqa: BLE001 - msgpack raises six kinds of exception on foreign bytes
        raise RemoteProtocolError(f"the fields are not msgpack: {describe(error)}", Code.MALFORMED) from None
    if type(values) is not list:
        raise RemoteProtocolError(f"the fields are a {type(values).__name__}, not an array", Code.MALFORMED)
    return values


# ------------------------------------------------------------------------- the query plane, without ceremony

Fields = tuple[int, str, int, int, int]  # call id, method, remaining ms, rank, incarnation


Pack = Callable[[Any], bytes]


def field_packer() -> Pack:
    """``msgpack.packb`` for fields that does not make a packer each time. Belongs to one thread."""
    pack: Pack = msgpack.Packer(buf_size=1024).pack
    return pack


def request_frames(opening: bytes, fields: Fields, payload: Sequence[Frame], pack: Pack = msgpack.packb) -> list[Frame]:
    """A REQUEST's frames; ``opening`` is ``preamble(Kind.REQUEST, run_id)``. The caller vouches for the fields."""
    return [opening, pack(fields), *payload]


def read_request(frames: Sequence[Frame], opening: bytes, run_id: bytes) -> Fields:
    """The fields of a REQUEST.

    Raises:
        RemoteProtocolError: it is none, or not for this run, or malformed; ``code`` says what to answer.
    """
    if not frames:
        raise RemoteProtocolError("a request has at least 3 frames, not 0", Code.MALFORMED)
    if frames[0] != opening:
        kind = read_preamble(frames[0], run_id)
        if kind is not Kind.REQUEST:
            raise RemoteProtocolError(f"a server takes no {kind.name}", Code.UNEXPECTED)
    return call_fields(frames)


def call_fields(frames: Sequence[Frame], name: str = "REQUEST") -> Fields:
    """The fields that REQUEST, BATCH and STREAM have in common, of a message whose preamble has been read.

    Raises:
        RemoteProtocolError: with MALFORMED.
    """
    if len(frames) < 3:
        raise RemoteProtocolError(f"{len(frames)} frames are too few for a {name}", Code.MALFORMED)
    values = decode_fields(frames[1])
    if len(values) > 5:  # a later version may append
        del values[5:]
    try:
        call_id, method, remaining_ms, rank, incarnation = values
    except ValueError:
        raise RemoteProtocolError(f"{name} has {len(values)} fields, 5 are required", Code.MALFORMED) from None
    if not (
        type(call_id) is type(remaining_ms) is type(rank) is type(incarnation) is int
        and type(method) is str
        and call_id >= 0
        and 0 <= remaining_ms <= U32
        and 0 < len(method) <= METHOD_CHARS_MAX
    ):
        raise RemoteProtocolError(f"a field of {name} has the wrong type or breaks its limit", Code.MALFORMED)
    return call_id, method, remaining_ms, rank, incarnation


def stream_fields(frames: Sequence[Frame]) -> tuple[Fields, int]:
    """The fields of a STREAM whose preamble has been read, and its credit.

    Raises:
        RemoteProtocolError: with MALFORMED.
    """
    fields = call_fields(frames, "STREAM")
    more = decode_fields(frames[1])[5:6]
    if not more or type(more[0]) is not int or not 0 <= more[0] <= U64:
        raise RemoteProtocolError("a field of STREAM is absent, has the wrong type or breaks its limit", Code.MALFORMED)
    return fields, more[0]


def reply_frames(opening: bytes, call_id: int, payload: Sequence[Frame], pack: Pack = msgpack.packb) -> list[Frame]:
    """A REPLY's frames; ``opening`` is ``preamble(Kind.REPLY, run_id)``."""
    return [opening, pack((call_id,)), *payload]


def read_reply(frames: Sequence[Frame], opening: bytes) -> int | None:
    """The call id of a REPLY; None: it is none, or not a plain one, and ``decode`` is to look at it."""
    if len(frames) < 3 or frames[0] != opening or len(frames[1]) > ONE_NUMBER_BYTES:
        return None
    try:
        (call_id,) = msgpack.unpackb(frames[1])
    except Exception:  # noqa: BLE001 - whatever it is, decode says it better
        return None
    return call_id if type(call_id) is int else None


def read_heartbeat(frames: Sequence[Frame], opening: bytes) -> tuple[int, int] | None:
    """Rank and incarnation of a HEARTBEAT; None: it is none, or not a plain one, and ``decode`` is to look at it.

    ``opening`` is ``preamble(Kind.HEARTBEAT, run_id)``.
    """
    if len(frames) != 2 or frames[0] != opening or len(frames[1]) > THREE_NUMBERS_BYTES:
        return None
    try:
        rank, incarnation, sequence = msgpack.unpackb(frames[1])
    except Exception:  # noqa: BLE001 - whatever it is, decode says it better
        return None
    plain = type(rank) is type(incarnation) is type(sequence) is int and sequence >= 0
    return (rank, incarnation) if plain else None


# ----------------------------------------------------------------------------------------------- views

_MEMBER_FIELDS = ("rank", "incarnation", "attempt", "host", "port", "endpoint", "local")
_member_values = attrgetter(*_MEMBER_FIELDS)


def view_of(number: int, size: int, members: Sequence[Member], meta: dict[str, Any]) -> View:
    """The VIEW message that lists ``members``."""
    return View(number, size, meta, (msgpack.packb([_entry(member) for member in members]),))


def _entry(member: Member) -> tuple[Any, ...]:
    values: tuple[Any, ...] = _member_values(member)
    return values if member.local else values[:-1]


def members_of(view: View) -> tuple[Member, ...]:
    """The members that a VIEW message lists.

    Raises:
        RemoteProtocolError: the list breaks the format, or names a rank twice or outside the view's size.
    """
    if len(view.payload) != 1 or len(view.payload[0]) > VIEW_BYTES_MAX:
        raise RemoteProtocolError("a view carries one frame of members, within its limit", Code.MALFORMED)
    try:
        entries = msgpack.unpackb(view.payload[0])
        members = tuple(Member(*entry[: len(_MEMBER_FIELDS)]) for entry in entries)
    except Exception as error:  # noqa: BLE001 - as above, and wrong shapes besides
        raise RemoteProtocolError(f"the members of a view are malformed: {describe(error)}", Code.MALFORMED) from None
    ranks = {member.rank for member in members}
    if len(ranks) != len(members) or any(rank >= view.size for rank in ranks):
        raise RemoteProtocolError("a view names a rank twice, or one beyond its size", Code.MALFORMED)
    return members
