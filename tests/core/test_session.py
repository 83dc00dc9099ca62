"""A member's rules: join, keep the heartbeat, hear the shutdown, leave (PROTOCOL.md, 8.1)."""

from __future__ import annotations

import pytest
from support.members import goodbye, heartbeat, hello

from spark_partition_server.core.effects import Ended, Send, ShutdownAsked, Welcomed
from spark_partition_server.core.session import FINAL_REFUSALS, Session, SessionState
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Error, Lookup, Refuse, Shutdown, View, Welcome

PATIENCE = 60.0
HELLO = Send(None, hello())


def session(now=100.0, *, member=True, heartbeat_ms=1000):
    """One that has said HELLO at ``now`` and, unless ``member`` is False, was welcomed at once."""
    made = Session(hello(), PATIENCE)
    made.start(now)
    if member:
        made.receive(Welcome(1, heartbeat_ms, 15000), None, now)
    made.check()
    return made


def beat(sequence):
    return Send(None, heartbeat(sequence=sequence))


def run(made, now, until):
    """Ticks four times a second; returns when it was over, and what the last tick had to say."""
    effects = []
    while now < until and made.state is not SessionState.ENDED:
        now += 0.25
        effects = made.tick(now)
    return now, effects


# --------------------------------------------------------------------------------------------- joining


def test_a_session_begins_with_hello():
    """[8.2]: nobody asks a server who it is."""
    made = Session(hello(), PATIENCE)
    assert made.deadline is None
    assert made.tick(1.0) == []
    assert made.start(2.0) == [HELLO]
    assert made.state is SessionState.JOINING
    assert made.deadline == 3.0
    assert made.start(2.5) == []


def test_hello_is_said_again_every_second_until_it_is_answered():
    """[8.2]: one HELLO lost with a connection must not cost the server its 30 seconds."""
    made = session(100.0, member=False)
    assert made.tick(100.9) == []
    assert made.tick(101.0) == [HELLO]
    assert made.tick(101.0) == []
    assert made.tick(102.25) == [HELLO]
    assert made.deadline == 103.25
    assert made.receive(Welcome(4, 1000, 15000), None, 103.0) == [Welcomed()]
    assert made.tick(103.9) == []
    assert made.tick(104.0) == [beat(1)]


def test_a_welcome_tells_how_often_to_beat():
    """[8.3]: the coordinator's option counts, not a constant of the member."""
    made = session(100.0, heartbeat_ms=250)
    assert made.deadline == 100.25
    assert [made.tick(100.25 + 0.25 * n) for n in range(3)] == [[beat(1)], [beat(2)], [beat(3)]]


@pytest.mark.parametrize("heartbeat_ms", [0, 1, 9])
def test_a_heartbeat_of_no_length_is_one_of_ten_milliseconds(heartbeat_ms):
    """[8.3]: a member told to beat every 0 ms would do nothing else."""
    assert session(100.0, heartbeat_ms=heartbeat_ms).deadline == 100.01


def test_a_second_welcome_changes_nothing():
    """A late answer to the second HELLO of two; a beat that started over would come too late."""
    made = session(100.0)
    assert made.receive(Welcome(9, 50_000, 15000), None, 100.9) == []
    assert made.tick(101.0) == [beat(1)]


def test_a_late_tick_beats_once():
    """A member that was stopped for ten seconds owes its coordinator one heartbeat, not ten."""
    made = session(100.0)
    assert made.tick(110.0) == [beat(1)]
    assert made.tick(110.0) == []
    assert made.deadline == 111.0


# ---------------------------------------------------------------------------------------- being refused


def test_a_member_that_is_not_known_says_hello_at_once():
    """[8.1]: the coordinator took it for lost; every second without a HELLO is one without its partition."""
    made = session(100.0)
    assert made.receive(Refuse(Code.NOT_MEMBER, "say HELLO"), None, 100.5) == [HELLO]
    assert made.state is SessionState.JOINING
    assert made.receive(Refuse(Code.NOT_MEMBER, "say HELLO"), None, 100.6) == []
    assert made.receive(Welcome(5, 1000, 15000), None, 100.7) == [Welcomed()]
    assert made.tick(101.7) == [beat(1)]


