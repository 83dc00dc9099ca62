"""Calls, streams, cancels, credit and ends in any order: each call is answered once, or is nobody's any more."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from support.answers import Asked, Served

from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Items

CALLERS, CALLS = 3, 4
DEEDS = ["call", "batch", "stream", "fail", "late", "cancel", "credit", "gone", "stuck", "turn", "look"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(DEEDS),
        st.integers(0, CALLERS - 1),
        st.integers(0, CALLS - 1),
        st.integers(0, 12),
    ),
    max_size=60,
)


class Methods:
    """What is called; counts what runs and what is left open."""

    def __init__(self):
        self.open = 0

    def echo(self, value):
        return value

    def fail(self):
        raise ValueError("always")

    def scan(self, last):
        self.open += 1
        try:
            yield from range(last)
        finally:
            self.open -= 1


class World:
    """One server, and what every caller still has to expect from it."""

    def __init__(self):
        self.methods = Methods()
        plain = {"echo": self.methods.echo, "fail": self.methods.fail}
        self.served = Served(plain, {"scan": self.methods.scan}, calls_max=6, connection_calls_max=3)
        self.callers = [Asked() for _ in range(CALLERS)]
        self.owed = [Counter() for _ in range(CALLERS)]
        self.granted = {}
        self.ids = Counter()

    def ask(self, what, who, number, size):
        caller, call_id = self.callers[who], self.ids[who] * 100 + number
        self.ids[who] += 1
        self.owed[who][call_id] += 1
        self.served.answering._spent = 1.0 if size % 2 else 0.0
        if what == "batch":
            self.served.batch(caller, call_id, "echo", [[size]] * size)
        elif what == "stream":
            self.granted[who, call_id] = size
            self.served.stream(caller, call_id, "scan", 8, credit=size)
        elif what == "late":
            self.served.call(caller, call_id, "echo", size, ms=1, ago=1.0)
        else:
            self.served.call(caller, call_id, *(["fail"] if what == "fail" else ["echo", size]))

    def step(self, what, who, number, size):
        caller = self.callers[who]
        waiting = sorted(self.owed[who])
        chosen = waiting[number % len(waiting)] if waiting else number
        if what == "cancel":
            self.served.cancel(caller, chosen)
            if not self.answered(who, chosen):
                del self.owed[who][chosen]
        elif what == "credit":
            self.granted[who, chosen] = max(self.granted.get((who, chosen), 0), size)
            self.served.credit(caller, chosen, size)
        elif what == "gone":
            self.served.answering.gone(caller)
            self.callers[who], self.owed[who] = Asked(), Counter()
            self.granted = {key: value for key, value in self.granted.items() if key[0] != who}
        elif what == "stuck":
            caller.stuck = bool(size % 2)
        elif what == "turn":
            self.served.answering.desk.turn(self.served.answering._replies, 0.0)
        elif what == "look":
            self.served.answering.work()
        else:
            self.ask(what, who, number, size)
        self.served.answering.desk.load.check()

    def answered(self, who, call_id):
        return [one for one in self.callers[who].sent if not isinstance(one, Items) and one.call_id == call_id]

    def end(self):
        """Everybody reads, and every stream gets all the credit it wants."""
        for who, caller in enumerate(self.callers):
            caller.stuck = False
            for call_id in list(self.owed[who]):
                self.served.credit(caller, call_id, 1000)
        self.served.work()


@given(STEPS)
def test_every_call_ends_once(steps):
    """[8.21], [8.24], [8.27]: no answer twice, none to a call that was taken back, no item beyond its credit."""
    world = World()
    for step in steps:
        world.step(*step)
        for who, caller in enumerate(world.callers):
            for (owner, call_id), granted in world.granted.items():
                if owner == who:
                    assert len(world.served.items(caller, call_id)) <= granted
    world.end()
    for who, caller in enumerate(world.callers):
        ends = Counter(one.call_id for one in caller.sent if not isinstance(one, Items))
        assert all(count == 1 for count in ends.values())
        assert set(world.owed[who]) <= set(ends)
        for one in caller.sent:
            if getattr(one, "code", None) is not None:
                assert one.code in (Code.HANDLER, Code.OVERLOADED, Code.TIMEOUT)
    assert world.methods.open == 0
    assert world.served.answering.desk.load.calls == 0
    assert all(not caller.holds or not caller.holds[-1] for caller in world.callers)
