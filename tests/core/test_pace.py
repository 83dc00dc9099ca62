"""Heartbeats gather, calls do not wait."""

from __future__ import annotations

import pytest

from spark_partition_server.core.pace import GATHER, URGENT, Pace


def test_the_first_message_after_a_while_is_not_kept_waiting():
    """A LOOKUP on a quiet control plane is answered at once."""
    pace = Pace()
    assert pace.turn(100.0) == 0.0
    assert pace.turn(100.0 + GATHER) == 0.0


def test_turns_that_follow_each_other_closely_are_kept_apart():
    """Ten thousand heartbeats a second, one a turn, took most of a core; what comes meanwhile is taken together."""
    pace = Pace()
    pace.turn(100.0)
    wait = pace.turn(100.0 + GATHER / 4)
    assert wait == pytest.approx(GATHER * 3 / 4)
    # the wait counts from where it ends: the next one is not longer
    assert pace.turn(100.0 + GATHER + GATHER / 2) == pytest.approx(GATHER / 2)


def test_nothing_waits_while_calls_are_relayed():
    """A relayed call passes twice through the coordinator: two waits would be most of what it takes."""
    pace = Pace()
    pace.turn(100.0)
    pace.urgent(100.0)
    assert pace.turn(100.0 + GATHER / 4) == 0.0
    assert pace.turn(100.0 + URGENT - GATHER / 4) == 0.0
    assert pace.turn(100.0 + URGENT) > 0.0