def test_heartbeats_count_on_after_a_second_hello():
    """The sequence is the incarnation's; one that starts again would look like an old message."""
    made = session(100.0)
    made.tick(101.0)
    made.receive(Refuse(Code.NOT_MEMBER), None, 101.5)
    made.receive(Welcome(5, 1000, 15000), None, 101.6)
    assert made.tick(102.6) == [beat(2)]


@pytest.mark.parametrize("code", sorted(FINAL_REFUSALS))
@pytest.mark.parametrize("joined", [True, False])
def test_a_final_refusal_ends_a_session_without_a_goodbye(code, joined):
    """[8.5]: a fenced server that goes on serving is the one fault this protocol is there to prevent."""
    made = session(100.0, member=joined)
    assert made.receive(Refuse(code, "because"), None, 101.0) == [Ended(code, "because")]
    assert made.state is SessionState.ENDED
    assert made.deadline is None
    assert made.leave(Code.OK) == []
    assert made.tick(1e6) == []


@pytest.mark.parametrize("code", [code for code in Code if code not in FINAL_REFUSALS | {Code.NOT_MEMBER}] + [4711])
def test_any_other_refusal_changes_nothing(code):
    """[8.1]: a code of a later release must not end servers."""
    made = session(100.0)
    assert made.receive(Refuse(code, "because"), None, 100.5) == []
    assert made.state is SessionState.MEMBER
    assert made.tick(101.0) == [beat(1)]


# ------------------------------------------------------------------------------------------------ leaving


def test_a_shutdown_is_asked_for_once_and_the_heartbeat_goes_on():
    """[8.4]: the second SHUTDOWN answers a heartbeat; a server shut down twice would cut its last answers short."""
    made = session(100.0)
    assert made.receive(Shutdown("the cluster stops", 2500), None, 100.5) == [ShutdownAsked("the cluster stops", 2.5)]
    assert made.state is SessionState.LEAVING
    assert made.tick(101.0) == [beat(1)]
    assert made.receive(Shutdown("the cluster stops", 2500), None, 101.1) == []
    assert made.tick(102.0) == [beat(2)]


def test_a_shutdown_may_come_before_the_welcome():
    """[8.3]: without a WELCOME the heartbeat is that of HELLO."""
    made = session(100.0, member=False)
    assert made.receive(Shutdown("", 0), None, 100.5) == [ShutdownAsked("", 0.0)]
    assert made.tick(101.0) == [beat(1)]
    assert made.tick(102.0) == [beat(2)]


def test_a_member_that_leaves_is_not_asked_back():
    """Its HELLO would make it a member of a run that it is leaving."""
    made = session(100.0)
    made.receive(Shutdown("", 0), None, 100.5)
    assert made.receive(Refuse(Code.NOT_MEMBER), None, 100.6) == []
    assert made.state is SessionState.LEAVING


def test_goodbye_is_said_once():
    """[8.5]: the second one would end the next life of this rank's connection."""
    made = session(100.0)
    said = goodbye(code=Code.HANDLER, text="why", detail="where", host="10.0.0.5")
    assert made.leave(Code.HANDLER, "why", "where") == [Send(None, said), Ended(Code.OK, "why")]
    assert made.leave(Code.OK) == []
    assert made.deadline is None


def test_who_never_was_a_member_can_say_goodbye():
    """init_partition has raised: the driver is to know why, without a HELLO."""
    made = Session(hello(), PATIENCE)
    assert made.leave(Code.INIT_FAILED, "no rows") == [
        Send(None, goodbye(code=Code.INIT_FAILED, text="no rows", host="10.0.0.5")),
        Ended(Code.OK, "no rows"),
    ]
    assert made.start(1.0) == []


