"""From all ranks to all: allgather and alltoall, of parcels and of memory."""

from __future__ import annotations

from collections.abc import Sequence

from ...wire.parcels import bundle, unbundle
from .steps import Parcel, Schedule, Step, exchange
from .trees import Bounds, segments

__all__ = [
    "allgather_bruck",
    "allgather_bruck_into",
    "allgather_ring_into",
    "alltoall_bruck",
    "alltoall_linear",
    "alltoall_pairwise",
    "alltoall_pairwise_into",
]


def allgather_bruck(rank: int, size: int, parcel: Parcel) -> Schedule:
    """What each rank has, on every rank, in the order of ranks: ceil(log2(size)) rounds of bundles (Bruck et al.)."""
    got = [parcel]  # of the ranks from ours on
    while len(got) < size:
        count = min(len(got), size - len(got))
        (frames,) = yield exchange((rank - len(got)) % size, bundle(got[:count]), (rank + len(got)) % size)
        got += unbundle(frames)
    return got[size - rank :] + got[: size - rank]


def allgather_bruck_into(rank: int, size: int, whole: memoryview) -> Schedule:
    """The same for equal parts of ``whole``, in which each rank has put its own; for few octets."""
    part = len(whole) // size
    scratch = memoryview(bytearray(len(whole)))
    scratch[:part] = whole[rank * part : (rank + 1) * part]
    have = 1
    while have < size:
        count = min(have, size - have)
        into = scratch[have * part : (have + count) * part]
        yield exchange((rank - have) % size, (scratch[: count * part],), (rank + have) % size, into)
        have += count
    first = (size - rank) * part
    whole[rank * part :] = scratch[:first]
    whole[: rank * part] = scratch[first:]


def allgather_ring_into(rank: int, size: int, bounds: Bounds, whole: memoryview, segment: int) -> Schedule:
    """The same for parts of any size and for many octets: each goes around the ring, in pieces."""
    right, left = (rank + 1) % size, (rank - 1) % size
    for step in range(size - 1):
        out = segments(*bounds[(rank - step) % size], segment)
        come = segments(*bounds[(rank - step - 1) % size], segment)
        for index in range(max(len(out), len(come))):
            sends = tuple((right, (whole[a:b],)) for a, b in out[index : index + 1])
            yield Step(sends, tuple((left, whole[a:b]) for a, b in come[index : index + 1]))


def alltoall_linear(rank: int, size: int, parcels: Sequence[Parcel]) -> Schedule:
    """Of what each rank has for each, ours, in the order of ranks: all messages at once."""
    others = [(rank + distance) % size for distance in range(1, size)]
    result = list(parcels)
    if others:
        got = yield Step(tuple((to, parcels[to]) for to in others), tuple((source, None) for source in others))
        for source, parcel in zip(others, got, strict=True):
            result[source] = parcel
    return result


def alltoall_pairwise(rank: int, size: int, parcels: Sequence[Parcel]) -> Schedule:
    """The same for many ranks: one message at a time."""
    result = list(parcels)
    for distance in range(1, size):
        to, source = (rank + distance) % size, (rank - distance) % size
        (result[source],) = yield exchange(to, parcels[to], source)
    return result


def alltoall_pairwise_into(
    rank: int, size: int, give: memoryview, gives: Bounds, take: memoryview, takes: Bounds
) -> Schedule:
    """The same for parts of memory, of any size; our own part is for the caller to copy."""
    for distance in range(1, size):
        to, source = (rank + distance) % size, (rank - distance) % size
        (a, b), (c, d) = gives[to], takes[source]
        yield exchange(to, (give[a:b],), source, take[c:d])


def alltoall_bruck(rank: int, size: int, give: memoryview, take: memoryview) -> Schedule:
    """The same for equal parts of few octets: ceil(log2(size)) rounds, half of the octets in each (Bruck et al.)."""
    part = len(give) // size
    # place i holds what has to travel i ranks upward
    work = [bytes(give[to * part : (to + 1) * part]) for to in ((rank + place) % size for place in range(size))]
    distance = 1
    while distance < size:
        places = [place for place in range(size) if place & distance]
        into = memoryview(bytearray(part * len(places)))
        to, source = (rank + distance) % size, (rank - distance) % size
        yield exchange(to, (b"".join([work[place] for place in places]),), source, into)
        for index, place in enumerate(places):
            work[place] = bytes(into[index * part : (index + 1) * part])
        distance *= 2
    for place, octets in enumerate(work):
        source = (rank - place) % size
        take[source * part : (source + 1) * part] = octets
