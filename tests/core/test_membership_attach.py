"""The coordinator's rules for the relay's door: where it is, and whose lane a connection is."""

from __future__ import annotations

import pytest
from support.members import TOKEN, goodbye, hello, joined, member, membership
from support.relays import LIMIT, RUN, frames_of, request

from spark_partition_server.core.calls import Calls
from spark_partition_server.core.effects import Send, Welcomed
from spark_partition_server.core.membership import Membership
from spark_partition_server.core.relayed import Relayed
from spark_partition_server.core.session import Session
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Attach, Relay, Welcome


@pytest.mark.parametrize(
    ("attach", "code"),
    [
        (Attach(0, 7, TOKEN), None),
        (Attach(0, 7, TOKEN + b"x"), Code.BAD_TOKEN),
        (Attach(9, 7, b""), Code.BAD_TOKEN),  # who has no token learns nothing else
        (Attach(0, 6, TOKEN), Code.STALE),
        (Attach(0, 8, TOKEN), Code.NOT_MEMBER),
        (Attach(1, 7, TOKEN), Code.NOT_MEMBER),
    ],
)
def test_a_lane_is_the_members_who_has_the_token(attach, code):
    """[8.52], [15.1]: anybody else would get the calls that are meant for a server."""
    rules = membership(size=2)
    rules.receive(hello(0), b"0", 1.0)
    refuse = rules.attach(attach)
    assert code == (None if refuse is None else refuse.code)
    assert rules.serving(0) == (7, b"0")  # and nothing has changed
    assert rules.is_member(b"0")
    assert not rules.is_member(b"1")


def test_a_member_that_has_gone_has_no_lane():
    """[8.52]: its partition may be another's next."""
    rules = joined(2, 0)
    rules.receive(goodbye(0), b"0", 1.0)
    assert rules.serving(0) is None
    assert rules.attach(Attach(0, 7, TOKEN)).code == Code.NOT_MEMBER


def test_a_welcome_tells_where_the_door_is():
    """[5.7]: a member asks for it when something is relayed to it."""
    rules = Membership(2, TOKEN, 1.0, 15.0, relay_port=4711)
    said = rules.receive(hello(0), b"0", 1.0)
    welcome = Welcome(1, 1000, 15000, 4711)
    assert said[-1] == Send(b"0", welcome)
    session = Session(hello(0), 60.0)
    session.start(0.0)
    assert session.receive(welcome, None, 0.1) == [Welcomed(4711)]


@pytest.mark.parametrize(("told", "port"), [(4711, 4711), (None, 0), (0, 0), (65536, 0), ("4711", 0), (True, 0)])
def test_a_client_takes_the_door_from_the_view_where_it_is_one(told, port):
    """[5.7], 7.4: what is no port is no reason to call nobody."""
    calls = Calls()
    calls.adopt(codec.view_of(3, 2, [member(0)], {} if told is None else {"relay_port": told}))
    assert calls.relay_port == port


def test_what_came_over_a_lane_ends_with_it():
    """The callers are told to those who answer, once; what is still said to them goes nowhere."""
    relayed = Relayed(RUN, LIMIT)
    known, _ = relayed.receive(frames_of(Relay(b"K", tuple(frames_of(request(1))))))
    relayed.receive(frames_of(Relay(b"L", tuple(frames_of(request(1))))))
    known.route.caller = "the caller K"
    assert relayed.clear() == ["the caller K"]
    assert relayed.clear() == []
    assert not relayed.waiting
