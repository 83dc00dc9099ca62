"""Heartbeats gather where they are dense, calls do not wait."""

from __future__ import annotations

import pytest

from spark_partition_server.core.pace import DENSE, GATHER, URGENT, Pace


def dense(pause: float = GATHER / 10) -> tuple[Pace, float]:
    """A pace that messages have kept for long, each so many seconds after the last turn, and the end of that turn."""
    pace, now = Pace(), 100.0
    for _ in range(100):
        now += pause
        now += pace.turn(now)
    return pace, now


def test_the_first_message_after_a_while_is_not_kept_waiting():
    """A LOOKUP on a quiet control plane is answered at once."""
    pace = Pace()
    assert pace.turn(100.0) == 0.0
    assert pace.turn(100.0 + GATHER) == 0.0
    pace, now = dense()
    assert pace.turn(now + GATHER) == 0.0


def test_turns_that_follow_each_other_closely_for_long_are_kept_apart():
    """Ten thousand heartbeats a second, one a turn, took most of a core; what comes meanwhile is taken together."""
    pace, now = dense()
    wait = pace.turn(now + GATHER / 4)
    assert wait == pytest.approx(GATHER * 3 / 4)
    # the wait counts from where it ends: the next one is not longer
    assert pace.turn(now + GATHER + GATHER / 2) == pytest.approx(GATHER / 2)


def test_messages_that_are_not_dense_are_taken_at_once():
    """A thousand members, or a client that asks a few things in a row, among heartbeats that are not dense either."""
    for pause in (DENSE * 1.1, GATHER, 2 * GATHER):
        pace, now = dense(pause)
        assert pace.turn(now + GATHER / 100) == 0.0
    pace, now = Pace(), 100.0
    for _ in range(10):
        now += GATHER / 10
        assert pace.turn(now) == 0.0


def test_after_dense_messages_a_pause_makes_for_quick_answers_again():
    """Once the members are fewer: a dozen of them later."""
    pace, now = dense()
    for _ in range(12):
        now += 2 * GATHER
        assert pace.turn(now) == 0.0
    assert pace.turn(now + GATHER / 2) == 0.0


def test_nothing_waits_while_calls_are_relayed():
    """A relayed call passes twice through the coordinator: two waits would be most of what it takes."""
    pace, now = dense()
    pace.urgent(now)
    assert pace.turn(now + GATHER / 4) == 0.0
    assert pace.turn(now + URGENT - GATHER / 4) == 0.0
    pace, now = dense()
    pace.urgent(now - URGENT)
    assert pace.turn(now + GATHER / 4) > 0.0
