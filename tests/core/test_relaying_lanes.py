"""Lanes: the connections that members open to the relay's door, and what becomes of the calls that they have."""

from __future__ import annotations

import pytest
from support.relays import RUN, Relays, frames_of, read, request

from spark_partition_server.core import ledger, relaying
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Cancel, Credit, Error, Kind, Part, Refuse, Relay, Reply, Stream
from spark_partition_server.wire.relays import PART_BYTES_MAX

K, L = b"\x00K", b"\x00L"  # two clients
A, B = b"\x00lane A", b"\x00lane B"
REPLY = Reply(1, (b"\x01",))


@pytest.fixture
def relays() -> Relays:
    return Relays()


def errors(told):
    """The ERRORs among what was told: to whom, about which call, with which code."""
    return [(to, one.call_id, one.code) for to, one in told if isinstance(one, Error)]


# ------------------------------------------------------------------------------------------------- attaching


def test_new_calls_go_by_the_lane_and_old_ones_end_where_they_began(relays):
    """[8.53]: messages of one call over two connections could overtake each other."""
    relays.say(K, Stream(1, "get", 5000, 0, 7, 4, (b"\x90",)))
    assert relays.attach(A) == []
    assert relays.say(K, request(2)) == [(A + b"<" + K, request(2))]
    assert relays.say(K, Credit(1, 9)) == [(b"M0<" + K, Credit(1, 9))]
    assert relays.answer(A, K, REPLY) == []  # not the connection that has this call
    assert relays.answer(b"M0", K, Reply(2, (b"\x01",))) == []
    assert relays.rules.calls == 2
    assert relays.answer(b"M0", K, REPLY) == [(K, REPLY)]
    assert relays.answer(A, K, Reply(2, (b"\x01",))) == [(K, Reply(2, (b"\x01",)))]
    assert relays.rules.calls == 0
    assert relays.say(K, request(3, rank=1)) == [(b"M1<" + K, request(3, rank=1))]  # others have none


@pytest.mark.parametrize("who", [{"token": b"other"}, {"incarnation": 6}, {"rank": 5}])
def test_an_attach_that_is_not_a_members_is_refused(relays, who):
    """[8.52]: whoever it is would get what is meant for a server."""
    assert relays.attach(A, **who) == [(A, Refuse(Code.NOT_MEMBER, "no")), (A, None)]
    assert relays.say(K, request()) == [(b"M0<" + K, request())]
    frames = frames_of(Relay(K, tuple(frames_of(REPLY))))
    assert relays.rules.receive(A, frames, relays.now) is None  # [8.41]


def test_a_connection_attaches_once(relays):
    """[8.52]: a second ATTACH could take calls of one member for another's."""
    relays.attach(A)
    (refused, closed) = relays.attach(A, rank=1)
    assert (refused[1].code, closed) == (Code.UNEXPECTED, (A, None))
    assert relays.say(K, request()) == [(A + b"<" + K, request())]


def test_the_later_lane_is_the_members(relays):
    """[8.54]: it would not have opened another one if the first were of use."""
    relays.attach(A)
    relays.say(K, request(1))
    relays.say(K, Part(2, 0, 2 * PART_BYTES_MAX, (opening(2) + bytes(PART_BYTES_MAX - 100),)))
    told = relays.attach(B)
    assert errors(told) == [(K, 1, Code.LOST), (K, 2, Code.UNAVAILABLE)]
    assert told[-1] == (A, None)
    assert relays.gone(A) == []
    assert relays.say(K, request(3)) == [(B + b"<" + K, request(3))]


def opening(call_id):
    """The first octets of a large REQUEST in parts."""
    preamble, fields, _ = frames_of(request(call_id))
    return bytes((1, len(preamble))) + preamble + bytes((1, len(fields))) + fields


# ------------------------------------------------------------------------------------------------ the bounds


def test_both_connections_of_a_member_have_one_bound(relays, monkeypatch):
    """[8.46]: attaching does not double what may be under way."""
    monkeypatch.setattr(ledger, "CALLS_PER_MEMBER", 3)
    relays.say(K, request(1))
    relays.say(K, request(2))
    relays.attach(A)
    relays.say(K, request(3))
    assert errors(relays.say(K, request(4))) == [(K, 4, Code.OVERLOADED)]
    relays.answer(b"M0", K, REPLY)
    assert errors(relays.say(K, request(5))) == []


