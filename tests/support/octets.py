"""ZMTP 3.1 octets, written down from RFC 37 and not from our engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "COMMAND",
    "GREETING",
    "LONG",
    "MORE",
    "command",
    "frame",
    "greeting",
    "handshake",
    "message",
    "metadata",
    "ready",
]

MORE, LONG, COMMAND = 1, 2, 4


def greeting(
    *,
    signature: bytes = b"\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f",
    version: bytes = b"\x03\x01",
    mechanism: bytes = b"NULL",
    as_server: bytes = b"\x00",
    filler: bytes = bytes(31),
) -> bytes:
    """greeting = signature version mechanism as-server filler: 64 octets."""
    return signature + version + mechanism + bytes(20 - len(mechanism)) + as_server + filler


GREETING = greeting()


def frame(body: bytes, flags: int = 0, *, long: bool | None = None) -> bytes:
    """One frame: flags, one or eight octets of size, body. ``long=True`` uses eight octets for a short body too."""
    if long or (long is None and len(body) > 255):
        return bytes([flags | LONG]) + len(body).to_bytes(8, "big") + body
    return bytes([flags, len(body)]) + body


def message(frames: Sequence[bytes], *, long: bool | None = None) -> bytes:
    """message = *message-more message-last."""
    last = len(frames) - 1
    return b"".join(frame(body, MORE if index < last else 0, long=long) for index, body in enumerate(frames))


def command(name: bytes, data: bytes = b"", *, long: bool | None = None) -> bytes:
    """A command frame: the length of the name, the name, its data."""
    return frame(bytes([len(name)]) + name + data, COMMAND, long=long)


def metadata(properties: Iterable[tuple[bytes, bytes]]) -> bytes:
    """property = name value, with sizes of one and of four octets."""
    return b"".join(bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in properties)


def ready(socket_type: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """The READY command of a socket of that type."""
    return command(b"READY", metadata([(b"Socket-Type", socket_type), *more]))


def handshake(socket_type: bytes = b"DEALER") -> bytes:
    """Everything the other side sends before its first message."""
    return GREETING + ready(socket_type, (b"Identity", b""))
