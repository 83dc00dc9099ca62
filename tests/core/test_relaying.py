"""Relayed calls: what the coordinator takes, passes on, and answers itself."""

from __future__ import annotations

import msgpack
import pytest
from support.relays import RUN, Relays, frames_of, read, request

from spark_partition_server.core import ledger, relaying
from spark_partition_server.core.effects import Forward
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import (
    Batch,
    Cancel,
    Credit,
    Error,
    Heartbeat,
    Items,
    Kind,
    Part,
    Refuse,
    Relay,
    Reply,
    Results,
    Stream,
)
from spark_partition_server.wire.relays import WHOLE_BYTES_MAX, WHOLE_FRAMES_MAX

K, L = b"\x00K", b"\x00L"  # two clients
REPLY = Reply(1, (b"\x01",))


@pytest.fixture
def relays() -> Relays:
    return Relays()


def error(told, to=K):
    """The one ERROR that was told, and nothing else."""
    ((where, message),) = told
    assert where == to
    assert isinstance(message, Error)
    return message


# --------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize(
    ("asking", "answers"),
    [
        (request(), [REPLY]),
        (request(), [Error(1, Code.HANDLER, "no")]),
        (Batch(1, "get", 5000, 0, 7, (b"\x90",)), [Results(1, (b"\x92\x90\x80",))]),
        (Stream(1, "get", 5000, 0, 7, 4, (b"\x90",)), [Items(1, 0, (b"\x90",)), Items(1, 1, (b"\x90",)), REPLY]),
    ],
)
def test_a_call_goes_to_its_member_and_every_answer_back(relays, asking, answers):
    """[8.40]: an answer that went elsewhere, or a call that stayed in the books, would be the end of the relay."""
    assert relays.say(K, asking) == [(b"M0<" + K, asking)]
    assert relays.rules.calls == 1
    for answer in answers:
        assert relays.answer(b"M0", K, answer) == [(K, answer)]
    assert relays.rules.calls == 0
    assert relays.rules.deadline is None


def test_frames_pass_as_they_are(relays):
    """[8.40]: the coordinator looks at the fields and at nothing else; a payload it cannot read is not its business."""
    frames = [*frames_of(request())[:2], b"\xc1 no msgpack", bytes(1000)]
    (passed,) = relays.rules.receive(K, frames, relays.now)
    assert list(passed.frames[2:]) == frames
    assert passed.frames[1] == msgpack.packb((K,))


def test_flags_of_a_later_version_do_not_matter(relays):
    """[6.9]: they are ignored here as everywhere."""
    preamble, *rest = frames_of(request())
    (passed,) = relays.rules.receive(K, [preamble[:5] + b"\x01\x02\x03" + preamble[8:], *rest], relays.now)
    assert passed.to == b"M0"


def test_what_is_not_relayed_is_left_to_others(relays):
    """The control plane goes on beside it."""
    for frames in (frames_of(Heartbeat(0, 7, 1)), frames_of(REPLY), [b"x"], [], [codec.preamble(Kind.REQUEST, RUN)]):
        assert relays.rules.receive(K, frames, relays.now) is None


def test_a_relay_is_taken_from_members_only(relays):
    """[8.41]: a client could answer the calls of others."""
    relays.say(K, request())
    frames = frames_of(Relay(K, tuple(frames_of(REPLY))))
    assert relays.rules.receive(L, frames, relays.now) is None
    assert relays.answer(b"M1", K, REPLY) == []  # a member, but not the one that was asked
    assert relays.rules.calls == 1
    assert relays.answer(b"M0", K, REPLY) == [(K, REPLY)]


@pytest.mark.parametrize(
    "late",
    [REPLY, Items(1, 0, (b"\x90",)), Refuse(Code.UNEXPECTED), Cancel(1), Credit(1, 0, 5), Part(1, 0, 9, (b"x",))],
)
def test_late_answers_go_nowhere(relays, late):
    """[8.42]: nobody waits for them."""
    assert relays.answer(b"M0", K, late) == []  # nothing at all is under way
    relays.say(K, request(2, 1))
    assert relays.answer(b"M0", K, late) == []
    relays.say(K, request(3, 0))
    assert relays.answer(b"M0", K, Cancel(3)) == []  # what no server says
    if not isinstance(late, Refuse):
        assert relays.answer(b"M0", K, late) == []


