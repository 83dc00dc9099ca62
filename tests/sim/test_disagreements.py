"""Programs that are wrong: ranks that call different collectives, or none. Every rank hears who, and gets no result."""

from __future__ import annotations

import itertools

import pytest
from support.ranks import FAR, World, outcomes
from support.schedules import TEXTS, add, memory_of, text_of

from spark_partition_server.core.collectives import everywhere, memory, trees, values
from spark_partition_server.core.peers.contexts import neighbours
from spark_partition_server.core.peers.verdicts import Verdict, cut
from spark_partition_server.errors import (
    CollectiveMismatch,
    CollectiveTimeout,
    CommRevoked,
    CommTimeout,
    RankLost,
)
from spark_partition_server.errors.comm import ranked
from spark_partition_server.wire.peering import Alarm, Ask, Cause, Stand, Tell, ranks_from, ranks_to

CALLS = {
    "barrier()": trees.barrier,
    "bcast(object, root=0)": lambda rank, size: trees.bcast_tree(rank, size, 0, (text_of(rank),)),
    "bcast(object, root=1)": lambda rank, size: trees.bcast_tree(rank, size, 1, (text_of(rank),)),
    "gather(object, root=0)": lambda rank, size: trees.gather_linear(rank, size, 0, (text_of(rank),)),
    "gather(object, root=1)": lambda rank, size: trees.gather_linear(rank, size, 1, (text_of(rank),)),
    "alltoall(object)": lambda rank, size: everywhere.alltoall_linear(rank, size, [(text_of(rank),)] * size),
    "allreduce(object, SUM)": lambda rank, size: values.allreduce(rank, size, text_of(rank), TEXTS),
    "allreduce(uint8 x 8, SUM)": lambda rank, size: memory.allreduce_ring(
        rank, size, memory_of(bytes([rank] * 8)), 1, add, 2
    ),
    "allreduce(uint8 x 9, SUM)": lambda rank, size: memory.allreduce_ring(
        rank, size, memory_of(bytes([rank] * 9)), 1, add, 2
    ),
}


