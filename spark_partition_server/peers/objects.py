"""Collectives of objects: mpi4py's names in lower case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ..core.collectives import choice, everywhere, trees, values
from ..core.ops import SUM, Op, commutes
from .rank import Basis, unpacked
from .requests import Request, nothing

__all__ = ["Objects"]

Operation: TypeAlias = "Op | Callable[[Any, Any], Any]"


class Objects(Basis):
    """Collectives of any object that can be sent."""

    def barrier(self) -> None:
        """Returns once all ranks have called it."""
        self.ibarrier().wait()

    def ibarrier(self) -> Request:
        """Begins a barrier."""
        return self._begin("barrier()", trees.barrier(*self._place), nothing)

    Barrier = barrier
    Ibarrier = ibarrier

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """The object of ``root``, on every rank."""
        self._check_root(root)
        rank, size = self._place
        parcel = self._rank.pack(obj) if rank == root else ()
        schedule = trees.bcast_tree(rank, size, root, parcel)
        return self._begin(
            f"bcast(object, root={root})", schedule, lambda got: obj if rank == root else unpacked(got)
        ).wait()

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """The objects of all ranks in their order, at ``root``; None elsewhere."""
        self._check_root(root)
        rank, size = self._place
        parcel = self._rank.pack(sendobj) if rank != root else ()
        got = self._begin(
            f"gather(object, root={root})", choice.gather_parcels(rank, size, root, parcel), _as_it_is
        ).wait()
        return self._unpacked(got, sendobj) if rank == root else None

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """The object of the sequence at ``root`` that is for this rank."""
        self._check_root(root)
        rank, size = self._place
        signature = f"scatter(object, root={root})"
        if rank != root:
            return self._begin(signature, choice.scatter_parcels(rank, size, root, ()), unpacked).wait()
        objects, parcels = self._one_each(sendobj)
        self._begin(signature, choice.scatter_parcels(rank, size, root, parcels), nothing).wait()
        return objects[rank]

    def allgather(self, sendobj: Any) -> list[Any]:
        """The objects of all ranks in their order, on every rank."""
        rank, size = self._place
        schedule = everywhere.allgather_bruck(rank, size, self._rank.pack(sendobj))
        return self._unpacked(self._begin("allgather(object)", schedule, _as_it_is).wait(), sendobj)

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """What every rank has for this one, in their order."""
        rank, size = self._place
        objects, parcels = self._one_each(sendobj)
        schedule = choice.alltoall_parcels(rank, size, parcels)
        return self._unpacked(self._begin("alltoall(object)", schedule, _as_it_is).wait(), objects[rank])

    def reduce(self, sendobj: Any, op: Operation = SUM, root: int = 0) -> Any:
        """All objects in one, at ``root``; None elsewhere. A plain function gets two of them, of lower ranks first."""
        self._check_root(root)
        schedule = values.reduce(*self._place, root, sendobj, self._arithmetic(op))
        return self._begin(f"reduce(object, {_name(op)}, root={root})", schedule, _as_it_is).wait()

    def allreduce(self, sendobj: Any, op: Operation = SUM) -> Any:
        """All objects in one, on every rank, and the same to the last bit."""
        schedule = values.allreduce(*self._place, sendobj, self._arithmetic(op))
        return self._begin(f"allreduce(object, {_name(op)})", schedule, _as_it_is).wait()

    def scan(self, sendobj: Any, op: Operation = SUM) -> Any:
        """The objects of all ranks up to this one in one."""
        schedule = values.scan(*self._place, sendobj, self._arithmetic(op))
        return self._begin(f"scan(object, {_name(op)})", schedule, _as_it_is).wait()

    def exscan(self, sendobj: Any, op: Operation = SUM) -> Any:
        """The objects of all ranks below this one in one; None at rank 0."""
        schedule = values.exscan(*self._place, sendobj, self._arithmetic(op))
        return self._begin(f"exscan(object, {_name(op)})", schedule, _as_it_is).wait()

    # --------------------------------------------------------------------------------------------- helpers

    def _one_each(self, given: Sequence[Any] | None) -> tuple[list[Any], list[Any]]:
        """The objects for all ranks, and the parcels of those that leave."""
        rank, size = self._place
        objects = list(given if given is not None else ())
        if len(objects) != size:
            raise ValueError(f"one object for each of {size} ranks is wanted, not {len(objects)}")
        return objects, [self._rank.pack(one) if other != rank else () for other, one in enumerate(objects)]

    def _unpacked(self, parcels: list[Any], mine: Any) -> list[Any]:
        rank = self._context.rank
        return [mine if other == rank else unpacked(parcel) for other, parcel in enumerate(parcels)]

    def _arithmetic(self, op: Operation) -> values.Arithmetic:
        return values.Arithmetic(op, self._rank.pack, unpacked, commutes(op))


def _as_it_is(value: Any) -> Any:
    return value


def _name(op: Operation) -> str:
    return op.name if isinstance(op, Op) else str(getattr(op, "__qualname__", type(op).__qualname__))