def test_a_refuse_goes_to_the_client_that_a_member_has_calls_of(relays):
    """It answers what cannot be answered by a call's id."""
    relays.say(K, request())
    assert relays.answer(b"M0", K, Refuse(Code.UNEXPECTED, "no")) == [(K, Refuse(Code.UNEXPECTED, "no"))]


@pytest.mark.parametrize(
    "frames",
    [
        [codec.preamble(Kind.REQUEST, RUN), b"\xc1"],
        [codec.preamble(Kind.REQUEST, RUN), msgpack.packb([1, "get", 5])],
        [codec.preamble(Kind.REQUEST, RUN), msgpack.packb([-1, "get", 5, 0, 7])],
        [codec.preamble(Kind.REQUEST, RUN), msgpack.packb([1, "get", 5, True, 7])],
        [codec.preamble(Kind.CANCEL, RUN), msgpack.packb([])],
        [codec.preamble(Kind.CANCEL, RUN), msgpack.packb(["x"])],
        [codec.preamble(Kind.CREDIT, RUN), msgpack.packb([9, "x"])],
        [codec.preamble(Kind.CREDIT, RUN), msgpack.packb([9, 0, -1])],
        [codec.preamble(Kind.PART, RUN), msgpack.packb([1, 2])],
    ],
)
def test_the_malformed_is_dropped(relays, frames):
    """[13.2]: without an answer, and nothing is kept of it."""
    relays.say(K, request(9))
    assert relays.say(K, frames) == []
    assert relays.rules.calls == 1


def test_a_call_id_twice_is_dropped(relays):
    """[8.43]: two answers to one id could not be told apart."""
    relays.say(K, request())
    assert relays.say(K, request()) == []
    assert relays.say(L, request()) != []  # another connection has ids of its own
    assert relays.rules.calls == 2


# ------------------------------------------------------------------------------------------ what is not taken


def test_nobody_serves_it(relays):
    """[8.44]: at once, and certain, so that the client looks again."""
    told = error(relays.say(K, request(5, rank=9)))
    assert (told.call_id, told.code) == (5, Code.UNAVAILABLE)


def test_another_incarnation_serves_it(relays):
    """[8.44]: the request is not for that one."""
    assert error(relays.say(K, request(5, incarnation=6))).code == Code.WRONG_MEMBER


def test_too_much_for_one_message(relays):
    """[8.45]: it is to come in parts; nothing of it is kept."""
    large = request(payload=(bytes(WHOLE_BYTES_MAX),))
    assert error(relays.say(K, large)).code == Code.TOO_LARGE
    frames = [*frames_of(request())[:2], *[b""] * (WHOLE_FRAMES_MAX - 1)]
    assert error(relays.say(K, frames)).code == Code.TOO_LARGE
    assert relays.rules.calls == 0
    fits = [*frames_of(request())[:2], *[b""] * (WHOLE_FRAMES_MAX - 2)]
    assert len(relays.say(K, fits)) == 1


def test_too_many_calls_of_one_member(relays, monkeypatch):
    """[8.46]: the next is turned away at once, with a hint when to come again; other members take theirs."""
    monkeypatch.setattr(ledger, "CALLS_PER_MEMBER", 2)
    relays.say(K, request(1))
    relays.say(L, request(1))
    told = error(relays.say(K, request(2)))
    assert (told.code, told.retry_ms) == (Code.OVERLOADED, relaying.RETRY_MS)
    assert relays.say(K, request(3, rank=1)) != []
    relays.answer(b"M0", K, REPLY)
    assert read(Forward(b"", [*frames_of(relays.say(K, request(2))[0][1])]))[1] == request(2)


def test_too_many_calls_of_one_client(relays, monkeypatch):
    """[8.46]: a client that floods takes no room from others."""
    monkeypatch.setattr(ledger, "CALLS_PER_CLIENT", 2)
    relays.say(K, request(1))
    relays.say(K, request(2, rank=1))
    assert error(relays.say(K, request(3))).code == Code.OVERLOADED
    assert relays.say(L, request(3)) != []


def test_too_many_octets_of_one_member(relays, monkeypatch):
    """[8.46]: what waits for a member that does not answer is bounded in octets too."""
    monkeypatch.setattr(ledger, "REQUEST_BYTES_PER_MEMBER", 100_000)
    assert relays.say(K, request(1, payload=(bytes(60_000),))) != []
    assert error(relays.say(K, request(2, payload=(bytes(60_000),)))).code == Code.OVERLOADED
    relays.answer(b"M0", K, REPLY)
    assert relays.say(K, request(3, payload=(bytes(60_000),))) != []