def start(rank, signature, deadline=FAR):
    return rank.peer.start(rank.comm, signature, CALLS[signature](rank.rank, rank.comm.size), deadline)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_rank_that_calls_something_else_is_named_on_every_rank(size):
    """[8.64]: whichever two calls, whoever makes the odd one, also where both wait for each other without a message."""
    for usual, odd in itertools.permutations(CALLS, 2):
        for culprit in {0, 1, size - 1}:

            def program(rank, usual=usual, odd=odd, culprit=culprit):
                yield start(rank, "barrier()")
                yield start(rank, odd if rank.rank == culprit else usual)
                yield start(rank, "barrier()")
                yield start(rank, "barrier()")

            world = World(size, seed=size).run(program)
            assert outcomes(world) == [CollectiveMismatch] * size, (usual, odd, culprit)
            for rank in world.ranks:
                error = rank.error
                if error.sequence == 2:
                    assert set(error.signatures) == {usual, odd}
                    assert error.signatures[error.ranks.index(culprit)] == odd
                    assert all(text in str(error) for text in (usual, odd, f"rank {culprit} called"))
            assert world.now <= FAR + 0.1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_counts_that_disagree_between_two_ranks(size):
    """v-forms: each rank has counts of its own, so only the pieces can tell; both lengths are in the error."""
    for give, take in ((5, 4), (4, 5)):

        def program(rank, give=give, take=take):
            bounds = [(4 * other, 4 * other + 4) for other in range(size)]
            if rank.rank == 0:
                whole = memory_of(bytes(4 * size + take))
                bounds[1] = (4, 4 + take)
                made = trees.gather_linear_into(0, size, 0, whole[:4], bounds, whole)
            else:
                mine = memory_of(bytes(give if rank.rank == 1 else 4))
                made = trees.gather_linear_into(rank.rank, size, 0, mine, bounds, memory_of(b""))
            yield rank.peer.start(rank.comm, "Gatherv(uint8, root=0)", made, FAR)
            yield start(rank, "barrier()")

        world = World(size, 1).run(program)
        assert outcomes(world) == [CollectiveMismatch] * size
        assert all(f"with {octets} octets" in str(rank.error) for rank in world.ranks for octets in (give, take))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_message_too_many(order):
    """A schedule that sends what the other side's does not receive, whether it comes before or after its end."""

    def program(rank):
        pieces = 2 if rank.rank == 1 else 1
        made = trees.bcast_chain(rank.rank, 2, 1, memory_of(bytes(4)), 4 // pieces) if order[0] else None
        if made is None:
            made = trees.bcast_chain(rank.rank, 2, 1, memory_of(bytes(2 * pieces)), 2)
        yield rank.peer.start(rank.comm, "bcast", made, FAR)
        yield start(rank, "barrier()")
        yield start(rank, "barrier()")

    for seed in range(8):
        world = World(2, seed).run(program)
        assert outcomes(world) == [CollectiveMismatch] * 2


def test_a_message_of_a_collective_that_is_long_over():
    """Nobody remembers what was called then; it is an error all the same."""
    world = World(2)
    comm, peer = world.ranks[0].comm, world.ranks[0].peer
    comm.sequence = 5000
    peer.receive(Tell(comm.number, 1, 0, "barrier()"), world.group[1])
    assert isinstance(comm.error(), CollectiveMismatch)
    assert "long over" in str(comm.error())


# --------------------------------------------------------------------------------------------- who never came


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("usual", ["barrier()", "bcast(object, root=0)", "allreduce(object, SUM)"])
def test_ranks_that_never_come_are_named_on_every_rank(size, usual):
    """[8.66]: a tenth of a second behind the first deadline, with what they do instead."""
    absent = size // 2

    def program(rank):
        yield start(rank, "barrier()", 5.0)
        if rank.rank != absent:
            yield start(rank, usual, 5.0)
            yield start(rank, "barrier()", 5.0)
        else:
            yield rank.peer.recv(rank.comm, 0, 3, FAR)

    world = World(size, 1).run(program)
    assert outcomes(world) == [CollectiveTimeout] * size
    assert world.now <= 5.1
    for rank in world.ranks:
        error = rank.error
        assert error.missing == (absent,)
        assert f"rank {absent} never called it" in str(error)
        assert f"rank {absent} is in recv(source=0, tag=3), after 1 collectives" in str(error)


def test_a_rank_that_is_silent_is_named_too():
    """One that is stopped says nothing; the others wait for the answer a moment, and no longer."""
    world = World(3)
    first, second, _ = world.ranks
    requests = [start(first, "barrier()", 5.0), start(second, "barrier()", 5.0)]
    for rank in (first, second):
        world._perform(rank)
    for now in (5.0, 5.01, 5.07, 5.09, 5.1):
        while any(2 not in pair for pair in world.busy):
            pair = next(pair for pair in world.busy if 2 not in pair)
            world._deliver(pair[0], world.ranks[pair[1]], world.under_way[pair])
        for rank in (first, second):
            rank.peer.tick(now)
            world._perform(rank)
    assert [request.error.missing for request in requests] == [(2,), (2,)]
    assert "rank 2 does not answer" in str(requests[0].error)


def test_a_collective_that_is_only_slow():
    """All have called it: the error says so, and blames nobody."""

    def program(rank):
        request = start(rank, "barrier()", 5.0)
        yield request

    world = World(2)
    ranks = world.ranks
    requests = [start(rank, "barrier()", 5.0) for rank in ranks]
    for rank in ranks:
        rank.peer.take()  # lost on the way
    ranks[0].peer.tick(5.0)
    world._perform(ranks[0])
    while world.step():
        pass
    ranks[0].peer.tick(5.01)
    world._perform(ranks[0])
    while world.step():
        pass
    for request in requests:
        assert isinstance(request.error, CollectiveTimeout)
        assert request.error.missing == ()
        assert "every rank that rank 0 depends on has called it" in str(request.error)


def test_a_receive_of_one_who_waits_in_a_barrier():
    """Both sides' calls are in both errors."""

    def program(rank):
        if rank.rank == 0:
            yield rank.peer.recv(rank.comm, 1, 7, 3.0)
        else:
            yield start(rank, "barrier()", 4.0)

    first, second = World(2).run(program).ranks
    assert isinstance(first.error, CommTimeout)
    assert "recv(source=1, tag=7)" in str(first.error)
    assert "rank 1 is in barrier(), after 1 collectives" in str(first.error)
    assert isinstance(second.error, CollectiveTimeout)
    assert "rank 0 is in no call that waits" in str(second.error)


# ------------------------------------------------------------------------------------------- other endings


@pytest.mark.parametrize("size", [2, 5, 9])
def test_a_reduction_that_raises(size):
    """Its own error where it happened, CommRevoked with its text everywhere else."""

    def fails(lower, higher):
        if b"0" in lower:
            raise ZeroDivisionError("by you")
        return lower + higher

    by = values.Arithmetic(fails, TEXTS.pack, TEXTS.unpack)

    def program(rank):
        yield rank.peer.start(rank.comm, "allreduce(x)", values.allreduce(rank.rank, size, text_of(rank.rank), by), FAR)
        yield start(rank, "barrier()")

    world = World(size, 2).run(program)
    kinds = outcomes(world)
    assert set(kinds) <= {ZeroDivisionError, CommRevoked}
    assert ZeroDivisionError in kinds
    for rank in world.ranks:
        if isinstance(rank.error, CommRevoked):
            assert "could not go on with collective 1, allreduce(x): ZeroDivisionError: by you" in str(rank.error)


@pytest.mark.parametrize("size", [1, 2, 6, 17])
def test_revoking(size):
    """Whatever the others wait for ends; they agree and go on without the past."""

    def program(rank):
        comm, peer = rank.comm, rank.peer
        if rank.rank == size // 2:
            peer.revoke(comm)
        with pytest.raises(CommRevoked) as caught:
            yield peer.recv(comm, 0, 0, FAR)
        assert caught.value.rank == size // 2
        assert "Shrink()" in str(caught.value)
        agreement = peer.agree(comm, 6 if rank.rank else 3, FAR)
        agreed = yield agreement
        fresh = peer.shrunk(comm, agreement)
        yield peer.start(fresh, "barrier()", trees.barrier(fresh.rank, fresh.size), FAR)
        return agreed.flag, fresh.number

    world = World(size, 3).run(program)
    assert [rank.error for rank in world.ranks] == [None] * size
    assert {rank.result for rank in world.ranks} == {(2 if size > 1 else 3, world.ranks[0].comm.number + 1)}


def test_an_agreement_that_somebody_does_not_join_has_a_deadline_too():
    """It names the rank; and it can still be decided later, by those who did not give up."""

    def program(rank):
        if rank.rank == 2:
            yield rank.peer.recv(rank.comm, 2, 0, 9.0)
        else:
            yield rank.peer.agree(rank.comm, 1, 5.0 + rank.rank)

    world = World(3).run(program)
    assert [type(rank.error) for rank in world.ranks] == [CommTimeout] * 3
    assert world.ranks[0].error.missing == (2,)
    assert world.ranks[1].error.missing == (0,)
    late = world.ranks[2].peer.agree(world.ranks[2].comm, 1, FAR)
    world._perform(world.ranks[2])
    while world.step():
        pass
    assert late.result().flag == 1


# ------------------------------------------------------------------------------------------------ alarms


@pytest.mark.parametrize("size", range(1, 18))
def test_an_alarm_reaches_everybody_over_few_connections(size):
    """[8.65]: by the ranks in the distances of powers of two, past any that are lost."""
    for failed in (set(), {1}, set(range(1, size, 2)), set(range(size // 2))):
        living = set(range(size)) - failed
        reached = set(itertools.islice(living, 1))
        fresh = set(reached)
        while fresh:
            fresh = {other for rank in fresh for other in neighbours(rank, size, failed)} - reached
            reached |= fresh
        assert reached == living
        assert all(len(neighbours(rank, size, failed)) <= 2 * size.bit_length() for rank in living)


def test_alarms_that_say_nothing():
    """Of causes and ranks that are not there: whoever sends them means another communicator."""
    world = World(2)
    rank = world.ranks[0]
    comm = rank.comm
    good = Verdict(Cause.LOST).alarm(comm.number, frozenset((1,)))
    for changes in (
        {"cause": 99},
        {"rank": 2},
        {"other": 5},
        {"ranks": ranks_to([2])},
        {"ranks": b""},
    ):
        fields = {name: getattr(good, name) for name in good.__slots__} | changes
        rank.peer.receive(Alarm(**fields), world.group[1])
    assert comm.verdict is None
    rank.peer.receive(good, world.group[1])
    assert isinstance(comm.error(), RankLost)


def test_texts_fit_their_fields():
    """A long signature is cut, the same way on all ranks."""
    assert cut("x" * 256) == "x" * 256
    assert cut("x" * 257) == "x" * 253 + "..."
    assert len(Verdict(Cause.FAILED, here="y" * 999).alarm(1, frozenset()).here) == 256
    assert ranks_from(ranks_to([0, 9, 300])) == {0, 9, 300}


def test_a_text_names_a_few_ranks():
    """A thousand that were lost at once are counted."""
    assert ranked([4]) == "rank 4"
    assert ranked([2, 0, 1]) == "ranks 0, 1 and 2"
    assert ranked(range(1000)) == "ranks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (1000 in all)"
    assert ranked([]) == "no rank"


def test_questions_about_what_is_not_there():
    """A communicator that is closed or not yet made, an answer to a question that nobody asks any more."""
    world = World(2)
    peer = world.ranks[0].peer
    peer.receive(Ask(77, 5, 0), world.group[1])
    (effect,) = peer.take()
    assert effect.message == Stand(77, 5, 0, "no call of this communicator, which it does not have", "", b"")
    peer.receive(Stand(world.ranks[0].comm.number, 5, 0, "", "", b""), world.group[1])
    assert peer.take() == []
