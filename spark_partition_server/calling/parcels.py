"""What ``Fanout`` has in hand: messages, the lines in which they wait, what is under way on connections."""

from __future__ import annotations

import select
from collections import deque
from typing import Any

from ..net.lane import Lane
from ..wire.messages import Frame, Member
from ..wire.payload import size_of

__all__ = ["LONGEST_WAIT", "Line", "Parcel", "Traffic", "stirring"]

LONGEST_WAIT = 1.0  # seconds of one poll: a descriptor that another thread has just closed may name another by then


class Parcel:
    """What goes to one server in one message: a call, or a batch of runs.

    Attributes:
        rank: whose.
        payload: the arguments, encoded.
        octets: of the payload.
        places: where the results belong, in the order of the runs.
        runs: the arguments of each run; None: it is a call.
        attempt: tries so far.
        error: how the last one ended.
        call_id, lane, member: of the last one.
    """

    __slots__ = ("attempt", "call_id", "error", "lane", "member", "octets", "payload", "places", "rank", "runs")

    def __init__(self, rank: int, payload: list[Frame], places: list[int], runs: list[list[Any]] | None = None) -> None:
        self.rank = rank
        self.payload = payload
        self.octets = size_of(payload)
        self.places = places
        self.runs = runs
        self.attempt = 0
        self.call_id = 0
        self.error: Exception | None = None
        self.lane: Lane
        self.member: Member


class Line:
    """What is to go to one partition.

    Attributes:
        waiting: messages to be sent, next first.
        flying: messages without an answer.
        member: whom they went to.
        not_before: when the next may be sent.
        queued: the line is among those that are to be looked at.
    """

    __slots__ = ("flying", "member", "not_before", "queued", "rank", "waiting")

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.waiting: deque[Parcel] = deque()
        self.flying = 0
        self.member: Member | None = None
        self.not_before = 0.0
        self.queued = False


class Traffic:
    """What is under way on one connection.

    Attributes:
        flying: messages without an answer.
        sending: the message that has not left whole.
        rest: its octets that the kernel has not taken yet.
        shaken_by: when there has to be a connection, and the handshake over.
    """

    __slots__ = ("flying", "rest", "sending", "shaken_by")

    def __init__(self) -> None:
        self.flying = 0
        self.sending: Parcel | None = None
        self.rest: list[Frame] = []
        self.shaken_by = 0.0


def stirring(traffic: dict[Lane, Traffic], seconds: float) -> list[tuple[Lane, int]]:
    """Waits for connections: those of which something can be read or sent, with what ``poll`` says of each.

    Those that hold messages already are told at once, and one that another thread has closed, with ``POLLNVAL``.
    """
    held = [(lane, select.POLLIN) for lane in traffic if lane.held]
    if held:
        return held
    poll = select.poll()
    lanes: dict[int, list[Lane]] = {}  # by descriptor: relayed ones share it
    for lane, its in traffic.items():
        descriptor = lane.fileno()
        if descriptor < 0:
            return [(lane, select.POLLNVAL)]
        lanes.setdefault(descriptor, []).append(lane)
        poll.register(descriptor, select.POLLIN | select.POLLOUT if its.rest else select.POLLIN)
    found = poll.poll(min(max(seconds, 0.0), LONGEST_WAIT) * 1000)
    return [(lane, events) for descriptor, events in found for lane in lanes[descriptor]]
