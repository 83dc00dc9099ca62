"""Membership under any sequence of messages, commands and times: what must hold after every step."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support.members import TOKEN, goodbye, heartbeat, hello, membership

from spark_partition_server.core.effects import Joined, Left, Lost, Refused, Send
from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Hello, Lookup, Refuse, View, Welcome

SIZE = 3
RANKS = st.integers(0, SIZE)  # one of them does not exist
INCARNATIONS = st.integers(0, 5)
SENDERS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
TOKENS = st.sampled_from([TOKEN, TOKEN, TOKEN, TOKEN, b"wrong"])


class MembershipWalk(RuleBasedStateMachine):
    """A coordinator, everything that can be said to it, and a copy of the members made of its effects alone."""

    def __init__(self):
        super().__init__()
        self.rules = membership(SIZE)
        self.now = 1000.0
        self.members = {}  # as the effects tell
        self.number = 0  # of the view, as the effects tell
        self.greatest = {}  # incarnation that ever joined, by rank

    def apply(self, effects):
        for effect in effects:
            if isinstance(effect, Joined):
                member = effect.member
                assert effect.previous == self.members.get(member.rank)
                assert member.incarnation >= self.greatest.get(member.rank, -1), "an older incarnation has come back"
                self.greatest[member.rank] = member.incarnation
                self.members[member.rank] = member
                self.number += 1
            elif isinstance(effect, (Left, Lost)):
                assert self.members.pop(effect.member.rank) == effect.member
                self.number += 1
        return [(effect.to, effect.message) for effect in effects if isinstance(effect, Send)]

    # -------------------------------------------------------------------------------------- what can happen

    @rule(
        rank=RANKS,
        incarnation=INCARNATIONS,
        sender=SENDERS,
        token=TOKENS,
        version=st.sampled_from([1, 1, 1, 2]),
        port=st.sampled_from([1, 2]),
    )
    def say_hello(self, rank, incarnation, sender, token, version, port):
        said = hello(rank, incarnation, token=token, version_min=version, version_max=version, port=port)
        greatest = self.greatest.get(rank, -1)
        *_, (to, answer) = self.apply(self.rules.receive(said, sender, self.now))
        assert to == sender
        if isinstance(answer, Welcome):
            assert (answer.view, token, version) == (self.number, TOKEN, 1)
            assert rank < SIZE
            assert incarnation >= greatest
            assert self.members[rank].incarnation == incarnation
        elif incarnation < greatest:
            assert isinstance(answer, Refuse)

    @rule(rank=RANKS, incarnation=INCARNATIONS, sender=SENDERS)
    def beat(self, rank, incarnation, sender):
        said = heartbeat(rank, incarnation)
        self.rules.receive(Lookup(0), sender, self.now)  # what a late wake-up gives back is given back by now
        before = self.rules.deadline
        ((to, answer),) = self.apply(self.rules.receive(said, sender, self.now))
        assert to == sender
        if answer == said:
            assert self.members[rank].incarnation == incarnation
        elif isinstance(answer, Refuse):
            assert self.rules.deadline == before

    @rule(rank=RANKS, incarnation=INCARNATIONS, sender=SENDERS, token=TOKENS, code=st.sampled_from(list(Code)))
    def say_goodbye(self, rank, incarnation, sender, token, code):
        sent = self.apply(self.rules.receive(goodbye(rank, incarnation, code, token=token), sender, self.now))
        assert bool(sent) == (token != TOKEN)
        if token == TOKEN and rank in self.members:
            assert self.members[rank].incarnation != incarnation

    @rule(view=st.integers(0, 9), sender=SENDERS)
    def look_up(self, view, sender):
        ((to, answer),) = self.apply(self.rules.receive(Lookup(view), sender, self.now))
        assert to == sender
        if isinstance(answer, View):
            assert {member.rank: member for member in codec.members_of(answer)} == self.members
            assert (answer.number, answer.size) == (self.number, SIZE)

    @rule(code=st.sampled_from([Code.VERSION, Code.MALFORMED]), sender=SENDERS)
    def talk_nonsense(self, code, sender):
        effects = self.rules.malformed(RemoteProtocolError("nonsense", code), sender)
        assert isinstance(effects[0], Refused)
        self.apply(effects)

    @rule(seconds=st.sampled_from([0.1, 0.5, 5.0, 14.9, 15.0, 16.0, 3600.0]), wakes_up=st.booleans())
    def wait(self, seconds, wakes_up):
        self.rules.deadline  # as a loop does before it sleeps
        self.now += seconds
        if wakes_up:
            self.apply(self.rules.tick(self.now))

    @rule(rank=RANKS)
    def shut_down_one(self, rank):
        sent = self.apply(self.rules.shutdown_rank(rank, "asked", 1.0))
        assert len(sent) == (rank in self.members)

    @rule(chance=st.integers(0, 9), fails=st.booleans())
    def end(self, chance, fails):
        if chance:  # rarely: nobody joins afterwards
            return
        if fails:
            self.rules.fail("the job has failed")
        else:
            assert len(self.apply(self.rules.shutdown("over", 1.0))) == len(self.members)

    # ---------------------------------------------------------------------------------------- what must hold

    @invariant()
    def its_own_invariants_hold(self):
        self.rules.check()

    @invariant()
    def effects_and_members_tell_the_same(self):
        assert self.rules.members == self.members
        assert self.rules.complete == (len(self.members) == SIZE)

    @invariant()
    def the_number_of_the_view_counts_the_changes(self):
        assert self.rules.view_number == self.number

    @invariant()
    def there_is_a_deadline_while_there_are_members(self):
        assert (self.rules.deadline is None) == (not self.members)

    @invariant()
    def what_is_older_stays_refused(self):
        for rank, greatest in self.greatest.items():
            if greatest:
                said = hello(rank, greatest - 1)
                assert isinstance(said, Hello)
                (*_, last) = self.rules.receive(said, b"zombie", self.now)
                assert isinstance(last.message, Refuse)


def test_membership_holds_its_promises_under_any_sequence_of_events():
    """[8.11] and [8.13]: one member a rank, no incarnation comes back, every change is one number and one effect."""
    run_state_machine_as_test(MembershipWalk, settings=settings(max_examples=100, stateful_step_count=40))
