"""Every collective against its definition in one line: 1 to 17 ranks, every root, in orders drawn by seeds.

Each is run with room for everything and with room for nothing, where no message leaves before somebody waits for it: a
schedule that needs room would stand still. Memory that is sent is looked at as late as can be, so one that writes to it
too early sends what it wrote.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from support.ranks import FAR, World
from support.schedules import (
    PART,
    TEXTS,
    every,
    in_memory,
    memory_of,
    numbers_of,
    played,
    played_with_roots,
    text_of,
)

from spark_partition_server.core.collectives import choice, everywhere, hosts, memory, trees, values
from spark_partition_server.core.collectives.steps import among

# ------------------------------------------------------------------------------------------------- parcels


@every
def test_bcast(size, window):
    """bcast: what the root has."""
    got = played_with_roots(
        size, window, lambda rank, size, root: trees.bcast_tree(rank, size, root, (text_of(rank), b"and"))
    )
    for root, ranks in enumerate(got):
        assert [b"".join(map(bytes, parcel)) for parcel in ranks] == [text_of(root) + b"and"] * size


@every
@pytest.mark.parametrize("gather", [trees.gather_linear, trees.gather_tree])
def test_gather(size, window, gather):
    """gather: what all have, in the order of ranks; nothing elsewhere."""
    got = played_with_roots(size, window, lambda rank, size, root: gather(rank, size, root, (text_of(rank),)))
    for root, ranks in enumerate(got):
        assert [bytes(*parcel) for parcel in ranks.pop(root)] == [text_of(rank) for rank in range(size)]
        assert ranks == [None] * (size - 1)


@every
@pytest.mark.parametrize("scatter", [trees.scatter_linear, trees.scatter_tree])
def test_scatter(size, window, scatter):
    """scatter: of what the root has for each, one's own."""

    def make(rank, size, root):
        parcels = [(b"%d for %d" % (root, to),) for to in range(size)] if rank == root else ()
        return scatter(rank, size, root, parcels)

    for root, ranks in enumerate(played_with_roots(size, window, make)):
        assert [bytes(*parcel) for parcel in ranks] == [b"%d for %d" % (root, to) for to in range(size)]


@every
def test_allgather(size, window):
    """allgather: what all have, on all."""
    got = played(size, window, lambda rank, size: everywhere.allgather_bruck(rank, size, (text_of(rank), b"")))
    for (parcels,) in got:
        assert [b"".join(map(bytes, parcel)) for parcel in parcels] == [text_of(rank) for rank in range(size)]


@every
@pytest.mark.parametrize("alltoall", [everywhere.alltoall_linear, everywhere.alltoall_pairwise])
def test_alltoall(size, window, alltoall):
    """alltoall: the transposed table."""

    def make(rank, size):
        return alltoall(rank, size, [(b"%d to %d" % (rank, to),) for to in range(size)])

    for rank, (parcels,) in enumerate(played(size, window, make)):
        assert [bytes(*parcel) for parcel in parcels] == [b"%d to %d" % (source, rank) for source in range(size)]


@every
def test_many_collectives_at_once(size, window):
    """Requests of one communicator: begun in one order, waited for in another, beside messages to everybody."""

    def program(rank):
        peer, comm = rank.peer, rank.comm
        sends = [peer.send(comm, to, 7, (text_of(rank.rank),), FAR) for to in range(size)]
        requests = []
        for number in range(4):
            peer.start(comm, "barrier()", trees.barrier(rank.rank, size), FAR)
            value = b"%d" % number + text_of(rank.rank)
            schedule = values.allreduce(rank.rank, size, value, TEXTS)
            requests.append(peer.start(comm, f"allreduce {number}", schedule, FAR))
        got = {}
        for number in sorted(range(4), key=lambda number: (number * 3 + rank.rank) % 4):
            got[number] = yield requests[number]
        for source in range(size):
            parcel = yield peer.recv(comm, source, 7, FAR)
            assert b"".join(map(bytes, parcel)) == text_of(source)
        yield from sends
        return [got[number] for number in range(4)]

    world = World(size, seed=size, window=window).run(program)
    wanted = [b"".join(b"%d" % number + text_of(rank) for rank in range(size)) for number in range(4)]
    assert [rank.error or rank.result for rank in world.ranks] == [wanted] * size


# -------------------------------------------------------------------------------------------------- memory


@every
def test_barrier(size, window):
    """barrier: nobody leaves before everybody has come."""
    world = World(size, seed=size, window=window)
    come = []

    def program(rank):
        for other in range(rank.rank):
            if rank.rank > 1:  # comes later than others
                yield rank.peer.send(rank.comm, rank.rank, other, (b"",), FAR)
        come.append(rank.rank)
        yield rank.peer.start(rank.comm, "barrier()", trees.barrier(rank.rank, size), FAR)
        return len(come)

    assert [rank.result for rank in world.run(program).ranks] == [size] * size


