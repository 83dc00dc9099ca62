"""A server that is asked for more than it can do, in simulated time: what it does, it does for those who still wait."""

from __future__ import annotations

import random
from itertools import count

import pytest

from spark_partition_server.core.load import Load, Ticket

SERVICE = 1.0  # seconds for one call, on average
DEADLINE = 100.0  # seconds that each caller waits
TURNING_AWAY = 0.02  # seconds that a refusal costs the server
SECONDS = 5000.0


def good(rate, *, turn_away=True, calls_max=100_000, callers=16, seed=1):
    """Calls answered in time, a second, of ``rate`` times as many as the server can answer, that come at random."""
    draw = random.Random(seed)
    load = Load(calls_max, 1 << 30, 1 << 30, lambda caller, held: None)
    arrivals, ids = [], count()
    now = arrival = 0.0
    answered = 0
    came = {}
    while now < SECONDS:
        while arrival <= now:
            arrivals.append(arrival)
            arrival += draw.expovariate(rate / SERVICE)
        for came_at in arrivals:  # read eagerly: before the next one runs
            ticket = Ticket(draw.randrange(callers), next(ids), 1)
            if turn_away and load.refusal(1, came_at + DEADLINE - now) is not None:
                now += TURNING_AWAY
            else:
                came[ticket] = came_at
                load.enter(ticket)
        arrivals.clear()
        ticket = load.take(lambda caller: False, now)
        if ticket is None:
            now = arrival
            continue
        if now <= came[ticket] + DEADLINE:  # else it is dropped at its turn
            now += draw.uniform(0.5, 1.5) * SERVICE
        load.finish(ticket, now)
        answered += now <= came.pop(ticket) + 0.98 * DEADLINE  # its answer has some way to go
    load.check()
    return answered / SECONDS


@pytest.mark.parametrize("callers", [1, 16])
@pytest.mark.parametrize("rate", [1.1, 2.0, 4.0, 10.0])
def test_a_server_that_is_asked_for_too_much_still_does_most_of_what_it_can(rate, callers):
    """[8.25]: four fifths of its best at the least; what refusals cost is all that is lost."""
    peak = good(0.98, callers=callers)
    assert peak > 0.9
    assert good(rate, callers=callers) >= 0.8 * peak * (1 - TURNING_AWAY * (rate - 1))


def test_without_turning_away_it_would_do_next_to_nothing():
    """The counter-proof: everything waits until it is all but too late, and is answered when nobody listens."""
    assert good(2.0, turn_away=False, callers=1) < 0.3


def test_a_server_with_room_turns_nobody_away():
    """At nine tenths of its best there are queues, but none that is too long."""
    assert good(0.9) == pytest.approx(0.9, abs=0.05)
