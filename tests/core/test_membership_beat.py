"""The hot path of heartbeats: it does what ``receive`` does, or leaves the message to it."""

from __future__ import annotations

import pytest
from support.members import goodbye, heartbeat, joined

from spark_partition_server.core.effects import Send


def test_a_member_that_beats_puts_its_loss_off():
    """[8.14] 3 and [8.17]: a lease that the hot path forgot to renew would lose every member of a large cluster."""
    rules = joined(2, 0, 1)
    assert rules.beat(0, 7, b"0", 5.0)
    assert rules.deadline == 15.0  # the other's
    assert rules.beat(1, 7, b"1", 6.0)
    assert rules.deadline == 20.0
    rules.check()


@pytest.mark.parametrize(
    ("rank", "incarnation", "sender"),
    [(1, 7, b"1"), (0, 6, b"0"), (0, 8, b"0"), (0, 7, b"new")],
    ids=["nobody's rank", "an older life", "a newer life", "another connection"],
)
def test_who_is_no_member_is_left_to_the_long_way(rank, incarnation, sender):
    """[8.14] 1 and 2: it is refused there; were it echoed, a server that was replaced would serve on."""
    rules = joined(2, 0)
    assert not rules.beat(rank, incarnation, sender, 5.0)
    assert rules.deadline == 15.0
    assert rules.receive(heartbeat(rank, incarnation), sender, 5.0) != [Send(sender, heartbeat(rank, incarnation))]


def test_who_is_to_leave_is_left_to_the_long_way():
    """[8.18]: it hears SHUTDOWN once more there, not an echo."""
    rules = joined(1, 0)
    asked = rules.shutdown_rank(0, "asked", 0.5)
    assert not rules.beat(0, 7, b"0", 5.0)
    assert rules.receive(heartbeat(0), b"0", 5.0) == asked


def test_a_coordinator_that_overslept_forgives_on_the_hot_path_too():
    """[10.4]: the heartbeats that waited in its socket are the first it hears; the silence of the others is its own."""
    rules = joined(2, 0, 1)
    assert rules.deadline == 15.0
    assert rules.beat(0, 7, b"0", 3600.0)
    assert rules.tick(3600.0) == []
    rules.receive(goodbye(0), b"0", 3600.0)
    assert rules.deadline == 3602.0
