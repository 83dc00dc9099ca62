"""The coordinator's rules, message by message: who joins, who is refused, who is told what (PROTOCOL.md, 8.2)."""

from __future__ import annotations

import pytest
from support.members import TOKEN, goodbye, heartbeat, hello, joined, member, membership

from spark_partition_server.core.effects import InitFailed, Joined, Left, Refused, Send
from spark_partition_server.core.membership import MembershipState
from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Error, Lookup, Refuse, Reply, Request, Shutdown, View, Welcome

WRONG = b"some other token"


def refused(sender, code, text):
    """What a refusal is made of: one line for the log, one message for whoever asked."""
    return [Refused(code, text), Send(sender, Refuse(code, text))]


# --------------------------------------------------------------------------------------------- joining


def test_a_hello_is_answered_by_welcome_and_makes_a_member():
    """[8.10] 6: without the WELCOME a server would say HELLO for ever; without the effect nobody would learn of it."""
    rules = membership(size=2)
    assert rules.receive(hello(1), b"c", 12.0) == [Joined(member(1), None), Send(b"c", Welcome(1, 1000, 15000))]
    assert rules.members == {1: member(1)}
    assert not rules.complete
    assert rules.deadline == 27.0
    rules.check()


def test_all_ranks_make_a_complete_view_in_the_order_of_ranks():
    """A cluster that calls itself complete one server early sends its first client into the void."""
    rules = membership(size=3)
    for rank, complete in ((2, False), (0, False), (1, True)):
        rules.receive(hello(rank), b"c%d" % rank, 1.0)
        assert rules.complete is complete
    assert list(rules.members) == [0, 1, 2]


@pytest.mark.parametrize("token", [b"", WRONG, TOKEN[:-1], TOKEN + b"\0"])
def test_a_wrong_token_is_refused_first_of_all(token):
    """[8.10] 1: whoever has no token learns nothing else of the run, not even that his version or rank is wrong."""
    rules = membership()
    rules.shutdown("over", 1.0)
    said = hello(99, 0, token=token, version_min=9, version_max=9)
    assert rules.receive(said, b"x", 1.0) == refused(b"x", Code.BAD_TOKEN, "partition 99 sent a wrong token")
    assert rules.members == {}
    assert rules.view_number == 0


@pytest.mark.parametrize(("lowest", "highest", "taken"), [(1, 1, True), (0, 255, True), (2, 9, False), (0, 0, False)])
def test_a_member_must_speak_version_1(lowest, highest, taken):
    """[8.10] 2 and [14.1]: a member of another version would be misunderstood at its first message."""
    rules = membership()
    rules.shutdown("over", 1.0)  # the version is judged before the state of the run
    answer = rules.receive(hello(version_min=lowest, version_max=highest), b"c", 1.0)
    text = f"the coordinator speaks version 1, not {lowest}..{highest}"
    assert answer == ([Send(b"c", Refuse(Code.CLOSED, "over"))] if taken else refused(b"c", Code.VERSION, text))


def test_a_rank_beyond_the_size_of_the_run_is_refused():
    """[8.10] 4: a view with a rank beyond its size is one that every client throws away whole."""
    rules = membership(size=3)
    assert rules.receive(hello(3), b"c", 1.0) == refused(b"c", Code.INVALID_ARGUMENT, "rank 3 of 3")
    rules.check()


def test_a_smaller_incarnation_is_refused_for_ever():
    """[8.10] 5: Spark's zombie attempt must not take the partition back, not even after its successor has left."""
    rules = joined(1, 0, incarnation=7)
    text = "incarnation 6 of partition 0 came after 7"
    assert rules.receive(hello(0, 6), b"z", 1.0) == refused(b"z", Code.STALE, text)
    rules.receive(goodbye(0, 7), b"0", 2.0)
    assert rules.receive(hello(0, 6), b"z", 3.0) == refused(b"z", Code.STALE, text)
    assert rules.members == {}
    assert rules.view_number == 2


