"""Which message is answered how, at once or in its turn; what is taken back; who is turned away."""

from __future__ import annotations

import pytest
from support.answers import INCARNATION, LONG_MS, RANK, RUN_ID, Asked, Served, busy_server, value_of

from spark_partition_server.net.clock import monotonic
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import CODES, Code
from spark_partition_server.wire.messages import Batch, Cancel, Error, Kind, Refuse, Request, Stream


def echo(value=None):
    return value


def test_a_request_is_answered_at_once_while_nothing_waits():
    """The fast path: nothing is entered anywhere."""
    served, caller = Served({"echo": echo}), Asked()
    for number in range(10):
        served.call(caller, number, "echo", number)
    assert caller.results() == {number: number for number in range(10)}
    assert not served.answering.busy()


def test_after_a_millisecond_of_work_requests_wait_until_the_sockets_have_been_looked_at(monkeypatch):
    """[8.20] 4: time allowed is counted from when a request was read, so it has to be read."""
    with busy_server(monkeypatch, {"echo": echo}) as served:
        caller = Asked()
        served.call(caller, 1, "echo", 1)
        assert caller.sent == []
        served.work()
        assert caller.results() == {1: 1}
        served.call(caller, 2, "echo", 2)
        assert caller.results() == {1: 1, 2: 2}


def test_what_waited_too_long_is_dropped_before_it_runs(monkeypatch):
    """[8.20] 4: at its turn, a definite TIMEOUT; the next in the queue is run."""
    ran = []
    with busy_server(monkeypatch, {"note": ran.append}) as served:
        caller = Asked()
        served.call(caller, 1, "note", "late", ms=50)
        served.call(caller, 2, "note", "good")
        job = served.answering.desk.load.find(caller, 1)
        job.received -= 0.2
        served.work()
        assert ran == ["good"]
        assert caller.results() == {1: Code.TIMEOUT, 2: None}


@pytest.mark.parametrize("kind", [Request, Batch])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rank": RANK + 1}, Code.WRONG_MEMBER),
        ({"incarnation": INCARNATION + 1}, Code.WRONG_MEMBER),
        ({"method": "none"}, Code.UNIMPLEMENTED),
        ({"method": "scan"}, Code.INVALID_ARGUMENT),
        ({"remaining_ms": 0}, Code.TIMEOUT),
        ({"payload": (b"\xc1",)}, Code.INVALID_ARGUMENT),
        ({"payload": (b"\xc0",)}, Code.INVALID_ARGUMENT),
    ],
)
def test_what_is_refused_is_refused_for_its_first_reason(kind, changes, code):
    """[8.20]: the same order for a BATCH."""
    served, caller = Served({"echo": echo}, {"scan": iter}), Asked()
    good = {"call_id": 5, "method": "echo", "remaining_ms": LONG_MS, "rank": RANK, "incarnation": INCARNATION}
    served.tell(kind(**{**good, "payload": (b"\x92\x90\x80",), **changes}), caller, monotonic() - 0.01)
    served.work()
    (answer,) = caller.sent
    assert isinstance(answer, Error)
    assert (answer.call_id, answer.code) == (5, code)
    assert CODES[code].definite


OTHERS = [kind for kind in Kind if kind.name not in ("REQUEST", "CANCEL", "BATCH", "STREAM", "CREDIT")]


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.name)
def test_a_kind_that_no_server_takes_is_refused(kind):
    """[13.1]: before its frames are counted or its fields are looked at."""
    served, caller = Served({"echo": echo}), Asked()
    answer = served.answering.answer([codec.preamble(kind, RUN_ID)], 0.0, caller)
    message = codec.decode(answer, RUN_ID)
    assert message == Refuse(Code.UNEXPECTED, f"a server takes no {kind.name}")


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.BATCH, Kind.CANCEL], ids=lambda kind: kind.name)
@pytest.mark.parametrize("fields", [None, b"\xc1", b"\x90", b"\x91\xa1x", b"\x81\x01\x02"], ids=repr)
def test_malformed_messages_get_silence(kind, fields):
    """[13.2]: for every kind that is taken."""
    served, caller = Served({"echo": echo}), Asked()
    frames = [codec.preamble(kind, RUN_ID), *([fields] if fields else [])]
    assert served.answering.answer(frames, 0.0, caller) is None
    assert served.answering.answer([*frames, b"\xc0"], 0.0, caller) is None


