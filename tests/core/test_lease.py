"""One lease: who is fresh, late, expired; and what a keeper forgives that was itself asleep."""

from __future__ import annotations

import pytest

from spark_partition_server.core.lease import Lease, LeaseState, oversleep


@pytest.mark.parametrize(
    ("now", "state", "silent"),
    [
        (100.0, LeaseState.FRESH, 0.0),
        (107.4, LeaseState.FRESH, 7.4),
        (107.5, LeaseState.LATE, 7.5),
        (114.9, LeaseState.LATE, 14.9),
        (115.0, LeaseState.EXPIRED, 15.0),
        (9e9, LeaseState.EXPIRED, 9e9 - 100.0),
        (99.0, LeaseState.FRESH, 0.0),  # a moment before the start: nobody was silent for a negative time
    ],
)
def test_a_lease_is_fresh_then_late_then_expired(now, state, silent):
    """Half its length without a word is late, its whole length is over: to the moment, not a moment later."""
    lease = Lease(15.0, 100.0)
    assert lease.deadline == 115.0
    assert lease.state(now) is state
    assert lease.silent(now) == pytest.approx(silent)


def test_a_sign_of_life_makes_a_lease_fresh_again():
    """A member that is heard in time is never lost."""
    lease = Lease(15.0, 100.0)
    lease.renew(114.0)
    assert lease.deadline == 129.0
    assert lease.state(115.0) is LeaseState.FRESH


def test_an_older_sign_of_life_shortens_nothing():
    """Messages are taken with the time they are read at; one from before the last must not bring the end nearer."""
    lease = Lease(15.0, 100.0)
    lease.renew(110.0)
    lease.renew(105.0)
    assert lease.deadline == 125.0


@pytest.mark.parametrize(("seconds", "deadline"), [(5.0, 120.0), (0.0, 115.0), (-5.0, 115.0)])
def test_forgiven_time_moves_the_end_and_never_back(seconds, deadline):
    """A clock difference below zero must not cost a member its lease."""
    lease = Lease(15.0, 100.0)
    lease.forgive(seconds)
    assert lease.deadline == deadline


@pytest.mark.parametrize("duration", [0.0, -1.0])
def test_a_lease_has_a_length(duration):
    """A lease that is never fresh would lose every member at once: our own mistake, not a peer's."""
    with pytest.raises(AssertionError, match="never fresh"):
        Lease(duration, 0.0)


@pytest.mark.parametrize(
    ("due", "now", "slept"),
    [
        (None, 50.0, 0.0),  # it wanted nothing
        (50.0, 49.0, 0.0),
        (50.0, 50.0, 0.0),
        (50.0, 50.5, 0.0),
        (50.0, 50.75, 0.75),
        (50.0, 80.0, 30.0),
    ],
)
def test_only_waking_later_than_the_tolerance_is_sleep(due, now, slept):
    """Ordinary scheduling is no excuse for a member; a stopped process is."""
    assert oversleep(due, now, 0.5) == slept
