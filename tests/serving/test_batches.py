"""BATCH: one method, many runs, one answer, in which every run has its own end."""

from __future__ import annotations

import numpy
import pytest
from support.answers import Asked, Served, value_of

from spark_partition_server.serving import batches
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import BATCH_MAX, Error, Results


def square(value):
    return value * value


def large(size):
    return bytes(size)


def array(length):
    return numpy.zeros(length, dtype="u1")


HANDLERS = {"square": square, "large": large, "array": array}


def asked(method, runs, served=None, **options):
    """The one message that answers a batch."""
    served, caller = served or Served(dict(HANDLERS), **options), Asked()
    served.batch(caller, 5, method, runs)
    served.work()
    (answer,) = caller.sent
    assert answer.call_id == 5
    return answer


def test_results_come_in_the_order_of_the_runs():
    """[7.37.1], [8.23]: a result is found by its place alone."""
    seen = []
    served = Served({"note": lambda value: seen.append(value) or -value})
    answer = asked("note", [[number] for number in range(1000)], served)
    assert isinstance(answer, Results)
    assert value_of(answer) == [[-number for number in range(1000)], []]
    assert seen == list(range(1000))


def test_an_empty_batch_has_an_empty_answer():
    """[7.37.1]: no run, no result."""
    assert value_of(asked("square", [])) == [[], []]


def test_a_run_that_fails_leaves_the_others_alone():
    """[7.37.1]: nil in its place, and why, with what an ERROR would say."""
    results, failures = value_of(asked("square", [[2], ["x"], [], [3]]))
    assert results == [4, None, None, 9]
    first, second = failures
    assert first[:2] == [1, Code.HANDLER]
    assert first[3] == "TypeError"
    assert "square" in first[4]
    assert second[:2] == [2, Code.INVALID_ARGUMENT]
    assert "missing a required" in second[2]
    assert second[3:] == ["", ""]


@pytest.mark.parametrize("runs", [None, 1, {}, [1], [[1], 2], "x", [[1], None]], ids=repr)
def test_a_payload_that_is_no_array_of_arrays_is_refused_whole(runs):
    """[7.36.1], [8.20] 6: nothing of it has run."""
    answer = asked("square", runs)
    assert isinstance(answer, Error)
    assert answer.code == Code.INVALID_ARGUMENT


def test_a_batch_of_too_many_runs_is_refused_whole():
    """[7.36.1], [8.20] 6: it is definite; the largest that is allowed is taken."""
    assert len(value_of(asked("square", [[1]] * BATCH_MAX))[0]) == BATCH_MAX
    answer = asked("square", [[1]] * (BATCH_MAX + 1))
    assert answer == Error(5, Code.TOO_LARGE, "a batch of 1025 runs, the limit is 1024")


def test_a_run_whose_time_is_over_is_not_made(monkeypatch):
    """[8.23]: those before it have their results, it and the others fail as definitely as a REQUEST would."""
    now = [100.0]
    monkeypatch.setattr(batches, "monotonic", lambda: now[0])
    made = []

    def slow(number):
        made.append(number)
        now[0] += 1.0
        return number

    job = batches.Batch(Asked(), (5, "slow", 2500, 3, 7), [], slow, 100.0)
    job.runs = [[number] for number in range(6)]
    assert job.run(1e9)
    assert made == [0, 1, 2]
    assert job.results == [0, 1, 2, None, None, None]
    assert [(one.call_id, one.code) for one in job.failures] == [(number, Code.TIMEOUT) for number in (3, 4, 5)]
    assert job.failures[0].text == "it waited 3000 ms, 2500 ms were allowed; not run"


def test_a_long_batch_lets_others_have_their_turn():
    """[8.25]: a batch is made in slices; a call that came behind it does not wait for its end."""
    order = []
    served, one, two = Served({"note": order.append}), Asked(), Asked()
    served.answering._spent = 1.0
    served.batch(one, 1, "note", [["batch"]] * 100)
    served.call(two, 1, "note", "call")
    served.answering.desk.turn(served.answering._replies, 0.0)
    served.answering.desk.turn(served.answering._replies, 0.0)
    assert order == ["batch", "call"]
    served.work()
    assert order == ["batch", "call"] + ["batch"] * 99
    assert value_of(one.sent[0]) == [[None] * 100, []]


def test_results_without_room_fail_by_themselves():
    """[7.37.1], [8.20] 9: over the octets of a reply; the others are there."""
    results, failures = value_of(asked("large", [[10], [900], [1200], [20]], message_bytes_max=2000))
    assert [len(result) if result else None for result in results] == [10, 900, None, 20]
    assert failures[0][:2] == [2, Code.REPLY_TOO_LARGE]
    assert "1203 octets" in failures[0][2]


def test_arrays_without_room_fail_by_themselves():
    """[7.37.1]: a value has room for 61 arrays."""
    results, failures = value_of(asked("array", [[3]] * 70))
    assert [result is None for result in results] == [False] * 61 + [True] * 9
    assert [(failure[0], failure[1]) for failure in failures] == [(n, Code.REPLY_TOO_LARGE) for n in range(61, 70)]


def test_a_result_that_cannot_be_sent_fails_by_itself():
    """[7.37.1]: the type is named; the results beside it arrive."""
    served = Served({"make": lambda name: {"set": {1}, "int": 1}[name]})
    results, failures = value_of(asked("make", [["int"], ["set"], ["nothing"], ["int"]], served))
    assert results == [1, None, None, 1]
    assert [failure[:2] for failure in failures] == [[1, Code.HANDLER], [2, Code.HANDLER]]
    assert "builtins.set" in failures[0][2]
    assert failures[1][3] == "KeyError"


def test_failures_that_are_too_large_together_are_one_error():
    """[8.20] 9: even the reasons have no room."""
    answer = asked("square", [["x"]] * 200, message_bytes_max=1000)
    assert answer.code == Code.REPLY_TOO_LARGE
