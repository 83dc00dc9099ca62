"""Collectives of buffers: mpi4py's names with a capital. Nothing is copied but what an algorithm has to."""

from __future__ import annotations

from typing import Any

from ..core.buffers import IN_PLACE, Buffer, check_alike, read_buffer
from ..core.collectives import choice, memory, trees
from ..core.collectives.memory import Combine
from ..core.ops import SUM, Op, commutes
from .objects import Objects
from .requests import Request, nothing

__all__ = ["Arrays", "combining"]


class Arrays(Objects):
    """Collectives of arrays and of anything else with the buffer protocol."""

    # ------------------------------------------------------------------------------------------ moving data

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """The buffer of ``root``, into that of every rank."""
        self.Ibcast(buf, root).wait()

    def Ibcast(self, buf: Any, root: int = 0) -> Request:
        """Begins ``Bcast``."""
        self._check_root(root)
        rank, size = self._place
        found = read_buffer(buf, writable=rank != root)
        schedule = choice.bcast(rank, size, root, found.octets)
        return self._begin(f"Bcast({_of(found)}, root={root})", schedule, nothing)

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """The buffers of all ranks into that of ``root``, one behind the other.

        At the root ``IN_PLACE`` as sendbuf: its own part is there already. Elsewhere recvbuf is of no interest.
        """
        self.Igather(sendbuf, recvbuf, root).wait()

    def Igather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begins ``Gather``."""
        self._check_root(root)
        rank, size = self._place
        if rank == root:
            whole = mine = read_buffer(recvbuf, writable=True, blocks=size)
            if sendbuf is not IN_PLACE:
                mine = read_buffer(sendbuf)
                check_alike(mine, whole)
                whole.block(rank)[:] = mine.octets
            bounds = _bounds(whole, size)
            schedule = trees.gather_linear_into(rank, size, root, whole.block(rank), bounds, whole.octets)
        else:
            mine = read_buffer(sendbuf)
            schedule = trees.gather_linear_into(rank, size, root, mine.octets, (), mine.octets)
        return self._begin(f"Gather({_of(mine)}, root={root})", schedule, nothing)

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Parts of the buffer of ``root``, one into that of each rank.

        At the root ``IN_PLACE`` as recvbuf: its own part stays where it is. Elsewhere sendbuf is of no interest.
        """
        self.Iscatter(sendbuf, recvbuf, root).wait()

    def Iscatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begins ``Scatter``."""
        self._check_root(root)
        rank, size = self._place
        if rank == root:
            whole = mine = read_buffer(sendbuf, blocks=size)
            if recvbuf is not IN_PLACE:
                mine = read_buffer(recvbuf, writable=True)
                check_alike(whole, mine)
                mine.octets[:] = whole.block(rank)
            schedule = trees.scatter_linear_into(rank, size, root, mine.octets, _bounds(whole, size), whole.octets)
        else:
            mine = read_buffer(recvbuf, writable=True)
            schedule = trees.scatter_linear_into(rank, size, root, mine.octets, (), mine.octets)
        return self._begin(f"Scatter({_of(mine)}, root={root})", schedule, nothing)

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """The buffers of all ranks into that of every rank, one behind the other. ``IN_PLACE`` as sendbuf."""
        self.Iallgather(sendbuf, recvbuf).wait()

    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begins ``Allgather``."""
        rank, size = self._place
        whole = read_buffer(recvbuf, writable=True, blocks=size)
        if sendbuf is not IN_PLACE:
            mine = read_buffer(sendbuf)
            check_alike(mine, whole)
            whole.block(rank)[:] = mine.octets
        return self._begin(f"Allgather({_of(whole)})", choice.allgather(rank, size, whole.octets), nothing)

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """What every rank has for this one into its buffer, one behind the other. ``IN_PLACE`` as sendbuf."""
        self.Ialltoall(sendbuf, recvbuf).wait()

    def Ialltoall(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begins ``Alltoall``."""
        rank, size = self._place
        take = read_buffer(recvbuf, writable=True, blocks=size)
        give = _copied(take) if sendbuf is IN_PLACE else read_buffer(sendbuf, blocks=size)
        check_alike(give, take)
        take.block(rank)[:] = give.block(rank)
        schedule = choice.alltoall(rank, size, give.octets, take.octets)
        return self._begin(f"Alltoall({_of(take)})", schedule, nothing)

    # ------------------------------------------------------------------------------------------- reductions

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> None:
        """All buffers in one, item by item, into that of ``root``. At the root ``IN_PLACE`` as sendbuf."""
        self.Ireduce(sendbuf, recvbuf, op, root).wait()

    def Ireduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> Request:
        """Begins ``Reduce``."""
        self._check_root(root)
        rank, size = self._place
        work = _target(sendbuf, recvbuf) if rank == root else _copied(read_buffer(sendbuf))
        combine, item = combining(op, work), work.datatype.extent
        schedule = choice.reduce(rank, size, root, work.octets, item, combine, commutes(op))
        return self._begin(f"Reduce({_of(work)}, {op.name}, root={root})", schedule, nothing)

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """All buffers in one, item by item, into that of every rank. ``IN_PLACE`` as sendbuf."""
        self.Iallreduce(sendbuf, recvbuf, op).wait()

    def Iallreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Begins ``Allreduce``."""
        work = _target(sendbuf, recvbuf)
        combine, item = combining(op, work), work.datatype.extent
        schedule = choice.allreduce(*self._place, work.octets, item, combine, commutes(op))
        return self._begin(f"Allreduce({_of(work)}, {op.name})", schedule, nothing)

    def Reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """All buffers in one, item by item, of which each rank gets its part into recvbuf; all parts are equal."""
        rank, size = self._place
        mine = read_buffer(recvbuf, writable=True, blocks=size if sendbuf is IN_PLACE else 1)
        work = _copied(mine if sendbuf is IN_PLACE else read_buffer(sendbuf, blocks=size))
        check_alike(work, mine)
        combine, bounds, item = combining(op, work), _bounds(work, size), work.datatype.extent
        schedule = choice.reduce_scatter(rank, size, work.octets, bounds, item, combine, commutes(op))
        self._begin(f"Reduce_scatter_block({_of(work)}, {op.name})", schedule, nothing).wait()
        mine.block(0)[:] = work.block(rank)

    def Scan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """The buffers of all ranks up to this one in one. ``IN_PLACE`` as sendbuf."""
        work = _target(sendbuf, recvbuf)
        schedule = memory.scan(*self._place, work.octets, combining(op, work), commutes(op))
        self._begin(f"Scan({_of(work)}, {op.name})", schedule, nothing).wait()

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """The buffers of all ranks below this one in one; rank 0 gets nothing. ``IN_PLACE`` as sendbuf."""
        target = read_buffer(recvbuf, writable=True)
        work = _copied(target if sendbuf is IN_PLACE else read_buffer(sendbuf))
        check_alike(work, target)
        schedule = memory.exscan(*self._place, work.octets, combining(op, work), commutes(op))
        self._begin(f"Exscan({_of(work)}, {op.name})", schedule, nothing).wait()
        if self._context.rank:
            target.octets[:] = work.octets


def _target(sendbuf: Any, recvbuf: Any) -> Buffer:
    """The receive buffer, with what is sent in it."""
    work = read_buffer(recvbuf, writable=True)
    if sendbuf is not IN_PLACE:
        source = read_buffer(sendbuf)
        check_alike(source, work)
        work.octets[:] = source.octets
    return work


def _of(buffer: Buffer) -> str:
    return f"{buffer.dtype} x {buffer.count}"


def _bounds(whole: Buffer, size: int) -> list[tuple[int, int]]:
    part = whole.count * whole.datatype.extent
    return [(rank * part, (rank + 1) * part) for rank in range(size)]


def _copied(buffer: Buffer) -> Buffer:
    return Buffer(memoryview(bytearray(buffer.octets)), buffer.count, buffer.datatype)


def combining(op: Op, buffer: Buffer) -> Combine:
    """What a reduction of such buffers does with two parts of them."""
    datatype = buffer.datatype
    op.check(datatype)

    def combine(source: memoryview, target: memoryview) -> None:
        op.reduce(source, target, datatype)

    return combine