# ------------------------------------------------------------------------------------------- taking back


def test_a_call_that_is_cancelled_while_it_waits_is_not_run_and_not_answered(monkeypatch):
    """[8.24]: a request and a batch; the others keep their turns."""
    ran = []
    with busy_server(monkeypatch, {"note": ran.append}) as served:
        caller = Asked()
        served.call(caller, 1, "note", 1)
        served.call(caller, 2, "note", 2)
        served.batch(caller, 3, "note", [[3], [3]])
        served.call(caller, 4, "note", 4)
        for number in (1, 3):
            served.cancel(caller, number)
        served.work()
        assert ran == [2, 4]
        assert set(caller.results()) == {2, 4}


def test_a_batch_that_is_cancelled_between_two_runs_makes_no_more(monkeypatch):
    """[8.24]: from inside one of its runs, as another connection's message would be read between two slices."""
    ran = []
    with busy_server(monkeypatch, {"note": ran.append}) as served:
        caller = Asked()
        served.batch(caller, 1, "note", [[number] for number in range(100)])
        served.answering.desk.turn(served.answering._replies, 0.0)
        served.cancel(caller, 1)
        served.work()
        assert ran == [0]
        assert caller.sent == []


def test_a_cancel_for_a_call_of_somebody_else_means_nothing(monkeypatch):
    """[8.24]: call ids belong to their connections."""
    with busy_server(monkeypatch, {"echo": echo}) as served:
        one, two = Asked(), Asked()
        served.call(one, 1, "echo", "one")
        served.cancel(two, 1)
        served.cancel(one, 2)
        served.work()
        assert one.results() == {1: "one"}
        assert two.sent == []


def test_the_calls_of_a_connection_that_has_ended_are_dropped(monkeypatch):
    """[8.22]: what waited is not run; others are."""
    ran = []
    with busy_server(monkeypatch, {"note": ran.append}) as served:
        one, two = Asked(), Asked()
        for number in range(5):
            served.call(one, number, "note", "one")
        served.call(two, 1, "note", "two")
        served.answering.gone(one)
        served.work()
        assert ran == ["two"]
        assert one.sent == []


def test_a_call_id_that_is_used_twice_is_the_later_call(monkeypatch):
    """The server cannot tell them apart either: the older one is taken for cancelled."""
    with busy_server(monkeypatch, {"echo": echo}) as served:
        caller = Asked()
        served.call(caller, 1, "echo", "old")
        served.call(caller, 1, "echo", "new")
        served.work()
        assert [value_of(one) for one in caller.sent] == ["new"]


# ---------------------------------------------------------------------------------------- being turned away


def test_one_call_too_many_is_turned_away_at_once(monkeypatch):
    """[8.25], [8.20] 5: definite, with a hint; the others are served."""
    with busy_server(monkeypatch, {"echo": echo}, calls_max=4) as served:
        callers = [Asked() for _ in range(5)]
        for caller in callers:
            served.call(caller, 1, "echo", 1)
        (answer,) = callers[4].sent
        assert answer.code == Code.OVERLOADED
        assert CODES[Code.OVERLOADED].definite
        assert answer.retry_ms > 0
        served.work()
        assert [caller.results() for caller in callers[:4]] == [{1: 1}] * 4
        served.call(callers[4], 2, "echo", 2)
        assert callers[4].results()[2] == 2


def test_a_flood_is_turned_away_before_a_newcomer_is(monkeypatch):
    """[8.25]: the newest call of the one that floods makes room for the first of another."""
    with busy_server(monkeypatch, {"echo": echo}, calls_max=8) as served:
        flood, newcomer = Asked(), Asked()
        for number in range(10):
            served.call(flood, number, "echo", number)
        assert flood.results() == {8: Code.OVERLOADED, 9: Code.OVERLOADED}
        served.call(newcomer, 1, "echo", 1)
        assert newcomer.sent == []
        assert flood.results() == dict.fromkeys((7, 8, 9), Code.OVERLOADED)
        served.work()
        assert newcomer.results() == {1: 1}


