"""Messages that wait: for room, for a receive, until a deadline; and those that are not for us."""

from __future__ import annotations

import pytest
from support.ranks import FAR, SMALL, World, outcomes, recv, send, text

from spark_partition_server.core.peers import links
from spark_partition_server.core.peers.links import COST, Identity, Link, Outgoing, window_of
from spark_partition_server.core.peers.matching import ANY
from spark_partition_server.errors import CommTimeout
from spark_partition_server.wire.peering import Data, Grant, Offer, Room, Tell

# --------------------------------------------------------------------------------------------- the bounds


def test_what_nobody_receives_is_bounded_and_waits_at_its_sender(monkeypatch):
    """[8.63]: a flood of isend costs the receiver a window and some envelopes; all of it arrives when it is wanted."""

    monkeypatch.setattr(links, "OFFERS_MAX", 40)

    def flood(rank):
        if rank.rank == 0:
            requests = [send(rank, 1, 0, b"%04d" % number + bytes(90)) for number in range(100)]
            yield from requests

    world = World(2, 1, window=SMALL)
    sender, receiver = world.ranks
    sender.program = flood(sender)
    world._resume(sender)
    while world.step():
        pass
    held = list(receiver.comm.points.held())
    assert sum(one.cost for one in held) <= SMALL
    assert len(held) == 2 + 40
    (link,) = sender.peer._links.values()
    assert len(link.lanes[0].queue) == 100 - len(held)
    waiting = link.lanes[0].queue[-1].owner
    assert sender.peer.cancel(waiting)
    assert waiting.cancelled
    for number in range(99):
        request = recv(receiver, 0, 0)
        world._perform(receiver)
        while not request.done:
            assert world.step()
        assert text(request.result())[:4] == b"%04d" % number
    while world.step():
        pass
    assert sender.over
    assert link.lanes[0].offers == 0


def test_windows_follow_the_size_of_the_run():
    """A thousand senders together cannot fill a rank's memory with what nobody has asked for."""
    assert window_of(2) == 4 * 1024 * 1024
    assert window_of(1000) * 1000 <= 256 * 1024 * 1024
    assert window_of(1 << 20) == 64 * 1024


def test_room_is_told_in_large_pieces():
    """Not for every message: half a window at once."""
    link = Link(Identity(1, 1), 4096)
    told = [link.consume(0, COST) for _ in range(16)]
    assert [one for one in told if one is not None] == [4096 + 8 * COST, 4096 + 16 * COST]
    out = Outgoing(1, 1, 0, 0, "", (bytes(2000),))
    assert isinstance(link.admit(out, 3), Offer)  # more than a quarter of a window
    link.check()


# ---------------------------------------------------------------------------------------- what is not ours


def test_another_life_of_a_rank_is_not_heard():
    """[8.60]: one of a stale incarnation, or of one that is no member, meets no receive; nor does one of the dead."""
    world = World(2)
    rank = world.ranks[0]
    request = recv(rank, ANY, ANY)
    tell = Tell(rank.comm.number, 0, 0, "", (b"stale",))
    for sender in (Identity(1, 6), Identity(1, 8), Identity(2, 7)):
        rank.peer.receive(tell, sender)
    assert not request.done
    rank.peer.gone.add(world.group[1])
    rank.peer.receive(tell, world.group[1])
    assert not request.done
    assert list(rank.comm.points.held()) == []


def test_grants_data_and_room_that_nobody_expects_change_nothing():
    """Of transfers that are over, of others' transfers, and a room that shrinks."""
    world = World(3, window=SMALL)
    rank = world.ranks[0]
    send(rank, 1, 0, bytes(900))
    offer = rank.peer.take()[0].message
    assert isinstance(offer, Offer)
    rank.peer.receive(Grant(offer.transfer), world.group[2])
    rank.peer.receive(Grant(offer.transfer + 100), world.group[1])
    rank.peer.receive(Data(5, (b"x",)), world.group[1])
    rank.peer.receive(Room(0, 5), world.group[1])
    assert rank.peer.take() == []
    rank.peer.check()
    assert rank.peer._links[world.group[1]].lanes[0].allowed == SMALL
    rank.peer.sent(12345)
    rank.peer.receive(Grant(offer.transfer), world.group[1])
    (sent,) = [effect for effect in rank.peer.take() if hasattr(effect, "message")]
    assert sent.message == Data(offer.transfer, (bytes(900),))


