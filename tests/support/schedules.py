"""Schedules of collectives on the world in memory: what to run, what to run it on, and what came of it."""

from __future__ import annotations

from functools import reduce

import pytest

from spark_partition_server.core.collectives import values

from .ranks import FAR, World

__all__ = [
    "ANY_ORDER",
    "PART",
    "TEXTS",
    "add",
    "every",
    "folded",
    "in_memory",
    "memory_of",
    "multiply",
    "numbers_of",
    "played",
    "played_with_roots",
    "text_of",
]

SIZES = range(1, 18)
ROOM = [0, 1]  # the window: the usual, and none
PART = 12  # octets of a rank's part: three matrices


def memory_of(octets):
    return memoryview(bytearray(octets))


def text_of(rank):
    return b"<%d>" % rank


def numbers_of(rank, octets=PART):
    """What a rank has: as matrices, none of them singular or commuting with its neighbours'."""
    return bytes((7 * rank + 3 * place + (place % 4 in (0, 3)) * 11 + 1) % 251 for place in range(octets))


def add(source, target):
    """A combination for which the order does not matter."""
    for place, octet in enumerate(source):
        target[place] = (target[place] + octet) % 256


def multiply(source, target):
    """One for which it does: of 2 x 2 matrices."""
    for at in range(0, len(source), 4):
        a, b, c, d = source[at : at + 4]
        e, f, g, h = target[at : at + 4]
        target[at : at + 4] = bytes(x % 251 for x in (a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h))


def folded(parts, combine):
    """All parts in one, in order."""

    def two(lower, higher):
        target = bytearray(higher)
        combine(lower, target)
        return bytes(target)

    return reduce(two, parts)


TEXTS = values.Arithmetic(lambda lower, higher: lower + higher, lambda value: (value,), lambda parcel: bytes(parcel[0]))
ANY_ORDER = values.Arithmetic(max, TEXTS.pack, TEXTS.unpack, commutative=True)


def played(size, window, *schedules):
    """What each rank got of each schedule, one after the other; ``schedules`` make one for a rank and the size."""

    def program(rank):
        got = []
        for number, make in enumerate(schedules):
            got.append((yield rank.peer.start(rank.comm, f"test {number}", make(rank.rank, size), FAR)))
        return got

    world = World(size, seed=size, window=window).run(program)
    return [rank.result for rank in world.ranks]


def played_with_roots(size, window, make):
    """The same for every root: results by root, then rank."""
    ranks = played(size, window, *[lambda rank, size, root=root: make(rank, size, root) for root in range(size)])
    return [[rank[root] for rank in ranks] for root in range(size)]


def in_memory(octets, make):
    """A schedule over memory, which returns what is there in the end."""
    memory = memory_of(octets)
    yield from make(memory)
    return bytes(memory)


every = pytest.mark.parametrize(("size", "window"), [(size, window) for size in SIZES for window in ROOM])
