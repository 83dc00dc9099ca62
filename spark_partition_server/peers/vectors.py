"""Collectives of buffers in which each rank's part has its own length and place: mpi4py's names with a ``v``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.buffers import IN_PLACE, Blocks, Buffer, read_blocks, read_buffer
from ..core.collectives import choice, everywhere, trees
from ..core.ops import SUM, Op, commutes
from .arrays import Arrays, combining
from .requests import nothing

__all__ = ["Vectors"]


class Vectors(Arrays):
    """Collectives of arrays of different lengths."""

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """The buffers of all ranks into blocks of that of ``root``. At the root ``IN_PLACE`` as sendbuf."""
        self._check_root(root)
        rank, size = self._place
        if rank == root:
            whole = read_blocks(recvbuf, size, writable=True)
            if sendbuf is not IN_PLACE:
                _put(read_buffer(sendbuf), whole, rank)
            schedule = trees.gather_linear_into(rank, size, root, whole.block(rank), _bounds(whole), whole.octets)
            kind = whole.dtype
        else:
            mine = read_buffer(sendbuf)
            schedule, kind = trees.gather_linear_into(rank, size, root, mine.octets, (), mine.octets), mine.dtype
        self._begin(f"Gatherv({kind}, root={root})", schedule, nothing).wait()

    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Blocks of the buffer of ``root``, one into that of each rank. At the root ``IN_PLACE`` as recvbuf."""
        self._check_root(root)
        rank, size = self._place
        if rank == root:
            whole = read_blocks(sendbuf, size)
            if recvbuf is not IN_PLACE:
                _take(whole, rank, read_buffer(recvbuf, writable=True))
            schedule = trees.scatter_linear_into(rank, size, root, whole.block(rank), _bounds(whole), whole.octets)
            kind = whole.dtype
        else:
            mine = read_buffer(recvbuf, writable=True)
            schedule, kind = trees.scatter_linear_into(rank, size, root, mine.octets, (), mine.octets), mine.dtype
        self._begin(f"Scatterv({kind}, root={root})", schedule, nothing).wait()

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        """The buffers of all ranks into blocks of that of every rank. ``IN_PLACE`` as sendbuf."""
        rank, size = self._place
        whole = read_blocks(recvbuf, size, writable=True)
        if sendbuf is not IN_PLACE:
            _put(read_buffer(sendbuf), whole, rank)
        signature = f"Allgatherv({whole.dtype} x {list(whole.counts)})"
        self._begin(signature, choice.allgather(rank, size, whole.octets, _bounds(whole)), nothing).wait()

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        """What every rank has for this one into blocks of its buffer. ``IN_PLACE`` as sendbuf."""
        rank, size = self._place
        take = read_blocks(recvbuf, size, writable=True)
        if sendbuf is IN_PLACE:
            give = Blocks(memoryview(bytearray(take.octets)), take.counts, take.displacements, take.datatype)
        else:
            give = read_blocks(sendbuf, size)
        _put(Buffer(give.block(rank), give.counts[rank], give.datatype), take, rank)
        schedule = everywhere.alltoall_pairwise_into(
            rank, size, give.octets, _bounds(give), take.octets, _bounds(take)
        )
        self._begin(f"Alltoallv({take.dtype})", schedule, nothing).wait()

    def Reduce_scatter(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM
    ) -> None:
        """All buffers in one, item by item, of which each rank gets its part: ``recvcounts`` items.

        Without ``recvcounts`` as many as its receive buffer has. With ``IN_PLACE`` as sendbuf, which wants them, the
        receive buffer holds what is reduced, and its beginning the result.
        """
        rank, size = self._place
        target = read_buffer(recvbuf, writable=True)
        if recvcounts is None and sendbuf is IN_PLACE:
            raise ValueError("Reduce_scatter in place wants recvcounts: what each rank gets")
        counts = self.allgather(target.count) if recvcounts is None else list(recvcounts)
        given = target if sendbuf is IN_PLACE else read_buffer(sendbuf)
        if len(counts) != size or given.count != sum(counts) or given.dtype != target.dtype:
            raise ValueError(f"{given.count} items of {given.dtype} are not {counts} items of {target.dtype}")
        if counts[rank] > target.count:
            raise ValueError(f"the receive buffer has {target.count} items, rank {rank} gets {counts[rank]}")
        work = Buffer(memoryview(bytearray(given.octets)), given.count, given.datatype)
        item = work.datatype.extent
        starts = [sum(counts[:other]) * item for other in range(size)]
        bounds = [(start, start + count * item) for start, count in zip(starts, counts, strict=True)]
        schedule = choice.reduce_scatter(rank, size, work.octets, bounds, item, combining(op, work), commutes(op))
        self._begin(f"Reduce_scatter({work.dtype} x {counts}, {op.name})", schedule, nothing).wait()
        start, end = bounds[rank]
        target.octets[: end - start] = work.octets[start:end]


def _bounds(blocks: Blocks) -> list[tuple[int, int]]:
    item = blocks.datatype.extent
    return [
        (start * item, (start + count) * item)
        for start, count in zip(blocks.displacements, blocks.counts, strict=True)
    ]


def _put(mine: Buffer, whole: Blocks, rank: int) -> None:
    """A rank's own part into its block."""
    if (mine.dtype, mine.count) != (whole.dtype, whole.counts[rank]):
        there = f"{whole.counts[rank]} items of {whole.dtype}"
        raise ValueError(f"{mine.count} items of {mine.dtype} are sent and {there} received, on rank {rank} itself")
    whole.block(rank)[:] = mine.octets


def _take(whole: Blocks, rank: int, mine: Buffer) -> None:
    """A rank's own block into its buffer, which may be larger."""
    if mine.dtype != whole.dtype or mine.count < whole.counts[rank]:
        there = f"{whole.counts[rank]} items of {whole.dtype}"
        raise ValueError(f"{there} are sent and {mine.count} items of {mine.dtype} received, on rank {rank} itself")
    block = whole.block(rank)
    mine.octets[: len(block)] = block
