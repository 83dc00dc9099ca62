"""The calls under way on one connection: each ends once, in its own answer, at its deadline, or with the connection."""

from __future__ import annotations

import math

import pytest

from spark_partition_server.core.inflight import Inflight


def test_an_answer_finds_its_call_once():
    """[8.31]: answers come in any order; the second answer to a call, and one to no call, belong to nobody."""
    calls = Inflight(10, 100)
    assert all(calls.begin(number, f"call {number}", 5.0) for number in (1, 2, 3))
    assert [calls.receive(number) for number in (3, 1, 3, 7, 1)] == ["call 3", "call 1", None, None, None]
    assert len(calls) == 1
    calls.check()


def test_a_call_that_was_cancelled_gets_no_answer():
    """Its slot and its octets are free at once, and a second cancel finds nothing."""
    calls = Inflight(1, 100)
    assert calls.begin(1, "one", 5.0, 100)
    assert not calls.begin(2, "two", 5.0)
    assert calls.cancel(1) == "one"
    assert calls.begin(2, "two", 5.0, 100)
    assert calls.cancel(1) is None
    assert calls.receive(1) is None
    calls.check()


def test_the_number_of_calls_is_bounded():
    """One more is refused, and the refusal changes nothing."""
    calls = Inflight(2, 100)
    assert calls.begin(1, "one", 9.0)
    assert calls.begin(2, "two", 9.0)
    assert not calls.begin(3, "three", 1.0, 5)
    assert (len(calls), calls.bytes, calls.deadline) == (2, 0, 9.0)
    assert calls.receive(3) is None
    calls.check()


def test_the_octets_of_the_requests_are_bounded():
    """Large requests cannot fill the memory; a request that is over the bound alone can be sent alone."""
    calls = Inflight(10, 100)
    assert calls.begin(1, "one", 9.0, 60)
    assert not calls.begin(2, "two", 9.0, 41)
    assert calls.begin(2, "two", 9.0, 40)
    assert calls.bytes == 100
    assert calls.receive(1)
    assert not calls.begin(3, "huge", 9.0, 1000)
    assert calls.receive(2)
    assert calls.begin(3, "huge", 9.0, 1000)
    assert not calls.begin(4, "small", 9.0, 1)
    calls.check()
    assert calls.receive(3)
    assert calls.bytes == 0


def test_calls_expire_at_their_deadline_and_not_before():
    """Those that are late, in the order in which they began; the others wait on."""
    calls = Inflight(10, 100)
    for number, deadline in enumerate([3.0, 1.0, 2.0, 2.0, math.inf]):
        assert calls.begin(number, number, deadline, 10)
    assert calls.deadline == 1.0
    assert calls.expired(0.999) == []
    assert calls.expired(2.0) == [1, 2, 3]
    assert calls.deadline == 3.0
    assert calls.receive(2) is None
    assert calls.expired(2.5) == []
    assert calls.expired(1e9) == [0]
    assert (len(calls), calls.bytes, calls.deadline) == (1, 10, math.inf)
    calls.check()


def test_a_deadline_of_a_call_that_is_over_costs_one_look():
    """Answered calls stay in ``deadline`` until it has come; then it moves on, and nobody expires."""
    calls = Inflight(10, 100)
    assert calls.begin(1, "one", 1.0)
    assert calls.begin(2, "two", 5.0)
    assert calls.receive(1)
    assert calls.expired(1.0) == []
    assert calls.deadline == 5.0


def test_a_lost_connection_ends_every_call():
    """Nobody waits for an answer that cannot come, and what comes late belongs to nobody."""
    calls = Inflight(10, 100)
    assert calls.begin(1, "one", 1.0, 7)
    assert calls.begin(2, "two", 5.0, 7)
    assert calls.lost() == ["one", "two"]
    assert calls.lost() == []
    assert (len(calls), calls.bytes, calls.deadline) == (0, 0, math.inf)
    assert calls.receive(1) is None
    calls.check()


def test_a_message_that_does_not_end_its_call_finds_it_too():
    """Items of a stream: found as often as they come, until the end."""
    calls = Inflight(10, 100)
    assert calls.begin(1, "stream", 1.0)
    assert calls.find(1) == "stream"
    assert calls.find(1) == "stream"
    assert calls.receive(1) == "stream"
    assert calls.find(1) is None


def test_a_stream_gets_a_new_deadline_for_each_item():
    """Later or earlier; the call stays what it is."""
    calls = Inflight(10, 100)
    assert calls.begin(1, "stream", 1.0, 5)
    calls.extend(1, 9.0)
    assert calls.expired(8.0) == []
    calls.check()
    calls.extend(1, 8.5)
    assert calls.deadline == 8.5
    calls.check()
    assert calls.expired(8.5) == ["stream"]


def test_one_call_can_always_be_made():
    """A bound of nothing would be a client that cannot call."""
    calls = Inflight(0, 0)
    assert calls.begin(1, "one", 1.0, 5)
    assert not calls.begin(2, "two", 1.0)
    calls.check()


def test_two_calls_with_one_number_are_our_own_mistake():
    """Their answers could not be told apart."""
    calls = Inflight(10, 100)
    assert calls.begin(1, "one", 1.0)
    with pytest.raises(AssertionError, match="call 1 is under way"):
        calls.begin(1, "two", 1.0)
