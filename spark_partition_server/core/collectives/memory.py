"""Reductions of memory: numbers, item by item, in place.

``combine(source, target)`` leaves ``source op target`` in ``target``, as MPI has it, the source being of lower ranks;
both are flat views of octets of one length. ``work`` holds a rank's own numbers, and in the end the result; where a
rank has none it holds anything. ``item`` is the octets of what must not be divided.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

from .steps import Schedule, Step, exchange, receive, send
from .trees import Bounds, segments
from .values import folded, unfolded

__all__ = [
    "Combine",
    "allreduce_doubling",
    "allreduce_halving",
    "allreduce_ring",
    "even",
    "exscan",
    "reduce_ring",
    "reduce_scatter_ring",
    "reduce_tree",
    "scan",
]

Combine: TypeAlias = "Callable[[memoryview, memoryview], None]"


def _room(octets: int) -> memoryview:
    return memoryview(bytearray(octets))


def even(octets: int, size: int, item: int) -> list[tuple[int, int]]:
    """The bounds of ``size`` parts of as nearly equal lengths as whole items allow."""
    count = octets // item
    marks = [count * part // size * item for part in range(size + 1)]
    return list(pairwise(marks))


def _behind(work: memoryview, theirs: memoryview, combine: Combine, commutative: bool) -> None:
    """``work op theirs`` into ``work``."""
    if commutative:
        combine(theirs, work)
    else:
        combine(work, theirs)
        work[:] = theirs


def reduce_tree(
    rank: int, size: int, root: int, work: memoryview, combine: Combine, commutative: bool = True
) -> Schedule:
    """All numbers in one at ``root``: a binomial tree; from rank 0 on where the order matters."""
    top = root if commutative else 0
    place = (rank - top) % size
    theirs = _room(len(work))
    bit = 1
    while bit < size:
        if place & bit:
            yield send((rank - bit) % size, (work,))
            break
        if place + bit < size:
            yield receive((rank + bit) % size, theirs)
            _behind(work, theirs, combine, commutative)
        bit *= 2
    if top != root:
        if rank == top:
            yield send(root, (work,))
        elif rank == root:
            yield receive(top, work)


def allreduce_doubling(
    rank: int, size: int, work: memoryview, combine: Combine, commutative: bool = True
) -> Schedule:
    """All numbers in one on every rank, the same to the last bit: recursive doubling, in the order of ranks.

    For few octets: each of log2(size) rounds moves all of them.
    """
    power, pairs, place = folded(rank, size)
    if place < 0:
        yield send(rank + 1, (work,))
        yield receive(rank + 1, work)
        return
    theirs = _room(len(work))
    if place < pairs:
        yield receive(rank - 1, theirs)
        combine(theirs, work)
    bit = 1
    while bit < power:
        other = unfolded(place ^ bit, pairs)
        yield exchange(other, (work,), other, theirs)
        if other < rank:
            combine(theirs, work)
        else:
            combine(work, theirs)  # in the same order as over there: floats must come out the same
            work[:] = theirs
        bit *= 2
    if place < pairs:
        yield send(rank - 1, (work,))


def reduce_scatter_ring(
    rank: int, size: int, work: memoryview, bounds: Bounds, combine: Combine, segment: int
) -> Schedule:
    """Of all numbers in one, on each rank its part of ``bounds``; the rest of ``work`` is spoilt.

    Each part goes around the ring once and ends at its rank, in pieces of ``segment`` octets, a whole number of items.
    Only where the order does not matter.
    """
    right, left = (rank + 1) % size, (rank - 1) % size
    theirs = _room(min(segment, max((end - start for start, end in bounds), default=0)))
    for step in range(size - 1):
        out = segments(*bounds[(rank - step - 1) % size], segment)
        come = segments(*bounds[(rank - step - 2) % size], segment)
        for index in range(max(len(out), len(come))):
            sends = tuple((right, (work[a:b],)) for a, b in out[index : index + 1])
            piece = come[index : index + 1]
            yield Step(sends, tuple((left, theirs[: b - a]) for a, b in piece))
            for a, b in piece:
                combine(theirs[: b - a], work[a:b])


def allreduce_ring(
    rank: int, size: int, work: memoryview, item: int, combine: Combine, segment: int
) -> Schedule:
    """All numbers in one on every rank: a ring of pieces, twice around. Only where the order does not matter.

    For many octets: of n ranks each sends 2 (n - 1) / n of them.
    """
    bounds = even(len(work), size, item)
    yield from reduce_scatter_ring(rank, size, work, bounds, combine, segment)
    right, left = (rank + 1) % size, (rank - 1) % size
    for step in range(size - 1):
        out = segments(*bounds[(rank - step) % size], segment)
        come = segments(*bounds[(rank - step - 1) % size], segment)
        for index in range(max(len(out), len(come))):
            sends = tuple((right, (work[a:b],)) for a, b in out[index : index + 1])
            yield Step(sends, tuple((left, work[a:b]) for a, b in come[index : index + 1]))


def allreduce_halving(rank: int, size: int, work: memoryview, item: int, combine: Combine) -> Schedule:
    """The same with fewer and longer messages: halves, quarters, ..., and back (Rabenseifner).

    Only where the order does not matter. For octets too many for doubling and too few for the ring.
    """
    power, pairs, place = folded(rank, size)
    if place < 0:
        yield send(rank + 1, (work,))
        yield receive(rank + 1, work)
        return
    theirs = _room(len(work))
    if place < pairs:
        yield receive(rank - 1, theirs)
        combine(theirs, work)
    parts = even(len(work), power, item)
    low, high, bit = 0, power, power // 2
    while bit:
        other = unfolded(place ^ bit, pairs)
        middle = (low + high) // 2
        keep, give = ((low, middle), (middle, high)) if not place & bit else ((middle, high), (low, middle))
        start, end = parts[keep[0]][0], parts[keep[1] - 1][1]
        piece = work[parts[give[0]][0] : parts[give[1] - 1][1]]
        yield exchange(other, (piece,), other, theirs[: end - start])
        combine(theirs[: end - start], work[start:end])
        low, high = keep
        bit //= 2
    bit = 1
    while bit < power:
        other = unfolded(place ^ bit, pairs)
        wider = (low - bit, high) if place & bit else (low, high + bit)
        theirs_at = (low - bit, low) if place & bit else (high, high + bit)
        into = work[parts[theirs_at[0]][0] : parts[theirs_at[1] - 1][1]]
        yield exchange(other, (work[parts[low][0] : parts[high - 1][1]],), other, into)
        low, high = wider
        bit *= 2
    if place < pairs:
        yield send(rank - 1, (work,))


def reduce_ring(
    rank: int, size: int, root: int, work: memoryview, item: int, combine: Combine, segment: int
) -> Schedule:
    """All numbers in one at ``root``: around the ring to the rank of each part, and from there to the root."""
    bounds = even(len(work), size, item)
    yield from reduce_scatter_ring(rank, size, work, bounds, combine, segment)
    if rank != root:
        start, end = bounds[rank]
        yield send(root, (work[start:end],))
    elif size > 1:
        yield Step((), tuple((other, work[a:b]) for other, (a, b) in enumerate(bounds) if other != root))


def scan(rank: int, size: int, work: memoryview, combine: Combine, commutative: bool = True) -> Schedule:
    """The numbers of all ranks up to ours in one."""
    mine = bytes(work)
    yield from exscan(rank, size, work, combine, commutative)
    if rank:
        own = memoryview(bytearray(mine))
        combine(work, own)
        work[:] = own


def exscan(rank: int, size: int, work: memoryview, combine: Combine, commutative: bool = True) -> Schedule:
    """The numbers of all ranks below ours in one; rank 0 keeps its own. Recursive doubling."""
    block = memoryview(bytearray(work))  # of the ranks that share our bits above the current one
    theirs = _room(len(work))
    known = False
    bit = 1
    while bit < size:
        other = rank ^ bit
        if other < size:
            yield exchange(other, (block,), other, theirs)
            if other > rank:
                _behind(block, theirs, combine, commutative)
            else:
                if known:
                    combine(theirs, work)
                else:
                    work[:] = theirs
                    known = True
                combine(theirs, block)
        bit *= 2