# --------------------------------------------------------------------------------------------- taking back


def test_a_call_taken_back_is_taken_back_from_the_member(relays):
    """[8.47]: and its answer goes nowhere."""
    relays.say(K, request())
    assert relays.say(K, Cancel(1)) == [(b"M0<" + K, Cancel(1))]
    assert relays.say(K, Cancel(1)) == []
    assert relays.answer(b"M0", K, REPLY) == []


def test_credit_for_items_goes_on_and_credit_for_parts_does_not(relays):
    """[8.50]: how many octets may come is the coordinator's to say."""
    relays.say(K, Stream(1, "get", 5000, 0, 7, 4, (b"\x90",)))
    assert relays.say(K, Credit(1, 8, 0)) == [(b"M0<" + K, Credit(1, 8, 0))]
    assert relays.say(K, Credit(1, 9, 1 << 30)) == [(b"M0<" + K, Credit(1, 9, 0))]
    assert relays.say(K, Credit(1, 0, 1 << 30)) == []
    assert relays.say(K, Credit(2, 9, 0)) == []
    assert relays.answer(b"M0", K, Credit(1, 0, 1 << 20)) == []  # for a request that came whole


# ---------------------------------------------------------------------------------------------- what is lost


def test_a_member_that_has_gone_has_lost_its_calls(relays):
    """[8.48]: every caller is told at once that nobody knows what became of its call."""
    relays.say(K, request(1))
    relays.say(L, request(2))
    relays.say(K, request(3, rank=1))
    assert relays.rules.look(relays.now) == []
    del relays.members.by_rank[0]
    told = [read(one) for one in relays.rules.look(relays.now)]
    assert [(to, one.call_id, one.code) for to, one in told] == [(K, 1, Code.LOST), (L, 2, Code.LOST)]
    assert relays.rules.calls == 1


def test_a_member_that_has_connected_anew_has_lost_its_calls(relays):
    """[8.48]: answers may have been on the old connection."""
    relays.say(K, request(1))
    relays.members.by_rank[0] = (7, b"M0 again")
    assert error(relays.tick(1.0)).code == Code.LOST
    assert relays.say(K, request(2)) == [(b"M0 again<" + K, request(2))]


def test_a_member_that_cannot_be_sent_to_has_gone(relays):
    """[8.44], [8.48]: the call that could not leave was certainly not run; those before it may have been."""
    relays.say(K, request(1))
    (unsent,) = relays.rules.receive(K, frames_of(request(2)), relays.now)
    told = [read(one) for one in relays.rules.unreachable(b"M0", unsent.frames)]
    assert [(one.call_id, one.code) for _, one in told] == [(2, Code.UNAVAILABLE), (1, Code.LOST)]
    relays.rules.check()
    assert relays.rules.unreachable(b"M0", unsent.frames) == []


def test_a_cancel_that_cannot_be_sent_changes_nothing_for_its_call(relays):
    """It is over already."""
    relays.say(K, request(1))
    (passed,) = relays.rules.receive(K, frames_of(Cancel(1)), relays.now)
    relays.say(K, request(2))
    told = [read(one) for one in relays.rules.unreachable(b"M0", passed.frames)]
    assert [(one.call_id, one.code) for _, one in told] == [(2, Code.LOST)]


def test_a_client_that_has_gone_takes_its_calls_back(relays):
    """[8.47]: nobody waits for them, and streams would go on for ever."""
    relays.say(K, request(1))
    relays.say(K, request(2, rank=1))
    relays.say(L, request(1))
    told = [read(one) for one in relays.rules.unreachable(K, frames_of(REPLY))]
    assert told == [(b"M0<" + K, Cancel(1)), (b"M1<" + K, Cancel(2))]
    assert relays.rules.calls == 1


def test_a_client_with_calls_is_looked_for_now_and_then(relays):
    """A connection that has gone is found by what cannot be sent to it; the probe means nothing to a client."""
    relays.say(K, Stream(1, "get", 5000, 0, 7, 4, (b"\x90",)))
    assert relays.tick(5.0) == []
    ((to, probe),) = relays.tick(5.0)
    assert (to, probe.call_id, probe.items) == (K, 1, 0)
    assert relays.tick(5.0) == []


