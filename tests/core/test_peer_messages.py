"""Messages between ranks, on the world in memory: they meet their receives in MPI's order, however they travel."""

from __future__ import annotations

import random

import pytest
from support.ranks import FAR, SMALL, World, recv, send, text

from spark_partition_server.core.peers.links import Identity
from spark_partition_server.core.peers.matching import ANY, NOBODY, Held, Matching, Posted
from spark_partition_server.errors import CommError
from spark_partition_server.wire.peering import Data, Offer, Tell

# ------------------------------------------------------------------------------------- against a plain list


def meets(receive, message):
    return receive[0] in (ANY, message[0]) and receive[1] in (ANY, message[1])


@pytest.mark.parametrize("seed", range(60))
def test_receives_and_messages_meet_in_the_order_of_mpi(seed):
    """The definition is two lists that are searched from their beginnings; a wildcard that jumps the queue shows."""
    chance = random.Random(seed)
    matching, receives, messages = Matching(), [], []
    for number in range(120):
        key = (chance.choice([0, 1, 2]), chance.choice([5, 6]))
        matching.check()
        match chance.randint(0, 4):
            case 0 | 1:
                found = matching.arrive(*key)
                wanted = next((one for one in receives if meets(one, key)), None)
                assert (found and found.index) == (wanted and wanted[2])
                if wanted is None:
                    matching.hold(Held(*key, "", (), number))
                    messages.append((*key, number))
                else:
                    receives.remove(wanted)
            case 2 | 3:
                key = tuple(ANY if chance.random() < 0.3 else part for part in key)
                found = matching.find(*key)
                assert matching.post(Posted(*key, None, index=number)) is found
                wanted = next((one for one in messages if meets(key, one)), None)
                assert (found and found.octets) == (wanted and wanted[2])
                if wanted is None:
                    receives.append((*key, number))
                else:
                    messages.remove(wanted)
            case 4 if receives:
                one = chance.choice(receives)
                posted = next(posted for posted in matching.posted() if posted.index == one[2])
                assert matching.cancel(posted)
                assert not matching.cancel(posted)
                receives.remove(one)
    assert sorted(held.octets for held in matching.held()) == [number for *_, number in messages]


# ------------------------------------------------------------------------------------------- between ranks


@pytest.mark.parametrize("window", [SMALL, 0])
@pytest.mark.parametrize("seed", range(12))
def test_messages_of_one_source_and_tag_arrive_in_order(seed, window):
    """[8.62]: whether they go whole, are offered, or wait for room; ANY_SOURCE sees each source's order too."""

    def program(rank):
        if rank.rank:
            for number in range(12):
                size = 1 if number % 3 else 700
                sent = b"%d.%02d" % (rank.rank, number) + b"." * size
                yield send(rank, 0, number % 2, sent, synchronous=number == 5, buffered=number == 7)
            return None
        got = []
        for _ in range(24):
            got.append(text((yield recv(rank, ANY, ANY)))[:4])
        return got

    world = World(3, seed, window=window, octets=True).run(program)
    got = world.ranks[0].result
    assert len(set(got)) == 24
    for source in (b"1", b"2"):
        for even in (0, 1):
            mine = [one for one in got if one[:1] == source and int(one[2:]) % 2 == even]
            assert mine == sorted(mine)


def test_a_receive_by_tag_takes_a_later_message():
    """A message that nobody wants yet does not stand in the way."""

    def program(rank):
        if rank.rank:
            yield send(rank, 0, 1, b"first")
            yield send(rank, 0, 2, b"second")
            return None
        second = recv(rank, 1, 2)
        value = yield second
        return text(value), second.source, second.tag, second.octets, text((yield recv(rank, ANY, 1)))

    world = World(2, 3).run(program)
    assert world.ranks[0].result == (b"second", 1, 2, 6, b"first")


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_rank_sends_to_itself(synchronous):
    """No connection, and the receiver's copy is his own: changing what was sent changes nothing."""

    def program(rank):
        sent = bytearray(b"mine")
        request = send(rank, 0, 4, sent, synchronous=synchronous)
        assert request.done is not synchronous
        sent[:] = b"else"
        value = yield recv(rank, 0, 4)
        yield request
        early = recv(rank, 0, 5)
        yield send(rank, 0, 5, b"later", synchronous=synchronous)
        return text(value), text((yield early))

    world = World(1).run(program)
    assert world.ranks[0].result == (b"mine", b"later")
    assert world.sent == 0


@pytest.mark.parametrize("size", [10, 3000])
def test_a_synchronous_send_waits_for_its_receive(size):
    """It is not done because the message has arrived, only because it was met."""
    world = World(2, 1)
    sender, receiver = world.ranks
    request = send(sender, 1, 0, b"x" * size, synchronous=True)
    world._perform(sender)
    while world.step():
        pass
    assert not request.done
    assert receiver.peer.probe(receiver.comm, 0, ANY).octets == size
    got = recv(receiver, 0, 0)
    world._perform(receiver)
    while world.step():
        pass
    assert request.done
    assert request.result() is None
    assert text(got.result()) == b"x" * size


