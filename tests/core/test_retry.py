"""When a failed call is tried again, and what it costs."""

from __future__ import annotations

import pytest
from support.members import member

from spark_partition_server.core.calls import Calls
from spark_partition_server.core.retry import BUDGET, Budget, Retry
from spark_partition_server.errors import CallOutcomeUnknown, Overloaded, Unavailable
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code


def retry(wait_for_ready=True):
    calls = Calls()
    calls.adopt(codec.view_of(3, 2, [member(0)], {"idempotent": ["get"]}))
    return Retry(calls, wait_for_ready)


def overloaded(after=0.0):
    error = Overloaded("no room", rank=0, method="put", code=Code.OVERLOADED)
    error.retry_after = after
    return error


def lost():
    return CallOutcomeUnknown("the server was lost", rank=0, method="get")


def absent():
    return Unavailable("nobody serves it", rank=0, method="put")


# ----------------------------------------------------------------------------------------------- the budget


def test_a_budget_is_spent_and_filled_up_by_calls():
    """Ten retries at once; ten calls for one more, and never more than ten."""
    budget = Budget(3.0, 0.25)
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    for _ in range(3):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    for _ in range(100):
        budget.earn()
    assert budget.left == 3.0


def test_a_budget_that_is_full_stays_as_it_is():
    """The hot path of every call that succeeds."""
    budget = Budget()
    budget.earn()
    assert budget.left == BUDGET


# ---------------------------------------------------------------------------------------------- whether to


def test_codes_that_another_try_cannot_help_are_told_at_once():
    """[11.3]: for an idempotent method too."""
    refused = Unavailable("the arguments do not fit", code=Code.INVALID_ARGUMENT, definite=True)
    assert retry().pause(refused, "get", 1, 0.0, 100.0, 0.5) is None


def test_a_client_without_room_tells_its_caller_at_once():
    """No server has said so: nothing changes while the caller itself waits."""
    assert retry().pause(Overloaded("65536 calls are under way"), "get", 1, 0.0, 100.0, 0.5) is None


@pytest.mark.parametrize(("method", "again"), [("get", True), ("put", False)])
def test_an_outcome_that_is_unknown_is_repeated_for_idempotent_methods_only(method, again):
    """[11.2]."""
    assert (retry().pause(lost(), method, 1, 0.0, 100.0, 0.5) is not None) is again


def test_a_server_is_left_alone_for_as_long_as_it_says():
    """The hint is the least; the backoff still grows over it, and clients do not come back together."""
    assert retry().pause(overloaded(2.0), "put", 1, 0.0, 100.0, 0.0) == 2.0
    assert retry().pause(overloaded(2.0), "put", 1, 0.0, 100.0, 1.0) == 3.0
    assert retry().pause(overloaded(0.001), "put", 5, 0.0, 100.0, 1.0) == pytest.approx(0.32)


def test_a_hint_beyond_the_deadline_is_the_end():
    """Waiting in vain is worse than knowing."""
    assert retry().pause(overloaded(2.0), "put", 1, 0.0, 2.0, 0.0) is None


# ------------------------------------------------------------------------------------- after another look


def test_another_server_is_tried_at_once_and_costs_nothing():
    """A thousand callers of a partition that has moved find it again."""
    made = retry()
    for _ in range(1000):
        assert made.wait(lost(), member(0, 7), member(0, 8), 0.5) == 0.0
        assert made.wait(absent(), None, member(0, 8), 0.5) == 0.0
    assert made.budget.left == BUDGET


def test_a_partition_that_nobody_serves_or_reaches_is_waited_for_and_costs_nothing():
    """Waiting adds no load to a server."""
    made, there = retry(), member(0)
    unreachable = Unavailable("cannot connect", rank=0, method="put")
    for _ in range(1000):
        assert made.wait(absent(), None, None, 0.5) == 0.5
        assert made.wait(unreachable, there, there, 0.5) == 0.5
    assert made.budget.left == BUDGET


def test_a_server_that_the_relay_has_just_lost_is_waited_for_and_costs_nothing():
    """It was killed and the view still names it: until its partition is served again, no try reaches any server."""
    made, there = retry(), member(0)
    gone = Unavailable("its server has just gone", rank=0, method="get", code=Code.UNAVAILABLE)
    for _ in range(1000):
        assert made.wait(gone, there, there, 0.5) == 0.5
    assert made.budget.left == BUDGET
    hasty = retry(wait_for_ready=False)
    assert [hasty.wait(gone, there, there, 0.5) for _ in range(11)] == [0.5] * 10 + [None]


def test_who_does_not_wait_for_ready_is_told_at_once():
    """wait_for_ready=False; a server that is there is tried all the same."""
    made, there = retry(wait_for_ready=False), member(0)
    assert made.wait(absent(), None, None, 0.5) is None
    assert made.wait(Unavailable("cannot connect"), there, there, 0.5) is None
    assert made.wait(absent(), None, there, 0.5) == 0.0
    assert made.wait(overloaded(), there, there, 0.5) == 0.5


@pytest.mark.parametrize("error", [overloaded(), lost()])
def test_a_retry_to_the_same_server_is_paid_for(error):
    """Ten, and then the error says why there is no other."""
    made, there = retry(), member(0)
    for _ in range(10):
        assert made.wait(error, there, there, 0.5) == 0.5
    assert "budget" not in str(error)
    assert made.wait(error, there, there, 0.5) is None
    assert "not tried again, because this client's retry budget (10, 0.1 more a call) is spent" in str(error)
    for _ in range(10):
        made.budget.earn()
    assert made.wait(error, there, there, 0.5) == 0.5
