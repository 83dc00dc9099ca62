"""Barrier, and what goes from one rank to all or from all to one: trees for few octets, chains and rings for many.

Parcels are frames that nobody on the way looks into; memory is flat views of octets.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...wire.parcels import bundle, unbundle
from .steps import Parcel, Schedule, Step, exchange, receive, send

__all__ = [
    "Bounds",
    "barrier",
    "bcast_chain",
    "bcast_tree",
    "gather_linear",
    "gather_linear_into",
    "gather_tree",
    "scatter_linear",
    "scatter_linear_into",
    "scatter_tree",
    "segments",
]

Bounds = Sequence[tuple[int, int]]  # of each rank its part of a whole: the octets from the first number to the second


def barrier(rank: int, size: int) -> Schedule:
    """Nobody leaves before all have come: dissemination, ceil(log2(size)) rounds."""
    distance = 1
    while distance < size:
        yield exchange((rank + distance) % size, (), (rank - distance) % size)
        distance *= 2


def _above(relative: int, size: int) -> int:
    """The lowest bit of a place in a binomial tree: its parent is without it. Of the root: a power of two, at least
    ``size``.
    """
    bit = 1
    while bit < size and not relative & bit:
        bit *= 2
    return bit


def bcast_tree(rank: int, size: int, root: int, parcel: Parcel, into: memoryview | None = None) -> Schedule:
    """What ``root`` has, on every rank: a binomial tree. Returns the parcel, or ``into`` if it is given."""
    relative = (rank - root) % size
    bit = _above(relative, size)
    got = parcel
    if relative:
        (received,) = yield receive((rank - bit) % size, into)
        got = received if into is None else (into,)
    sends = []
    while bit > 1:
        bit //= 2
        if relative + bit < size:
            sends.append(((rank + bit) % size, got))
    if sends:
        yield Step(tuple(sends))
    return got


def segments(start: int, end: int, most: int) -> list[tuple[int, int]]:
    """The octets from ``start`` to ``end`` in pieces of at most ``most``."""
    return [(at, min(at + most, end)) for at in range(start, end, most)]


def bcast_chain(rank: int, size: int, root: int, memory: memoryview, segment: int) -> Schedule:
    """The same for many octets: from each rank to the next, in pieces, each passed on while the next one comes."""
    relative = (rank - root) % size
    before, behind = (rank - 1) % size, (rank + 1) % size
    last: memoryview | None = None
    for start, end in segments(0, len(memory), segment):
        piece = memory[start:end]
        sends = ((behind, (last,)),) if last is not None and relative < size - 1 else ()
        receives = ((before, piece),) if relative else ()
        if sends or receives:
            yield Step(sends, receives)
        last = piece
    if last is not None and relative < size - 1:
        yield send(behind, (last,))


# ------------------------------------------------------------------------------------------------- to one rank


def gather_linear(rank: int, size: int, root: int, parcel: Parcel) -> Schedule:
    """What each rank has, at ``root``, which returns it in the order of ranks; the others return None."""
    if rank != root:
        yield send(root, parcel)
        return None
    others = [other for other in range(size) if other != root]
    got = (yield Step((), tuple((other, None) for other in others))) if others else []
    got.insert(root, parcel)
    return got


def gather_tree(rank: int, size: int, root: int, parcel: Parcel) -> Schedule:
    """The same by a binomial tree, for many ranks: ``root`` talks to log2(size) of them only."""
    relative = (rank - root) % size
    above = _above(relative, size)
    got = [parcel]  # of the places from ours on
    bit = 1
    while bit < above:
        if relative + bit < size:
            (frames,) = yield receive((rank + bit) % size)
            got += unbundle(frames)
        bit *= 2
    if relative:
        yield send((rank - above) % size, bundle(got))
        return None
    return got[size - root :] + got[: size - root] if root else got


def gather_linear_into(
    rank: int, size: int, root: int, mine: memoryview, bounds: Bounds, whole: memoryview
) -> Schedule:
    """Memory of each rank into its part of ``whole`` at ``root``, which has put its own there."""
    if rank != root:
        yield send(root, (mine,))
    elif size > 1:
        yield Step((), tuple((other, whole[a:b]) for other, (a, b) in enumerate(bounds) if other != root))


# ----------------------------------------------------------------------------------------------- from one rank


def scatter_linear(rank: int, size: int, root: int, parcels: Sequence[Parcel]) -> Schedule:
    """Of what ``root`` has for each rank, ours. Only ``parcels`` of the root count."""
    if rank != root:
        (got,) = yield receive(root)
        return got
    if size > 1:
        yield Step(tuple((other, parcel) for other, parcel in enumerate(parcels) if other != root))
    return parcels[root]


def scatter_tree(rank: int, size: int, root: int, parcels: Sequence[Parcel]) -> Schedule:
    """The same by a binomial tree, for many ranks."""
    relative = (rank - root) % size
    bit = _above(relative, size)
    if relative:
        (frames,) = yield receive((rank - bit) % size)
        rest = unbundle(frames)
    else:
        rest = [parcels[(root + place) % size] for place in range(size)]
    sends = []
    while bit > 1:
        bit //= 2
        if relative + bit < size:
            sends.append(((rank + bit) % size, bundle(rest[bit:])))
            rest = rest[:bit]
    if sends:
        yield Step(tuple(sends))
    return rest[0]


def scatter_linear_into(
    rank: int, size: int, root: int, mine: memoryview, bounds: Bounds, whole: memoryview
) -> Schedule:
    """Parts of ``whole`` at ``root`` into memory of each rank, but for the root's own part."""
    if rank != root:
        yield receive(root, mine)
    elif size > 1:
        yield Step(tuple((other, (whole[a:b],)) for other, (a, b) in enumerate(bounds) if other != root))