def test_a_greater_incarnation_takes_over_and_the_older_one_is_told_first():
    """[8.11]: with two members of a rank, two servers answer for one partition."""
    rules = joined(1, 0, incarnation=7)
    assert rules.receive(hello(0, 9), b"new", 1.0) == [
        *refused(b"0", Code.STALE, "incarnation 9 of partition 0 has taken over"),
        Joined(member(0, 9), member(0, 7)),
        Send(b"new", Welcome(2, 1000, 15000)),
    ]
    assert rules.members == {0: member(0, 9)}
    rules.check()


def test_the_same_incarnation_may_say_hello_again_over_another_connection():
    """[8.12]: a member that lost its connection is no new member, and its heartbeats count from where it is now."""
    rules = joined(1, 0)
    assert rules.receive(hello(0), b"again", 5.0) == [Send(b"again", Welcome(1, 1000, 15000))]
    assert rules.deadline == 20.0
    assert rules.receive(heartbeat(0), b"again", 6.0) == [Send(b"again", heartbeat(0))]
    assert rules.receive(heartbeat(0), b"0", 7.0) == [Send(b"0", Refuse(Code.NOT_MEMBER, "say HELLO"))]
    assert rules.deadline == 21.0


def test_the_same_incarnation_with_another_address_is_a_change_of_the_view():
    """[8.13]: a client that kept the old address would never find the server again."""
    rules = joined(1, 0)
    moved = hello(0, port=5555)
    assert rules.receive(moved, b"0", 1.0) == [
        Joined(member(0, port=5555), member(0)),
        Send(b"0", Welcome(2, 1000, 15000)),
    ]


def test_a_connection_serves_one_rank():
    """[5.3]: a connection that now speaks for another rank has let the first one go."""
    rules = joined(3, 0)
    assert rules.receive(hello(1, 8), b"0", 1.0) == [
        Left(member(0), Code.OK, "its connection now serves another rank"),
        Joined(member(1, 8), None),
        Send(b"0", Welcome(3, 1000, 15000)),
    ]
    assert rules.members == {1: member(1, 8)}
    rules.check()


# ------------------------------------------------------------------------------------------ heartbeats


def test_a_heartbeat_comes_back_and_renews_the_lease():
    """[8.14] 3: the echo is how a member knows that its coordinator lives."""
    rules = joined(1, 0)
    assert rules.receive(heartbeat(0, sequence=41), b"0", 10.0) == [Send(b"0", heartbeat(0, sequence=41))]
    assert rules.deadline == 25.0
    assert rules.view_number == 1


def test_the_heartbeat_of_an_older_incarnation_is_stale():
    """[8.14] 1: a server that was replaced while it could not hear must learn it at its next word."""
    rules = joined(1, 0, incarnation=7)
    rules.receive(hello(0, 9), b"new", 1.0)
    text = "incarnation 7 of partition 0 is over"
    assert rules.receive(heartbeat(0, 7), b"0", 2.0) == refused(b"0", Code.STALE, text)


@pytest.mark.parametrize(
    ("said", "sender"),
    [
        (heartbeat(1), b"1"),  # a rank that nobody has
        (heartbeat(0), b"stranger"),  # another's connection
        (heartbeat(0, 8), b"0"),  # an incarnation that has not said HELLO yet
    ],
)
def test_who_is_not_the_member_is_told_to_say_hello_and_renews_nothing(said, sender):
    """[8.14] 2: a heartbeat that anybody could send would keep a dead member in the view."""
    rules = joined(2, 0)
    assert rules.receive(said, sender, 10.0) == [Send(sender, Refuse(Code.NOT_MEMBER, "say HELLO"))]
    assert rules.deadline == 15.0


# ------------------------------------------------------------------------------------------------ leaving


def test_a_goodbye_ends_a_membership_and_is_not_answered():
    """[8.15]: an answer would meet a closed door; a missing effect would keep the host in the list."""
    rules = joined(2, 0, 1)
    assert rules.receive(goodbye(0, text="done"), b"0", 1.0) == [Left(member(0), Code.OK, "done")]
    assert rules.members == {1: member(1)}
    assert rules.view_number == 3
    assert rules.receive(goodbye(0), b"0", 2.0) == []
    assert rules.view_number == 3
    rules.check()


