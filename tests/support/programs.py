"""What ranks run in the tests: functions of a communicator and of the partition's rows."""

from __future__ import annotations

import array
import os
from datetime import datetime, timezone
from typing import Any

import numpy as np

from spark_partition_server import MPI, CommError, CommRevoked, CommTimeout, RankLost

__all__ = [
    "arrays_collected",
    "arrays_sent",
    "begun_together",
    "divided",
    "dying",
    "everything",
    "exchanged_at_once",
    "failing",
    "mismatched",
    "never_sent",
    "objects_collected",
    "objects_sent",
    "others_go_on",
    "vectors_collected",
    "waiting",
]

VALUES = [None, True, 1 << 100, 1.5, 2j, "ä", b"\0", [1], (1, (2,)), {1}, frozenset({2}), {"k": (1,), 2: None}]
LARGE = 3_000_000  # items: far beyond a window


def objects_sent(comm: Any, rows: Any) -> None:
    """Messages of objects around the ring, to oneself, to nobody; in order; found by their envelopes."""
    rank, size = comm.rank, comm.size
    assert list(rows) == [rank]
    right, left = (rank + 1) % size, (rank - 1) % size
    values = [*VALUES, datetime(2026, 1, 2, tzinfo=timezone.utc)]
    for value in values:
        got = comm.sendrecv(value, right, 7, None, left, 7)
        assert (got, type(got)) == (value, type(value))
    requests = [comm.isend((rank, number), right, tag=number % 3) for number in range(90)]
    for tag in range(3):
        assert [comm.recv(source=left, tag=tag) for _ in range(30)] == [(left, n) for n in range(90) if n % 3 == tag]
    assert type(requests[0]).waitall(requests) == [None] * 90
    big = {"data": np.arange(LARGE, dtype="f8") + rank, "text": "x" * 100_000}
    sent = comm.issend(big, right)
    status = MPI.Status()
    assert comm.probe(MPI.ANY_SOURCE, MPI.ANY_TAG, status)
    assert (status.source, status.tag) == (left, 0)
    got = comm.recv(source=MPI.ANY_SOURCE, status=status)
    sent.wait()
    assert status.Get_source() == left
    assert status.Get_count() > LARGE * 8
    assert (got["data"] == np.arange(LARGE) + left).all()
    got["data"][:] = 0  # it is ours
    comm.bsend("buffered", rank)
    assert comm.recv(source=rank) == "buffered"
    comm.send(1, MPI.PROC_NULL)
    assert comm.recv(source=MPI.PROC_NULL) is None
    assert not comm.iprobe()
    waiting = comm.irecv(source=left, tag=99)
    assert waiting.test() == (False, None)
    waiting.cancel()
    assert waiting.wait(status) is None
    assert status.Is_cancelled()
    comm.barrier()


def arrays_sent(comm: Any, rows: Any) -> None:
    """Messages of buffers, small and large, all ranks at once; into memory that is larger; of any tag."""
    rank, size = comm.rank, comm.size
    right, left = (rank + 1) % size, (rank - 1) % size
    for count in (0, 1, 1000, 100_000, LARGE):
        out = np.arange(count, dtype="f8") + rank
        into = np.zeros(count + 3)
        status = MPI.Status()
        comm.Sendrecv(out, right, 1, into, left, 1, status)
        assert (into[:count] == np.arange(count) + left).all()
        assert (into[count:] == 0).all()
        assert (status.Get_count(MPI.DOUBLE), status.source) == (count, left)
        sending = comm.Isend([out, MPI.DOUBLE], right, tag=2)
        comm.Recv(into[:count], MPI.ANY_SOURCE, MPI.ANY_TAG)
        sending.Wait()
    receiving = comm.Irecv(array.array("i", [0, 0]), left)
    comm.Ssend(array.array("i", [rank, 5]), right)
    assert receiving.Wait()


def exchanged_at_once(comm: Any, rows: Any) -> int:
    """All ranks send 40 MB to all others before anybody receives."""
    rank, size = comm.rank, comm.size
    out = np.full(5_000_000, rank, dtype="f8")
    others = [other for other in range(size) if other != rank]
    sending = [comm.Isend(out, other) for other in others]
    total = 0
    for other in others:
        into = np.empty_like(out)
        comm.Recv(into, other)
        assert (into == other).all()
        total += int(into[-1])
    for one in sending:
        one.wait()
    return total