def test_a_call_is_forgotten_when_nobody_waits_for_it_any_more(relays):
    """[8.47]: its client has given up by then; a stream has no such time."""
    relays.say(K, request(1, remaining_ms=3000))
    relays.say(K, Stream(2, "get", 3000, 0, 7, 4, (b"\x90",)))
    assert relays.tick(3.5) == []
    assert relays.tick(1.0) == [(b"M0<" + K, Cancel(1))]
    assert relays.tick(0.5) == []  # not yet time to look
    assert relays.rules.calls == 1


def test_a_member_to_whom_too_much_waits(relays):
    """[8.46]: what did not leave was not run; what had been said before may have been."""
    relays.say(K, Stream(1, "get", 5000, 0, 7, 4, (b"\x90",)))
    (credit,) = relays.rules.receive(K, frames_of(Credit(1, 9)), relays.now)
    told = [read(one) for one in relays.rules.full(b"M0", credit.frames, relays.now)]
    assert error(told).code == Code.LOST
    (unsent,) = relays.rules.receive(K, frames_of(request(2)), relays.now)
    assert error([read(one) for one in relays.rules.full(b"M0", unsent.frames, relays.now)]).code == Code.OVERLOADED
    relays.rules.check()


# ---------------------------------------------------------------------------- clients that do not read


def test_a_client_that_does_not_read_is_told_what_it_lost_once_it_does(relays):
    """[8.49]: libzmq has no more room for it. Its answer cannot be kept, but that it is lost can."""
    relays.say(K, request(1))
    relays.say(K, request(2))
    (answer,) = relays.rules.receive(b"M0", frames_of(Relay(K, tuple(frames_of(REPLY)))), relays.now)
    assert relays.rules.full(K, answer.frames, relays.now) == []  # answered: the member has nothing to take back
    relays.rules.check()
    assert error(relays.say(K, request(3))).code == Code.OVERLOADED  # before more is lost
    told = relays.tick(0.2)
    assert error(told).code == Code.LOST
    assert relays.say(K, request(3)) != []


def test_an_answer_that_is_not_the_last_is_lost_with_its_call(relays):
    """A stream with a hole is none: the server is told to stop."""
    relays.say(K, Stream(1, "get", 5000, 0, 7, 4, (b"\x90",)))
    items = Items(1, 0, (b"\x90",))
    (answer,) = relays.rules.receive(b"M0", frames_of(Relay(K, tuple(frames_of(items)))), relays.now)
    told = [read(one) for one in relays.rules.full(K, answer.frames, relays.now)]
    assert told == [(b"M0<" + K, Cancel(1))]


def test_what_still_cannot_be_told_is_told_later_but_not_for_ever(relays, monkeypatch):
    """A client that never reads again costs a bounded number of notes, for half a minute."""
    monkeypatch.setattr(relaying, "OWED_MAX", 2)
    for call_id in (1, 2, 3):
        relays.rules.full(K, frames_of(Reply(call_id, (b"\x01",))), relays.now)
    relays.rules.full(K, frames_of(Refuse(Code.UNEXPECTED)), relays.now)
    for _ in range(50):
        relays.now += 1.0
        told = relays.rules.tick(relays.now)
        for one in told:
            assert relays.rules.full(K, one.frames, relays.now) == []
        relays.rules.check()
        if not told:
            break
        assert {read(one)[1].call_id for one in told} == {1, 2}
    assert relays.now < 100.0 + relaying.STALL + 3
    assert relays.rules.deadline is None


@pytest.mark.parametrize("probed", [True, False])
def test_the_calls_of_a_client_that_never_reads_are_taken_back(relays, monkeypatch, probed):
    """They hold places at their servers."""
    monkeypatch.setattr(relaying, "PROBE_EVERY", 10.0 if probed else 1000.0)
    relays.say(K, Stream(1, "get", 5000, 0, 7, 4, (b"\x90",)))
    relays.rules.full(K, frames_of(Reply(9, (b"\x01",))), relays.now)
    cancelled = []
    for _ in range(40):
        relays.now += 1.0
        out = relays.rules.tick(relays.now)
        for one in out:
            out += relays.rules.full(K, one.frames, relays.now) if one.to == K else []
        cancelled += [read(one) for one in out if one.to != K]
    assert cancelled == [(b"M0<" + K, Cancel(1))]
    assert relays.rules.calls == 0