def test_a_long_reason_is_cut():
    """A text over its limit cannot be sent, and the goodbye would be lost with it."""
    (sent, ended) = session().leave(Code.INIT_FAILED, "x" * 9000)
    assert sent.message.text == "x" * 4000
    assert ended == Ended(Code.OK, "x" * 9000)


# ------------------------------------------------------------------------------------------------ silence


@pytest.mark.parametrize("joined", [True, False])
def test_a_member_nobody_talks_to_ends(joined):
    """[8.6]: a driver that was killed must not leave servers behind on its executors."""
    made = session(100.0, member=joined)
    ended = [Ended(Code.UNAVAILABLE, "no word from the coordinator for 60 s")]
    assert run(made, 100.0, 999.0) == (160.0, ended)
    assert made.deadline is None
    assert made.tick(1e6) == []


def test_patience_ends_between_two_heartbeats_too():
    """[8.6]: a loop that slept until the next heartbeat would notice the silence too late."""
    made = session(100.0, heartbeat_ms=100_000)
    assert made.deadline == 160.0
    assert made.tick(159.9) == []
    assert made.tick(160.0) == [Ended(Code.UNAVAILABLE, "no word from the coordinator for 60 s")]


@pytest.mark.parametrize(
    "word",
    [
        heartbeat(),
        Welcome(1, 1000, 1),
        Refuse(Code.OVERLOADED),
        Shutdown("", 0),
        View(1, 1),
        Lookup(0),
        Error(1, Code.OK),
        hello(),
    ],
    ids=lambda message: message.kind.name,
)
def test_any_message_is_a_word(word):
    """[8.6] and [13.5]: whatever the coordinator says, it is there; what the member does not know it drops."""
    made = session(100.0)
    run(made, 100.0, 150.0)
    assert not [effect for effect in made.receive(word, None, 150.0) if isinstance(effect, Send)]
    assert run(made, 150.0, 999.0)[0] == 210.0


def test_after_the_end_nothing_is_heard():
    """Messages still arrive while the loop is being closed."""
    made = session(100.0)
    made.leave(Code.OK)
    for message in (Welcome(1, 1, 1), Refuse(Code.STALE), Refuse(Code.NOT_MEMBER), Shutdown("", 0), heartbeat()):
        assert made.receive(message, None, 101.0) == []
    made.check()


def test_a_member_that_was_stopped_does_not_take_that_for_silence():
    """[10.4]: an executor that was suspended for an hour has heard nobody, and still has a coordinator."""
    made = session(100.0)
    assert made.tick(3700.0) == [beat(1)]
    assert made.state is SessionState.MEMBER
    assert made.deadline == 3701.0


def test_what_was_heard_before_the_sleep_counts_as_it_did():
    """[10.4]: 50 s of silence, an hour of sleep, 10 s of silence: that is a minute."""
    made = session(100.0)
    run(made, 100.0, 150.0)
    assert made.tick(3750.0) != []
    assert 3758.0 <= run(made, 3750.0, 9999.0)[0] <= 3761.0


def test_who_was_heard_after_the_sleep_is_not_forgiven_the_sleep_as_well():
    """[10.4]: otherwise a driver that dies now is noticed an hour later."""
    made = session(100.0)
    made.receive(heartbeat(), None, 3700.0)  # it waited in the socket while this process slept
    made.tick(3700.0)
    assert run(made, 3700.0, 9999.0)[0] == 3760.0


def test_a_tick_a_hair_too_early_waits_for_the_next():
    """0.7 + 0.1 - 0.7 is less than 0.1: the patience is over a moment later, and nothing is said in between."""
    made = Session(hello(), 0.1)
    made.start(0.7)
    assert made.tick(made.deadline) == []
    assert made.tick(made.deadline + 1e-9) == [Ended(Code.UNAVAILABLE, "no word from the coordinator for 0.1 s")]