def test_a_claimed_message_belongs_to_its_claimer():
    """mprobe: two threads that probe and receive would otherwise take each other's messages."""
    for size in (10, 800):  # told, offered
        world = World(2, 1, window=SMALL)
        sender, receiver = world.ranks
        send(sender, 1, 3, b"a" * size)
        send(sender, 1, 3, b"b" * size)
        world._perform(sender)
        while world.step():
            pass
        assert receiver.peer.claim(receiver.comm, 0, 9) is None
        claimed = receiver.peer.claim(receiver.comm, ANY, ANY)
        assert (claimed.source, claimed.tag, claimed.octets) == (0, 3, size)
        other, request = recv(receiver), receiver.peer.recv_claimed(receiver.comm, claimed, FAR)
        world._perform(receiver)
        while world.step():
            pass
        assert text(other.result()) == b"b" * size
        assert text(request.result()) == b"a" * size


def test_a_cancelled_receive_takes_no_message():
    """The message goes to the next receive; what was met cannot be taken back."""
    world = World(2, 1)
    sender, receiver = world.ranks
    first, second = recv(receiver, 0, 1), recv(receiver, 0, 1)
    assert receiver.peer.cancel(first)
    assert (first.done, first.cancelled) == (True, True)
    sent = send(sender, 1, 1, b"x")
    assert not sender.peer.cancel(sent)
    world._perform(sender)
    while world.step():
        pass
    assert text(second.result()) == b"x"
    assert not receiver.peer.cancel(second)
    assert not second.cancelled


def test_into_memory():
    """A buffer gets its octets in place, a larger one their beginning; a smaller one and another type are errors."""

    def program(rank):
        if rank.rank:
            for octets, kind in ((b"abcd", "u1"), (b"ef", "u1"), (b"toolong", "u1"), (b"12345678", "f8")):
                yield rank.peer.send(rank.comm, 0, 0, (memoryview(octets),), FAR, signature=kind)
            return None
        memory = memoryview(bytearray(4))
        seen = []
        for kind in ("u1", None, "u1", "u1"):
            try:
                value = yield recv(rank, 1, 0, into=memory, signature=kind)
                seen.append((bytes(memory), value is memory))
            except CommError as error:
                seen.append(str(error))
        return seen

    for window in (0, SMALL, 16):
        seen = World(2, 5, window=window).run(program).ranks[0].result
        assert seen[:2] == [(b"abcd", True), (b"efcd", True)]
        assert "7 octets, the buffer 4" in seen[2]
        assert "is f8, not u1" in seen[3]
    with_object = World(2, 5)
    request = recv(with_object.ranks[0], 1, 0, signature="f8")
    send(with_object.ranks[1], 0, 0, b"...")
    with_object._perform(with_object.ranks[1])
    while with_object.step():
        pass
    assert "is an object, not f8" in str(request.error)


def test_the_door_may_read_a_payload_into_its_place():
    """Only where it is certain: the next receive for this very message, of its size, in place."""
    world = World(2)
    peer, comm = world.ranks[0].peer, world.ranks[0].comm
    sender = world.group[1]
    tell = Tell(comm.number, 0, 5, "u1")
    assert peer.place(tell, sender, 4) is None
    memory = memoryview(bytearray(4))
    request = recv(world.ranks[0], ANY, 5, into=memory, signature="u1")
    assert peer.place(tell, sender, 4) is memory
    assert peer.place(tell, sender, 3) is None
    assert peer.place(Tell(comm.number, 0, 5, "f8"), sender, 4) is None
    assert peer.place(Tell(comm.number, 0, 6, "u1"), sender, 4) is None
    assert peer.place(Tell(comm.number + 1, 0, 5, "u1"), sender, 4) is None
    assert peer.place(tell, Identity(1, 8), 4) is None
    memory[:] = b"done"
    peer.receive(Tell(comm.number, 0, 5, "u1", (memory,)), sender)
    assert request.result() is memory
    assert bytes(memory) == b"done"
    # and of what was granted
    assert peer.place(Data(3), sender, 4) is None
    request = recv(world.ranks[0], 1, 5, into=memory)
    peer.receive(Offer(comm.number, 0, 5, "u1", 3, 4), sender)
    assert peer.place(Data(3), sender, 4) is memory
    assert peer.place(Data(3), sender, 5) is None
    peer.receive(Data(3, (b"more",)), sender)
    assert bytes(request.result()) == b"more"
    # objects have no place
    recv(world.ranks[0], 1, 5)
    assert peer.place(tell, sender, 4) is None


def test_nobody_takes_everything_and_sends_nothing():
    """PROC_NULL: code that talks to its neighbours needs no special cases at the borders."""
    world = World(1)
    (rank,) = world.ranks
    assert send(rank, NOBODY, 0, b"x").result() is None
    request = recv(rank, NOBODY, 3)
    assert (request.result(), request.source, request.tag, request.octets) == (None, NOBODY, ANY, 0)
    assert rank.peer.probe(rank.comm, NOBODY, 3).source == NOBODY
    claimed = rank.peer.claim(rank.comm, NOBODY, 3)
    assert rank.peer.recv_claimed(rank.comm, claimed, FAR).result() is None
    assert world.sent == 0
