"""The session's table: every state meets every event, and random sequences of events lead to known states only."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.members import goodbye, heartbeat, hello

from spark_partition_server.core.effects import Ended, Send, ShutdownAsked, Welcomed
from spark_partition_server.core.session import FINAL_REFUSALS, TRANSITIONS, Event, Session, SessionState
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Refuse, Shutdown, Welcome

PATIENCE = 60.0
WELCOME = Welcome(1, 1000, 15000)
SILENT = Ended(Code.UNAVAILABLE, "no word from the coordinator for 60 s")
GOODBYE = [Send(None, goodbye(host="10.0.0.5")), Ended(Code.OK, "")]
REFUSED = [Ended(Code.STALE, "")]

# What a session says at each step of the table; nothing where the table has no row.
SAID = {
    (SessionState.NEW, Event.START): [Send(None, hello())],
    (SessionState.NEW, Event.LEAVE): GOODBYE,
    (SessionState.JOINING, Event.WELCOME): [Welcomed()],
    (SessionState.JOINING, Event.REFUSED): REFUSED,
    (SessionState.JOINING, Event.SHUTDOWN): [ShutdownAsked("", 1.0)],
    (SessionState.JOINING, Event.LEAVE): GOODBYE,
    (SessionState.JOINING, Event.SILENCE): [SILENT],
    (SessionState.MEMBER, Event.NOT_MEMBER): [Send(None, hello())],
    (SessionState.MEMBER, Event.REFUSED): REFUSED,
    (SessionState.MEMBER, Event.SHUTDOWN): [ShutdownAsked("", 1.0)],
    (SessionState.MEMBER, Event.LEAVE): GOODBYE,
    (SessionState.MEMBER, Event.SILENCE): [SILENT],
    (SessionState.LEAVING, Event.REFUSED): REFUSED,
    (SessionState.LEAVING, Event.LEAVE): GOODBYE,
    (SessionState.LEAVING, Event.SILENCE): [SILENT],
}
PATHS = {
    SessionState.NEW: [],
    SessionState.JOINING: [Event.START],
    SessionState.MEMBER: [Event.START, Event.WELCOME],
    SessionState.LEAVING: [Event.START, Event.WELCOME, Event.SHUTDOWN],
    SessionState.ENDED: [Event.START, Event.WELCOME, Event.LEAVE],
}


def provoke(session, event, now, code=Code.STALE):
    """Makes ``event`` happen at ``now``; returns the effects."""
    messages = {
        Event.WELCOME: WELCOME,
        Event.HEARTBEAT: heartbeat(),
        Event.NOT_MEMBER: Refuse(Code.NOT_MEMBER),
        Event.REFUSED: Refuse(code),
        Event.SHUTDOWN: Shutdown("", 1000),
    }
    if event is Event.START:
        return session.start(now)
    if event is Event.LEAVE:
        return session.leave(Code.OK)
    if event is Event.SILENCE:
        return silence(session, now)
    return session.receive(messages[event], None, now)


def silence(session, now):
    """A minute without a word, with a tick whenever one is wanted; what was said at its end."""
    effects, end = [], now + PATIENCE
    while session.deadline is not None and session.deadline <= end:
        effects = session.tick(session.deadline)
    return effects


def session_in(state):
    """One that has come to ``state`` by the shortest way, at 100.0."""
    made = Session(hello(), PATIENCE)
    for event in PATHS[state]:
        provoke(made, event, 100.0)
    assert made.state is state
    return made


def kept(session):
    """Everything a session remembers but when it last heard something."""
    return {name: value for name, value in vars(session).items() if name != "_heard"}


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(SessionState, Event)), ids=lambda value: value.name
)
def test_every_state_meets_every_event_as_the_table_says(state, event):
    """[8.1]: a cell that the code fills in another way than the table is a session no document describes."""
    session = session_in(state)
    before = kept(session)
    effects = provoke(session, event, 100.5)
    assert session.state is TRANSITIONS[state].get(event, state)
    assert effects == SAID.get((state, event), [])
    if event not in TRANSITIONS[state]:
        assert kept(session) == before
    session.check()


def test_the_table_names_every_state_and_leads_to_states_only():
    """A state without a row would be a KeyError on an executor."""
    assert set(TRANSITIONS) == set(SessionState)
    assert {following for row in TRANSITIONS.values() for following in row.values()} <= set(SessionState)
    assert {event for row in TRANSITIONS.values() for event in row} <= set(Event)
    assert set(SAID) == {(state, event) for state, row in TRANSITIONS.items() for event in row}


def test_every_state_can_be_reached_and_the_end_from_everywhere():
    """A state without a way out is a server that cannot be stopped."""
    for state in SessionState:
        reached, fresh = {state}, {state}
        while fresh:
            fresh = {following for one in fresh for following in TRANSITIONS[one].values()} - reached
            reached |= fresh
        assert SessionState.ENDED in reached
        if state is SessionState.NEW:
            assert reached == set(SessionState)
    assert TRANSITIONS[SessionState.ENDED] == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([event for event in Event if event is not Event.SILENCE] + ["tick"]),
            st.sampled_from([0.0, 0.25, 1.0, 59.0, 61.0]),
            st.sampled_from(sorted(FINAL_REFUSALS)),
        ),
        max_size=40,
    )
)
def test_random_events_lead_to_known_states_and_nothing_follows_the_end(events):
    """[8.5]: whatever happens in whatever order, a session ends once, and says nothing any more."""
    session, now, ended = Session(hello(), PATIENCE), 100.0, 0
    for event, pause, code in events:
        now += pause
        over = session.state is SessionState.ENDED
        effects = session.tick(now) if event == "tick" else provoke(session, event, now, code)
        assert not (over and effects)
        ended += sum(isinstance(effect, Ended) for effect in effects)
        session.check()
        assert session.state in SessionState
    assert ended == (session.state is SessionState.ENDED)