def test_connections_take_turns(monkeypatch):
    """[8.25]: the one that sent a hundred requests in one piece waits behind itself."""
    order = []
    with busy_server(monkeypatch, {"note": order.append}) as served:
        one, two, three = Asked(), Asked(), Asked()
        for number in range(100):
            served.call(one, number, "note", "one")
        for number in range(3):
            served.call(two, number, "note", "two")
        served.call(three, 1, "note", "three")
        served.work()
        assert order[:7] == ["one", "two", "three", "one", "two", "one", "two"]
        assert order[7:] == ["one"] * 97


def test_a_connection_with_many_calls_that_wait_is_not_read_from(monkeypatch):
    """[8.25]: TCP holds the rest of the flood back, until half of them are over."""
    with busy_server(monkeypatch, {"echo": echo}, connection_calls_max=10) as served:
        caller = Asked()
        for number in range(9):
            served.call(caller, number, "echo")
        assert caller.holds == []
        served.call(caller, 9, "echo")
        assert caller.holds == [True]
        for turn in range(10):
            assert caller.holds == [True] + [False] * (turn > 4)
            served.answering.desk.turn(served.answering._replies, 0.0)
        assert len(caller.sent) == 10


def test_nothing_is_run_for_a_caller_that_does_not_read(monkeypatch):
    """[8.25]: its calls wait for it; those of others do not."""
    with busy_server(monkeypatch, {"echo": echo}) as served:
        stuck, other = Asked(), Asked()
        stuck.stuck = True
        served.call(stuck, 1, "echo", 1)
        served.call(other, 1, "echo", 1)
        served.work()
        assert stuck.sent == []
        assert other.results() == {1: 1}
        assert served.answering.work() is None
        stuck.stuck = False
        served.work()
        assert stuck.results() == {1: 1}


def test_the_state_of_a_server_is_told_while_it_turns_others_away(monkeypatch):
    """[8.26]: whoever looks why it is overloaded must get an answer."""
    with busy_server(monkeypatch, {"echo": echo}, calls_max=1) as served:
        one, two = Asked(), Asked()
        served.call(one, 1, "echo")
        served.call(two, 1, "echo")
        served.call(two, 2, "sps.status")
        status = two.results()[2]
        assert two.results()[1] == Code.OVERLOADED
        assert (status["queued"], status["in_flight"], status["errors"], status["calls"]) == (1, 0, 1, 1)


def test_reserved_methods_are_not_listed_among_the_users():
    """[8.26]: "there are: " names what the server's author has written."""
    served, caller = Served({"echo": echo}), Asked()
    served.call(caller, 1, "sps.nothing")
    assert caller.sent == [Error(1, Code.UNIMPLEMENTED, "no such method; there are: echo (those marked @method)")]


def test_a_cancel_is_never_answered():
    """[8.24]: not even one that comes too late."""
    served, caller = Served({"echo": echo}), Asked()
    served.call(caller, 1, "echo", 1)
    served.tell(Cancel(1), caller)
    assert caller.results() == {1: 1}


def test_what_is_read_together_is_answered_but_for_what_is_taken_back_in_it():
    """[8.24]: calls of all three kinds; whatever else is there, even if it makes no sense, is left to be answered."""
    served = Served({})
    run = [bytes(frame) for frame in codec.encode(Request(1, "a", 1, RANK, INCARNATION, (b"\x90",)), RUN_ID)]
    batch = [bytes(frame) for frame in codec.encode(Batch(2, "a", 1, RANK, INCARNATION, (b"\x90",)), RUN_ID)]
    stream = [bytes(frame) for frame in codec.encode(Stream(3, "a", 1, RANK, INCARNATION, 0, (b"\x90",)), RUN_ID)]
    odd = [[b""], [b"x"], [b"", *run], [memoryview(bytes(1000))], run[:1], [run[0], b"\x90"], [run[0], b"\x91\x90"]]
    cancels = [[bytes(frame) for frame in codec.encode(Cancel(number), RUN_ID)] for number in (1, 2, 3)]
    assert served.answering.sift([run, batch, *odd, stream]) == [run, batch, *odd, stream]
    together = [run, stream, batch, *odd, run, *cancels, batch]
    assert served.answering.sift(together) == [*odd, *cancels, batch]
    extended = [*cancels[0], b"a payload, which a CANCEL has not"]
    assert served.answering.sift([run, extended]) == [run, extended]
