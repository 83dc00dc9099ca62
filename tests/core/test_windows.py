"""Large messages through the coordinator's rules: whole at the other end, and never much of them on the way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.relays import LIMIT, Through, request

from spark_partition_server.core import relaying
from spark_partition_server.core.windows import PEER_WINDOW
from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Cancel, Credit, Error, Items, Part, Reply, Stream
from spark_partition_server.wire.relays import CALL_WINDOW, FIRST_CREDIT, PART_BYTES_MAX

K = b"\x00K"
SLACK = 64 * 1024  # octets of preambles and fields


def large(size: int, call_id: int = 1) -> Reply:
    return Reply(call_id, (bytes(size),))


def asked(through: Through, call_id: int = 1, rank: int = 0, client: bytes = K):
    """A call has arrived at its member; its answer is yet to come."""
    through.ask(client, request(call_id, rank))
    return through.asked.pop()


# ------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("size", [200_000, CALL_WINDOW, 9_999_999])
def test_large_requests_and_large_answers(size):
    """[7.41.1]: they arrive as they were, and nothing is kept of them."""
    through = Through()
    through.ask(K, request(payload=(bytes(size), b"end")))
    ((member, one),) = through.asked
    assert [len(frame) for frame in one.frames[2:]] == [size, 3]
    through.reply(member, one, large(size))
    assert [(to, len(message.payload[0])) for to, message in through.answered] == [(K, size)]
    assert through.relays.rules.deadline is None
    assert through.client(K).idle
    assert not through.members[b"M0"].waiting


def test_items_in_parts_one_behind_the_other():
    """[7.41.2]: in order, and the last ends the call."""
    through = Through()
    through.ask(K, Stream(1, "get", 5000, 0, 7, 100, (b"\x90",)))
    member, one = through.asked.pop()
    for sequence in range(4):
        through.reply(member, one, Items(1, sequence, (bytes(700_000 if sequence % 2 else 10),)))
    through.reply(member, one, Reply(1, (b"\xc0",)))
    assert [type(message) for _, message in through.answered] == [Items] * 4 + [Reply]
    assert through.relays.rules.deadline is None


@settings(max_examples=30)
@given(st.data())
def test_everything_arrives_whatever_happens_at_the_same_time(data):
    """Calls of three clients to three members, of all sizes, answered in any order, by readers that stop and go on."""
    through = Through(3, 1 << 30)
    under_way = []
    sizes = st.sampled_from([10, 150_000, 900_000, 3_000_000])
    clients = [b"K0", b"K1", b"K2"]
    for call_id in range(data.draw(st.integers(1, 12))):
        client = data.draw(st.sampled_from(clients))
        held = data.draw(st.sampled_from([*clients, b"M0", b"M1", b"M2", None]))
        through.held = {held} if held else set()
        through.ask(client, request(call_id, data.draw(st.integers(0, 2)), payload=(bytes(data.draw(sizes)),)))
        under_way += through.asked
        through.asked.clear()
        if under_way and data.draw(st.booleans()):
            member, one = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            through.reply(member, one, large(data.draw(sizes), int(one.frames[1][1])))
    through.held = set()
    through.run()
    for member, one in under_way + through.asked:
        through.reply(member, one, large(data.draw(sizes), int(one.frames[1][1])))
    assert len(through.answered) == call_id + 1
    assert through.relays.rules.deadline is None


# --------------------------------------------------------------------------------- what waits on the way


def test_a_reader_that_does_not_read_holds_up_itself_only():
    """[8.50]: of each call a part at first, of all that is for one connection a window; others go on."""
    through = Through(2, 1 << 30)
    through.held = {K}
    for call_id in range(20):
        member, one = asked(through, call_id)
        through.reply(member, one, large(10 << 20, call_id))
    assert through.waiting(K) <= PEER_WINDOW + 20 * FIRST_CREDIT + SLACK
    other = b"\x00L"
    member, one = asked(through, 1, 0, other)
    through.reply(member, one, large(10 << 20))
    assert [(to, len(message.payload[0])) for to, message in through.answered] == [(other, 10 << 20)]
    through.held = set()
    through.run()
    assert len(through.answered) == 21


def test_a_member_that_does_not_read_holds_up_itself_only():
    """[8.50]: the same for requests."""
    through = Through(2, 1 << 30)
    through.held = {b"M0"}
    for call_id in range(20):
        through.ask(K, request(call_id, payload=(bytes(10 << 20),)))
    assert through.waiting(b"M0") <= PEER_WINDOW + 20 * FIRST_CREDIT + SLACK
    through.ask(K, request(100, 1, payload=(bytes(10 << 20),)))
    assert [member for member, _ in through.asked] == [b"M1"]
    through.held = set()
    through.run()
    assert len(through.asked) == 21


def test_all_of_many_calls_get_a_share():
    """[8.51]: in turn, so that a long answer does not hold up the short ones behind it."""
    through = Through(1, 1 << 30)
    long = asked(through, 0)
    through.held = {K}
    through.reply(*long, large(100 << 20, 0))
    for call_id in range(1, 9):
        through.reply(*asked(through, call_id), large(1 << 20, call_id))
    through.held = set()
    through.relayed = 0
    through.run()
    assert [message.call_id for _, message in through.answered][-1] == 0
    assert len(through.answered) == 9


def test_a_source_that_does_not_send_holds_up_nobody_else():
    """[8.50]: what was granted and never comes is counted against its source alone."""
    through = Through(1, 1 << 30)
    for call_id in range(10):  # a client that announces large requests and sends the first part of each
        first, *_ = through.client(b"\x00X").send([*map(bytes, _encoded(request(call_id, payload=(bytes(9 << 20),))))])
        through._receive(b"\x00X", first)
    through.ask(K, request(1, payload=(bytes(20 << 20),)))
    assert sum(one.route.name.endswith(b"K") for _, one in through.asked) == 1


def _encoded(message):
    from spark_partition_server.wire import codec

    return codec.encode(message, b"run of 8")


# ------------------------------------------------------------------------------------------ what ends it


def test_a_request_that_did_not_come_whole_was_not_run():
    """[8.48]: so its caller may send it again."""
    through = Through()
    through.held = {b"M0"}
    through.ask(K, request(payload=(bytes(3 << 20),)))
    through.held = set()
    del through.relays.members.by_rank[0]
    through.queues.clear()
    ((_, told),) = [(one.to, one) for one in through.relays.rules.look(through.relays.now)]
    assert b"is lost" in told.frames[1]
    whole, _ = through.client(K).take(list(told.frames))
    from spark_partition_server.wire import codec

    assert codec.decode(whole, b"run of 8").code == Code.UNAVAILABLE
    assert through.client(K).idle


def test_a_reader_that_takes_nothing_for_long_loses_its_call():
    """[8.49]: its parts hold a window that others want."""
    through = Through(1, 1 << 30)
    member, one = asked(through)
    through.held = {K}
    through.reply(member, one, large(9 << 20))
    relays = through.relays
    relays.rules._ledger.clients[K].calls[1].until = float("inf")
    for _ in range(int(relaying.STALL)):
        assert [to for to, _ in relays.tick(1.0) if to != K] == []
    told = relays.tick(1.0) + relays.tick(1.0)
    assert [(to, type(message)) for to, message in told] == [(K, Error), (b"M0<" + K, Cancel)]
    assert told[0][1].code == Code.LOST
    assert relays.rules.calls == 0


def test_an_answer_that_was_sent_whole_is_kept_until_it_was_taken():
    """What waits for a connection is counted to its end, though the member has nothing more to do with it."""
    through = Through(1, 1 << 30)
    member, one = asked(through)
    through.held = {K}
    through.reply(member, one, large(300_000))
    rules = through.relays.rules
    assert rules.calls == 0
    assert rules.deadline is not None
    assert through.relays.say(K, Credit(1, 5, 0)) == []  # no item is to come any more
    assert through.relays.say(K, Credit(1, 0, CALL_WINDOW + 300_000 + 100)) == []
    assert rules.deadline is None


def test_taking_back_a_large_answer_makes_room():
    """[8.47]: for the next."""
    through = Through(1, 1 << 30)
    member, one = asked(through)
    through.held = {K}
    through.reply(member, one, large(9 << 20))
    through.ask(K, Cancel(1))
    through.held = set()
    through.run()
    assert not through.members[b"M0"].waiting
    member, one = asked(through, 2)
    through.reply(member, one, large(9 << 20, 2))
    assert [message.call_id for _, message in through.answered] == [2]


def test_taking_back_what_was_answered_tells_nobody():
    """The member does not know it any more."""
    through = Through(1, 1 << 30)
    member, one = asked(through)
    through.held = {K}
    through.reply(member, one, large(300_000))
    assert through.relays.say(K, Cancel(1)) == []
    assert through.relays.rules.deadline is None


# --------------------------------------------------------------------------------------- what breaks the rules


def test_parts_of_a_request_that_break_the_rules_end_the_call():
    """[7.41.2], [7.41.3]: its client learns it, its member forgets what it has."""
    for offset, size, piece in [(5, 1 << 20, b"x"), (PART_BYTES_MAX, 1 << 19, b"x"), (1, 1 << 20, b"x")]:
        through = Through()
        relays = through.relays
        through.held = {b"M0"}
        through.ask(K, request(payload=(bytes(1 << 20),)))
        told = relays.say(K, Part(1, offset, size, (piece,)))
        assert [(to, type(message)) for to, message in told] == [(K, Error), (b"M0<" + K, Cancel)]
        assert told[0][1].code == Code.MALFORMED
    assert relays.say(K, Part(1, 5, 9, (b"x",))) == []  # the rest of what was given up


def test_more_than_was_granted_ends_the_call():
    """[7.41.3]: a client that sends without credit gets no further than its first part."""
    through = Through()
    through.held = {b"M0"}
    through.ask(K, request(payload=(bytes(8 << 20),)))
    relays = through.relays
    sent, size = FIRST_CREDIT, through.client(K)._calls[1].queue[0].size
    while True:
        told = relays.say(K, Part(1, sent, size, (bytes(PART_BYTES_MAX),)))
        if isinstance(told[0][1], Error):
            break
        sent += PART_BYTES_MAX
    assert sent <= CALL_WINDOW + FIRST_CREDIT


def test_parts_that_begin_no_call_are_dropped():
    """[7.41.5]: only the first message of a call says who is meant."""
    through = Through()
    relays = through.relays
    octets = b"\x01\x10" + _encoded(large(1))[0] + b"\x00\x02\x91\x01"
    assert relays.say(K, Part(1, 0, 500_000, (octets,))) == []
    assert relays.say(K, Part(1, 0, 500_000, (b"\xff" * 100,))) == []
    head = _encoded(request(2))
    octets = b"\x01\x10" + head[0] + b"\x01" + bytes((len(head[1]),)) + head[1]
    assert relays.say(K, Part(1, 0, 500_000, (octets,))) == []  # another call's id inside
    ((_, told),) = relays.say(K, Part(2, 0, 500_000, (octets.replace(b"\x00\x07", b"\x00\x06"),)))
    assert told.code == Code.WRONG_MEMBER
    relays.say(K, request(3))
    assert relays.say(K, Part(3, 0, 500_000, (octets,))) == []  # a call whose request came whole


def test_a_member_that_breaks_the_rules_loses_the_call():
    """[8.48]: nobody knows what became of it."""
    through = Through()
    relays = through.relays
    asked(through)
    assert relays.answer(b"M0", K, Part(1, 0, 500_000, (b"\xff" * 100,)))[0][1].code == Code.LOST
    asked(through, 2)
    told = relays.answer(b"M0", K, Part(2, 100, 500_000, (b"\xff" * 100,)))
    assert told[0][1].code == Code.LOST
    assert relays.rules.deadline is None


def test_a_request_too_large_for_the_member_is_refused_by_it():
    """[7.41.4]: at its first part; nothing has run."""
    through = Through()
    through.members[b"M0"]._limit = 1 << 20
    through.ask(K, request(payload=(bytes(LIMIT // 2),)))
    ((to, told),) = through.answered
    assert (to, told.code) == (K, Code.TOO_LARGE)
    assert through.relays.rules.deadline is None
    assert through.client(K).idle


def test_credit_that_makes_no_sense_gains_nothing():
    """A client that gives too much credit gets what has come."""
    through = Through(1, 1 << 30)
    member, one = asked(through)
    through.held = {K}
    through.reply(member, one, large(9 << 20))
    through.relays.say(K, Credit(1, 0, (1 << 64) - 1))
    through.relays.say(K, Credit(1, 0, 1))
    through.run()
    assert through.waiting(K) <= PEER_WINDOW + SLACK


def test_windows_check_their_parts():
    """The same, without the rules around it."""
    from spark_partition_server.core.windows import Flow, Peer

    flow = Flow(None, Peer(b"a"), Peer(b"b"), again=False)
    assert flow.opens
    with pytest.raises(RemoteProtocolError):
        flow.part(0, 10, 11)
    with pytest.raises(RemoteProtocolError, match="not granted"):
        flow.part(0, 1 << 20, FIRST_CREDIT + 1)
    assert flow.part(0, 10, 10)
    flow.check()
