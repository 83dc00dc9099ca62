"""One rank's machine alone, told by hand what others say: the corners that a whole world rarely walks into."""

from __future__ import annotations

import pytest
from support.ranks import FAR, SMALL, World, recv, send

from spark_partition_server.core.collectives import trees
from spark_partition_server.core.collectives.steps import Step, receive
from spark_partition_server.core.collectives.steps import send as send_step
from spark_partition_server.core.peers.links import COST
from spark_partition_server.errors import CollectiveMismatch, CommTimeout, RankLost
from spark_partition_server.wire.peering import Ballot, Data, Meet, Offer, Phase, Stand, Tell, ranks_to


def alone(size=3, **more):
    """A world of which only rank 1 does anything."""
    world = World(size, **more)
    return world, world.ranks[1]


def heard(rank):
    """The messages that it has sent since the last time."""
    return [effect.message for effect in rank.peer.take() if hasattr(effect, "message")]


def ballot(comm, phase, leader=0, stamp=0, flag=1, failed=(), number=1):
    return Ballot(comm.number, number, int(phase), leader, stamp, flag, ranks_to(failed), comm.number + 1)


# ----------------------------------------------------------------------------------------------- agreement


def test_a_decision_that_is_known_before_the_call():
    """The others need not be asked again."""
    world, rank = alone()
    rank.peer.receive(ballot(rank.comm, Phase.DECIDE, flag=5), world.group[0])
    assert rank.peer.agree(rank.comm, 1, FAR).result().flag == 5
    assert heard(rank) == []
    rank.peer.receive(ballot(rank.comm, Phase.DECIDE, flag=7), world.group[0])
    rank.comm.agreements[1].check()
    assert rank.comm.agreements[1].decided.flag == 5


def test_a_proposal_before_the_call_is_not_overruled_by_it():
    """What was accepted may have been decided already."""
    world, rank = alone()
    rank.peer.receive(ballot(rank.comm, Phase.PROPOSE, flag=4), world.group[0])
    assert [message.phase for message in heard(rank)] == [Phase.ACCEPT]
    rank.peer.agree(rank.comm, 3, FAR)
    rank.peer.lost(world.group[0])
    rank.peer.receive(ballot(rank.comm, Phase.STATE, 1, 0, flag=2), world.group[2])
    proposed = [message for message in heard(rank) if isinstance(message, Ballot)]
    assert [(message.phase, message.flag) for message in proposed] == [(Phase.PROPOSE, 4)]


def test_a_proposal_of_a_leader_that_was_given_up():
    """[8.67]: it is lost, and the next one may have decided otherwise."""
    world, rank = alone(4)
    rank.peer.receive(ballot(rank.comm, Phase.PROPOSE, 2, flag=4), world.group[2])
    heard(rank)
    rank.peer.receive(ballot(rank.comm, Phase.PROPOSE, 0, flag=1), world.group[0])
    assert heard(rank) == []


def test_states_that_came_before_the_decision_are_answered():
    """[8.68]: found by a death between two messages of a leader: the next one had a state and then the decision."""
    world, rank = alone()
    request = rank.peer.agree(rank.comm, 1, FAR)
    rank.peer.receive(ballot(rank.comm, Phase.STATE, 1), world.group[2])
    heard(rank)
    rank.peer.receive(ballot(rank.comm, Phase.DECIDE), world.group[0])
    assert request.done
    assert [message.phase for message in heard(rank)] == [Phase.DECIDE]


def test_an_agreement_ends_for_the_one_who_is_lost():
    """The others decide without it; it must not hang for that."""
    _, rank = alone()
    request = rank.peer.agree(rank.comm, 1, FAR)
    rank.peer.lost(rank.peer.me)
    assert isinstance(request.error, RankLost)
    other, rank = alone()
    rank.peer.receive(ballot(rank.comm, Phase.STATE, 1), other.group[2])
    rank.peer.lost(rank.peer.me)
    assert rank.peer.agree(rank.comm, 1, FAR).error is not None