@every
def test_bcast_of_memory(size, window):
    """bcast: the root's octets, by a tree, and by a chain in pieces of which the last is shorter."""

    def tree(rank, size, root):
        return in_memory(numbers_of(rank), lambda whole: choice.bcast(rank, size, root, whole))

    def chain(rank, size, root):
        return in_memory(numbers_of(rank), lambda whole: trees.bcast_chain(rank, size, root, whole, 5))

    def nothing(rank, size, root):
        return in_memory(b"", lambda whole: trees.bcast_chain(rank, size, root, whole, 5))

    for make in (tree, chain):
        for root, ranks in enumerate(played_with_roots(size, window, make)):
            assert ranks == [numbers_of(root)] * size
    assert played_with_roots(size, window, nothing) == [[b""] * size] * size


def uneven(size):
    """Parts of 0, 1, 2, 0, 1, 2, ... matrices."""
    marks = list(accumulate([4 * (rank % 3) for rank in range(size)], initial=0))
    return list(pairwise(marks))


@every
def test_gather_and_scatter_of_memory(size, window):
    """gatherv and scatterv: parts of any length."""
    bounds = uneven(size)
    whole = numbers_of(50, bounds[-1][1])

    def gather(rank, size, root):
        start, end = bounds[rank]
        mine, room = memory_of(whole[start:end]), memory_of(bytes(len(whole)))
        room[start:end] = mine
        yield from trees.gather_linear_into(rank, size, root, mine, bounds, room)
        return bytes(room) if rank == root else None

    def scatter(rank, size, root):
        start, end = bounds[rank]
        mine = memory_of(whole[start:end] if rank == root else bytes(end - start))
        yield from trees.scatter_linear_into(rank, size, root, mine, bounds, memory_of(whole))
        return bytes(mine)

    for root, ranks in enumerate(played_with_roots(size, window, gather)):
        assert ranks == [whole if rank == root else None for rank in range(size)]
    for ranks in played_with_roots(size, window, scatter):
        assert ranks == [whole[start:end] for start, end in bounds]


@every
def test_allgather_of_memory(size, window):
    """allgather and allgatherv: by doubling, and by a ring in pieces."""

    def own(bounds, make):
        def schedule(rank, size):
            start, end = bounds[rank]
            room = memory_of(bytes(bounds[-1][1]))
            room[start:end] = numbers_of(50, bounds[-1][1])[start:end]
            return in_place(room, make(rank, size, room))

        return schedule

    equal = memory.even(PART * size, size, PART)
    got = played(
        size,
        window,
        own(equal, choice.allgather),
        own(equal, lambda rank, size, room: everywhere.allgather_ring_into(rank, size, equal, room, 5)),
        own(uneven(size), lambda rank, size, room: choice.allgather(rank, size, room, uneven(size))),
    )
    wanted = [numbers_of(50, PART * size)] * 2 + [numbers_of(50, uneven(size)[-1][1])]
    assert got == [wanted] * size


def in_place(room, schedule):
    yield from schedule
    return bytes(room)


@every
def test_alltoall_of_memory(size, window):
    """alltoall and alltoallv: the transposed table, by pairs and by Bruck's rounds."""

    def make(exchange):
        def schedule(rank, size):
            give = memory_of(bytes((16 * rank + to + place) % 256 for to in range(size) for place in range(2)))
            take = memory_of(bytes(2 * size))
            take[2 * rank : 2 * rank + 2] = give[2 * rank : 2 * rank + 2]
            return in_place(take, exchange(rank, size, give, take))

        return schedule

    parts = memory.even(2 * size, size, 2)
    got = played(
        size,
        window,
        make(choice.alltoall),
        make(everywhere.alltoall_bruck),
        make(lambda rank, size, give, take: everywhere.alltoall_pairwise_into(rank, size, give, parts, take, parts)),
    )
    for rank, results in enumerate(got):
        assert results == [bytes((16 * a + rank + b) % 256 for a in range(size) for b in range(2))] * 3


# -------------------------------------------------------------------------------------------------- choices


