"""The book of a server's calls: turns are fair, nothing is counted twice, and who cannot be served in time is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.core.load import FAST, SAFETY, Load, State, Ticket


class Book:
    """A book whose holds are kept, checked after every step."""

    def __init__(self, calls_max=100, octets_max=10_000, calls_held=50, workers=1):
        self.holds = []
        self.load = Load(calls_max, octets_max, calls_held, lambda *word: self.holds.append(word), workers)
        self.blocked = set()

    def enter(self, caller, call_id, octets=1, running=False):
        ticket = Ticket(caller, call_id, octets)
        self.load.enter(ticket, running)
        self.load.check()
        return ticket

    def take(self, now=0.0):
        ticket = self.load.take(self.blocked.__contains__, now)
        self.load.check()
        return ticket

    def finish(self, ticket, now=0.0):
        owed = self.load.finish(ticket, now)
        self.load.check()
        return owed


def names(tickets):
    return [ticket and (ticket.caller, ticket.call_id) for ticket in tickets]


# ----------------------------------------------------------------------------------------------- turns


def test_callers_take_turns_and_each_keeps_its_order():
    """Whoever floods waits behind himself."""
    book = Book()
    for number in range(3):
        book.enter("a", number)
    book.enter("b", 0)
    assert names(book.take() for _ in range(5)) == [("a", 0), ("b", 0), ("a", 1), ("a", 2), None]


def test_a_blocked_caller_loses_its_turn_and_keeps_its_place():
    """It does not read; others go on."""
    book = Book()
    for caller, number in (("a", 0), ("a", 1), ("b", 0)):
        book.enter(caller, number)
    book.blocked = {"a"}
    assert names([book.take(), book.take()]) == [("b", 0), None]
    book.blocked = set()
    assert names([book.take(), book.take()]) == [("a", 0), ("a", 1)]


def test_a_call_of_several_turns_goes_behind_those_that_wait():
    """A long one holds nobody up for longer than its slice."""
    book = Book()
    long, short = book.enter("a", 1), book.enter("b", 1)
    assert book.take() is long
    assert book.load.again(long)
    assert book.load.again(long), "once is enough"
    assert [book.take(), book.take(), book.take()] == [short, long, None]


def test_a_parked_call_has_no_turn_until_it_wants_one():
    """It waits for something else, credit for instance."""
    book = Book()
    ticket = book.enter("a", 1)
    book.take()
    assert book.load.park(ticket, 5.0)
    assert book.load.parked(5.0) == []
    assert book.load.parked(5.1) == [ticket]
    book.load.check()
    assert book.take() is None
    assert book.load.again(ticket)
    book.load.check()
    assert book.take() is ticket


def test_a_call_that_is_over_gets_no_turn_and_no_parking():
    """It was taken back while it ran."""
    book = Book()
    for number, step in enumerate((book.load.again, lambda it: book.load.park(it, 0.0), book.finish)):
        ticket = book.enter("a", number)
        book.take()
        assert book.load.cancel("a", number) == (ticket, State.RUNNING)
        assert not step(ticket)
        assert ticket.state is State.OVER
        book.load.check()


def test_a_parked_call_that_runs_elsewhere_goes_on_without_a_turn():
    """A coroutine: it has no place in the queue, but it counts."""
    book = Book(calls_held=1)
    ticket = book.enter("a", 1, running=True)
    assert book.holds == [("a", True)]
    book.load.park(ticket, 5.0)
    assert book.load.idle == 1
    assert book.holds[1:] == [("a", False)]
    assert book.load.resume(ticket)
    book.load.check()
    assert (book.load.idle, book.take()) == (0, None)
    assert book.holds[2:] == [("a", True)]
    assert book.load.finish(ticket, 100.0, measured=False)
    assert book.load.interval == 0.0, "how long it ran tells nobody how long he waits"
    assert not book.load.resume(ticket)


# ------------------------------------------------------------------------------------------ taking back


@pytest.mark.parametrize("state", [State.WAITING, State.RUNNING, State.PARKED])
def test_a_call_can_be_taken_back_wherever_it_is(state):
    """Its slot and its octets are free at once; its id may be used again."""
    book = Book()
    ticket = book.enter("a", 1, 500)
    if state is not State.WAITING:
        book.take()
    if state is State.PARKED:
        book.load.park(ticket, 0.0)
    assert book.load.find("a", 1) is ticket
    assert book.load.cancel("a", 1) == (ticket, state)
    book.load.check()
    assert (book.load.calls, book.load.octets, book.load.find("a", 1)) == (0, 0, None)
    assert book.load.cancel("a", 1) is None
    book.enter("a", 1)
    assert book.load.cancel("a", 2) is None


def test_a_caller_that_goes_takes_all_its_calls_with_it():
    """And nobody else's."""
    book = Book()
    one, two, other = book.enter("a", 1), book.enter("a", 2), book.enter("b", 1)
    assert book.take() is one
    assert sorted(book.load.everybody()) == ["a", "b"]
    assert book.load.leave("a") == [(one, State.RUNNING), (two, State.WAITING)]
    assert book.load.leave("a") == []
    book.load.check()
    assert book.take() is other
    assert not book.finish(one)
    assert book.finish(other)


# --------------------------------------------------------------------------------------- being turned away


def test_calls_and_their_octets_are_bounded():
    """One call may be as large as it likes where there is no other."""
    book = Book(calls_max=3, octets_max=100)
    assert book.load.refusal(5000, 1.0) is None
    book.enter("a", 1, 60)
    assert book.load.refusal(40, 1.0) is None
    assert book.load.refusal(41, 1.0) is not None
    book.enter("a", 2)
    assert not book.load.full
    book.enter("a", 3, running=True)
    assert book.load.full
    assert book.load.refusal(0, 1.0) is not None


