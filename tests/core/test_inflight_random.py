"""A client's machines and servers' machines with a network between them that loses, doubles, delays and reorders."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from support.members import member

from spark_partition_server.core.calls import Calls
from spark_partition_server.core.dispatch import Dispatch
from spark_partition_server.core.inflight import Inflight
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import CODES, Code
from spark_partition_server.wire.messages import Error

CALLS_MAX = 4
BYTES_MAX = 100
LATE = 0.1  # seconds by which a call may end after its deadline
METHODS = {"get": True, "put": False}  # name: may run twice


@dataclass(eq=False)
class Call:
    """One call of the user, through all its tries."""

    name: int
    method: str
    deadline: float
    octets: int
    attempt: int = 0
    asked: int = 0  # the incarnation of the last try
    again: float | None = None  # when the next try is due
    outcome: object = None
    ends: int = 0


@dataclass(eq=False)
class Server:
    """One life: its rules, and the requests that it runs now."""

    incarnation: int
    rules: Dispatch
    running: list = field(default_factory=list)


@dataclass(eq=False)
class Connection:
    """To one life of the server, which need not be the one that was meant: ports are given again.

    Messages under way are taken from anywhere; ``open`` is the client's opinion.
    """

    meant: int
    server: Server
    inflight: Inflight
    open: bool = True
    up: list = field(default_factory=list)
    down: list = field(default_factory=list)


class World(RuleBasedStateMachine):
    """One partition, whose servers follow each other, and one client with many calls."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.numbers = itertools.count(1)  # call ids: never twice, on no connection
        self.names = itertools.count(1)
        self.rules = Calls()
        self.views = 0
        self.servers = []
        self.connections = []
        self.calls = []
        self.runs = Counter()
        self.a_server_is_born(True)

    # -------------------------------------------------------------------------------------------- the client

    def connection(self):
        """To the server that the view names, which may be an earlier one than serves now."""
        incarnation = self.rules.members[0].incarnation
        last = self.connections[-1] if self.connections else None
        if last is None or not last.open or last.meant != incarnation:
            if last is not None and last.open:
                self.lose(last)
            server = self.servers[-1 if incarnation % 2 else incarnation - 1]
            self.connections.append(Connection(incarnation, server, Inflight(CALLS_MAX, BYTES_MAX)))
        return self.connections[-1]

    def send(self, call):
        call.attempt += 1
        call.again = None
        connection = self.connection()
        number = next(self.numbers)
        if not connection.inflight.begin(number, call, call.deadline, call.octets):
            self.end(call, "overloaded")
            return
        remaining_ms = int((call.deadline - self.now) * 1000) + 1
        call.asked = connection.meant
        fields = (number, call.method, remaining_ms, 0, connection.meant)
        connection.up.append((fields, call.name))

    def end(self, call, outcome):
        call.ends += 1
        call.outcome = outcome
        assert self.now <= call.deadline + LATE, "it ended late"

    def failed(self, call, definite, outcome):
        """A try failed: another one within the deadline, or the end."""
        pause = self.rules.pause(call.method, definite, call.attempt, self.now, call.deadline, 0.5)
        if pause is None:
            self.end(call, outcome)
        else:
            call.again = self.now + pause

    def answered(self, connection, number, answer):
        call = connection.inflight.receive(number)
        if call is None:
            return
        if type(answer) is not Error:
            self.end(call, ("reply", answer))
            return
        code = Code.of(answer.code)
        if CODES[code].retry:
            self.failed(call, CODES[code].definite, code)
        else:
            self.end(call, code)

    def lose(self, connection):
        connection.open = False
        for call in connection.inflight.lost():
            self.failed(call, False, "unknown")

    def wake(self):
        """What the client's one timer does."""
        for connection in self.connections:
            for call in connection.inflight.expired(self.now):
                self.end(call, "timeout")
        for call in self.calls:
            if call.again is not None and call.again <= self.now:
                self.send(call)

    # -------------------------------------------------------------------------------------------- the network

    def pick(self, number, direction):
        having = [one for one in self.connections if getattr(one, direction)]
        connection = having[number % len(having)]
        messages = getattr(connection, direction)
        return connection, messages.pop(number // 7 % len(messages))

    def at_the_server(self, connection, message):
        server = connection.server
        if message[0] == "cancel":
            server.running = [one for one in server.running if one[1][0] != message[1]]
            return
        fields, name = message
        admitted = server.rules.admit(fields, self.now, self.now)
        if type(admitted) is Error:
            connection.down.append((fields[0], admitted))
        else:
            server.running.append((connection, fields, name))

    # ---------------------------------------------------------------------------------------- what can happen

    @rule(
        method=st.sampled_from(sorted(METHODS)),
        timeout=st.sampled_from([0.01, 0.2, 1.0, 10.0]),
        octets=st.sampled_from([1, 50, 200]),
    )
    def a_call_is_made(self, method, timeout, octets):
        call = Call(next(self.names), method, self.now + timeout, octets)
        self.calls.append(call)
        self.send(call)

    @precondition(lambda self: not all(call.ends for call in self.calls))
    @rule(number=st.integers(0, 99))
    def a_call_is_cancelled(self, number):
        """By its caller, who is told nothing any more."""
        open_calls = [call for call in self.calls if not call.ends]
        call = open_calls[number % len(open_calls)]
        call.again = None
        for connection in self.connections:
            for call_id in list(connection.inflight._calls):
                if connection.inflight.find(call_id) is call:
                    assert connection.inflight.cancel(call_id) is call
                    connection.up.append(("cancel", call_id))
        self.end(call, "cancelled")

    @precondition(lambda self: any(one.up for one in self.connections))
    @rule(number=st.integers(0, 999), twice=st.booleans())
    def a_request_arrives(self, number, twice):
        """Twice: an answer that was asked for twice comes twice; only idempotent methods may stand that."""
        connection, message = self.pick(number, "up")
        self.at_the_server(connection, message)
        if twice and message[0] != "cancel" and METHODS[message[0][1]]:
            self.at_the_server(connection, message)

    @precondition(lambda self: any(one.down for one in self.connections))
    @rule(number=st.integers(0, 999), copies=st.integers(0, 2))
    def an_answer_arrives(self, number, copies):
        """Or is lost, or arrives twice."""
        connection, message = self.pick(number, "down")
        for _ in range(copies):
            self.answered(connection, *message)

    @precondition(lambda self: any(one.down for one in self.connections))
    @rule(number=st.integers(0, 999))
    def an_answer_arrives_over_another_connection(self, number):
        """A late one, of an earlier life: its number is nobody's there."""
        connection, message = self.pick(number, "down")
        others = [one for one in self.connections if one is not connection and one.open]
        for other in others:
            before = len(other.inflight)
            self.answered(other, *message)
            assert len(other.inflight) == before

    def servers_busy(self):
        return [server for server in self.servers if server.running]

    @precondition(servers_busy)
    @rule(number=st.integers(0, 999))
    def a_method_returns(self, number):
        busy = self.servers_busy()
        server = busy[number % len(busy)]
        connection, fields, name = server.running.pop(number // len(busy) % len(server.running))
        self.runs[name] += 1
        connection.down.append((fields[0], (name, server.incarnation)))

    @rule()
    def everything_arrives(self):
        """Requests are run and answered, as they mostly are."""
        for connection in self.connections:
            while connection.up:
                self.at_the_server(connection, connection.up.pop(0))
        for server in self.servers:
            while server.running:
                self.a_method_returns(self.servers_busy().index(server))
        for connection in self.connections:
            while connection.down:
                self.answered(connection, *connection.down.pop(0))

    @rule(known=st.booleans())
    def a_server_is_born(self, known):
        """The one before it runs on for as long as nobody tells it."""
        incarnation = len(self.servers) + 1
        self.servers.append(Server(incarnation, Dispatch(0, incarnation, dict.fromkeys(METHODS, print))))
        if known:
            self.the_client_looks_at_the_view()

    @rule(number=st.integers(0, 99))
    def a_server_leaves(self, number):
        self.servers[number % len(self.servers)].rules.leaving = True

    @rule()
    def the_client_looks_at_the_view(self):
        self.views += 1
        names = [name for name, idempotent in METHODS.items() if idempotent]
        view = codec.view_of(self.views, 1, [member(0, len(self.servers))], {"idempotent": names})
        self.rules.adopt(view)

    @precondition(lambda self: self.connections)
    @rule(number=st.integers(0, 99), requests=st.booleans())
    def a_connection_ends(self, number, requests):
        """With what is under way, or after some of it has arrived: the client cannot know."""
        connection = self.connections[number % len(self.connections)]
        while requests and connection.up:
            self.at_the_server(connection, connection.up.pop())
        connection.up.clear()
        if connection.open:
            self.lose(connection)

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 2.0]))
    def time_passes(self, seconds):
        """The client wakes when it said it wanted to."""
        until = self.now + seconds
        for _ in range(1000):
            wishes = [one.inflight.deadline for one in self.connections]
            wishes += [call.again for call in self.calls if call.again is not None]
            self.now = max(self.now, min([until, *wishes]))
            self.wake()
            if self.now >= until:
                return
        raise AssertionError("the client wakes again and again, and nothing moves")

    # --------------------------------------------------------------------------------------- what must hold

    @invariant()
    def every_call_ends_once_and_in_time(self):
        waiting = Counter(token.name for one in self.connections for token, _, _ in one.inflight._calls.values())
        for call in self.calls:
            places = waiting[call.name] + (call.again is not None)
            assert (call.ends, places) in {(1, 0), (0, 1)}, "it ended twice, or waits nowhere, or at two places"
            assert call.ends or self.now <= call.deadline + LATE, "its deadline is over and it waits on"

    @invariant()
    def no_answer_reaches_another_call(self):
        """Nor does one of a server that was not meant."""
        for call in self.calls:
            if isinstance(call.outcome, tuple):
                assert call.outcome == ("reply", (call.name, call.asked))

    @invariant()
    def nothing_runs_twice_that_must_not(self):
        """And what is said to have certainly not happened has not."""
        for call in self.calls:
            if not METHODS[call.method]:
                assert self.runs[call.name] <= 1
                if isinstance(call.outcome, Code) and CODES[call.outcome].definite:
                    assert self.runs[call.name] == 0

    @invariant()
    def the_rules_hold(self):
        for connection in self.connections:
            connection.inflight.check()
            assert len(connection.inflight) <= CALLS_MAX
            assert connection.open or not len(connection.inflight)

    def teardown(self):
        """Nobody answers any more: whatever still waits ends at its deadline."""
        self.time_passes(11.0)
        self.every_call_ends_once_and_in_time()
        assert all(call.ends == 1 for call in self.calls)


def test_every_call_ends_once_and_in_its_own_answer():
    """[8.31], [11.2]: whatever is lost, doubled, reordered or late; by its deadline and 100 ms."""
    run_state_machine_as_test(World, settings=settings(max_examples=200, stateful_step_count=40))