def test_a_rank_that_the_others_have_given_up_without_its_knowing():
    """It hears of it from what they agreed on, and is done: with all its communicators."""
    world, rank = alone()
    other = rank.peer.open(1 << 30, world.group[1:])
    request = rank.peer.agree(rank.comm, 1, FAR)
    rank.peer.receive(ballot(rank.comm, Phase.DECIDE, failed=[1]), world.group[0])
    with pytest.raises(RankLost):
        rank.peer.shrunk(rank.comm, request)
    assert isinstance(recv_on(rank, other).error, RankLost)


def recv_on(rank, comm):
    return rank.peer.recv(comm, 0, 0, FAR)


def test_an_agreement_over_its_deadline_names_the_leader():
    """Or, at the leader, those that it waits for; an older agreement is not asked about."""
    world, rank = alone()
    rank.comm.agreed = 1
    rank.peer.receive(ballot(rank.comm, Phase.STATE, 1), world.group[2])
    request = rank.peer.agree(rank.comm, 1, 5.0)
    rank.peer.tick(5.0)
    rank.peer.tick(6.0)
    assert request.error.missing == (0,)


# ------------------------------------------------------------------------------------------ collectives


def barrier(rank, deadline=FAR):
    return rank.peer.start(rank.comm, "barrier()", trees.barrier(rank.rank, rank.comm.size), deadline)


def test_a_collective_cannot_be_cancelled():
    """The others count on it."""
    _, rank = alone()
    request = barrier(rank)
    assert not rank.peer.cancel(request)
    assert not request.done


def test_the_door_may_read_a_piece_into_its_place():
    """Of the collective that is under way, and of no other."""
    world, rank = alone()
    memory = memoryview(bytearray(4))

    def schedule():
        yield receive(0, memory)

    request = rank.peer.start(rank.comm, "x", schedule(), FAR)
    assert rank.peer.place(Tell(rank.comm.number, 1, 0, "x"), world.group[0], 4) is memory
    assert rank.peer.place(Tell(rank.comm.number, 2, 0, "x"), world.group[0], 4) is None
    assert rank.peer.place(Tell(rank.comm.number, 1, 0, "y"), world.group[0], 4) is None
    rank.peer.receive(Tell(rank.comm.number, 1, 0, "x", (memory,)), world.group[0])
    assert request.done


@pytest.mark.parametrize("early", [True, False])
def test_one_message_more_than_the_schedule_receives(early):
    """[8.64]: whether it comes before the end of the collective or behind it; nobody would ever receive it."""
    world, rank = alone()
    tell = Tell(rank.comm.number, 1, 0, "x", (b"1234",))

    def schedule():
        yield receive(0)
        yield receive(2)

    request = rank.peer.start(rank.comm, "x", schedule(), FAR)
    for sender in (0, 0, 2) if early else (0, 2, 0):
        rank.peer.receive(tell, world.group[sender])
    assert request.error is None
    assert isinstance(rank.comm.error(), CollectiveMismatch)
    assert "more messages" in str(rank.comm.error())


def test_a_step_that_fails_while_it_begins_sends_nothing_more():
    """What is there already is of another length: the rest of the step is not begun."""
    world, rank = alone()
    rank.peer.receive(Tell(rank.comm.number, 1, 0, "x", (b"12345",)), world.group[0])

    def schedule():
        yield Step(((2, (b"out",)),), ((0, memoryview(bytearray(4))),))

    request = rank.peer.start(rank.comm, "x", schedule(), FAR)
    assert isinstance(request.error, CollectiveMismatch)
    assert not any(isinstance(message, Tell) for message in heard(rank))


def test_memory_that_leaves_after_the_end_ends_nothing():
    """The door is done with it when the collective has long failed."""
    world, rank = alone()

    def schedule():
        yield send_step(2, (memoryview(bytearray(4)),))

    request = rank.peer.start(rank.comm, "x", schedule(), FAR)
    (ticket,) = [effect.ticket for effect in rank.peer.take()]
    rank.peer.lost(world.group[0])
    rank.peer.sent(ticket)
    assert isinstance(request.error, RankLost)