def test_a_goodbye_counts_over_any_connection():
    """[8.15]: the last word of a process may come over a fresh connection, because the first one has broken."""
    rules = joined(1, 0)
    assert rules.receive(goodbye(0), b"elsewhere", 1.0) == [Left(member(0), Code.OK, "")]


def test_the_goodbye_of_another_incarnation_ends_nobody_else():
    """[8.15]: the older server's last word arrives after its successor has joined."""
    rules = joined(1, 0, incarnation=9)
    assert rules.receive(goodbye(0, 7), b"old", 1.0) == []
    assert rules.members == {0: member(0, 9)}


def test_a_goodbye_with_a_wrong_token_changes_nothing():
    """[8.15]: otherwise a stranger could end somebody else's membership."""
    rules = joined(1, 0)
    text = "partition 0 said goodbye with a wrong token"
    assert rules.receive(goodbye(0, token=WRONG), b"x", 1.0) == refused(b"x", Code.BAD_TOKEN, text)
    assert rules.members == {0: member(0)}


@pytest.mark.parametrize("code", [Code.INIT_FAILED, Code.PORT_UNAVAILABLE])
def test_who_never_was_a_member_can_tell_why_not(code):
    """Without this effect start() would wait for its whole timeout although the reason is known."""
    rules = membership()
    said = goodbye(1, code=code, text="ValueError: no rows", detail="Traceback ...", host="10.0.0.5")
    assert rules.receive(said, b"1", 1.0) == [InitFailed(said)]
    assert rules.view_number == 0


def test_a_member_that_fails_afterwards_leaves_and_tells_why():
    """Both effects: the host goes from the list, and start() learns the reason."""
    rules = joined(1, 0)
    said = goodbye(0, code=Code.INIT_FAILED, text="too late")
    assert rules.receive(said, b"0", 1.0) == [Left(member(0), Code.INIT_FAILED, "too late"), InitFailed(said)]


def test_a_code_of_an_application_in_a_goodbye_is_taken():
    """Code.of knows no number above 1000; a KeyError here would end the coordinator's thread."""
    rules = joined(1, 0)
    said = goodbye(0, code=1234)
    assert rules.receive(said, b"0", 1.0) == [Left(member(0), Code.UNEXPECTED, "")]


# ------------------------------------------------------------------------------------------- being asked


def test_a_lookup_is_answered_by_the_view_whatever_the_client_has():
    """[8.16]: also an incomplete view, also to a client that claims to be ahead."""
    rules = membership(size=3, meta={"idempotent": ["get"]})
    rules.receive(hello(2), b"c", 1.0)
    view = codec.view_of(1, 3, [member(2)], {"idempotent": ["get"]})
    for number in (0, 1, 99):
        assert rules.receive(Lookup(number), b"k", 2.0) == [Send(b"k", view)]
    assert codec.members_of(view) == (member(2),)


def test_a_lookup_before_anybody_has_joined_gets_view_0():
    """[8.16] and [8.13]: a client that comes early is not turned away."""
    assert membership(size=3).receive(Lookup(0), b"k", 1.0) == [Send(b"k", codec.view_of(0, 3, [], {}))]


def test_a_lookup_renews_no_lease():
    """[8.17]: only HELLO and HEARTBEAT do; a member's connection that only asks is not a server that serves."""
    rules = joined(1, 0)
    rules.receive(Lookup(0), b"0", 10.0)
    assert rules.deadline == 15.0


def test_the_meta_of_the_view_is_a_copy():
    """A caller that goes on using its dict must not change what everybody is told."""
    given = {"idempotent": ["get"]}
    rules = membership(meta=given)
    given.clear()
    assert rules.view().meta == {"idempotent": ["get"]}


