"""Reductions of values: each rank's is combined with the others' in the order of ranks, two by two.

``combine(lower, higher)`` gets two values, the first of lower ranks; ``pack`` makes a parcel of a value, and ``unpack``
a value of a parcel, which may lie on its memory. A combination may change the values that it gets: none is used twice,
and what ``unpack`` gives must be writable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .steps import Parcel, Schedule, exchange, receive, send

__all__ = ["Arithmetic", "allreduce", "exscan", "reduce", "scan"]


class Arithmetic:
    """What a reduction of values needs to know of them.

    Args:
        commutative: the order of the operands does not matter.
    """

    __slots__ = ("combine", "commutative", "pack", "unpack")

    def __init__(
        self,
        combine: Callable[[Any, Any], Any],
        pack: Callable[[Any], Parcel],
        unpack: Callable[[Parcel], Any],
        commutative: bool = False,
    ) -> None:
        self.combine = combine
        self.pack = pack
        self.unpack = unpack
        self.commutative = commutative


def reduce(rank: int, size: int, root: int, value: Any, by: Arithmetic) -> Schedule:
    """All values in one, at ``root``; the others return None. A binomial tree.

    Where the order matters, the tree's root is rank 0, which passes the result on.
    """
    top = root if by.commutative else 0
    place = (rank - top) % size
    bit = 1
    while bit < size:
        if place & bit:
            yield send((rank - bit) % size, by.pack(value))
            break
        if place + bit < size:
            (parcel,) = yield receive((rank + bit) % size)
            value = by.combine(value, by.unpack(parcel))
        bit *= 2
    if top != root:
        if rank == top:
            yield send(root, by.pack(value))
        elif rank == root:
            (parcel,) = yield receive(top)
            return by.unpack(parcel)
    return value if rank == root else None


def folded(rank: int, size: int) -> tuple[int, int, int]:
    """For exchanges between pairs, which need a power of two: that power; and the first ranks are one in pairs.

    Returns the power, the number of such pairs, and our place among those that take part, -1 for none: of each pair the
    higher rank takes part.
    """
    power = 1 << (size.bit_length() - 1)
    pairs = size - power
    if rank >= 2 * pairs:
        return power, pairs, rank - pairs
    return power, pairs, rank // 2 if rank % 2 else -1


def unfolded(place: int, pairs: int) -> int:
    """The rank at a place."""
    return 2 * place + 1 if place < pairs else place + pairs


def allreduce(rank: int, size: int, value: Any, by: Arithmetic) -> Schedule:
    """All values in one, on every rank, and the same to the last bit: recursive doubling, in the order of ranks."""
    power, pairs, place = folded(rank, size)
    if place < 0:
        yield send(rank + 1, by.pack(value))
        (parcel,) = yield receive(rank + 1)
        return by.unpack(parcel)
    if place < pairs:
        (parcel,) = yield receive(rank - 1)
        value = by.combine(by.unpack(parcel), value)
    bit = 1
    while bit < power:
        other = unfolded(place ^ bit, pairs)
        (parcel,) = yield exchange(other, by.pack(value), other)
        theirs = by.unpack(parcel)
        value = by.combine(theirs, value) if other < rank else by.combine(value, theirs)
        bit *= 2
    if place < pairs:
        yield send(rank - 1, by.pack(value))
    return value


def own(parcel: Parcel) -> Parcel:
    """A parcel in memory that nobody else looks at."""
    return tuple(bytearray(frame) for frame in parcel)


def scan(rank: int, size: int, value: Any, by: Arithmetic) -> Schedule:
    """The values of all ranks up to ours in one."""
    before = yield from exscan(rank, size, value, by)
    return by.combine(before, value) if rank else value


def exscan(rank: int, size: int, value: Any, by: Arithmetic) -> Schedule:
    """The values of all ranks below ours in one; None at rank 0. Recursive doubling."""
    block = own(by.pack(value))  # of the ranks that share our bits above the current one, as far as there are any
    before: Any = None
    bit = 1
    while bit < size:
        other = rank ^ bit
        if other < size:
            (parcel,) = yield exchange(other, block, other)
            if other < rank:
                copy = own(parcel)
                before = by.unpack(copy) if before is None else by.combine(by.unpack(copy), before)
                block = by.pack(by.combine(by.unpack(parcel), by.unpack(block)))
            else:
                block = by.pack(by.combine(by.unpack(block), by.unpack(parcel)))
        bit *= 2
    return before
