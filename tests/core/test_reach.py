"""Which way a client takes to a server."""

from __future__ import annotations

import pytest

from spark_partition_server.core.reach import AGAIN, ENOUGH, SHORT, Reach

NOW = 100.0


def test_the_route_that_was_asked_for():
    """No attempt is made that the user has ruled out."""
    assert Reach("direct").direct("a", NOW, 10.0, 2.0) == 2.0
    assert Reach("direct").direct("a", NOW, 1.0, 2.0) == 1.0
    assert Reach("relay").direct("a", NOW, 10.0, 2.0) is None
    assert [Reach(route).falls_back for route in ("direct", "relay", "auto")] == [False, False, True]


def test_an_attempt_leaves_time_for_the_relay():
    """A call whose time is short must not spend it all on a port that drops packets."""
    reach = Reach("auto")
    assert reach.direct("a", NOW, 1.0, 2.0) == 0.5
    assert reach.direct("a", NOW, 10.0, 2.0) == 2.0


def test_a_server_that_could_not_be_reached_is_tried_again_after_a_while():
    """Firewalls are opened; and an attempt costs its caller time."""
    reach = Reach("auto")
    reach.missed("a", NOW)
    assert reach.direct("a", NOW, 10.0, 2.0) is None
    assert reach.direct("a", NOW + AGAIN - 1, 10.0, 2.0) is None
    assert reach.direct("a", NOW + AGAIN, 10.0, 2.0) == SHORT
    reach.reached("a")
    assert reach.direct("a", NOW, 10.0, 2.0) == 2.0


def test_the_relay_is_left_when_the_straight_way_is_to_be_tried_again():
    """A client that stays for months must not take the long way for good, as a server was slow to answer once."""
    reach = Reach("auto")
    assert reach.due("a", NOW)  # another thread has reached it
    reach.missed("a", NOW)
    assert not reach.due("a", NOW + AGAIN - 1)
    assert reach.due("a", NOW + AGAIN)
    reach.missed("a", NOW + AGAIN)
    assert not reach.due("a", NOW + AGAIN)
    assert not Reach("relay").due("a", NOW)


def test_a_server_that_was_not_tried_is_tried_with_the_others():
    """Once some of those that could not be reached have their turn again."""
    reach = Reach("auto")
    for number in range(ENOUGH):
        reach.missed(number, NOW)
    assert not reach.due("b", NOW + AGAIN - 1)
    assert reach.due("b", NOW + AGAIN)


def test_other_servers_are_tried_for_a_short_time_only():
    """A hundred servers behind a firewall must not cost a hundred timeouts."""
    reach = Reach("auto")
    reach.missed("a", NOW)
    assert reach.direct("b", NOW, 10.0, 2.0) == SHORT
    assert reach.direct("b", NOW, 0.1, 2.0) == 0.05


@pytest.mark.parametrize("reached", [False, True])
def test_where_none_can_be_reached_the_others_are_not_tried(reached):
    """Until the first of them is tried again."""
    reach = Reach("auto")
    if reached:
        reach.reached("z")
    for number in range(ENOUGH):
        reach.missed(number, NOW + number)
    assert reach.direct("b", NOW + ENOUGH, 10.0, 2.0) == (SHORT if reached else None)
    assert reach.direct("b", NOW + AGAIN, 10.0, 2.0) == SHORT


def test_servers_that_have_gone_are_forgotten():
    """A client that lives for months sees many."""
    reach = Reach("auto")
    for number in range(1000):
        reach.missed(number, NOW + number)
    assert len(reach._again) < 3 * AGAIN


@pytest.mark.parametrize(("seconds", "until"), [(-1.0, 0.0), (0.0, 0.0), (SHORT / 10, AGAIN / 10), (2.0, AGAIN)])
def test_an_attempt_without_time_proves_little(seconds, until):
    """A call that was over before it could connect must not send the next minute's calls by relay."""
    reach = Reach("auto")
    reach.missed("a", NOW, seconds)
    assert reach.direct("a", NOW + until, 10.0, 2.0) == SHORT
    assert until == 0 or reach.direct("a", NOW + until * 0.9, 10.0, 2.0) is None