@pytest.mark.parametrize(
    "message",
    [
        Welcome(1, 1, 1),
        View(1, 1),
        Shutdown("", 0),
        Refuse(Code.OK),
        Request(1, "get", 1, 0, 0),
        Reply(1),
        Error(1, Code.OK),
    ],
    ids=lambda message: message.kind.name,
)
def test_what_a_coordinator_does_not_take_is_unexpected(message):
    """[13.1], last row: a client that reached the coordinator with a REQUEST must not wait for its deadline."""
    rules = joined(1, 0)
    text = f"a coordinator takes no {message.kind.name}"
    assert rules.receive(message, b"x", 1.0) == refused(b"x", Code.UNEXPECTED, text)
    assert rules.view_number == 1


@pytest.mark.parametrize(
    ("code", "answered"),
    [
        (Code.VERSION, True),
        (Code.WRONG_RUN, True),
        (Code.UNKNOWN_KIND, True),
        (Code.MALFORMED, False),
        (Code.TOO_LARGE, False),
        (4711, False),
    ],
)
def test_somebody_who_tried_gets_the_reason_and_a_stranger_silence(code, answered):
    """[13.1] and [13.2]: an answer to noise is noise; silence to an old release is a riddle."""
    effects = membership().malformed(RemoteProtocolError("why", code), b"x")
    assert effects == (refused(b"x", code, "why") if answered else [Refused(Code.of(code), "why")])


# ------------------------------------------------------------------------------------- the end of a run


def test_stopping_sends_shutdown_to_every_member_in_order():
    """[8.18]: a member that is not told would run until its patience is over."""
    rules = joined(3, 2, 0)
    asked = Shutdown("the cluster stops", 2500)
    assert rules.shutdown("the cluster stops", 2.5) == [Send(b"0", asked), Send(b"2", asked)]
    assert rules.state is MembershipState.STOPPING
    assert rules.view_number == 2


def test_a_heartbeat_while_stopping_is_answered_by_shutdown():
    """[8.14] 3: the first SHUTDOWN may have been lost with a connection."""
    rules = joined(1, 0)
    rules.shutdown("the cluster stops", 1.0)
    assert rules.receive(heartbeat(0), b"0", 10.0) == [Send(b"0", Shutdown("the cluster stops", 1000))]
    assert rules.deadline == 25.0


@pytest.mark.parametrize("message", [hello(1), heartbeat(1), Lookup(0)], ids=lambda message: message.kind.name)
def test_nobody_joins_or_finds_a_run_that_is_stopping(message):
    """[8.10] 3, [8.14] 2 and [8.16]: a client learns that the cluster is over instead of trying on."""
    rules = joined(2, 0)
    rules.shutdown("stop() was called", 1.0)
    assert rules.receive(message, b"late", 1.0) == [Send(b"late", Refuse(Code.CLOSED, "stop() was called"))]
    assert rules.members == {0: member(0)}


@pytest.mark.parametrize("message", [hello(1), heartbeat(1), Lookup(0)], ids=lambda message: message.kind.name)
def test_a_failed_run_says_why(message):
    """[8.10] 3: "no such server" would send the user looking at the network instead of at Spark."""
    rules = joined(2, 0)
    rules.fail("x" * 5000)
    assert rules.state is MembershipState.FAILED
    assert rules.receive(message, b"k", 1.0) == [Send(b"k", Refuse(Code.JOB_FAILED, "x" * 4000))]


def test_the_members_of_a_failed_run_keep_their_leases():
    """They still run, and stop() still has to reach them."""
    rules = joined(1, 0)
    rules.fail("an executor was lost")
    assert rules.receive(heartbeat(0), b"0", 1.0) == [Send(b"0", heartbeat(0))]
    assert rules.shutdown("over", 0.0) == [Send(b"0", Shutdown("over", 0))]
    assert rules.state is MembershipState.STOPPING


def test_a_run_that_is_stopping_does_not_fail_any_more():
    """Spark ends the job as the servers leave; that is no failure to tell."""
    rules = membership()
    rules.shutdown("over", 1.0)
    rules.fail("the job has ended")
    assert rules.receive(Lookup(0), b"k", 1.0) == [Send(b"k", Refuse(Code.CLOSED, "over"))]
