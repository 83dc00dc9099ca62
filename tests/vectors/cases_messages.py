"""The vectors of messages: one group a kind, one for preamble and frames, one for the members of views."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack

from .notation import octets_to, value_to
from .spec import FIELDS_OCTETS, FRAMES, KINDS, MEMBER, Field, Kind, preamble

__all__ = ["groups"]

Case = dict[str, Any]
PAYLOAD = (b"\x93\x01\x02\x03", b"", bytes(range(256)))


def groups() -> Iterator[dict[str, Any]]:
    """Every group of this file."""
    yield {"kind": "preamble", "cases": list(_preambles())}
    for kind in KINDS:
        yield {"kind": kind.name, "cases": [*_good(kind), *_tolerated(kind), *_broken(kind)]}
    yield {"kind": "members", "cases": list(_members())}


def case(name: str, comment: str, result: str, frames: list[bytes], **more: Any) -> Case:
    """One case, in the order in which its keys are written."""
    return {
        "id": name,
        "comment": comment,
        "result": result,
        **more,
        "frames": [octets_to(frame) for frame in frames],
    }


def message(values: dict[str, Any], payload: tuple[bytes, ...] | None) -> dict[str, Any]:
    """The fields of a message in the notation of values; ``payload`` only for kinds that carry one."""
    noted = {name: value_to(value) for name, value in values.items()}
    return noted if payload is None else {**noted, "payload": [octets_to(frame) for frame in payload]}


def frames_of(kind: Kind, fields: bytes, payload: tuple[bytes, ...] = ()) -> list[bytes]:
    """A message with the fields frame as given."""
    return [preamble(kind.number), fields, *payload]


# ---------------------------------------------------------------------------------------- frames around


def _preambles() -> Iterator[Case]:
    lookup = next(kind for kind in KINDS if kind.name == "LOOKUP")
    good = preamble(lookup.number)
    fields = msgpack.packb([5])
    seen = message({"view": 5}, None)
    for name, first, comment in (
        ("flags", preamble(lookup.number, flags=0xFF), "flags are for later versions; receivers ignore them"),
        ("reserved", preamble(lookup.number, reserved=0xFFFF), "so is the reserved field"),
    ):
        yield case(f"preamble.{name}", comment, "acceptable", [first, fields], of="LOOKUP", message=seen)
    for name, first, error in (
        ("empty", b"", "MALFORMED"),
        ("short", good[:15], "MALFORMED"),
        ("long", good + b"\0", "MALFORMED"),
        ("magic", preamble(lookup.number, magic=b"SPs"), "MALFORMED"),
        ("magic-before-version", preamble(lookup.number, magic=b"HTT", version=9), "MALFORMED"),
        ("version-0", preamble(lookup.number, version=0), "VERSION"),
        ("version-2", preamble(lookup.number, version=2), "VERSION"),
        ("version-before-run", preamble(lookup.number, version=2, run_id=bytes(8)), "VERSION"),
        ("run", preamble(lookup.number, run_id=bytes(8)), "WRONG_RUN"),
        ("run-before-kind", preamble(99, run_id=bytes(8)), "WRONG_RUN"),
        *((f"kind-{number}", preamble(number), "UNKNOWN_KIND") for number in (0, 12, 31, 42, 255)),
    ):
        yield case(f"preamble.{name}", f"preamble: {name}", "invalid", [first, fields], error=error)
    yield case("frames.none", "no frames at all", "invalid", [], error="MALFORMED")
    yield case("frames.preamble-only", "the fields are missing", "invalid", [good], error="MALFORMED")
    many = [preamble(33), msgpack.packb([1]), *[b""] * (FRAMES - 1)]
    yield case("frames.too-many", f"{FRAMES + 1} frames", "invalid", many, error="MALFORMED")
    most = tuple([b""] * (FRAMES - 2))
    seen = message({"call_id": 1}, most)
    yield case("frames.most", f"{FRAMES} frames", "valid", many[:-1], of="REPLY", message=seen)
    for name, octets in (
        ("empty", b""),
        ("nil", b"\xc0"),
        ("map", b"\x80"),
        ("integer", b"\x05"),
        ("octets", b"\xc4\x01\x05"),
        ("ext", b"\xd4\x01\x05"),
        ("reserved-octet", b"\xc1"),
        ("trailing", fields + b"\0"),
        ("deep", b"\x91" * 2000 + b"\x05"),
        ("huge-array", b"\xdd\xff\xff\xff\xff"),
        ("huge-text", b"\x91\xdb\xff\xff\xff\xff"),
        ("integer-keys", b"\x92\x05\x81\x01\x02"),
        ("over-limit", b"\x92\x05\xc5\xff\xfc" + bytes(65532)),
    ):
        assert len(octets) <= FIELDS_OCTETS or name == "over-limit"
        yield case(f"fields.{name}", f"the fields frame: {name}", "invalid", [good, octets], error="MALFORMED")


# -------------------------------------------------------------------------------------- the kinds, good


def _good(kind: Kind) -> Iterator[Case]:
    for which in ("smallest", "example", "largest"):
        values = kind.values(which)
        payload = (PAYLOAD if which == "example" else ()) if kind.payload else None
        frames = frames_of(kind, msgpack.packb(list(values.values())), payload or ())
        comment = {"smallest": "all at their lower limits", "example": "an everyday message"}.get(
            which, "all at their upper limits"
        )
        yield case(f"{kind.name}.{which}", comment, "valid", frames, message=message(values, payload))


def _wide(value: Any) -> bytes:
    """msgpack that is right and longer than it need be."""
    match value:
        case int():
            return b"\xcf" + value.to_bytes(8, "big")
        case str():
            return b"\xdb" + len(value.encode()).to_bytes(4, "big") + value.encode()
        case bytes():
            return b"\xc6" + len(value).to_bytes(4, "big") + value
        case dict():
            pairs = b"".join(msgpack.packb(part) for pair in value.items() for part in pair)
            return b"\xdf" + len(value).to_bytes(4, "big") + pairs
    raise TypeError(value)


def _tolerated(kind: Kind) -> Iterator[Case]:
    values = kind.values("example")
    payload = () if kind.payload else None
    seen = message(values, payload)
    plain = list(values.values())
    for name, fields, comment in (
        ("wide", b"\xdd" + len(plain).to_bytes(4, "big") + b"".join(map(_wide, plain)), "the longest form of each"),
        ("one-more", msgpack.packb([*plain, 5]), "a field of a later version behind the last: ignored"),
        ("many-more", msgpack.packb([*plain, None, [1], "x"]), "three of them"),
    ):
        yield case(f"{kind.name}.{name}", comment, "acceptable", frames_of(kind, fields), message=seen)
    for count in range(kind.required, len(plain)):
        absent = kind.fields[count:]
        seen = message({**values, **{field.name: field.default for field in absent}}, payload)
        comment = "absent, so at their defaults: " + ", ".join(field.name for field in absent)
        frames = frames_of(kind, msgpack.packb(plain[:count]))
        yield case(f"{kind.name}.first-{count}", comment, "acceptable", frames, message=seen)


# ------------------------------------------------------------------------------------ the kinds, broken


def _broken(kind: Kind) -> Iterator[Case]:
    def invalid(name: str, comment: str, frames: list[bytes]) -> Case:
        return case(f"{kind.name}.{name}", comment, "invalid", frames, error="MALFORMED")

    smallest = list(kind.values("smallest").values())
    for position, field in enumerate(kind.fields):
        for name, octets in _wrong_values(field):
            parts = [msgpack.packb(value) for value in smallest]
            parts[position] = octets
            fields = bytes([0x90 + len(parts)]) + b"".join(parts)
            slug = name.replace(" ", "-").replace("'", "")
            yield invalid(f"{field.name}.{slug}", f"{field.name}: {name}", frames_of(kind, fields))
    for count in range(kind.required):
        frames = frames_of(kind, msgpack.packb(smallest[:count]))
        yield invalid(f"only-{count}", f"{count} of {kind.required} required fields", frames)
    whole = msgpack.packb(smallest)
    for cut in range(1, len(whole)):
        yield invalid(f"cut-{cut}", f"the fields end after {cut} octets", frames_of(kind, whole[:cut]))
    if not kind.payload:
        yield invalid("payload", "this kind carries no payload", frames_of(kind, whole, (b"",)))


def _wrong_values(field: Field) -> Iterator[tuple[str, bytes]]:
    for name, value in {**field.outside(), **field.mistyped()}.items():
        yield name, msgpack.packb(value)
    if field.type == "text":
        yield "not UTF-8", b"\xa2\xc3\x28"
        yield "a surrogate", b"\xa3\xed\xa0\x80"


# ---------------------------------------------------------------------------------------------- members

MOST = [field.largest() for field in MEMBER]
TWO = [[0, 7, 41, "10.0.0.7", 50123, "tcp://10.0.0.7:50124"], [3, 2**64 - 1, 0, "h", 0, ""]]


def _members() -> Iterator[Case]:
    def view(name: str, comment: str, result: str, size: int, entries: bytes | None, **more: Any) -> Case:
        payload = () if entries is None else (entries,)
        return {"size": size, **case(f"members.{name}", comment, result, list(payload), **more)}

    for name, size, members in (
        ("none", 4, []),
        ("none-of-none", 0, []),
        ("two", 4, TWO),
        ("largest", MOST[0] + 1, [MOST]),
        ("smallest", 1, [[field.smallest() for field in MEMBER[:6]]]),
        ("local", 4, [[*TWO[0], "ipc:///tmp/sps-1/0"], TWO[1]]),
    ):
        noted = [[value_to(value) for value in member] for member in members]
        yield view(name, f"members: {name}", "valid", size, msgpack.packb(members), members=noted)
    noted = [[value_to(value) for value in member] for member in TWO]
    more = msgpack.packb([[*member, "", "of a later version", 5] for member in TWO])
    yield view("still-more-fields", "entries may grow at their ends", "acceptable", 4, more, members=noted)
    whole = msgpack.packb(TWO[:1])
    broken: dict[str, tuple[int, bytes | None]] = {
        "no-frame": (4, None),
        "empty": (4, b""),
        "nil": (4, b"\xc0"),
        "map": (4, b"\x81\xa1a\xa1b"),
        "trailing": (4, whole + b"\0"),
        "twice": (4, msgpack.packb([TWO[0], TWO[0]])),
        "beyond-size": (3, msgpack.packb(TWO)),
        "of-none": (0, msgpack.packb(TWO[:1])),
        "entry-short": (4, msgpack.packb([TWO[0][:5]])),
        "entry-nil": (4, b"\x91\xc0"),
        "entry-map": (4, b"\x91\x81\xa1a\xa1b"),
        **{f"cut-{cut}": (4, whole[:cut]) for cut in range(1, len(whole))},
    }
    for position, field in enumerate(MEMBER):
        for wrong, octets in _wrong_values(field):
            parts = [msgpack.packb(value) for value in (*TWO[0], "ipc:///tmp/sps-1/0")]
            parts[position] = octets
            slug = f"{field.name}.{wrong}".replace(" ", "-").replace("'", "")
            broken[slug] = (2**20, b"\x91\x97" + b"".join(parts))
    for name, (size, entries) in broken.items():
        yield view(name, f"members: {name}", "invalid", size, entries, error="MALFORMED")