def test_a_call_that_cannot_be_answered_in_time_is_turned_away():
    """It would be run for nobody. The hint is when the queue will be short enough."""
    book = Book()
    book.load.interval = 0.1
    assert book.load.refusal(1, 0.0) is None, "nobody waits, so it need not wait"
    for number in range(6):
        assert book.load.refusal(1, 1.0) is None
        book.enter("a", number)
    book.enter("a", 6)
    assert book.load.refusal(1, 1.0) == pytest.approx(0.8 - SAFETY)
    assert book.load.refusal(1, 2.0) is None


def test_the_newest_call_of_the_greediest_makes_room():
    """But not for one that has as many itself."""
    book = Book(calls_max=4)
    assert book.load.crowd("b") is None
    tickets = [book.enter("a", number) for number in range(3)]
    book.enter("b", 0)
    assert book.load.crowd("a") is None
    assert book.load.crowd("b") is tickets[2]
    book.load.check()
    assert book.load.crowd("b") is None
    assert book.load.crowd("c") is tickets[1]


def test_calls_that_have_their_turn_are_not_crowded_out():
    """Only what waits can be told that it did not happen."""
    book = Book(calls_max=3)
    for number in range(3):
        book.enter("a", number, running=True)
    assert book.load.crowd("b") is None


def test_a_caller_with_many_calls_is_held_until_half_of_them_are_over():
    """Parked ones aside: they may be many, and they wait for messages of that very caller."""
    book = Book(calls_held=4)
    tickets = [book.enter("a", number) for number in range(4)]
    assert book.holds == [("a", True)]
    book.enter("b", 1)
    for _ in range(2):
        book.finish(book.take())
        book.load.cancel("b", 1)
    book.finish(book.take())
    assert book.holds == [("a", True), ("a", False)]
    more = [book.enter("a", number) for number in (10, 11, 12)]
    assert book.holds[2:] == [("a", True)]
    for ticket in (tickets[3], *more):
        assert book.take() is ticket
        book.load.park(ticket, 0.0)
    assert book.holds[2:] == [("a", True), ("a", False)]
    for ticket in more:
        book.load.cancel("a", ticket.call_id)
    book.load.again(tickets[3])
    book.load.check()


def test_nobody_is_held_while_calls_are_slow():
    """What TCP holds back would wait for longer than anybody knows; read, it is turned away in time."""
    book = Book(calls_held=4)
    book.load.interval = 10 * FAST
    for number in range(6):
        book.enter("a", number)
    assert book.holds == []
    book.load.interval = FAST / 2
    book.enter("a", 6)
    assert book.holds == [("a", True)]
    book.load.interval = 10 * FAST
    book.load.cancel("a", 6)
    assert book.holds == [("a", True), ("a", False)]


def test_the_more_callers_there_are_the_sooner_each_is_held():
    """Together they are not to fill the book, or the next one would be turned away."""
    book = Book(calls_max=120, calls_held=50)
    for caller in range(3):
        for number in range(15):
            book.enter(caller, number)
    assert book.holds == []
    book.enter(3, 0)
    book.enter(0, 15)
    assert book.holds == [(0, True)], "an eighth of the book"


# ----------------------------------------------------------------------------------------- the interval


def test_the_interval_is_the_time_between_two_ends_while_others_wait():
    """What a place in the queue costs, all overheads included."""
    book = Book()
    for number in range(4):
        book.enter("a", number)
    book.finish(book.take(10.0), 10.5)
    assert book.load.interval == 0.5
    book.finish(book.take(11.0), 11.5)
    assert 0.5 < book.load.interval < 1.0
    before = book.load.interval
    book.finish(book.take(11.5), 11.5)
    assert 0 < book.load.interval < before


def test_a_call_that_nobody_waited_behind_counts_by_its_own_time():
    """Shared by the workers: the next could have begun beside it."""
    book = Book(workers=4)
    for number in range(2):
        ticket = book.enter("a", number)
        assert book.take(100.0 * number) is ticket
        book.finish(ticket, 100.0 * number + 2.0)
    assert book.load.interval == 0.5


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(0, 9)), max_size=150))
def test_whatever_happens_the_book_agrees_with_itself(steps):
    """Every call that enters is over exactly once; what is held is released."""
    book, running, entered, over = Book(calls_max=12, calls_held=4), [], 0, 0
    for step, caller, number in steps:
        if step <= 2 and book.load.find(caller, number) is None and not book.load.full:
            ticket = book.enter(caller, number, number)
            entered += 1
        elif step == 3:
            running += filter(None, [book.take()])
        elif step == 4 and running:
            over += book.finish(running.pop(number % len(running)))
        elif step == 5:
            over += book.load.cancel(caller, number) is not None
        elif step == 6 and running:
            ticket = running.pop(number % len(running))
            book.load.again(ticket) if number % 2 else book.load.park(ticket, 0.0)
        elif step == 7:
            over += len(book.load.leave(caller)) if number == 0 else book.load.crowd(caller) is not None
        book.load.check()
        assert entered - over == book.load.calls
    for caller in book.load.everybody():
        book.load.leave(caller)
    book.load.check()
    assert book.load.calls == 0
    held = {}
    for caller, word in book.holds:
        assert held.get(caller, False) is not word
        held[caller] = word
    assert not any(held.values())