def objects_collected(comm: Any, rows: Any) -> None:
    """Every collective of objects, for every root, against its one-line definition."""
    rank, size = comm.rank, comm.size
    everybody = list(range(size))
    comm.barrier()
    for root in everybody:
        for value in ({"of": (root,)}, np.arange(300_000) + root):
            got = comm.bcast(value if rank == root else None, root)
            assert np.array_equal(got, value) if isinstance(value, np.ndarray) else got == value
        assert comm.gather((rank, "x"), root) == ([(other, "x") for other in everybody] if rank == root else None)
        assert comm.scatter([(root, other) for other in everybody] if rank == root else None, root) == (root, rank)
        assert comm.reduce(rank, MPI.SUM, root) == (sum(everybody) if rank == root else None)
        in_order = comm.reduce(str(rank), lambda x, y: x + y, root)
        assert in_order == ("".join(map(str, everybody)) if rank == root else None)
    assert comm.allgather({rank}) == [{other} for other in everybody]
    assert comm.alltoall([(rank, other) for other in everybody]) == [(other, rank) for other in everybody]
    assert comm.allreduce(rank) == sum(everybody)
    assert comm.allreduce(rank, MPI.MAX) == size - 1
    assert comm.allreduce((1.5, rank), MPI.MAXLOC) == (1.5, 0)
    assert comm.allreduce([rank], lambda x, y: x + y) == everybody
    assert (comm.allreduce(np.full(200_000, rank)) == sum(everybody)).all()
    assert comm.scan([rank]) == everybody[: rank + 1]
    assert comm.exscan([rank]) == (everybody[:rank] or None)


def arrays_collected(comm: Any, rows: Any) -> None:
    """Every collective of buffers, for every root, of few octets and of many, against its definition in numpy."""
    rank, size = comm.rank, comm.size
    for count in (1, 3000, 400_000):
        data = np.array([np.arange(count, dtype="f8") + 1 + other for other in range(size)])
        whole, mine = np.zeros((size, count)), np.zeros(count)
        for root in range(size) if count < 100_000 else [size - 1]:
            into = data[root].copy() if rank == root else np.zeros(count)
            comm.Bcast(into, root)
            assert (into == data[root]).all()
            comm.Gather(data[rank], whole if rank == root else None, root)
            assert rank != root or (whole == data).all()
            comm.Scatter(data if rank == root else None, mine, root)
            assert (mine == data[rank]).all()
            comm.Reduce(data[rank], mine, MPI.SUM, root)
            assert rank != root or (mine == data.sum(0)).all()
            inplace = data[rank].copy()
            comm.Reduce(MPI.IN_PLACE if rank == root else inplace, inplace, MPI.MAX, root)
            assert rank != root or (inplace == data.max(0)).all()
        whole[:] = 0
        comm.Allgather(data[rank], whole)
        assert (whole == data).all()
        comm.Allreduce(data[rank], mine)
        assert (mine == data.sum(0)).all()
        comm.Allreduce(MPI.IN_PLACE, mine, MPI.MIN)
        assert (mine == data.sum(0)).all()
        give = np.array([data[rank] * (other + 1) for other in range(size)])
        comm.Alltoall(give, whole)
        assert (whole == np.array([data[other] * (rank + 1) for other in range(size)])).all()
        comm.Reduce_scatter_block(give, mine)
        assert (mine == data.sum(0) * (rank + 1)).all()
        comm.Scan(data[rank], mine)
        assert (mine == data[: rank + 1].sum(0)).all()
        comm.Exscan(data[rank], mine)
        assert rank == 0 or (mine == data[:rank].sum(0)).all()


def vectors_collected(comm: Any, rows: Any) -> None:
    """Collectives of parts of different lengths, one of them empty; messages that are claimed."""
    rank, size = comm.rank, comm.size
    counts = list(range(size))
    starts = [sum(counts[:other]) for other in range(size)]
    mine = np.full(rank, rank + 0.5)
    whole = np.concatenate([np.full(other, other + 0.5) for other in range(size)])
    for root in range(size):
        into = np.zeros(len(whole))
        comm.Gatherv(mine, [into, counts] if rank == root else None, root)
        assert rank != root or (into == whole).all()
        part = np.zeros(rank)
        comm.Scatterv([whole, (counts, starts)] if rank == root else None, part, root)
        assert (part == mine).all()
    into = np.zeros(len(whole))
    comm.Allgatherv(mine, [into, (counts, starts), MPI.DOUBLE])
    assert (into == whole).all()
    give = np.concatenate([np.full(other, 10.0 * rank + other) for other in range(size)])
    take = np.zeros(rank * size)
    comm.Alltoallv([give, counts], [take, [rank] * size])
    assert (take == np.concatenate([np.full(rank, 10.0 * other + rank) for other in range(size)])).all()
    part = np.zeros(rank)
    comm.Reduce_scatter(whole, part)
    assert (part == mine * size).all()
    comm.Reduce_scatter(MPI.IN_PLACE, into, counts, MPI.MAX)
    assert (into[:rank] == mine).all()
    comm.isend(("claimed", rank), rank)
    comm.Isend(np.full(3, float(rank)), rank, tag=4)
    status = MPI.Status()
    found = comm.mprobe(rank, 0, status)
    assert status.Get_source() == rank
    assert comm.improbe(rank, 0) is None
    assert found.recv() == ("claimed", rank)
    array_found = comm.improbe(MPI.ANY_SOURCE, 4)
    three = np.zeros(3)
    array_found.Recv(three)
    assert (three == rank).all()