# ------------------------------------------------------------------------------------------ those who wait


def test_a_receive_that_nobody_sends_to_says_what_the_others_do():
    """At its deadline, and a tenth of a second more; the communicator goes on."""

    def program(rank):
        comm, peer = rank.comm, rank.peer
        if rank.rank == 0:
            try:
                yield peer.recv(comm, 1, 7, 10.0, into=memoryview(bytearray(4)))
            except CommTimeout as error:
                yield peer.send(comm, 2, 0, (b"go on",), FAR)
                return error
        elif rank.rank == 2:
            value = yield recv(rank, 0, 0)
            yield peer.send(comm, 1, 9, value, FAR)
        else:
            return text((yield recv(rank, 2, 9)))
        return None

    world = World(3, 2).run(program)
    error = world.ranks[0].result
    assert error.missing == (1,)
    assert "recv(source=1, tag=7)" in str(error)
    assert "rank 1 is in recv(source=2, tag=9)" in str(error)
    assert world.now <= 10.1
    assert outcomes(world)[1] == b"go on"


def test_one_who_does_not_answer_is_named_too():
    """A process that is stopped answers nothing, and is not waited for."""
    world = World(2, 1)
    rank = world.ranks[0]
    request = recv(rank, ANY, 7)
    assert rank.peer.deadline == FAR
    rank.peer.tick(FAR)
    assert rank.peer.deadline == pytest.approx(FAR + 0.08)
    rank.peer.tick(FAR + 0.05)
    assert not request.done
    rank.peer.tick(FAR + 0.1)
    assert isinstance(request.error, CommTimeout)
    assert "rank 1 does not answer" in str(request.error)
    assert rank.peer.deadline is None


def test_an_inquiry_ends_when_its_operation_does():
    """The message came at the last moment; late answers are nobody's."""
    world = World(2, 1)
    rank, other = world.ranks
    request = recv(rank, 1, 7)
    rank.peer.tick(FAR)
    world._perform(rank)
    send(other, 0, 7, b"late")
    world._perform(other)
    while world.step():
        pass
    rank.peer.tick(FAR + 0.01)
    assert text(request.result()) == b"late"
    assert rank.peer.deadline is None


@pytest.mark.parametrize("granted", [False, True])
def test_memory_is_left_alone_after_the_deadline(granted):
    """What comes too late is not written into memory that the user has got back."""
    world = World(2, 1)
    rank = world.ranks[0]
    memory = memoryview(bytearray(4))
    request = recv(rank, 1, 0, into=memory)
    if granted:
        rank.peer.receive(Offer(rank.comm.number, 0, 0, "", 5, 4), world.group[1])
    rank.peer.tick(FAR)
    rank.peer.tick(FAR + 1)
    assert isinstance(request.error, CommTimeout)
    rank.peer.receive(Data(5, (b"late",)), world.group[1])
    rank.peer.receive(Tell(rank.comm.number, 0, 0, "", (b"late",)), world.group[1])
    assert bytes(memory) == bytes(4)


def test_a_send_over_its_deadline_sends_what_it_had_then():
    """It may still be received, with the octets of the call."""
    world = World(2, 1, window=SMALL)
    rank, other = world.ranks
    memory = bytearray(b"a" * 900)
    request = send(rank, 1, 0, memoryview(memory))
    rank.peer.tick(FAR)
    rank.peer.tick(FAR + 1)
    assert isinstance(request.error, CommTimeout)
    memory[:] = b"b" * 900
    got = recv(other, 0, 0)
    world._perform(rank)
    world._perform(other)
    while world.step():
        pass
    assert text(got.result()) == b"a" * 900
