"""Any rank dies at any step of any collective: the others end in what is right or in RankLost, and can go on."""

from __future__ import annotations

import random

import pytest
from support.ranks import FAR, World
from support.schedules import ANY_ORDER, PART, TEXTS, add, memory_of, multiply, numbers_of, text_of

from spark_partition_server.core.collectives import everywhere, memory, trees, values
from spark_partition_server.errors import RankLost

COLLECTIVES = {
    "barrier": trees.barrier,
    "bcast": lambda rank, size: trees.bcast_tree(rank, size, size - 1, (text_of(rank),)),
    "bcast chain": lambda rank, size: trees.bcast_chain(rank, size, 0, memory_of(numbers_of(rank)), 4),
    "gather": lambda rank, size: trees.gather_linear(rank, size, 0, (text_of(rank),)),
    "gather tree": lambda rank, size: trees.gather_tree(rank, size, size - 1, (text_of(rank),)),
    "scatter": lambda rank, size: trees.scatter_linear(rank, size, 0, [(text_of(to),) for to in range(size)]),
    "scatter tree": lambda rank, size: trees.scatter_tree(rank, size, 1, [(text_of(to),) for to in range(size)]),
    "allgather": lambda rank, size: everywhere.allgather_bruck(rank, size, (text_of(rank),)),
    "allgather ring": lambda rank, size: everywhere.allgather_ring_into(
        rank, size, memory.even(PART * size, size, 4), memory_of(bytes(PART * size)), 8
    ),
    "alltoall": lambda rank, size: everywhere.alltoall_linear(rank, size, [(text_of(to),) for to in range(size)]),
    "alltoall pairwise": lambda rank, size: everywhere.alltoall_pairwise(rank, size, [(b"",)] * size),
    "alltoall bruck": lambda rank, size: everywhere.alltoall_bruck(
        rank, size, memory_of(bytes(size)), memory_of(bytes(size))
    ),
    "reduce": lambda rank, size: values.reduce(rank, size, 1, text_of(rank), TEXTS),
    "reduce memory": lambda rank, size: memory.reduce_tree(rank, size, 1, memory_of(numbers_of(rank)), multiply, False),
    "reduce ring": lambda rank, size: memory.reduce_ring(rank, size, 1, memory_of(numbers_of(rank)), 4, add, 4),
    "allreduce": lambda rank, size: values.allreduce(rank, size, text_of(rank), ANY_ORDER),
    "allreduce doubling": lambda rank, size: memory.allreduce_doubling(rank, size, memory_of(numbers_of(rank)), add),
    "allreduce halving": lambda rank, size: memory.allreduce_halving(rank, size, memory_of(numbers_of(rank)), 4, add),
    "allreduce ring": lambda rank, size: memory.allreduce_ring(rank, size, memory_of(numbers_of(rank)), 4, add, 4),
    "reduce scatter": lambda rank, size: memory.reduce_scatter_ring(
        rank, size, memory_of(numbers_of(rank)), memory.even(PART, size, 4), add, 8
    ),
    "scan": lambda rank, size: values.scan(rank, size, text_of(rank), TEXTS),
    "exscan memory": lambda rank, size: memory.exscan(rank, size, memory_of(numbers_of(rank)), add),
}


def going_on(make, size):
    """The program of one who wants the result in spite of everything: try, agree whether all have it, shrink."""

    def program(rank):
        comm, peer = rank.comm, rank.peer
        while True:
            error = got = None
            try:
                request = peer.start(comm, "the collective", make(comm.rank, comm.size), FAR)
                got = yield request
            except RankLost as lost:
                error = lost
            agreement = peer.agree(comm, int(error is None), FAR)
            agreed = yield agreement
            if agreed.flag:
                assert error is None
                return comm.size, comm.rank, got
            comm = peer.shrunk(comm, agreement)
            rank.tries = getattr(rank, "tries", 1) + 1

    return program


def right(make, size, seed=0):
    """What each rank gets where nobody dies."""

    def program(rank):
        return (yield rank.peer.start(rank.comm, "the collective", make(rank.rank, size), FAR))

    return [rank.result for rank in World(size, seed).run(program).ranks]


def plain(result):
    """A result for a comparison."""
    if isinstance(result, (tuple, list)):
        return [plain(one) for one in result]
    return bytes(result) if isinstance(result, memoryview) else result


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("name", COLLECTIVES)
def test_a_death_at_any_step_ends_a_collective_on_every_rank(name, size):
    """[8.65]: in its result or in RankLost, which names the dead; without a deadline, though only one hears of it."""
    make = COLLECTIVES[name]
    wanted = right(make, size)

    def program(rank):
        got = yield rank.peer.start(rank.comm, name, make(rank.rank, size), FAR)
        return got

    for seed in (1, 2)[: 5 - size]:
        steps = World(size, seed).run(program).steps
        for step in range(steps + 1):
            for victim in range(size):
                world = World(size, seed, hearers=1).run(program, kill=[(step, victim)])
                assert world.now == 0.0
                for rank in world.ranks:
                    if not rank.alive:
                        continue
                    if rank.error is None:
                        assert plain(rank.result) == plain(wanted[rank.rank])
                    else:
                        assert type(rank.error) is RankLost
                        assert rank.error.ranks == (victim,)
                        assert f"rank {victim} of communicator" in str(rank.error)


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("name", ["allreduce", "allreduce ring", "alltoall"])
def test_the_survivors_go_on_by_themselves(name, window):
    """[8.67]: whoever dies, and whenever, in the collective or in the agreement: those that are left go on."""
    make, size = COLLECTIVES[name], 4 if name == "allreduce" else 3
    program = going_on(make, size)
    steps = World(size, 3, window=window).run(program).steps
    for step in range(steps + 1):
        for victim in range(size):
            world = World(size, 3, hearers=1, window=window).run(program, kill=[(step, victim)])
            assert_went_on(world, make)