def test_a_lane_to_which_too_much_waits(relays):
    """[8.44]: the call that did not leave was not run. What is about no call any more is nothing to anybody."""
    relays.attach(A)
    (passed,) = relays.rules.receive(K, frames_of(request(1)), relays.now)
    assert errors(map(read, relays.rules.full(A, passed.frames, relays.now))) == [(K, 1, Code.OVERLOADED)]
    cancel = [codec.preamble(Kind.RELAY, RUN), passed.frames[1], *frames_of(Cancel(1))]
    assert relays.rules.full(A, cancel, relays.now) == []
    assert relays.rules.full(b"M0", cancel, relays.now) == []
    relays.rules.check()
    assert relays.tick(5.0) == []


# --------------------------------------------------------------------------------------------------- the end


def test_a_lane_that_ends_has_lost_its_calls_and_the_member_is_served_on(relays):
    """[8.54]: those over the other connection go on."""
    relays.say(K, request(1))
    relays.attach(A)
    relays.say(K, request(2))
    relays.say(L, request(3))
    assert errors(relays.gone(A)) == [(K, 2, Code.LOST), (L, 3, Code.LOST)]
    assert relays.say(K, request(4)) == [(b"M0<" + K, request(4))]
    assert relays.answer(b"M0", K, REPLY) == [(K, REPLY)]
    assert relays.gone(A) == []


def test_a_client_at_the_door_that_has_gone_takes_its_calls_back(relays):
    """[8.47]: at once, as its connection is seen to end."""
    relays.attach(A)
    relays.say(K, request(1))
    relays.say(K, request(2, rank=1))
    assert relays.gone(K) == [(A + b"<" + K, Cancel(1)), (b"M1<" + K, Cancel(2))]
    assert relays.rules.calls == 0


def test_a_lane_that_calls_others_is_both(relays):
    """Nothing forbids it, and nothing of either stays in the books."""
    relays.attach(A)
    relays.say(K, request(1))
    relays.say(A, request(1, rank=1))
    lost, closed, cancelled = relays.gone(A)
    assert (errors([lost]), closed, cancelled) == ([(K, 1, Code.LOST)], (A, None), (b"M1<" + A, Cancel(1)))
    assert relays.rules.calls == 0


def test_a_member_that_has_left_may_finish_what_it_answered(relays):
    """[8.54]: its GOODBYE comes over another connection, and overtakes its answers."""
    relays.attach(A)
    relays.say(K, request(1))
    relays.say(K, request(2))
    del relays.members.by_rank[0]
    assert relays.look() == []
    assert errors(relays.say(K, request(3))) == [(K, 3, Code.UNAVAILABLE)]
    assert relays.answer(A, K, REPLY) == [(K, REPLY)]
    assert relays.tick(1.0) == []
    told = relays.tick(relaying.LANE_GRACE)
    assert errors(told) == [(K, 2, Code.LOST)]
    assert told[-1] == (A, None)


def test_the_lane_of_a_member_that_has_left_is_closed_without_calls_too(relays):
    """[8.54]: whatever else happens at the relay meanwhile."""
    relays.attach(A)
    del relays.members.by_rank[0]
    relays.look()
    assert relays.rules.deadline is not None
    for call_id in range(6):
        relays.now += relaying.LANE_GRACE / 4
        relays.say(K, request(call_id, rank=1))
        relays.answer(b"M1", K, Reply(call_id, (b"\x01",)))
    assert relays.tick() == [(A, None)]
    assert relays.rules.deadline is None


def test_a_member_that_comes_back_keeps_its_lane(relays):
    """Its connection to the first endpoint was lost and made again: nothing was wrong with the lane."""
    relays.attach(A)
    relays.say(K, request(1))
    serving = relays.members.by_rank.pop(0)
    relays.look()
    relays.members.by_rank[0] = (serving[0], b"M0 again")
    assert relays.look(1.0) == []
    assert relays.tick(3.0) == []
    assert relays.answer(A, K, REPLY) == [(K, REPLY)]
    assert relays.say(K, request(2)) == [(A + b"<" + K, request(2))]


def test_a_member_that_was_replaced_loses_its_lane(relays):
    """[8.54]: at once, and calls for its successor go to that, also before anybody has looked."""
    relays.attach(A)
    relays.say(K, request(1))
    relays.members.by_rank[0] = (8, b"M0 next")
    assert relays.say(K, request(2, incarnation=8)) == [(b"M0 next<" + K, request(2, incarnation=8))]
    told = relays.look()
    assert errors(told) == [(K, 1, Code.LOST)]
    assert told[-1] == (A, None)
    assert relays.attach(B, incarnation=8) == []
    assert relays.say(K, request(3, incarnation=8))[0][0] == B + b"<" + K
