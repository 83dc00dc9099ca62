"""``async def`` methods: all at once, cancelled when nobody waits any more, and gone with their server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading

import pytest
from support.answers import Asked, Served, value_of
from support.wait import until, wait_until

from spark_partition_server.serving import answering as answering_module
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Items

LONG = 20.0


class Slow:
    """Coroutines that wait at a gate."""

    def __init__(self):
        self.open = False
        self.entered = 0
        self.cancelled = []
        self.closed = 0

    async def wait(self, value):
        self.entered += 1
        try:
            await until(lambda: self.open, LONG)
        except asyncio.CancelledError:
            self.cancelled.append(value)
            raise
        return value

    async def fail(self):
        await asyncio.sleep(0)
        raise ValueError("enough")

    async def cancels_itself(self):
        raise asyncio.CancelledError("me")

    async def count(self, last, pause=None):
        try:
            for number in range(last):
                if pause is not None and number >= pause:
                    await self.wait(number)
                yield number
        finally:
            await asyncio.sleep(0)
            self.closed += 1

    async def breaks(self):
        yield 1
        yield {2}

    async def deaf(self):
        self.entered += 1
        while not self.open:
            with contextlib.suppress(asyncio.CancelledError):
                await until(lambda: self.open, LONG)


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def served(slow):
    plain = {name: getattr(slow, name) for name in ("wait", "fail", "cancels_itself")}
    streams = {name: getattr(slow, name) for name in ("count", "breaks")}
    here = {**plain, "here": lambda: threading.current_thread().name}
    made = Served(here, streams, coroutines=[*plain, *streams], calls_max=100, stream_timeout=0.3)
    made.answering.open()
    yield made
    made.answering.close()
    made.answering.desk.load.check()
    assert made.answering.desk.load.calls == 0


def test_as_many_as_there_are_run_at_once(served, slow):
    """None waits for another; plain methods go on in the thread that serves."""
    caller = Asked()
    for number in range(50):
        served.call(caller, number, "wait", number)
    wait_until(lambda: slow.entered == 50, LONG)
    served.call(caller, 99, "here")
    assert caller.results() == {99: threading.current_thread().name}
    slow.open = True
    wait_until(lambda: len(caller.sent) == 51, LONG)
    assert {number: number for number in range(50)}.items() <= caller.results().items()


def test_what_a_coroutine_raises_is_its_callers_error(served):
    """A CancelledError of its own, too: nobody has cancelled the call."""
    caller = Asked()
    served.call(caller, 1, "fail")
    served.call(caller, 2, "cancels_itself")
    served.call(caller, 3, "wait")
    wait_until(lambda: len(caller.sent) == 3, LONG)
    assert caller.results() == {1: Code.HANDLER, 2: Code.HANDLER, 3: Code.INVALID_ARGUMENT}


def test_a_coroutine_whose_time_is_over_is_cancelled(served, slow):
    """Its answer is not definite: it had begun."""
    caller = Asked()
    served.call(caller, 1, "wait", 1, ms=50)
    served.call(caller, 2, "wait", 2)
    wait_until(lambda: caller.sent, LONG)
    assert slow.cancelled == [1]
    assert caller.results() == {1: Code.CANCELLED}
    assert "after 50 ms" in caller.sent[0].text


def test_a_coroutine_that_is_taken_back_is_cancelled(served, slow):
    """[8.24]: by its caller, and by the end of its connection; nobody is told."""
    one, two = Asked(), Asked()
    served.call(one, 1, "wait", 1)
    served.call(two, 1, "wait", 2)
    wait_until(lambda: slow.entered == 2, LONG)
    served.cancel(one, 1)
    served.answering.gone(two)
    wait_until(lambda: sorted(slow.cancelled) == [1, 2], LONG)
    assert not served.answering.busy()
    assert one.sent == two.sent == []


def test_a_batch_awaits_one_run_after_the_other(served, slow):
    """[8.23]: in order; what fails fails by itself."""
    caller = Asked()
    served.batch(caller, 1, "wait", [[1], [], [3]])
    wait_until(lambda: slow.entered == 1, LONG)
    slow.open = True
    wait_until(lambda: caller.sent, LONG)
    results, failures = value_of(caller.sent[0])
    assert results == [1, None, 3]
    assert [failure[:2] for failure in failures] == [[1, Code.INVALID_ARGUMENT]]
    served.batch(caller, 2, "wait", 1)
    wait_until(lambda: len(caller.sent) == 2, LONG)
    assert caller.sent[1].code == Code.INVALID_ARGUMENT


def test_a_batch_that_is_taken_back_ends_in_the_middle_of_a_run(served, slow):
    """[8.24]: and one whose time is over."""
    caller = Asked()
    served.batch(caller, 1, "wait", [[1], [2]])
    served.batch(caller, 2, "wait", [[3], [4]], ms=50)
    wait_until(lambda: slow.entered == 2, LONG)
    served.cancel(caller, 1)
    wait_until(lambda: sorted(slow.cancelled) == [1, 3], LONG)
    wait_until(lambda: caller.sent, LONG)
    assert caller.results() == {2: Code.CANCELLED}


def test_too_many_at_once_are_turned_away(served, slow):
    """[8.25]: they wait on the loop instead of in a queue, but they are bounded all the same."""
    caller = Asked()
    for number in range(101):
        served.call(caller, number, "wait", number)
    assert caller.results() == {100: Code.OVERLOADED}


# --------------------------------------------------------------------------------------------- streams


def test_an_asynchronous_generator_goes_as_far_as_its_credit(served, slow):
    """[8.27]: and tells its end."""
    caller = Asked()
    served.stream(caller, 5, "count", 1000)
    for total in (0, 1, 64, 300, 1001):
        served.credit(caller, 5, total)
        wait_until(lambda total=total: len(served.items(caller, 5)) == min(total, 1000), LONG)
    wait_until(lambda: slow.closed == 1, LONG)
    assert served.items(caller, 5) == list(range(1000))
    wait_until(lambda: not served.answering.busy(), LONG)
    assert value_of(caller.sent[-1]) is None
    assert len([one for one in caller.sent if isinstance(one, Items)]) < 40


def test_items_do_not_wait_for_the_one_that_takes_its_time(served, slow):
    """What is there leaves when the generator begins to wait."""
    caller = Asked()
    served.stream(caller, 5, "count", 10, 5, credit=100)
    wait_until(lambda: len(served.items(caller, 5)) == 5, LONG)
    slow.open = True
    wait_until(lambda: len(served.items(caller, 5)) == 10, LONG)


@pytest.mark.parametrize(("pause", "credit"), [(2, 100), (None, 2), (None, 0)], ids=["awaiting", "parked", "unbegun"])
def test_a_stream_that_is_taken_back_is_closed(served, slow, pause, credit):
    """[8.24], [8.28]: wherever it stands; its finally blocks run, awaits and all."""
    caller = Asked()
    served.stream(caller, 5, "count", 10, pause, credit=credit)
    wait_until(lambda: len(served.items(caller, 5)) == min(credit, 2), LONG)
    wait_until(lambda: pause is None or slow.entered, LONG)
    served.cancel(caller, 5)
    wait_until(lambda: slow.closed == (1 if credit else 0), LONG)
    assert not served.answering.busy()


def test_a_stream_without_credit_is_ended(served, slow):
    """[8.28]: after stream_timeout."""
    caller = Asked()
    served.stream(caller, 5, "count", 10, credit=3)
    wait_until(lambda: served.answering.desk.load.idle == 1, LONG)
    assert not served.answering.busy()
    wait_until(lambda: served.answering.work() is None, LONG)
    assert caller.results()[5] == Code.CANCELLED
    wait_until(lambda: slow.closed == 1, LONG)


def test_an_item_that_cannot_be_sent_ends_the_stream(served):
    """Behind those before it."""
    caller = Asked()
    served.stream(caller, 5, "breaks", credit=10)
    served.stream(caller, 6, "count", credit=10)
    wait_until(lambda: not served.answering.busy(), LONG)
    assert served.items(caller, 5) == [1]
    assert caller.results()[5] == Code.HANDLER
    assert caller.results()[6] == Code.INVALID_ARGUMENT


def test_nothing_is_made_for_a_reader_that_leaves_it_unread(served):
    """It goes on when there is room."""
    caller = Asked()
    caller.stuck = True
    served.stream(caller, 5, "count", 10, credit=100)
    served.call(caller, 1, "fail")
    wait_until(lambda: len(caller.sent) == 1, LONG)
    assert served.items(caller, 5) == []
    caller.stuck = False
    wait_until(lambda: len(served.items(caller, 5)) == 10, LONG)


# ------------------------------------------------------------------------------------------------ the end


def test_what_runs_at_the_end_is_cancelled(slow):
    """And the loop is closed."""
    served, caller = Served({"wait": slow.wait}, {"count": slow.count}, coroutines=["wait", "count"]), Asked()
    served.answering.open()
    served.call(caller, 1, "wait", 1)
    served.stream(caller, 2, "count", 10, credit=3)
    wait_until(lambda: slow.entered == 1 and served.items(caller, 2), LONG)
    served.answering.close()
    assert slow.cancelled == [1]
    assert slow.closed == 1


def test_a_coroutine_that_does_not_want_to_end_is_left_behind_with_a_warning(slow, caplog, monkeypatch):
    """The server ends all the same."""
    monkeypatch.setattr(answering_module, "CLOSE_TIMEOUT", 0.05)
    served, caller = Served({"deaf": slow.deaf}, coroutines=["deaf"]), Asked()
    served.answering.open()
    served.call(caller, 1, "deaf")
    wait_until(lambda: slow.entered, LONG)
    with caplog.at_level(logging.WARNING):
        served.answering.close()
    assert "still run" in caplog.text
    slow.open = True
