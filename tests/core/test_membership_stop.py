"""STOP: whoever has the admin token may end the run, nobody else."""

from __future__ import annotations

import pytest
from support.members import TOKEN, hello, membership

from spark_partition_server.core.effects import Refused, Send, StopAsked
from spark_partition_server.core.membership import MembershipState
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Refuse, Stop

ADMIN = b"the admin token"


def test_who_knows_the_admin_token_may_stop_the_run():
    """[8.19]: the driver is asked, and the answer says that the cluster is closed."""
    rules = membership(1, admin=ADMIN)
    assert rules.receive(Stop(ADMIN, "maintenance"), b"k", 0.0) == [
        StopAsked("maintenance"),
        Send(b"k", Refuse(Code.CLOSED, "maintenance")),
    ]
    assert rules.state is MembershipState.OPEN, "the driver stops it, in its own order"
    assert rules.receive(Stop(ADMIN), b"k", 0.0)[0] == StopAsked("asked to stop")


@pytest.mark.parametrize("token", [b"", b"wrong", TOKEN, ADMIN[:-1], ADMIN + b"x"])
def test_nobody_else_may(token):
    """[8.19]: neither a stranger nor a server, which knows the run token."""
    rules = membership(1, admin=ADMIN)
    refused, answer = rules.receive(Stop(token), b"k", 0.0)
    assert refused == Refused(Code.BAD_TOKEN, "STOP came with a wrong token")
    assert answer.message.code == Code.BAD_TOKEN
    assert isinstance(rules.receive(hello(0), b"0", 0.0)[0], object)
    assert rules.state is MembershipState.OPEN


@pytest.mark.parametrize("token", [b"", b"x"])
def test_a_run_without_an_admin_token_cannot_be_stopped_by_message(token):
    """An empty token must not match an empty one."""
    assert membership(1).receive(Stop(token), b"k", 0.0)[-1].message.code == Code.BAD_TOKEN


def test_a_run_that_stops_already_is_not_stopped_twice():
    """The second STOP hears what everybody hears."""
    rules = membership(1, admin=ADMIN)
    rules.shutdown("the cluster stops", 1.0)
    assert rules.receive(Stop(ADMIN), b"k", 1.0) == [Send(b"k", Refuse(Code.CLOSED, "the cluster stops"))]