def assert_went_on(world, make):
    assert world.now == 0.0
    living = [rank for rank in world.ranks if rank.alive]
    assert [rank.error for rank in living] == [None] * len(living)
    # they agree on the last attempt: on how many they were, and each has its own place and the right result
    assert len({rank.result[0] for rank in living}) == 1
    count = living[0].result[0]
    assert count >= len(living)
    for rank in living:
        if getattr(rank, "tries", 1) == 1:
            assert count == len(world.ranks)
            assert plain(rank.result[2]) == plain(right(make, count)[rank.rank])
        else:
            assert len(set(map(str, living))) == len(living)


@pytest.mark.parametrize("seed", range(150))
def test_many_deaths_at_random(seed):
    """[8.67], [8.68]: up to all ranks but one, in bursts, of leaders above all; whoever is left goes on."""
    chance = random.Random(seed)
    size = chance.choice([3, 5, 6, 9])
    make = COLLECTIVES[chance.choice(["barrier", "allreduce", "allgather"])]
    deaths = chance.randint(1, size - 1)
    victims = list(range(deaths)) if chance.random() < 0.5 else chance.sample(range(size), deaths)
    first = chance.randint(0, 60)
    kill = [(first + chance.randint(0, 60), victim) for victim in victims]
    world = World(size, seed, window=chance.choice([0, 1])).run(going_on(make, size), kill=kill)
    assert_went_on(world, make)


def test_a_loss_ends_messages_too():
    """Receives of others, sends that wait, requests of both kinds: nobody waits on a broken communicator."""

    def program(rank):
        comm, peer = rank.comm, rank.peer
        if rank.rank == 0:
            request = peer.recv(comm, 1, 0, FAR)
            other = peer.send(comm, 1, 0, (b"x",), FAR, synchronous=True)
            with pytest.raises(RankLost):
                yield request
            with pytest.raises(RankLost):
                yield other
            with pytest.raises(RankLost):
                yield peer.send(comm, 1, 0, (b"x",), FAR)
            with pytest.raises(RankLost):
                peer.probe(comm, 1, 0)
            with pytest.raises(RankLost):
                yield peer.start(comm, "barrier()", trees.barrier(0, 3), FAR)
            assert sorted(comm.failed) == [2]
            return "heard"
        if rank.rank == 1:
            try:
                yield peer.recv(comm, 2, 0, FAR)
            except RankLost:
                return "heard"
        else:
            yield peer.recv(comm, 0, 9, FAR)
        return None

    world = World(3, 4).run(program, kill=[(3, 2)])
    assert [rank.error or rank.result for rank in world.ranks[:2]] == ["heard"] * 2


def test_a_rank_that_is_declared_lost_is_told_so():
    """It may still run; the others have given it up, and it must not go on as if they had not."""

    def program(rank):
        if rank.rank == 2:
            yield rank.peer.recv(rank.comm, 0, 0, FAR)
        with pytest.raises(RankLost):
            yield rank.peer.start(rank.comm, "barrier()", trees.barrier(rank.rank, 3), FAR)
        agreement = rank.peer.agree(rank.comm, 1, FAR)
        yield agreement
        return rank.peer.shrunk(rank.comm, agreement).size

    world = World(3, 1)
    world.rumours = [(0, world.group[2])]
    world.run(program)
    assert [rank.result for rank in world.ranks[:2]] == [2, 2]
    assert world.ranks[2].error.ranks == (2,)
    with pytest.raises(RankLost):
        world.ranks[2].peer.agree(world.ranks[2].comm, 1, FAR).result()


def test_a_new_communicator_with_a_rank_that_is_lost_is_broken_at_once():
    """The loss was heard before the communicator was made."""
    world = World(2)
    peer = world.ranks[0].peer
    peer.lost(world.group[1])
    peer.lost(world.group[1])
    comm = peer.open(1 << 30, world.group)
    with pytest.raises(RankLost):
        peer.recv(comm, 1, 0, FAR).result()


def test_every_algorithm_is_here():
    """A collective that is not in the table is one whose deaths nobody has tried."""
    made = {name for make in COLLECTIVES.values() for name in (*make.__code__.co_names, make.__name__)}
    for module in (trees, everywhere, memory, values):
        algorithms = {name for name in module.__all__ if name[0].islower()} - {"even", "segments"}
        like_others = {name for name in algorithms if name.endswith("_into")}
        assert algorithms - like_others - made == set()
