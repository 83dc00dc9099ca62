"""The coordinator asks members to leave, and goes on asking until they have gone."""

from __future__ import annotations

import pytest
from support.members import heartbeat, hello, joined, member

from spark_partition_server.core.effects import Send
from spark_partition_server.core.membership import MembershipState
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Refuse, Shutdown

WRONG = b"some other token"


def test_one_member_alone_can_be_asked_to_leave():
    """[8.18]: the others, and the run, go on."""
    rules = joined(2, 0, 1)
    assert rules.shutdown_rank(1, "asked", 0.5) == [Send(b"1", Shutdown("asked", 500))]
    assert rules.shutdown_rank(2, "asked", 0.5) == []
    assert rules.state is MembershipState.OPEN
    assert rules.receive(heartbeat(0), b"0", 1.0) == [Send(b"0", heartbeat(0))]


def test_the_shutdown_of_one_member_is_said_again():
    """[8.18]: it may have been lost with its connection; the member that comes back on a new one must not stay."""
    rules = joined(2, 0, 1)
    asked = rules.shutdown_rank(1, "asked", 0.5)[0].message
    assert rules.receive(heartbeat(1), b"1", 1.0) == [Send(b"1", asked)]
    assert rules.receive(hello(1), b"new", 2.0)[-1] == Send(b"new", asked)
    rules.check()


def test_a_shutdown_that_breaks_a_limit_is_brought_within_it():
    """A grace period below zero or beyond 49 days, or an endless reason, would end the coordinator's thread."""
    rules = joined(1, 0)
    assert rules.shutdown_rank(0, "r" * 9999, -1.0)[0].message == Shutdown("r" * 4096, 0)
    assert rules.shutdown("", float("inf"))[0].message.grace_ms == 4_000_000_000


def test_a_member_that_comes_back_while_stopping_keeps_its_lease():
    """Otherwise it is lost before it has said GOODBYE, and its session ends with an error."""
    rules = joined(1, 0)
    rules.shutdown("stop", 1.0)
    assert rules.deadline == 15.0
    rules.receive(heartbeat(0), b"new", 10.0)
    assert rules.deadline == 25.0


def test_a_member_that_reconnects_while_stopping_is_still_told_to_leave():
    """Its SHUTDOWN was lost with the old connection; a refusal would end it with an error and without a GOODBYE."""
    rules = joined(1, 0)
    rules.shutdown("the cluster stops", 1.0)
    assert rules.receive(heartbeat(0), b"new", 1.0) == [Send(b"new", Shutdown("the cluster stops", 1000))]


@pytest.mark.parametrize("said", [hello(0), heartbeat(0)])
def test_a_connection_that_serves_one_rank_gets_no_other_while_stopping(said):
    """[8.18]: a member that spoke for two ranks would be forgotten twice, which would end the coordinator's thread."""
    rules = joined(2, 0, 1)
    rules.shutdown("over", 1.0)
    assert rules.receive(said, b"1", 1.0) == [Send(b"1", Refuse(Code.CLOSED, "over"))]
    rules.check()
    assert [effect.member.rank for effect in rules.tick(15.0)] == [0, 1]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (hello(0), Shutdown("over", 1000)),
        (hello(0, 8), Refuse(Code.CLOSED, "over")),  # a new attempt of Spark's
        (heartbeat(0, 8), Refuse(Code.CLOSED, "over")),
        (hello(0, token=WRONG), Refuse(Code.BAD_TOKEN, "partition 0 sent a wrong token")),
    ],
)
def test_only_the_member_itself_is_told_to_leave_in_order(said, answer):
    """[8.10] 3 and [8.14] 2: anybody else would serve on in a run that is over."""
    rules = joined(1, 0)
    rules.shutdown("over", 1.0)
    *_, sent = rules.receive(said, b"new", 1.0)
    assert sent == Send(b"new", answer)
    assert rules.members == {0: member(0)}


def test_a_failed_run_tells_nobody_to_leave():
    """[8.14] 2: its SHUTDOWN has no reason yet; a member that comes back learns that the job has failed."""
    rules = joined(1, 0)
    rules.fail("an executor was lost")
    assert rules.receive(heartbeat(0), b"new", 1.0) == [Send(b"new", Refuse(Code.JOB_FAILED, "an executor was lost"))]
