"""A client's rules: which view it acts on, and when a call that failed is tried again."""

from __future__ import annotations

import pytest
from support.members import member

from spark_partition_server.core.calls import Calls
from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import View


def calls(idempotent=("get",)):
    made = Calls()
    made.adopt(codec.view_of(3, 2, [member(0)], {"idempotent": list(idempotent)}))
    return made


# ----------------------------------------------------------------------------------------------- views


def test_a_client_starts_without_a_view():
    """Number 0 is what its first LOOKUP says."""
    made = Calls()
    assert (made.view_number, made.size, made.members, made.idempotent) == (0, 0, {}, frozenset())


def test_a_view_replaces_the_one_before_it_whole():
    """A member that is not in the later view is gone, and so is a method that may no longer run twice."""
    made = calls()
    assert made.adopt(codec.view_of(5, 4, [member(1, 9), member(3)], {"idempotent": ["count", "put"]}))
    assert made.view_number == 5
    assert made.size == 4
    assert made.members == {1: member(1, 9), 3: member(3)}
    assert made.idempotent == {"count", "put"}


def test_an_older_view_changes_nothing():
    """[8.30]: two threads ask; the slower answer must not bring a dead server back."""
    made = calls()
    assert not made.adopt(codec.view_of(2, 9, [member(0, 6), member(1)], {"idempotent": ["put"]}))
    assert (made.view_number, made.size, made.members, made.idempotent) == (3, 2, {0: member(0)}, {"get"})


def test_the_same_view_again_is_taken():
    """A LOOKUP whose answer says that nothing has changed is no failure."""
    made = calls()
    assert made.adopt(codec.view_of(3, 2, [member(0)], {"idempotent": ["get"]}))
    assert made.members == {0: member(0)}


def test_a_member_that_did_not_change_stays_the_same_object():
    """Connections are kept by the identity of their member: a copy would cost every thread its connections."""
    made = calls()
    before = made.members[0]
    made.adopt(codec.view_of(4, 2, [member(0), member(1)], {}))
    assert made.members[0] is before
    made.adopt(codec.view_of(5, 2, [member(0, 8)], {}))
    assert made.members[0] is not before


def test_a_malformed_view_changes_nothing():
    """[7.4.1]: half a view is worse than the one before it."""
    made = calls()
    with pytest.raises(RemoteProtocolError):
        made.adopt(View(9, 1, {}, (b"\x91\x01",)))
    assert made.view_number == 3
    assert made.members == {0: member(0)}


def test_what_is_no_name_among_the_idempotent_methods_is_passed_over():
    """A later version may say more there."""
    made = Calls()
    made.adopt(codec.view_of(1, 1, [], {"idempotent": ["get", 7, None, ["put"]]}))
    assert made.idempotent == {"get"}


@pytest.mark.parametrize("names", [5, None, "get"])
def test_idempotent_methods_that_are_no_list_are_a_protocol_error_or_none(names):
    """Foreign bytes end in a RemoteProtocolError or in nothing; the letters of a text are no methods."""
    made = Calls()
    try:
        made.adopt(codec.view_of(1, 1, [], {"idempotent": names}))
    except RemoteProtocolError:
        assert made.view_number == 0
    assert made.idempotent == frozenset()


@pytest.mark.parametrize(("told", "known"), [(100, 100), (0, 0), (-5, 0), ("100", 0), (True, 0), (None, 0)])
def test_the_servers_limit_is_known_from_the_view(told, known):
    """7.4: the largest request that they take; what is no such number is as good as nothing."""
    made = Calls()
    made.adopt(codec.view_of(1, 1, [], {"message_bytes_max": told}))
    assert made.message_bytes_max == known
    made.adopt(codec.view_of(2, 1, [], {}))
    assert made.message_bytes_max == 0


# ----------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize(
    ("attempt", "longest"),
    [(1, 0.02), (2, 0.04), (3, 0.08), (4, 0.16), (5, 0.32), (6, 0.5), (7, 0.5), (12, 0.5), (10_000, 0.5)],
)
def test_the_pause_doubles_up_to_half_a_second(attempt, longest):
    """[10.3]: drawn from the upper half, so that many clients do not come back at once; no overflow at any attempt."""
    made = calls()
    assert made.pause("get", True, attempt, 0.0, 100.0, 1.0) == pytest.approx(longest)
    assert made.pause("get", True, attempt, 0.0, 100.0, 0.0) == pytest.approx(longest / 2)
    assert longest / 2 < made.pause("get", True, attempt, 0.0, 100.0, 0.5) < longest


@pytest.mark.parametrize(
    ("method", "definite", "again"),
    [("put", True, True), ("get", True, True), ("get", False, True), ("put", False, False)],
)
def test_what_may_have_happened_is_repeated_only_if_it_may_happen_twice(method, definite, again):
    """[11.2]: a put that ran twice is the bug that nobody finds."""
    assert (calls().pause(method, definite, 1, 0.0, 100.0, 1.0) is not None) is again


@pytest.mark.parametrize(
    ("deadline", "again"), [(12.0, False), (12.02, False), (12.025, False), (12.026, True), (11.0, False)]
)
def test_there_is_no_try_that_could_not_end_in_time(deadline, again):
    """[10.3]: a call ends by its deadline with the error it has, not after it with another."""
    assert (calls().pause("get", True, 1, 12.0, deadline, 1.0) is not None) is again


@pytest.mark.parametrize("arguments", [(0, 0.5), (-1, 0.5), (1, -0.1), (1, 1.1)])
def test_arguments_out_of_range_are_our_own_mistake(arguments):
    """A pause below zero would be a retry without end."""
    attempt, jitter = arguments
    with pytest.raises(AssertionError):
        calls().pause("get", True, attempt, 0.0, 100.0, jitter)


def test_which_refusals_another_look_at_the_view_can_help():
    """[11.3]: retrying the others would only be slower."""
    helped = {code for code in Code if Calls.retryable(code)}
    assert helped == {Code.WRONG_MEMBER, Code.OVERLOADED, Code.UNAVAILABLE, Code.NOT_MEMBER, Code.LOST}
