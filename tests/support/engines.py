"""Engines to feed with octets, and the two ways to feed them."""

from __future__ import annotations

from collections.abc import Iterable

from spark_partition_server.wire.zmtp import Engine, Limits

from .octets import handshake

__all__ = ["WIDE", "engine", "feed", "feed_rooms", "ready_engine"]

WIDE = Limits(1 << 28, 64)


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