def begun_together(comm: Any, rows: Any) -> None:
    """Several collectives under way at once, ended in another order."""
    rank, size = comm.rank, comm.size
    sums = [np.full(50_000, float(rank)) for _ in range(3)]
    requests = [comm.Iallreduce(MPI.IN_PLACE, one) for one in sums]
    into = np.full(10, float(rank))
    requests += [comm.Ibcast(into, size - 1), comm.ibarrier()]
    for request in reversed(requests):
        request.Wait()
    assert all((one == sum(range(size))).all() for one in sums)
    assert (into == size - 1).all()


def divided(comm: Any, rows: Any) -> None:
    """Communicators made of communicators: their ranks, and that their messages do not mix."""
    rank, size = comm.rank, comm.size
    copy = comm.Dup()
    right, left = (rank + 1) % size, (rank - 1) % size
    comm.isend("old", right)
    copy.isend("new", right)
    assert copy.recv(source=left) == "new"
    assert comm.recv(source=left) == "old"
    half = comm.Split(rank % 2, -rank)
    assert half.allgather(rank) == [other for other in reversed(range(size)) if other % 2 == rank % 2]
    alone = comm.Split(MPI.UNDEFINED if rank else 0)
    assert (alone is None) == (rank != 0)
    assert alone is None or (alone.size, alone.allreduce(5)) == (1, 5)
    assert repr(copy) == f"<Comm: rank {rank} of {size}>"
    copy.Free()
    comm.barrier()


def everything(comm: Any, rows: Any) -> int:
    """All of the above, one after the other, on one communicator."""
    objects_sent(comm, rows)
    for program in (arrays_sent, objects_collected, arrays_collected, vectors_collected, begun_together, divided):
        program(comm, rows)
    return int(comm.rank)


def dying(comm: Any, rows: Any) -> tuple[str, tuple[int, ...]]:
    """Collectives until the last rank is killed, by itself, in the middle of one."""
    data = np.full(1_000_000, 1.0)
    try:
        for number in range(1000):
            comm.allreduce(number)
            comm.Allreduce(MPI.IN_PLACE, data)
            if number == 5 and comm.rank == comm.size - 1:
                os.kill(os.getpid(), 9)
    except RankLost as error:
        return type(error).__name__, error.ranks
    return "never", ()


def others_go_on(comm: Any, rows: Any) -> tuple[int, int, list[int]]:
    """When a rank is lost, the others agree on that and go on among themselves."""
    try:
        while True:
            comm.barrier()
            if comm.rank == 1:
                os.kill(os.getpid(), 9)
    except CommRevoked:
        assert comm.Is_revoked()
    agreed = comm.Agree(0b110 if comm.rank else 0b011)
    comm = comm.Shrink()
    return agreed, comm.size, comm.allgather(comm.rank)


def failing(comm: Any, rows: Any) -> None:
    """One rank raises, the others are in a collective."""
    if comm.rank == 1:
        raise ValueError("no such thing")
    comm.barrier()


def mismatched(comm: Any, rows: Any) -> list[Any]:
    """Ranks that call different things; what each of them is told."""
    told = []
    for wrong in (
        lambda one: one.barrier() if comm.rank else one.allreduce(1),
        lambda one: one.bcast(1, root=comm.rank),
        lambda one: one.Allreduce(np.zeros(4, "f4" if comm.rank else "f8"), np.zeros(4, "f4" if comm.rank else "f8")),
        lambda one: one.Allreduce(np.zeros(4 + comm.rank), np.zeros(4 + comm.rank)),
    ):
        one = comm.Dup()
        try:
            wrong(one)
            one.barrier()  # who only sends learns of it at the next call
        except CommError as error:
            told.append((type(error).__name__, str(error)))
        comm.barrier()
    return told


def never_sent(comm: Any, rows: Any) -> tuple[str, tuple[int, ...]]:
    """Two ranks that both wait for a message of the other's."""
    try:
        comm.recv(source=1 - comm.rank, tag=5 + comm.rank)
    except CommTimeout as error:
        return str(error), error.missing
    return "", ()


def waiting(comm: Any, rows: Any) -> tuple[str, tuple[int, ...]]:
    """Barriers until somebody is lost."""
    try:
        while True:
            comm.barrier()
    except RankLost as error:
        return type(error).__name__, error.ranks
