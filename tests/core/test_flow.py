"""Credit: no sender goes further ahead than its receiver allows, and none waits for a word that does not come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.core.flow import Allowance, Window
from spark_partition_server.errors import RemoteProtocolError


def test_an_allowance_counts_what_has_left():
    """It says how many had left before: the number of the first of the next."""
    flow = Allowance(3)
    assert flow.room == 3
    assert [flow.spend(2), flow.room, flow.spend(1), flow.room] == [0, 1, 2, 0]


def test_a_grant_wakes_a_sender_that_had_no_room():
    """Totals: the same word twice, or an older one that was held up, changes nothing."""
    flow = Allowance()
    assert flow.grant(2)
    assert not flow.grant(5)
    assert not flow.grant(5)
    assert not flow.grant(1)
    flow.spend(5)
    assert not flow.grant(4)
    assert flow.grant(6)
    assert flow.room == 1


def test_a_window_speaks_when_half_of_it_is_free():
    """A word for every item would cost as much as the items."""
    window = Window(4)
    window.receive(0, 4)
    assert [window.take() for _ in range(4)] == [None, 6, None, 8]


def test_a_window_of_one_speaks_for_every_item():
    """The smallest there is."""
    window = Window(1)
    for number in range(3):
        window.receive(number, 1)
        assert window.take() == number + 2


@pytest.mark.parametrize(("sequence", "count"), [(1, 1), (3, 1), (2, 3)])
def test_items_that_are_missing_doubled_or_too_many_are_found(sequence, count):
    """[7.39.1]: `sequence` is the number of items that were sent before."""
    window = Window(4)
    window.receive(0, 2)
    with pytest.raises(RemoteProtocolError, match=r"item|allowed"):
        window.receive(sequence, count)
    window.receive(2, 2)


@given(st.integers(1, 50), st.lists(st.integers(1, 60), max_size=200))
def test_every_item_arrives_once_whatever_the_pace(size, steps):
    """A sender and a receiver that take turns: never more under way than the window, and never stuck."""
    window, flow = Window(size), Allowance(size)
    for step in steps:
        count = min(step, flow.room)
        window.receive(flow.spend(count), count)
        said = window.take(min(step, window.received - window.taken))
        if said is not None:
            flow.grant(said)
        flow.check()
        window.check()
        assert flow.allowed == window.granted
        assert flow.room or window.received > window.taken
