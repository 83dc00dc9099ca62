"""The vectors of the direct lane: what one side sends from its first octet on, and what the other makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.octets import COMMAND, GREETING, LONG, MORE, command, frame, greeting, handshake, message, metadata, ready

from .cases_messages import Case
from .notation import octets_to

__all__ = ["MESSAGE_FRAMES", "MESSAGE_OCTETS", "groups"]

MESSAGE_OCTETS, MESSAGE_FRAMES = 20_000, 8  # the receiver's limits in these vectors
PING = command(b"PING", b"\x00\x0fctx")


def groups() -> Iterator[dict[str, Any]]:
    """Every group of this file."""
    limits = {"octets": MESSAGE_OCTETS, "frames": MESSAGE_FRAMES}
    yield {"kind": "zmtp", "limits": limits, "cases": [*_openings(), *_good(), *_tolerated(), *_broken()]}


def stream(name: str, result: str, role: str, octets: bytes, **more: Any) -> Case:
    """What the receiver, which plays ``role``, makes of ``octets``."""
    comment = name.replace("-", " ")
    return {"id": f"zmtp.{name}", "comment": comment, "result": result, "role": role, "in": octets_to(octets), **more}


def seen(messages: list[list[bytes]]) -> list[list[Any]]:
    """Messages in the notation of octets."""
    return [[octets_to(part) for part in frames] for frames in messages]


def good(name: str, messages: list[list[bytes]]) -> Case:
    """Messages in the form in which we send them ourselves."""
    octets = handshake() + b"".join(map(message, messages))
    return stream(name, "valid", "ROUTER", octets, messages=seen(messages))


def tolerated(name: str, octets: bytes, messages: list[list[bytes]], *, out: bytes = b"", role: str = "ROUTER") -> Case:
    """Octets that we would not send; ``out``: what the receiver answers after its own opening."""
    return stream(name, "acceptable", role, octets, messages=seen(messages), out=octets_to(out))


def broken(name: str, octets: bytes, error: str | None = "MALFORMED", *, out: bytes = b"") -> Case:
    """Octets that end the connection; ``error`` None: none of the codes says why."""
    return stream(name, "invalid", "ROUTER", octets, error=error, out=octets_to(out))


def _openings() -> Iterator[Case]:
    """What each role sends first, as the other receives it."""
    for role, sender in (("ROUTER", b"DEALER"), ("DEALER", b"ROUTER")):
        yield stream(f"opening-of-{sender.decode()}", "valid", role, handshake(sender), messages=[])


def _good() -> Iterator[Case]:
    yield good("one-octet", [[b"a"]])
    yield good("empty-frame", [[b""]])
    yield good("three-messages", [[b"1"], [b"2", b"3"], [b"", b"", b"4"]])
    for size in (255, 256, 8191, 8192, 8193, MESSAGE_OCTETS):
        yield good(f"frame-of-{size}", [[b"x" * size], [b"after"]])
    yield good("most-frames", [[b"x"] * MESSAGE_FRAMES] * 2)
    yield good("long-in-the-middle", [[b"a", b"y" * 9000, b"b", b"z" * 300, b"c"]])


def _tolerated() -> Iterator[Case]:
    hi = message([b"hi"])
    for role, others in (("ROUTER", (b"REQ", b"ROUTER")), ("DEALER", (b"REP", b"DEALER"))):
        for other in others:
            yield tolerated(f"{role}-from-{other.decode()}", handshake(other) + hi, [[b"hi"]], role=role)
    dealer = ready(b"DEALER")
    yield tolerated("version-3.0", greeting(version=b"\x03\x00") + dealer + hi, [[b"hi"]])
    yield tolerated("version-4.7", greeting(version=b"\x04\x07") + dealer + hi, [[b"hi"]])
    yield tolerated("padding", greeting(signature=b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f") + dealer + hi, [[b"hi"]])
    yield tolerated("as-server", greeting(as_server=b"\x01") + dealer + hi, [[b"hi"]])
    yield tolerated("filler", greeting(filler=b"\xaa" * 31) + dealer + hi, [[b"hi"]])
    names = [(b"socket-TYPE", b"DEALER"), (b"Identity", b"me"), (b"X-Any", b""), (b"Resource", b"a/b")]
    yield tolerated("metadata", GREETING + command(b"READY", metadata(names)) + hi, [[b"hi"]])
    yield tolerated("long-ready", GREETING + command(b"READY", metadata(names), long=True) + hi, [[b"hi"]])
    yield tolerated("short-body-in-a-long-frame", handshake() + message([b"a", b""], long=True), [[b"a", b""]])
    pings = handshake() + PING + hi + PING + command(b"PING", b"\xff\xff")
    pongs = command(b"PONG", b"ctx") * 2 + command(b"PONG")
    yield tolerated("pings", pings, [[b"hi"]], out=pongs)
    yield tolerated("ping-of-16", handshake() + command(b"PING", bytes(18)), [], out=command(b"PONG", bytes(16)))
    inside = handshake() + frame(b"a", MORE) + PING + frame(b"b")
    yield tolerated("ping-between-two-frames", inside, [[b"a", b"b"]], out=command(b"PONG", b"ctx"))
    for name in (b"PONG", b"SUBSCRIBE", b"READY", b"later"):
        yield tolerated(f"command-{name.decode()}", handshake() + command(name, b"data") + hi, [[b"hi"]])
    whole = handshake() + message([b"a", b"b"])
    for cut in (0, 1, 9, 10, 11, 32, 63, 64, 65, 66, 70, len(handshake()), len(whole) - 4, len(whole) - 1):
        yield tolerated(f"still-waiting-after-{cut}", whole[:cut], [])


def _broken() -> Iterator[Case]:
    start = handshake()
    refusal = command(b"ERROR", b"\x13Invalid socket type")
    yield broken("http", b"GET / HTTP/1.1\r\n\r\n")
    yield broken("zmtp-1", b"\xff\0\0\0\0\0\0\0\x01\0")
    yield broken("zmtp-2", greeting(version=b"\x02\x05")[:12], "VERSION")
    for mechanism in (b"PLAIN", b"CURVE", b"", b"NULLS", b"NULL\0S", b"null"):
        name = mechanism.replace(b"\0", b"0").decode() or "none"
        yield broken(f"mechanism-{name}", greeting(mechanism=mechanism), None)
    for other in (b"PUB", b"PULL", b"REP", b"PAIR", b"dealer", b""):
        yield broken(f"socket-type-{other.decode() or 'empty'}", GREETING + ready(other), None, out=refusal)
    yield broken("socket-type-missing", GREETING + command(b"READY"), None, out=refusal)
    yield broken("error", GREETING + command(b"ERROR", b"\x02no"), None)
    yield broken("error-later", start + command(b"ERROR", b"\x02no"), None)
    yield broken("error-cut", GREETING + command(b"ERROR", b"\x09no"), None)
    yield broken("message-first", GREETING + message([b"hi"]))
    yield broken("ping-first", GREETING + PING)
    yield broken("other-command-first", GREETING + command(b"HELLO", b""))
    for name, body in (
        ("no-name", metadata([(b"", b"x")])),
        ("name-cut", b"\x0bSock"),
        ("size-cut", b"\x01a\x00\x00\x00"),
        ("value-cut", b"\x01a\x00\x00\x00\x02x"),
        ("value-huge", b"\x01a\x7f\xff\xff\xff"),
    ):
        yield broken(f"metadata-{name}", GREETING + command(b"READY", body))
    for bit in range(3, 8):
        yield broken(f"reserved-bit-{bit}", start + bytes([1 << bit, 0]))
    yield broken("command-more", start + frame(b"\x04PING\0\0", COMMAND | MORE))
    yield broken("command-empty", start + frame(b"", COMMAND))
    yield broken("command-without-name", start + frame(b"\x00x", COMMAND))
    yield broken("command-name-cut", start + frame(b"\x05PING", COMMAND))
    yield broken("command-of-4097", start + bytes([COMMAND | LONG]) + (4097).to_bytes(8, "big"))
    yield broken("ping-without-ttl", start + command(b"PING", b"\0"))
    yield broken("ping-of-17", start + command(b"PING", bytes(19)))
    yield broken("frame-over-limit", start + bytes([LONG]) + (MESSAGE_OCTETS + 1).to_bytes(8, "big"), "TOO_LARGE")
    two = message([b"x" * 12_000, b"x" * 8001])
    yield broken("message-over-limit", start + two[: 9 + 12_000 + 9], "TOO_LARGE")
    yield broken("frame-of-2^63", start + bytes([LONG, 0x80]) + bytes(7), "TOO_LARGE")
    yield broken("frame-of-2^64-1", start + bytes([LONG]) + b"\xff" * 8, "TOO_LARGE")
    yield broken("too-many-frames", start + message([b""] * (MESSAGE_FRAMES + 1)))