@pytest.mark.parametrize("size", [2, 3, 9, 33])
@pytest.mark.parametrize("octets", [16, 20_000, 600_000])
def test_every_choice_is_right(size, octets):
    """By few and many ranks, short and long memory: all ranks choose alike, and the result is the definition's."""
    if size == 33 and octets > 16:
        return
    each = octets // size * 4
    total = bytes(sum(range(size)) % 256 for _ in range(octets))

    def quick(source, target):
        target[:] = bytes([(source[0] + target[0]) % 256]) * len(target)

    bounds = memory.even(octets, size, 4)

    def schedules(rank, size):
        whole = memory_of(bytes([rank]) * octets)
        yield choice.bcast(rank, size, 1, whole), lambda: bytes(whole) == b"\1" * octets
        for commutative in (True, False):
            work = memory_of(bytes([rank]) * octets)
            yield choice.allreduce(rank, size, work, 4, quick, commutative), lambda work=work: bytes(work) == total
            work = memory_of(bytes([rank]) * octets)
            made = choice.reduce(rank, size, 1, work, 4, quick, commutative)
            yield made, lambda work=work: rank != 1 or bytes(work) == total
            work = memory_of(bytes([rank]) * octets)
            part = slice(*bounds[rank])
            made = choice.reduce_scatter(rank, size, work, bounds, 4, quick, commutative)
            yield made, lambda work=work, part=part: bytes(work[part]) == total[part]
        room = memory_of(bytes(each * size))
        room[rank * each : (rank + 1) * each] = bytes([rank]) * each
        wanted = b"".join(bytes([other]) * each for other in range(size))
        yield choice.allgather(rank, size, room), lambda: bytes(room) == wanted
        take = memory_of(wanted)
        yield choice.alltoall(rank, size, memory_of(bytes([rank]) * each * size), take), lambda: bytes(take) == wanted

    def program(rank):
        for number, (schedule, right) in enumerate(schedules(rank.rank, size)):
            yield rank.peer.start(rank.comm, f"test {number}", schedule, FAR)
            assert right(), number
        got = yield rank.peer.start(rank.comm, "gather", choice.gather_parcels(rank.rank, size, 0, (b"x",)), FAR)
        assert got is None or len(got) == size
        parcels = [(b"%d" % to,) for to in range(size)]
        got = yield rank.peer.start(rank.comm, "scatter", choice.scatter_parcels(rank.rank, size, 0, parcels), FAR)
        assert bytes(*got) == b"%d" % rank.rank
        got = yield rank.peer.start(rank.comm, "alltoall", choice.alltoall_parcels(rank.rank, size, parcels), FAR)
        assert [bytes(*one) for one in got] == [b"%d" % rank.rank] * size
        return "right"

    world = World(size, seed=octets).run(program)
    assert [rank.error or rank.result for rank in world.ranks] == ["right"] * size


HOSTS = [["a"], ["a", "b"], ["a", "b", "a"], ["a", "a", "b", "c", "b", "a", "c"], list("abcdefgh"), ["a"] * 5]


@pytest.mark.parametrize("names", HOSTS)
@pytest.mark.parametrize("own", [False, True])
def test_allreduce_in_two_storeys(names, own):
    """The sum of all, by way of one rank of each host; the hosts' own schedules may be others."""
    size, octets = len(names), 20_000
    groups = hosts.gathered(names)
    ways = []

    def quick(source, target):
        target[:] = bytes([(source[0] + target[0]) % 256]) * len(target)

    def make(rank, size):
        work = memory_of(bytes([rank + 1]) * octets)

        def up(place, count):
            ways.append("up")
            return memory.reduce_tree(place, count, 0, work, quick)

        def down(place, count):
            ways.append("down")
            return trees.bcast_chain(place, count, 0, work, 6000)

        storeys = (up, down) if own else ()
        return in_place(work, hosts.allreduce(rank, groups, work, 4, quick, *storeys))

    got = played(size, 0, make)
    assert got == [[bytes([sum(range(1, size + 1)) % 256]) * octets]] * size
    assert len(ways) == 2 * size * own
    assert sorted(rank for group in groups for rank in group) == list(range(size))


def test_when_two_storeys_are_worth_it():
    """Where several ranks of one host would each send the same way, and send much."""
    groups = hosts.gathered(["a", "b", "a"])
    assert groups == [[0, 2], [1]]
    assert hosts.worth_it(groups, 1 << 20)
    assert not hosts.worth_it(groups, 1 << 20, commutative=False)
    assert not hosts.worth_it(groups, 100)
    assert not hosts.worth_it([[0], [1]], 1 << 20)
    assert not hosts.worth_it([[0, 1]], 1 << 20)


def test_signatures():
    """Short enough to travel with every message, and to be read in an error."""
    assert choice.signature("barrier") == "barrier()"
    assert choice.signature("bcast", "object", root=2) == "bcast(object, root=2)"
    assert choice.signature("reduce", "float32 x 9", "SUM", root=0) == "reduce(float32 x 9, SUM, root=0)"


def test_a_schedule_among_some_ranks_of_a_group():
    """Reduce on each host, then among one rank of each, then back: one algorithm made of three."""
    groups = [[0, 3, 5], [1, 2], [4]]

    def make(rank, size):
        host = next(host for host in groups if rank in host)
        firsts = [one[0] for one in groups]
        value = yield from among(host, values.reduce(host.index(rank), len(host), 0, text_of(rank), TEXTS))
        if rank in firsts:
            value = yield from among(firsts, values.allreduce(firsts.index(rank), 3, value, TEXTS))
        parcel = yield from among(host, trees.bcast_tree(host.index(rank), len(host), 0, (value,)))
        return bytes(*parcel)

    assert [one for (one,) in played(6, 0, make)] == [b"<0><3><5><1><2><4>"] * 6
