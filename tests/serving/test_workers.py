"""Methods on threads: beside each other, taken back at any time, and gone with their server."""

from __future__ import annotations

import logging
import threading

import pytest
from support.answers import Asked, Served
from support.wait import wait_until

from spark_partition_server.serving import answering as answering_module
from spark_partition_server.wire.codes import Code

LONG = 20.0


class Slow:
    """Methods that wait at a gate."""

    def __init__(self):
        self.gate = threading.Event()
        self.entered = []
        self.closed = []

    def wait(self, name):
        self.entered.append(name)
        assert self.gate.wait(LONG)
        return name

    def thread(self):
        return threading.current_thread().name

    def count(self, last, stop=None):
        try:
            for number in range(last):
                if number == stop:
                    self.wait(number)
                yield number
        finally:
            self.closed.append(threading.current_thread().name)


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def served(slow):
    made = Served({"wait": slow.wait, "thread": slow.thread}, {"count": slow.count}, threads=3, calls_max=8)
    made.answering.open()
    yield made
    slow.gate.set()
    made.answering.close()
    made.answering.desk.load.check()
    assert made.answering.desk.load.calls == 0


def test_methods_run_beside_each_other(served, slow):
    """As many as there are threads; the others wait for their turn."""
    caller = Asked()
    for number in range(5):
        served.call(caller, number, "wait", number)
    wait_until(lambda: len(slow.entered) == 3, LONG)
    assert caller.sent == []
    slow.gate.set()
    wait_until(lambda: len(caller.sent) == 5, LONG)
    assert caller.results() == {number: number for number in range(5)}


def test_the_thread_that_serves_runs_none_of_them(served):
    """It stays free to read, whatever they do; a request never runs at once."""
    caller = Asked()
    for number in range(8):
        served.call(caller, number, "thread")
        served.batch(caller, 100 + number, "thread", [[], []])
        wait_until(lambda: not served.answering.busy(), LONG)
    names = {name for value in caller.results().values() for name in ([value] if isinstance(value, str) else value[0])}
    assert names <= {f"spark-partition-server-worker-{number}" for number in range(3)}
    assert len(caller.sent) == 16


def test_the_status_is_told_while_all_threads_are_busy(served, slow):
    """[8.26]: from the thread that serves."""
    caller = Asked()
    for number in range(5):
        served.call(caller, number, "wait", number)
    wait_until(lambda: len(slow.entered) == 3, LONG)
    served.call(caller, 9, "sps.status")
    status = caller.results()[9]
    assert (status["queued"], status["in_flight"]) == (2, 3)


def test_the_result_of_a_call_that_is_cancelled_while_it_runs_is_thrown_away(served, slow):
    """[8.24]: and its slot is free at once."""
    caller = Asked()
    for number in range(8):
        served.call(caller, number, "wait", number)
    wait_until(lambda: len(slow.entered) == 3, LONG)
    running = list(slow.entered)
    served.cancel(caller, running[0])
    served.cancel(caller, 7)
    served.call(caller, 20, "wait", 20)
    served.call(caller, 21, "wait", 21)
    assert caller.sent == []
    slow.gate.set()
    wait_until(lambda: not served.answering.busy(), LONG)
    assert set(caller.results()) == {*range(8), 20, 21} - {running[0], 7}


def test_one_call_too_many_is_turned_away_while_the_threads_are_busy(served, slow):
    """[8.25]: calls under way count as well as those that wait."""
    caller = Asked()
    for number in range(9):
        served.call(caller, number, "wait", number)
    assert caller.results() == {8: Code.OVERLOADED}


def test_a_stream_goes_on_where_it_was_left_whichever_thread_has_it(served, slow):
    """[8.27]: only one at a time."""
    caller = Asked()
    served.stream(caller, 5, "count", 2000)
    for total in range(0, 2101, 100):
        served.credit(caller, 5, total)
        wait_until(lambda total=total: len(served.items(caller, 5)) == min(total, 2000), LONG)
    wait_until(lambda: len(slow.closed) == 1, LONG)
    assert served.items(caller, 5) == list(range(2000))


@pytest.mark.parametrize("stop", [None, 3], ids=["between two items", "in the middle of one"])
def test_a_stream_that_is_taken_back_is_closed_on_a_thread(served, slow, stop):
    """[8.28]: its finally blocks are code of the user's, which may take its time."""
    caller = Asked()
    served.stream(caller, 5, "count", 100, stop, credit=5)
    wait_until(lambda: len(served.items(caller, 5)) >= (1 if stop else 5), LONG)
    wait_until(lambda: stop is None or slow.entered, LONG)
    served.cancel(caller, 5)
    slow.gate.set()
    wait_until(lambda: slow.closed, LONG)
    assert "worker" in slow.closed[0]


def test_calls_of_somebody_who_does_not_read_get_their_turn_when_he_does(served):
    """[8.25]: the threads had passed them over; looking at the sockets reminds them."""
    caller = Asked()
    caller.stuck = True
    served.call(caller, 1, "thread")
    wait_until(served.answering._workers._tokens.empty, LONG)
    assert caller.sent == []
    caller.stuck = False
    wait_until(lambda: served.answering.work() is None and caller.sent, LONG)


def test_a_method_that_does_not_end_is_left_behind_with_a_warning(slow, caplog, monkeypatch):
    """The server ends all the same."""
    monkeypatch.setattr(answering_module, "CLOSE_TIMEOUT", 0.05)
    served, caller = Served({"wait": slow.wait}, threads=1), Asked()
    served.answering.open()
    served.call(caller, 1, "wait", 1)
    wait_until(lambda: slow.entered, LONG)
    with caplog.at_level(logging.WARNING):
        served.answering.close()
    assert "still run" in caplog.text
    slow.gate.set()


def test_a_server_that_never_opened_can_be_closed():
    """Its registration failed."""
    Served({}, threads=2).answering.close()
    Served({}, coroutines=["x"]).answering.close()