def test_a_loss_after_another_end_is_known_too():
    """The verdict stays; but who agrees and shrinks must know of the dead."""
    world, rank = alone()
    rank.peer.revoke(rank.comm)
    heard(rank)
    rank.peer.lost(world.group[2])
    assert rank.comm.failed == {2}
    assert {message.cause for message in heard(rank)} == {1, 2}
    assert rank.comm.error().rank == 1


def test_a_loss_breaks_only_what_it_was_in():
    """Another communicator of the same process goes on."""
    world, rank = alone()
    small = rank.peer.open(1 << 30, world.group[1:])
    rank.peer.lost(world.group[0])
    assert rank.comm.verdict is not None
    assert small.verdict is None


def test_data_of_a_broken_communicator_is_dropped():
    """Its memory belongs to the user again; offers and queues are forgotten on both sides."""
    world, rank = alone(window=SMALL)
    memory = memoryview(bytearray(4))
    recv(rank, 0, 0, into=memory)
    rank.peer.receive(Offer(rank.comm.number, 0, 0, "", 5, 4), world.group[0])
    send(rank, 2, 0, bytes(900))
    other = rank.peer.open(1 << 30, world.group)
    rank.peer.send(other, 2, 0, (bytes(900),), FAR)
    rank.peer.revoke(rank.comm)
    rank.peer.receive(Data(5, (b"late",)), world.group[0])
    assert bytes(memory) == bytes(4)
    (link,) = [link for to, link in rank.peer._links.items() if to == world.group[2]]
    assert link.lanes[0].offers == 1
    rank.peer.check()


def test_a_claimed_message_of_a_broken_communicator():
    """It is not received any more, and its sender gets its room back."""
    world, rank = alone(window=SMALL)
    rank.peer.receive(Tell(rank.comm.number, 0, 0, "", (bytes(200),)), world.group[0])
    claimed = rank.peer.claim(rank.comm, 0, 0)
    rank.peer.revoke(rank.comm)
    assert rank.peer.recv_claimed(rank.comm, claimed, FAR).error is not None
    assert rank.peer._links[world.group[0]].lanes[0].consumed == 200 + COST


def test_what_is_no_message_between_ranks_is_left_alone():
    """MEET is the door's."""
    world, rank = alone()
    rank.peer.receive(Meet(0, 7, 1, 7, b""), world.group[0])
    assert rank.peer.take() == []


# ---------------------------------------------------------------------------------------------- inquiries


def test_answers_that_were_not_asked_for_count_for_nothing():
    """Of a rank that was not asked, of another communicator; and ranks in them that are not there."""
    world, rank = alone()
    other = rank.peer.open(1 << 30, world.group)
    request = recv(rank, 0, 0)
    rank.peer.tick(FAR)
    (ask,) = heard(rank)
    answer = Stand(rank.comm.number, ask.number, 0, "thinking", "x", ranks_to([2, 99]))
    rank.peer.receive(answer, world.group[2])
    rank.peer.receive(Stand(other.number, ask.number, 0, "thinking", "", b""), world.group[0])
    rank.peer.tick(FAR)
    assert not request.done
    rank.peer.receive(answer, world.group[0])
    assert [message.number for message in heard(rank)] == [ask.number]  # and now rank 2 is asked
    rank.peer.receive(answer, world.group[2])
    assert rank.peer.deadline == 0.0
    rank.peer.tick(FAR)
    assert isinstance(request.error, CommTimeout)
    assert "rank 0 is in thinking" in str(request.error)


def test_one_verdict_ends_all_that_is_late():
    """Two operations at one deadline: the collective's end is the receive's end too."""
    _, rank = alone()
    first, second = barrier(rank, 5.0), recv(rank, 0, 0)
    rank.peer.tick(5.0)
    rank.peer.tick(5.1)
    assert type(first.error) is type(second.error)
    assert rank.peer.deadline is None
