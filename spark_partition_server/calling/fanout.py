"""Many messages to many servers at once, from one thread: what ``call_all`` and ``call_many`` are made of.

Each server gets a bounded number of messages ahead of its answers, and nothing that can be slow is waited for alone:
the octets that a server does not take yet are kept until it does, while the answers of all the others are read.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from ..errors import (
    CallError,
    CallOutcomeUnknown,
    Overloaded,
    RemoteProtocolError,
    SparkPartitionServerError,
    Unavailable,
)
from ..net.clock import monotonic
from ..net.lane import Lane
from ..wire.messages import Member, Message
from ..wire.payload import decode_value
from ..wire.zmtp import Frames
from .answers import Asked, cannot_connect, closed, failure, never_sent, not_sent, timed_out
from .parcels import LONGEST_WAIT, Line, Parcel, Traffic, stirring
from .tries import Tries

__all__ = ["Fanout"]

WINDOW = 4  # messages that a server gets ahead of its answers: one is run, one is on its way, and some slack


class Fanout:
    """One operation on many servers.

    Args:
        tries: how calls are made.
        method: what all of them run.
        out: takes the results, at the places of the parcels; an error stands there as its exception.
        timeout, deadline: of the whole operation.

    Attributes:
        failed: some place holds an exception.
    """

    def __init__(self, tries: Tries, method: str, out: list[Any], timeout: float, deadline: float) -> None:
        self.failed = False
        self._tries = tries
        self._lanes = tries.lanes
        self._room = tries.room
        self._requests = tries.lanes.local.requests
        self._call_id = tries.answers.call_id
        self._method = method
        self._out = out
        self._timeout = timeout
        self._deadline = deadline
        self._lines: dict[int, Line] = {}
        self._left = 0  # parcels that have not ended
        self._ready: deque[Line] = deque()  # lines that may have something to send
        self._later: list[tuple[float, int, Line]] = []  # lines that wait for another try, earliest first
        self._starved: list[Line] = []  # lines that found no room
        self._order = itertools.count()
        self._flying: dict[int, Parcel] = {}
        self._traffic: dict[Lane, Traffic] = {}

    def run(self, parcels: Iterable[Parcel]) -> None:
        """Sends everything and waits until all of it has ended, or the deadline has come.

        Raises:
            ClusterError: the cluster is over or gone. What is under way is cancelled.
        """
        for parcel in parcels:
            self._add(parcel)
        self._tries.retry.budget.earn()
        try:
            while self._left:
                now = monotonic()
                if now >= self._deadline:
                    self._expire()
                    return
                if self._lanes.closed:
                    self._shut()
                    return
                while self._later and self._later[0][0] <= now:
                    self._queue(heapq.heappop(self._later)[2])
                while self._ready:
                    line = self._ready.popleft()
                    line.queued = False
                    self._fill(line, now)
                if self._left:
                    self._wait(now)
        finally:
            self._abandon()

    # ---------------------------------------------------------------------------------------------- sending

    def _add(self, parcel: Parcel) -> None:
        line = self._lines.get(parcel.rank)
        if line is None:
            line = self._lines[parcel.rank] = Line(parcel.rank)
        line.waiting.append(parcel)
        self._left += 1
        self._queue(line)

    def _queue(self, line: Line) -> None:
        if not line.queued:
            line.queued = True
            self._ready.append(line)

    def _fill(self, line: Line, now: float) -> None:
        """Sends a line's next messages, as many as may be under way."""
        while line.waiting and line.not_before <= now:
            if line.flying >= self._window():
                return
            if line.flying and line.member is not self._tries.routes.calls.members.get(line.rank):
                return  # the one who has those will answer them; then it is its successor's turn
            parcel = line.waiting[0]
            try:
                member, lane = self._lanes.get(line.rank, self._method, now, self._deadline, shake=False)
            except CallError as error:
                line.waiting.popleft()
                parcel.attempt += 1
                self._failed(parcel, line, error, self._lanes.tried(line.rank), now)
                continue
            traffic = self._traffic.get(lane)
            if not lane.ready:
                self._shake(line, lane, traffic, now)
                return
            if traffic is not None and traffic.rest:
                return  # it is full; once it is not, the line is looked at again
            if not self._take_room(parcel):
                self._starved.append(line)
                return
            line.waiting.popleft()
            self._send(parcel, line, member, lane)

    def _shake(self, line: Line, lane: Lane, traffic: Traffic | None, now: float) -> None:
        """A new connection, or one that is being made. Others are not kept waiting for it."""
        if traffic is None:
            traffic = self._traffic[lane] = Traffic()
            traffic.rest = lane.greet()
            self._patient(line, lane, traffic, now)
        elif now >= traffic.shaken_by:
            self._lane_lost(lane, TimeoutError(f"no answer within {lane.patience:.3g} s"))

    def _patient(self, line: Line, lane: Lane, traffic: Traffic, now: float) -> None:
        traffic.shaken_by = now + lane.patience
        heapq.heappush(self._later, (traffic.shaken_by, next(self._order), line))

    def _window(self) -> int:
        """How many messages a server may have without an answer."""
        return WINDOW

    def _take_room(self, parcel: Parcel) -> bool:
        """A place for one more message. Where others have all of them, those of this operation are waited for."""
        parcel.call_id = next(self._tries.ids)
        if self._room.take(-parcel.call_id, parcel.octets):
            return True
        if self._flying:
            return False
        raise self._room.full(parcel.rank, self._method)

    def _send(self, parcel: Parcel, line: Line, member: Member, lane: Lane) -> None:
        now = lane.used = monotonic()
        parcel.member, parcel.lane = member, lane
        line.member = member
        parcel.attempt += 1
        opening = None if parcel.runs is None else self._requests.batch
        remaining = self._deadline - now
        frames = self._requests.frames(parcel.call_id, self._method, remaining, member, parcel.payload, opening)
        traffic = self._traffic.setdefault(lane, Traffic())
        traffic.flying += 1
        line.flying += 1
        self._flying[parcel.call_id] = parcel
        traffic.sending = parcel
        try:
            traffic.rest = lane.offer(frames)
        except OSError as error:
            self._lane_lost(lane, error)
            return
        if not traffic.rest:
            traffic.sending = None

    # -------------------------------------------------------------------------------------------- receiving

    def _wait(self, now: float) -> None:
        """Waits until something has come, can be sent, or is to be tried again."""
        until = min(self._deadline, self._later[0][0]) if self._later else self._deadline
        if not self._traffic:
            time.sleep(max(min(until - now, LONGEST_WAIT), 0.0))
            return
        if len(self._traffic) == 1:
            ((lane, traffic),) = self._traffic.items()
            if lane.ready and not traffic.rest:
                try:
                    messages = lane.receive(until)
                except TimeoutError:
                    return
                except (OSError, RemoteProtocolError) as error:
                    self._lane_lost(lane, error)
                    return
                self._received(lane, messages)
                return
        for lane, events in stirring(self._traffic, until - now):
            self._serve(lane, events)

    def _serve(self, lane: Lane, events: int) -> None:
        traffic = self._traffic.get(lane)
        if traffic is None:
            return
        if events & select.POLLNVAL:
            self._lane_lost(lane, ConnectionResetError("the connection was closed"))
            return
        try:
            if events & select.POLLOUT:
                traffic.rest = lane.push(traffic.rest)
                if not traffic.rest:
                    traffic.sending = None
                    self._lane_free(lane)
            shaking = not lane.ready
            messages = lane.take() if events & ~select.POLLOUT else []
        except (OSError, RemoteProtocolError) as error:
            self._lane_lost(lane, error)
            return
        if shaking and lane.ready:
            del self._traffic[lane]
            for line in self._lines_over(lane):
                self._lanes.reached(line.rank)
            self._lane_free(lane)
        self._received(lane, messages)

    def _lane_free(self, lane: Lane) -> None:
        """More can be sent over it: the lines that lead there are looked at again."""
        for line in self._lines_over(lane):
            self._queue(line)

    def _lines_over(self, lane: Lane) -> list[Line]:
        """The lines that lead over a connection and have something to send."""
        lanes = self._lanes.local.lanes
        return [line for line in self._lines.values() if line.waiting and lanes.get(line.rank, (0, 0))[1] is lane]

    def _received(self, lane: Lane, messages: list[Frames]) -> None:
        for frames in messages:
            message: Message | None = None
            call_id = self._call_id(frames)
            try:
                if call_id is None:
                    message = self._tries.answers.message(frames, lane.endpoint)
                    call_id = getattr(message, "call_id", None)
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends the connection and is told
                self._lane_lost(lane, error)
                return
            parcel = self._flying.get(call_id or 0)
            if parcel is not None and parcel.lane is lane:  # else it is late: an answer to a call that was given up
                del self._flying[parcel.call_id]
                line = self._landed(parcel)
                try:
                    self._take_in(parcel, line, frames, message)
                except CallError as error:
                    self._failed(parcel, line, error, parcel.member, monotonic())
                except (SparkPartitionServerError, ImportError) as error:
                    self._end(parcel, error)

    def _landed(self, parcel: Parcel) -> Line:
        """A message is no longer under way."""
        lane, line = parcel.lane, self._lines[parcel.rank]
        traffic = self._traffic.get(lane)
        if traffic is not None:
            traffic.flying -= 1
            if not traffic.flying and not traffic.rest:
                del self._traffic[lane]
        line.flying -= 1
        self._room.give(-parcel.call_id)
        self._queue(line)
        while self._starved:
            self._queue(self._starved.pop())
        return line

    def _take_in(self, parcel: Parcel, line: Line, frames: Frames, message: Message | None) -> None:
        """Puts an answer where it belongs.

        Raises:
            CallError: it is an error.
        """
        answers = self._tries.answers
        value = decode_value(frames[2:]) if message is None else answers.value(message, self._asked(parcel))
        self._out[parcel.places[0]] = value
        self._left -= 1

    # ---------------------------------------------------------------------------------------------- the ends

    def _failed(self, parcel: Parcel, line: Line, error: CallError, tried: Member | None, asked: float) -> None:
        """A try has failed: there will be another, or that was the last."""
        parcel.error = error
        if isinstance(error, (Unavailable, Overloaded, CallOutcomeUnknown)) and not self._lanes.closed:
            verdict = self._tries.verdict
            wait = verdict(error, parcel.rank, self._method, parcel.attempt, tried, asked, self._deadline)
            if wait is not None:
                line.waiting.appendleft(parcel)
                line.not_before = monotonic() + wait
                heapq.heappush(self._later, (line.not_before, next(self._order), line))
                return
        self._end(parcel, error)

    def _end(self, parcel: Parcel, error: Exception) -> None:
        self.failed = True
        self._left -= 1
        for place in parcel.places:
            self._out[place] = error

    def _lane_lost(self, lane: Lane, error: Exception) -> None:
        """A connection has ended, and with it every try that was under way there."""
        asked = monotonic()
        traffic = self._traffic.pop(lane, None)
        if not lane.ready:
            self._not_made(lane, traffic, error, asked)
            return
        lane.close()
        lost = [parcel for parcel in self._flying.values() if parcel.lane is lane]
        for parcel in lost:
            self._lanes.drop(parcel.rank)
            del self._flying[parcel.call_id]
        for parcel in lost:
            line = self._landed(parcel)
            told = self._asked(parcel)
            whole = traffic is None or parcel is not traffic.sending
            ended = failure(told, error) if whole else not_sent(told, error)
            if isinstance(ended, CallError):
                self._failed(parcel, line, ended, parcel.member, asked)
            else:
                self._end(parcel, ended)

    def _not_made(self, lane: Lane, traffic: Traffic | None, error: Exception, asked: float) -> None:
        """A connection has come to nothing before it was ready: there may be another address, or the relay."""
        lines = self._lines_over(lane)
        if traffic is not None and traffic.rest and lane.again():
            self._traffic[lane] = traffic
            for line in lines:
                self._patient(line, lane, traffic, asked)
            return
        lane.close()
        for line in lines:
            if self._lanes.missed(line.rank, lane.patience, error, self._deadline):
                self._queue(line)
                continue
            parcel = line.waiting.popleft()
            parcel.attempt += 1
            became = cannot_connect(lane.endpoint, line.rank, self._method, error)
            self._failed(parcel, line, became, self._lanes.tried(line.rank), asked)

    def _expire(self) -> None:
        """The deadline has come: whatever has not ended ends in an error."""
        for parcel in self._flying.values():
            parcel.lane.used = 0.0  # it is looked at before it is used again
            self._end(parcel, timed_out(self._asked(parcel), self._timeout))
        for line in self._lines.values():
            _, lane = self._lanes.local.lanes.get(line.rank, (None, None))
            unsent: CallError = never_sent(line.rank, self._method, self._timeout)
            if lane is not None and not lane.ready:
                unsent = cannot_connect(lane.endpoint, line.rank, self._method, TimeoutError("timed out"))
            for parcel in line.waiting:
                self._end(parcel, parcel.error or unsent)

    def _shut(self) -> None:
        """The client was closed."""
        for parcel in self._flying.values():
            self._end(parcel, failure(self._asked(parcel), ConnectionResetError("the client was closed")))
        for line in self._lines.values():
            for parcel in line.waiting:
                self._end(parcel, closed(parcel.rank, self._method))

    def _asked(self, parcel: Parcel) -> Asked:
        return Asked(parcel.rank, self._method, parcel.lane.endpoint, parcel.call_id)

    def _abandon(self) -> None:
        """Takes back what is still under way: at the deadline, at Ctrl-C, at the end of the cluster."""
        for lane, traffic in self._traffic.items():
            if traffic.rest or not lane.ready:
                lane.close()  # half a message has left: nothing can follow it
        for parcel in self._flying.values():
            self._room.give(-parcel.call_id)
            with contextlib.suppress(OSError):
                if parcel.lane.offer(self._requests.cancel(parcel.call_id)):
                    parcel.lane.close()
        self._flying.clear()
        for line in self._lines.values():
            found = self._lanes.local.lanes.get(line.rank)
            if found is not None and found[1].fileno() < 0:
                self._lanes.drop(line.rank)
