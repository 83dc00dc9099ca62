"""New communicators of old ones: their members, their numbers, and messages that come before or after them."""

from __future__ import annotations

import random

import pytest
from support.ranks import FAR, SMALL, World, recv, send, text

from spark_partition_server.core.collectives import trees
from spark_partition_server.core.peers.links import COST
from spark_partition_server.core.peers.matching import ANY
from spark_partition_server.core.peers.peer import first_context
from spark_partition_server.errors import CommRevoked
from spark_partition_server.wire.peering import Ballot, Offer, Phase, Tell

COLORS = [None, 0, 3, -5]


@pytest.mark.parametrize("size", range(1, 18))
def test_split(size):
    """Split: one communicator for each color, in the order of keys, then of ranks; each works by itself."""
    chance = random.Random(size)
    colors = [chance.choice(COLORS) for _ in range(size)]
    keys = [chance.choice([-1, 0, 7]) for _ in range(size)]

    def program(rank):
        peer, comm = rank.peer, rank.comm
        request = peer.split(comm, colors[rank.rank], keys[rank.rank], FAR)
        yield request
        made = peer.opened(comm, request)
        if made is not None:  # who is ahead speaks to who is behind
            yield peer.start(made, "barrier()", trees.barrier(made.rank, made.size), FAR)
        request = peer.split(comm, 0, 0, FAR, "Dup()")
        yield request
        copy = peer.opened(comm, request)
        yield peer.start(copy, "barrier()", trees.barrier(copy.rank, copy.size), FAR)
        return made and (made.number, [identity.rank for identity in made.group]), copy.number, copy.group

    world = World(size, size).run(program)
    for rank in world.ranks:
        made, copy, group = rank.result
        color = colors[rank.rank]
        members = sorted((keys[other], other) for other in range(size) if colors[other] == color)
        assert made is None if color is None else made[1] == [other for _, other in members]
        assert group == rank.comm.group
        assert copy == world.ranks[0].result[1] > (made[0] if made else first_context(1))
    numbers = {colors[rank.rank]: rank.result[0][0] for rank in world.ranks if rank.result[0]}
    assert len(set(numbers.values())) == len(numbers)


def test_numbers_are_never_used_twice_at_one_rank():
    """[8.61]: a rank that has made more communicators than the others lifts the number of the next for all."""

    def program(rank):
        peer, comm = rank.peer, rank.comm
        numbers = [comm.number]
        for turn in range(3):
            request = peer.split(comm, rank.rank <= turn, 0, FAR)
            yield request
            numbers.append(peer.opened(comm, request).number)
            if rank.rank == 0:
                for _ in range(2):
                    alone = peer.split(peer.open(peer.next_context, [peer.me]), 0, 0, FAR)
                    numbers.append(peer.opened(comm, alone).number)
        return numbers

    world = World(3, 1).run(program)
    for rank in world.ranks:
        assert rank.error is None
        assert len(set(rank.result)) == len(rank.result)
        assert rank.result == sorted(rank.result)
    assert first_context(2) > max(world.ranks[0].result)


def test_messages_of_a_communicator_that_one_has_not_yet():
    """[8.61]: others may be ahead; their messages wait, those of a communicator that is gone do not."""
    world = World(2, window=SMALL)
    rank = world.ranks[0]
    sender, number = world.group[1], rank.comm.number
    for context, octets in ((number + 2, b"ahead"), (number - 1, b"behind"), (number + 1, b"of others")):
        rank.peer.receive(Tell(context, 0, 3, "", (octets,)), sender)
        rank.peer.receive(Offer(context, 0, 4, "", 9, 9), sender)
    made = rank.peer.open(number + 2, world.group)
    assert text(rank.peer.recv(made, 1, 3, FAR).result()) == b"ahead"
    assert rank.peer.probe(made, ANY, ANY).tag == 4
    assert rank.peer._early == {}
    # what was dropped has given its room back
    assert rank.peer._links[sender].lanes[0].consumed == 3 * COST + len(b"ahead" + b"behind" + b"of others")
    rank.peer.check()


def test_closing():
    """What waits ends, what comes is dropped and gives its room back; twice is harmless."""
    world = World(2, window=SMALL)
    rank, other = world.ranks
    waiting = recv(rank, 1, 9)
    rank.peer.close(rank.comm)
    rank.peer.close(rank.comm)
    assert isinstance(waiting.error, CommRevoked)
    for _ in range(20):
        send(other, 0, 0, b"x" * 100)
    world._perform(other)
    while world.step():
        pass
    (link,) = other.peer._links.values()
    assert not link.lanes[0].queue
    assert link.lanes[0].allowed > SMALL


def test_what_was_sent_before_closing_arrives():
    """Buffered and offered, with the octets of the call; the receiver closes later."""
    world = World(2, window=SMALL)
    rank, other = world.ranks
    memory = bytearray(b"a" * 800)
    send(rank, 1, 1, b"b" * 900, buffered=True)
    pending = send(rank, 1, 2, memory)
    rank.peer.close(rank.comm)
    assert isinstance(pending.error, CommRevoked)
    memory[:] = b"c" * 800
    requests = [recv(other, 0, 1), recv(other, 0, 2)]
    for one in (rank, other):
        world._perform(one)
    while world.step():
        pass
    assert [text(request.result()) for request in requests] == [b"b" * 900, b"a" * 800]


def test_closing_what_is_broken():
    """Nothing is left that could end."""
    (rank,) = World(1).ranks
    rank.peer.revoke(rank.comm)
    rank.peer.close(rank.comm)
    assert rank.peer.contexts == {}


def test_one_who_has_closed_still_tells_what_was_decided():
    """[8.68]: the leader dies when it has told only one rank, who goes on without the old communicator."""
    world = World(3)
    leader, second, third = world.ranks
    requests = [rank.peer.agree(rank.comm, 1, FAR) for rank in world.ranks]
    for rank in world.ranks:
        world._perform(rank)
    while not requests[0].done:
        world.step()
    decided = [message for message, _, _ in world.under_way[0, 1]]
    assert [message.phase for message in decided] == [Phase.DECIDE]
    second.peer.receive(decided[0], leader.peer.me)
    assert requests[1].done
    second.peer.close(second.comm)
    leader.alive = False
    world.under_way.clear()
    world.busy.clear()
    for rank in (third, second):
        rank.peer.lost(leader.peer.me)
        world._perform(rank)
    while world.step():
        pass
    assert requests[2].result() == requests[1].result()


def test_ballots_of_long_ago_and_of_no_phase():
    """Agreements that everybody has left are forgotten; what is no step of one changes nothing."""

    def program(rank):
        flags = []
        for turn in range(4):
            agreed = yield rank.peer.agree(rank.comm, turn, FAR)
            flags.append(agreed.flag)
        return flags

    world = World(2, 1).run(program)
    rank = world.ranks[0]
    assert rank.result == [0, 1, 2, 3]
    assert set(rank.comm.agreements) == {3, 4}
    for number, phase in ((1, Phase.STATE), (4, 0), (4, 5)):
        rank.peer.receive(Ballot(rank.comm.number, number, int(phase), 0, 0, 0, b"", 0), world.group[1])
    assert rank.peer.take() == []
    # an answer to a proposal that was never made
    rank.peer.receive(Ballot(rank.comm.number, 9, int(Phase.ACCEPT), 0, 0, 0, b"", 0), world.group[1])
    assert rank.peer.take() == []
