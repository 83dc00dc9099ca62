"""Every reduction against the fold of what the ranks have: 1 to 17 ranks, every root, in orders drawn by seeds."""

from __future__ import annotations

from itertools import accumulate

import pytest
from support.schedules import (
    ANY_ORDER,
    TEXTS,
    add,
    every,
    folded,
    in_memory,
    multiply,
    numbers_of,
    played,
    played_with_roots,
    text_of,
)

from spark_partition_server.core.collectives import choice, memory, values


@every
@pytest.mark.parametrize("by", [TEXTS, ANY_ORDER])
def test_reductions_of_values(size, window, by):
    """reduce, allreduce, scan, exscan: the fold of what all have, or of those up to here, or before."""
    all_of_them = [text_of(rank) for rank in range(size)]
    folds = list(accumulate(all_of_them, by.combine))
    got = played_with_roots(size, window, lambda rank, size, root: values.reduce(rank, size, root, text_of(rank), by))
    for root, ranks in enumerate(got):
        assert ranks == [folds[-1] if rank == root else None for rank in range(size)]
    got = played(
        size,
        window,
        *[
            lambda rank, size, make=make: make(rank, size, text_of(rank), by)
            for make in (values.allreduce, values.scan, values.exscan)
        ],
    )
    assert [one[0] for one in got] == [folds[-1]] * size
    assert [one[1] for one in got] == folds
    assert [one[2] for one in got] == [None, *folds[:-1]]


def test_a_combination_may_change_what_it_gets():
    """One that adds into its first operand, on memory that was received: none of it is used twice."""

    def combine(lower, higher):
        lower[0] += higher[0]
        return lower

    by = values.Arithmetic(combine, lambda value: (memoryview(value),), lambda parcel: memoryview(bytearray(parcel[0])))

    def make(rank, size):
        return values.exscan(rank, size, bytearray([rank + 1]), by)

    for size in (2, 5, 8):
        got = [one and one[0] for (one,) in played(size, 0, make)]
        assert got == [None, *accumulate(range(1, size))]


@every
@pytest.mark.parametrize(("combine", "commutative"), [(add, True), (multiply, False)])
def test_reductions_of_memory(size, window, combine, commutative):
    """Reduce, Allreduce, Scan, Exscan: the fold in the order of ranks, whether or not the order matters."""
    parts = [numbers_of(rank) for rank in range(size)]
    folds = [folded(parts[: count + 1], combine) for count in range(size)]

    def reducing(rank, size, root):
        return in_memory(
            parts[rank], lambda work: memory.reduce_tree(rank, size, root, work, combine, commutative)
        )

    for root, ranks in enumerate(played_with_roots(size, window, reducing)):
        assert ranks[root] == folds[-1]

    def over(make):
        return lambda rank, size: in_memory(parts[rank], lambda work: make(rank, size, work))

    got = played(
        size,
        window,
        over(lambda rank, size, work: choice.allreduce(rank, size, work, 4, combine, commutative)),
        over(lambda rank, size, work: memory.scan(rank, size, work, combine, commutative)),
        over(lambda rank, size, work: memory.exscan(rank, size, work, combine, commutative)),
    )
    assert [one[0] for one in got] == [folds[-1]] * size
    assert [one[1] for one in got] == folds
    assert [one[2] for one in got] == [parts[0], *folds[:-1]]


@every
def test_reductions_of_long_memory(size, window):
    """Allreduce, Reduce and Reduce_scatter in pieces: rings and halves give what the fold gives."""
    octets = 4 * (3 * size - 1)  # parts of two lengths
    total = folded([numbers_of(rank, octets) for rank in range(size)], add)
    bounds = memory.even(octets, size, 4)

    def over(make):
        return lambda rank, size: in_memory(numbers_of(rank, octets), lambda work: make(rank, size, work))

    ring = over(lambda rank, size, work: memory.allreduce_ring(rank, size, work, 4, add, 8))
    halving = over(lambda rank, size, work: memory.allreduce_halving(rank, size, work, 4, add))
    scattering = over(lambda rank, size, work: memory.reduce_scatter_ring(rank, size, work, bounds, add, 8))
    for rank, got in enumerate(played(size, window, ring, halving, scattering)):
        start, end = bounds[rank]
        assert got[:2] == [total, total]
        assert got[2][start:end] == total[start:end]
    got = played_with_roots(
        size,
        window,
        lambda rank, size, root: in_memory(
            numbers_of(rank, octets), lambda work: memory.reduce_ring(rank, size, root, work, 4, add, 8)
        ),
    )
    assert [ranks[root] for root, ranks in enumerate(got)] == [total] * size


