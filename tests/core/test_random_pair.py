"""Sessions and a membership with a network between them that loses things, and with processes that die."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from support.members import hello, membership

from spark_partition_server.core.effects import Ended, Send, ShutdownAsked
from spark_partition_server.core.membership import MembershipState
from spark_partition_server.core.session import Session, SessionState
from spark_partition_server.wire.codes import Code

SIZE = 2
STEP = 0.5  # seconds between two ticks of everybody: nobody oversleeps
PATIENCE = 60.0
HEALING = 40.0  # seconds: a lease, a HELLO and some more


@dataclass(eq=False)
class Life:
    """One process: its session, its connection, and what is under way both ways.

    A connection delivers in order; it loses only when it breaks, and then what is under way both ways.
    """

    rank: int
    incarnation: int
    session: Session
    connection: bytes = b""
    alive: bool = True
    asked: bool = False
    ends: int = 0
    up: deque = field(default_factory=deque)
    down: deque = field(default_factory=deque)

    @property
    def over(self):
        return not self.alive or self.session.state is SessionState.ENDED


class World(RuleBasedStateMachine):
    """Two partitions whose servers come, lose their connections, die and come again; and one coordinator."""

    def __init__(self):
        super().__init__()
        self.rules = membership(SIZE)
        self.now = 0.0
        self.incarnations = itertools.count(1)
        self.connections = itertools.count(1)
        self.lives = []

    # ---------------------------------------------------------------------------------------- performing

    def coordinator_did(self, effects):
        for effect in effects:
            if isinstance(effect, Send):
                for life in self.lives:
                    if life.alive and life.connection == effect.to:
                        life.down.append(effect.message)

    def life_did(self, life, effects):
        for effect in effects:
            assert life.ends == 0, "it spoke after its end"
            if isinstance(effect, Send):
                life.up.append(effect.message)
            elif isinstance(effect, ShutdownAsked):
                assert not life.asked, "it was shut down twice"
                life.asked = True
        life.ends += sum(isinstance(effect, Ended) for effect in effects)

    def pick(self, number):
        running = [life for life in self.lives if not life.over]
        return running[number % len(running)]

    def anybody(self):
        return any(not life.over for life in self.lives)

    def deliver(self, life):
        if life.up:
            message = life.up.popleft()
            self.coordinator_did(self.rules.receive(message, life.connection, self.now))
        if life.down and life.alive:
            self.life_did(life, life.session.receive(life.down.popleft(), None, self.now))

    def connect(self, life):
        life.connection = b"connection %d" % next(self.connections)
        life.up.clear()
        life.down.clear()

    def step(self):
        self.now += STEP
        self.coordinator_did(self.rules.tick(self.now))
        for life in self.lives:
            if life.alive:
                self.life_did(life, life.session.tick(self.now))

    # ------------------------------------------------------------------------------------- what can happen

    @rule(rank=st.integers(0, SIZE - 1))
    def is_born(self, rank):
        incarnation = next(self.incarnations)
        life = Life(rank, incarnation, Session(hello(rank, incarnation), PATIENCE))
        self.connect(life)
        self.lives.append(life)
        self.life_did(life, life.session.start(self.now))

    @precondition(anybody)
    @rule(number=st.integers(0, 9), last_words=st.booleans())
    def dies(self, number, last_words):
        life = self.pick(number)
        life.alive = False
        if not last_words:
            life.up.clear()

    @precondition(anybody)
    @rule(number=st.integers(0, 9))
    def loses_its_connection(self, number):
        self.connect(self.pick(number))

    @precondition(anybody)
    @rule(number=st.integers(0, 9))
    def leaves(self, number):
        life = self.pick(number)
        self.life_did(life, life.session.leave(Code.OK))

    @rule(number=st.integers(0, 99))
    @precondition(lambda self: self.lives)
    def something_arrives(self, number):
        self.deliver(self.lives[number % len(self.lives)])

    @rule()
    def everything_arrives(self):
        while any(life.up or (life.down and life.alive) for life in self.lives):
            for life in self.lives:
                self.deliver(life)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 16.0, 61.0]))
    def time_passes(self, seconds):
        for _ in range(int(seconds / STEP)):
            self.step()

    @rule(chance=st.integers(0, 9))
    def stops(self, chance):
        if not chance:
            self.coordinator_did(self.rules.shutdown("over", 1.0))

    # --------------------------------------------------------------------------------------- what must hold

    @invariant()
    def the_rules_hold(self):
        self.rules.check()
        for life in self.lives:
            life.session.check()
            assert life.ends == (life.session.state is SessionState.ENDED)

    @invariant()
    def a_member_is_somebody_who_said_hello(self):
        known = {(life.rank, life.incarnation) for life in self.lives}
        assert {(rank, member.incarnation) for rank, member in self.rules.members.items()} <= known

    def teardown(self):
        """Everything heals: who is left, and is not fenced, is a member, and nobody else is."""
        for _ in range(int(HEALING / STEP)):
            self.everything_arrives()
            for life in self.lives:
                if life.asked and not life.over:
                    self.life_did(life, life.session.leave(Code.OK))
            self.everything_arrives()
            self.step()
        self.everything_arrives()
        self.the_rules_hold()
        left = [life for life in self.lives if not life.over]
        members = {rank: member.incarnation for rank, member in self.rules.members.items()}
        assert members == {life.rank: life.incarnation for life in left}, "somebody is missing, or dead and a member"
        assert len(left) == len(members), "two servers of one partition"
        assert all(life.session.state is SessionState.MEMBER for life in left)
        if self.rules.state is MembershipState.STOPPING:
            assert not left, "somebody runs on after the end"


def test_after_any_losses_everybody_agrees_again():
    """[8.2], [8.6], [8.11], [8.14] and [8.17]: one server a rank, the stale have ended, after stop() nobody is left."""
    run_state_machine_as_test(World, settings=settings(max_examples=100, stateful_step_count=40))
