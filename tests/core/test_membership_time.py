"""The coordinator's rules as time passes: leases, losses, and a coordinator that was itself asleep."""

from __future__ import annotations

import hmac

import pytest
from support.members import goodbye, heartbeat, hello, joined, member, membership

from spark_partition_server.core import membership as membership_module
from spark_partition_server.core.effects import Joined, Lost, Send
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Refuse, Welcome


def test_a_member_that_is_silent_for_its_lease_is_lost():
    """[8.17]: at the moment its lease is over, and not before."""
    rules = joined(1, 0, now=100.0)
    assert rules.tick(114.9) == []
    assert rules.tick(115.0) == [Lost(member(0), 15.0)]
    assert rules.members == {}
    assert rules.view_number == 2
    assert rules.deadline is None
    assert rules.tick(200.0) == []
    rules.check()


def test_the_lost_are_named_in_the_order_of_ranks_and_each_is_a_change_of_the_view():
    """[8.13]: a client that saw only the sum of two changes in one number could miss one."""
    rules = joined(3, 2, 0, now=0.0)
    rules.receive(hello(1), b"1", 10.0)
    assert rules.tick(16.0) == [Lost(member(0), 16.0), Lost(member(2), 16.0)]
    assert rules.view_number == 5
    assert rules.members == {1: member(1)}


def test_every_heartbeat_and_every_hello_puts_the_loss_off():
    """[8.17]: a busy member is not a dead one."""
    rules = joined(1, 0)
    for now in (14.0, 28.0, 42.0):
        assert rules.tick(now) == []
        rules.receive(heartbeat(0), b"0", now)
    rules.receive(hello(0), b"0", 50.0)
    assert rules.deadline == 65.0


def test_time_is_given_back_to_nobody_beyond_now():
    """A member that was heard while the coordinator was late would else be the last to be lost, and hide another."""
    rules = joined(2, 1, now=0.0)
    assert rules.deadline == 15.0
    rules.receive(hello(0), b"0", 15.4)
    rules.receive(hello(1), b"1", 15.9)  # 0.9 s behind the deadline: too late to count as silence
    rules.check()
    assert rules.deadline == 30.9


def test_a_member_that_was_lost_by_mistake_comes_back():
    """[8.14] 2 and [8.12]: its network was gone for a while; it is told to say HELLO and is a member again."""
    rules = joined(1, 0)
    rules.tick(15.0)
    assert rules.receive(heartbeat(0), b"0", 20.0) == [Send(b"0", Refuse(Code.NOT_MEMBER, "say HELLO"))]
    assert rules.receive(hello(0), b"0", 21.0) == [Joined(member(0), None), Send(b"0", Welcome(3, 1000, 15000))]
    assert rules.deadline == 36.0


def test_the_deadline_is_that_of_the_earliest_lease():
    """A loop that slept until the latest one would notice every other loss too late."""
    rules = joined(3, 2, now=1.0)
    rules.receive(hello(0), b"0", 2.0)
    rules.receive(hello(1), b"1", 3.0)
    assert rules.deadline == 16.0
    rules.receive(heartbeat(2), b"2", 4.0)
    assert rules.deadline == 17.0
    rules.receive(goodbye(0), b"0", 5.0)
    assert rules.deadline == 18.0
    rules.receive(hello(1), b"1", 6.0)
    assert rules.deadline == 19.0
    rules.check()


def test_nobody_to_wait_for_is_no_deadline():
    """min() of nothing would end the coordinator's thread before the first server has come."""
    rules = membership()
    assert rules.deadline is None
    assert rules.tick(1e9) == []


def test_a_coordinator_that_overslept_a_little_forgives_nothing():
    """[10.4]: half a second is ordinary scheduling."""
    rules = joined(1, 0)
    assert rules.deadline == 15.0
    assert rules.tick(15.5) == [Lost(member(0), 15.5)]


def test_a_coordinator_that_overslept_forgives_what_lies_beyond_the_moment_it_wanted_to_wake():
    """[10.4]: a member whose lease was to end later than the earliest one gets its whole time."""
    rules = joined(2, 0, now=0.0)
    rules.receive(hello(1), b"1", 5.0)
    assert rules.deadline == 15.0
    rules.tick(1000.0)  # asleep from 15 to 1000, a driver that was stopped
    assert list(rules.members) == [0, 1]
    assert rules.deadline == 1002.0  # the one whose lease was to end first has two heartbeats
    rules.receive(goodbye(0), b"0", 1000.0)
    assert rules.deadline == 1005.0


def test_a_coordinator_that_overslept_loses_nobody_by_that():
    """[10.4]: a laptop that was closed for an hour wakes up with all its members."""
    rules = joined(2, 0, 1)
    assert rules.deadline == 15.0
    assert rules.tick(3615.0) == []


def test_who_was_heard_after_the_sleep_is_not_forgiven_the_sleep_as_well():
    """[10.4]: otherwise a member that dies now is noticed an hour later."""
    rules = joined(1, 0)
    assert rules.deadline == 15.0
    rules.receive(heartbeat(0), b"0", 3600.0)  # it waited in the socket while the coordinator slept
    rules.tick(3600.0)
    assert rules.deadline <= 3615.0


def test_a_second_tick_at_the_same_moment_changes_nothing():
    """Calling tick twice is harmless; a loop with commands to run does so without asking for the deadline."""
    deadlines = []
    for ticks in (1, 2):
        rules = joined(2, 0, now=0.0)
        rules.receive(hello(1), b"1", 5.0)
        assert rules.deadline == 15.0
        for _ in range(ticks):
            rules.tick(1000.0)
        deadlines.append(rules.deadline)
    assert deadlines[0] == deadlines[1]


def test_tokens_are_compared_by_the_function_that_takes_the_same_time_for_all(monkeypatch):
    """[15.1]: a comparison that ends at the first wrong octet tells a stranger how far he has come."""
    asked = []

    class Recording:
        @staticmethod
        def compare_digest(one: bytes, other: bytes) -> bool:
            asked.append((one, other))
            return hmac.compare_digest(one, other)

    monkeypatch.setattr(membership_module, "hmac", Recording)
    rules = membership()
    for message in (hello(token=b"guess 1"), goodbye(token=b"guess 2")):
        rules.receive(message, b"x", 1.0)
    assert [one for one, _ in asked] == [b"guess 1", b"guess 2"]
    # and nothing else looks at a token: with every comparison true, every token is right
    monkeypatch.setattr(Recording, "compare_digest", staticmethod(lambda one, other: True))
    assert rules.receive(hello(token=b"wrong"), b"0", 2.0)[0] == Joined(member(), None)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda rules: rules._highest.update({0: 8}),
        lambda rules: setattr(rules, "view_number", 0),
        lambda rules: setattr(rules._entries[0], "sender", b"1"),
        lambda rules: rules._entries.update({2: rules._entries.pop(0)}),
        lambda rules: rules._entries[0].lease.renew(99.0),
    ],
    ids=["stale member", "view number", "one sender", "wrong rank", "not in order"],
)
def test_check_finds_a_broken_invariant(break_it):
    """The checker that the random tests rely on does fail."""
    rules = joined(2, 0, 1)
    rules.check()
    break_it(rules)
    with pytest.raises((AssertionError, KeyError)):
        rules.check()
