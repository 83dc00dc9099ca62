"""ZMTP 3.1 octets, written down from RFC 37 and not from our engine, and the ways to feed an engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spark_partition_server.wire.zmtp import Engine, Limits

__all__ = [
    "GREETING",
    "WIDE",
    "command",
    "engine",
    "feed",
    "feed_rooms",
    "frame",
    "greeting",
    "handshake",
    "message",
    "ready",
    "ready_engine",
]

MORE, LONG, COMMAND = 1, 2, 4
WIDE = Limits(1 << 28, 64)


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


def engine(socket_type: bytes = b"ROUTER", limits: Limits = WIDE) -> Engine:
    """A fresh engine that has sent nothing yet."""
    return Engine(socket_type, limits)


def ready_engine(limits: Limits = WIDE) -> Engine:
    """A ROUTER engine behind its handshake, with nothing left to send."""
    made = engine(limits=limits)
    assert made.receive(handshake()) == []
    assert made.ready
    made.output()
    return made


def feed(target: Engine, pieces: Iterable[bytes]) -> list[list[bytes]]:
    """Feeds pieces by ``receive`` alone; the messages as plain bytes."""
    return [[bytes(part) for part in found] for piece in pieces for found in target.receive(piece)]


def feed_rooms(target: Engine, pieces: Iterable[bytes]) -> list[list[bytes]]:
    """Feeds pieces as a socket's owner does: into ``room`` while there is one, by ``receive`` otherwise."""
    messages: list[list[bytes]] = []
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            room = target.room()
            if room is None:
                found = target.receive(bytes(rest))
                rest = rest[:0]
            else:
                count = min(len(room), len(rest))
                room[:count] = rest[:count]
                rest = rest[count:]
                found = target.filled(count)
            messages += [[bytes(part) for part in frames] for frames in found]
    return messages
