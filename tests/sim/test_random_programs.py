"""Programs drawn at random, run by all ranks: every result is right, and a death leaves only RankLost besides."""

from __future__ import annotations

import random

import pytest
from support.ranks import FAR, World, text
from support.schedules import TEXTS, add, folded, memory_of, numbers_of, text_of

from spark_partition_server.core.collectives import everywhere, memory, trees, values
from spark_partition_server.errors import RankLost

CALLS = 8


def said(rank, number):
    return b"%d.%d" % (rank, number)


def call(what, root, number, rank):
    """One call of one rank, by its name; raises where the result is wrong."""
    peer, comm, r, n = rank.peer, rank.comm, rank.rank, rank.comm.size
    if what == "barrier":
        yield peer.start(comm, what, trees.barrier(r, n), FAR)
    elif what == "bcast":
        (got,) = yield peer.start(comm, f"bcast {root}", trees.bcast_tree(r, n, root, (said(r, number),)), FAR)
        assert bytes(got) == said(root, number)
    elif what == "allreduce":
        got = yield peer.start(comm, what, values.allreduce(r, n, text_of(r), TEXTS), FAR)
        assert got == b"".join(map(text_of, range(n)))
    elif what == "alltoall":
        parcels = [(b"%d>%d" % (r, to),) for to in range(n)]
        got = yield peer.start(comm, what, everywhere.alltoall_linear(r, n, parcels), FAR)
        assert [bytes(*one) for one in got] == [b"%d>%d" % (source, r) for source in range(n)]
    elif what == "Allreduce":
        work = memory_of(numbers_of(r))
        yield peer.start(comm, what, memory.allreduce_ring(r, n, work, 4, add, 4), FAR)
        assert bytes(work) == folded([numbers_of(other) for other in range(n)], add)
    else:
        request = peer.recv(comm, (r - 1) % n, number, FAR)
        sent = peer.send(comm, (r + 1) % n, number, (said(r, number) + b"." * (600 * (root % 2)),), FAR)
        got = yield request
        yield sent
        assert text(got).rstrip(b".") == said((r - 1) % n, number)


@pytest.mark.parametrize("seed", range(200))
def test_a_random_program(seed):
    """Whatever is called after what, with room or without, by way of the codec or not, with a death or without."""
    chance = random.Random(seed)
    size = chance.randint(1, 9)
    names = ["barrier", "bcast", "allreduce", "alltoall", "Allreduce", "ring of messages"]
    plan = [(chance.choice(names), chance.randrange(size)) for _ in range(CALLS)]

    def program(rank):
        for number, (what, root) in enumerate(plan):
            yield from call(what, root, number, rank)
        return "over"

    kill = [(chance.randint(0, 150), chance.randrange(size))] if chance.random() < 0.5 else []
    more = {"window": chance.choice([0, 1, 1024]), "hearers": chance.choice([1, None]), "octets": seed % 5 == 0}
    world = World(size, seed, **more).run(program, kill=kill)
    assert world.now == 0.0
    for rank in world.ranks:
        if rank.error is not None:
            assert kill
            assert type(rank.error) is RankLost
        elif rank.alive:
            assert rank.result == "over"
