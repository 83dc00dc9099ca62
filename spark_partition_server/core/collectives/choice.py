"""Which algorithm: by the octets that are moved and the ranks that move them. All ranks must choose alike.

So only what all ranks know counts: the size of the group, and octets that are part of the signature. The marks:

* ``FEW_RANKS``: up to this many ranks a root talks to all of them itself, which costs one hop and no copies; beyond, a
  tree keeps the root's connections to the logarithm.
* ``SHORT_OCTETS``: up to here the rounds cost, not the octets: fewest rounds win (doubling, Bruck, binomial).
* ``LONG_OCTETS``: from here on the octets cost: each should pass each rank once (ring, chain). Between both: halving.
* ``SEGMENT_OCTETS``: of a pipeline. A piece must fit a quarter of a window (else it is offered first, one round trip
  more) and the processor's cache, and be long against the cost of a step.

The group's hosts are one more choice, in ``hosts.py``: ranks of one host reduce among themselves first, perhaps by
memory that they share, then one of each host goes on by what is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from . import everywhere, memory, trees
from .memory import Combine
from .steps import Parcel, Schedule
from .trees import Bounds

__all__ = [
    "FEW_RANKS",
    "LONG_OCTETS",
    "SEGMENT_OCTETS",
    "SHORT_OCTETS",
    "allgather",
    "allreduce",
    "alltoall",
    "alltoall_parcels",
    "bcast",
    "gather_parcels",
    "piece",
    "reduce",
    "reduce_scatter",
    "scatter_parcels",
    "signature",
]

FEW_RANKS: Final = 32
SHORT_OCTETS: Final = 16 * 1024
LONG_OCTETS: Final = 512 * 1024
SEGMENT_OCTETS: Final = 512 * 1024
FEW_PARTS: Final = 8  # ranks up to which alltoall sends each its message: Bruck's rounds move octets several times


def signature(name: str, *parts: str, root: int | None = None) -> str:
    """What the ranks of a collective have to agree on, as text: ``reduce(float32 x 1024, SUM, root=0)``.

    Args:
        name: of the call.
        parts: ``object``, or the type of the items and, where all ranks have as many, how many; the operation.
        root: where there is one.
    """
    return f"{name}({', '.join(parts if root is None else (*parts, f'root={root}'))})"


def piece(item: int, most: int = SEGMENT_OCTETS) -> int:
    """The octets of a segment: whole items, at least one."""
    return max(most // item, 1) * item


def gather_parcels(rank: int, size: int, root: int, parcel: Parcel) -> Schedule:
    """Any parcels to the root: returns them there in the order of ranks, None elsewhere."""
    return (trees.gather_linear if size <= FEW_RANKS else trees.gather_tree)(rank, size, root, parcel)


def scatter_parcels(rank: int, size: int, root: int, parcels: Sequence[Parcel]) -> Schedule:
    """Any parcels from the root: returns ours."""
    return (trees.scatter_linear if size <= FEW_RANKS else trees.scatter_tree)(rank, size, root, parcels)


def alltoall_parcels(rank: int, size: int, parcels: Sequence[Parcel]) -> Schedule:
    """Any parcels from all to all: returns ours in the order of ranks."""
    return (everywhere.alltoall_linear if size <= FEW_RANKS else everywhere.alltoall_pairwise)(rank, size, parcels)


def bcast(rank: int, size: int, root: int, whole: memoryview) -> Schedule:
    """Memory of the root into memory of the same length on every rank."""
    if size > 2 and len(whole) >= LONG_OCTETS:
        return trees.bcast_chain(rank, size, root, whole, SEGMENT_OCTETS)
    return trees.bcast_tree(rank, size, root, (whole,), whole)


def allgather(rank: int, size: int, whole: memoryview, bounds: Bounds | None = None) -> Schedule:
    """Parts of ``whole``, of equal lengths or those of ``bounds``, to all ranks; each has put its own in its place."""
    if bounds is None and len(whole) <= SHORT_OCTETS:
        return everywhere.allgather_bruck_into(rank, size, whole)
    parts = memory.even(len(whole), size, max(len(whole) // size, 1)) if bounds is None else bounds
    return everywhere.allgather_ring_into(rank, size, parts, whole, SEGMENT_OCTETS)


def alltoall(rank: int, size: int, give: memoryview, take: memoryview) -> Schedule:
    """Equal parts of memory from all to all; our own is for the caller to copy."""
    if size > FEW_PARTS and len(give) <= SHORT_OCTETS:
        return everywhere.alltoall_bruck(rank, size, give, take)
    parts = memory.even(len(give), size, max(len(give) // size, 1))
    return everywhere.alltoall_pairwise_into(rank, size, give, parts, take, parts)


def reduce(
    rank: int, size: int, root: int, work: memoryview, item: int, combine: Combine, commutative: bool = True
) -> Schedule:
    """All numbers in one at the root, into its ``work``; that of the others is spoilt."""
    if commutative and size > 2 and len(work) >= LONG_OCTETS:
        return memory.reduce_ring(rank, size, root, work, item, combine, piece(item))
    return memory.reduce_tree(rank, size, root, work, combine, commutative)


def allreduce(
    rank: int, size: int, work: memoryview, item: int, combine: Combine, commutative: bool = True
) -> Schedule:
    """All numbers in one on every rank, into ``work``; the same to the last bit on all of them."""
    if not commutative or len(work) <= SHORT_OCTETS:
        return memory.allreduce_doubling(rank, size, work, combine, commutative)
    if len(work) >= LONG_OCTETS:
        return memory.allreduce_ring(rank, size, work, item, combine, piece(item))
    return memory.allreduce_halving(rank, size, work, item, combine)


def reduce_scatter(
    rank: int, size: int, work: memoryview, bounds: Bounds, item: int, combine: Combine, commutative: bool = True
) -> Schedule:
    """Of all numbers in one, on each rank its part of ``bounds``, in its place in ``work``; the rest is spoilt."""
    if not commutative or len(work) <= SHORT_OCTETS:
        return memory.allreduce_doubling(rank, size, work, combine, commutative)
    return memory.reduce_scatter_ring(rank, size, work, bounds, combine, piece(item))
