"""A member's side of the relay: RELAYs unwrapped, answers wrapped, nothing kept of what is over."""

from __future__ import annotations

import msgpack
import pytest
from support.relays import LIMIT, RUN, frames_of, read, request

from spark_partition_server.core.relayed import Relayed
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import (
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
    Stream,
)

K = b"\x00K"


@pytest.fixture
def relayed() -> Relayed:
    return Relayed(RUN, LIMIT)


def come(relayed, message):
    taken = relayed.receive(frames_of(Relay(K, tuple(frames_of(message)))))
    assert taken is not None
    relayed.check()
    return taken


def test_a_call_and_its_answer(relayed):
    """[8.40]: the answer goes where the call came from."""
    asked, out = come(relayed, request())
    assert codec.decode(asked.frames, RUN) == request()
    assert out == []
    (answer,) = relayed.answer(asked.route, frames_of(Reply(1, (b"\x01",))))
    assert read(answer) == (b"<" + K, Reply(1, (b"\x01",)))
    relayed.check()
    assert not relayed._routes
    assert relayed.answer(asked.route, frames_of(Reply(1, (b"\x01",)))) == []  # once


def test_calls_of_one_route_have_one_route(relayed):
    """Servers know their callers by identity."""
    first, _ = come(relayed, request(1))
    second, _ = come(relayed, request(2))
    assert first.route is second.route is relayed.route([b"", first.route.name])
    assert relayed.route([b""]) is None
    relayed.answer(first.route, frames_of(Reply(1, (b"\x01",))))
    third, _ = come(relayed, request(3))
    assert third.route is first.route


def test_answers_that_are_not_the_last(relayed):
    """[8.40]: a stream has many."""
    asked, _ = come(relayed, Stream(1, "get", 5000, 0, 7, 4, (b"\x90",)))
    assert len(relayed.answer(asked.route, frames_of(Items(1, 0, (b"\x90",))))) == 1
    credit, out = come(relayed, Credit(1, 8))
    assert (codec.decode(credit.frames, RUN), out) == (Credit(1, 8), [])
    assert len(relayed.answer(asked.route, frames_of(Refuse(Code.UNEXPECTED)))) == 1
    assert len(relayed.answer(asked.route, frames_of(Error(1, Code.HANDLER)))) == 1
    assert not relayed._routes


def test_a_call_taken_back_is_answered_no_more(relayed):
    """[8.47]: the server hears of it, and what it still says goes nowhere."""
    asked, _ = come(relayed, request())
    cancel, _ = come(relayed, Cancel(1))
    assert codec.decode(cancel.frames, RUN) == Cancel(1)
    assert not relayed._routes
    assert relayed.answer(asked.route, frames_of(Reply(1, (b"\x01",)))) == []


def test_what_is_no_relay_is_left_to_the_session(relayed):
    """A heartbeat's echo is not taken for a client's message, and a RELAY of nonsense goes to nobody."""
    assert relayed.receive(frames_of(Heartbeat(0, 7, 1))) is None
    assert relayed.receive([codec.preamble(Kind.RELAY, RUN), b"x", b"y"]) == (None, [])


def test_the_malformed_is_dropped(relayed):
    """[13.2]: whatever is inside."""
    bad = [codec.preamble(Kind.PART, RUN), b"\xc1", b"x"]
    assert relayed.receive([codec.preamble(Kind.RELAY, RUN), msgpack.packb((K,)), *bad]) == (None, [])
    request_without = [codec.preamble(Kind.REQUEST, RUN), b"\xc1"]
    assert relayed.receive([codec.preamble(Kind.RELAY, RUN), msgpack.packb((K,)), *request_without]) == (None, [])
    strange = [b"short", b"x"]
    asked, _ = relayed.receive([codec.preamble(Kind.RELAY, RUN), msgpack.packb((K,)), *strange])
    assert asked.frames == strange  # the server says what it thinks of it
    relayed.check()
    assert not relayed._routes


def test_a_part_that_does_not_fit_ends_its_call(relayed):
    """[7.41.4]: told at once; nothing has run, and nothing is kept."""
    asked, out = come(relayed, Part(1, 0, LIMIT + 1, (b"x",)))
    assert asked is None
    ((to, told),) = [read(one) for one in out]
    assert (to, told.call_id, told.code) == (b"<" + K, 1, Code.TOO_LARGE)
    assert not relayed._routes
