"""The way of a call to its server: connections are made when they are needed, and what failed is tried again."""

from __future__ import annotations

import copy
import heapq
import random
from typing import NamedTuple

from ..errors import CallError, ClusterError, CoordinatorLost, Overloaded, Unavailable
from ..net.channel import Channel, Watch
from ..net.clock import monotonic
from ..wire.codes import Code
from ..wire.messages import Member
from .answers import closed, nobody_answers
from .errands import Errands
from .exchange import Ended, Exchange
from .lanes import Lanes
from .line import Line
from .pending import PENDING, Pending
from .requests import Requests
from .routes import Routes

__all__ = ["Links"]

IDLE = 0.5  # seconds after which a connection is looked at before it is used: its server may have gone meanwhile


class Links:
    """Connects lines, sends calls over them, and decides what becomes of calls that failed.

    Args:
        exchange: the calls under way.
        routes: who serves what.
        lanes: makes connections.
        requests: makes requests, with the exchange's lock held.
        watch: wakes the pump.

    Attributes:
        retries: a heap of calls that wait for their next try: when, call id, call.
    """

    def __init__(self, exchange: Exchange, routes: Routes, lanes: Lanes, requests: Requests, watch: Watch) -> None:
        self.retries: list[tuple[float, int, Pending]] = []
        self._exchange = exchange
        self._lock = exchange.lock
        self._routes = routes
        self._rules = routes.calls
        self._lanes = lanes
        self._requests = requests
        self._watch = watch
        self._errands = Errands()

    def place(self, pending: Pending, line: Line, now: float) -> Line:
        """Sends a call over its line, or has a connection made and the call wait for it. The lock is held.

        Returns the line, which is a new one where calls are under way to a server that serves the partition no more.
        """
        member, channel = self._rules.members.get(line.rank), line.channel
        if channel is not None:
            moved = line.member is not member or channel.dead is not None
            if moved or (not line.calls and now - line.used > IDLE and channel.lost()):
                if line.calls:
                    line = self._exchange.lines[line.rank] = pending._line = Line(line.rank)
                else:
                    line.drop()
        line.used = now
        if line.channel is not None:
            self._send(pending, line, line.channel, now)
            return line
        line.parked.append(pending)
        if not line.linking:
            line.linking = True
            self._errands.run(self._link, line)
        return line

    def _send(self, pending: Pending, line: Line, channel: Channel, now: float) -> None:
        assert line.member is not None
        remaining = pending._deadline - now
        frames = self._requests.frames(pending._call_id, pending.method, remaining, line.member, pending._payload)
        self._exchange.enqueue(pending, line, channel, frames)

    # ------------------------------------------------------------------------------------------ trying again

    def see_to(self, ended: Ended) -> None:
        """What has to be done after reading, by a thread that holds nothing."""
        if ended.failed:
            self.judge(ended.failed, ended)
        ended.run()

    def judge(self, failed: list[tuple[Pending, CallError]], ended: Ended) -> None:
        """Calls that failed are tried again, or end with their error."""
        now = monotonic()
        again: list[_Failed] = []
        for pending, error in failed:
            method, deadline = pending.method, pending._deadline
            pause = self._rules.pause(method, error.definite, pending._attempt, now, deadline, random.random())
            final: Exception = error
            if self._exchange.closed:
                final = closed(pending.rank, method)
            elif pause is None or (error.code and not self._rules.retryable(Code.of(error.code))):
                try:
                    self._routes.check_failure(error)
                except ClusterError as over:
                    final = over
            else:
                again.append(_Failed(pending, error, pause, self._rules.members.get(pending.rank)))
                continue
            self._end(pending, final, ended)
        if again:
            self._errands.run(self._look, again, now)

    def _end(self, pending: Pending, error: Exception, ended: Ended) -> None:
        with self._lock:
            if self._exchange.end(pending, error):
                ended.callbacks.append(pending)

    def _look(self, again: list[_Failed], asked: float) -> None:
        """An errand: another look at the view for calls that failed, then their next try, now or after a pause."""
        lost: Exception | None = None
        try:
            self._routes.refresh(asked, max(one.pending._deadline for one in again))
        except (ClusterError, Unavailable) as gone:
            lost = gone
        ended, now = Ended(), monotonic()
        for pending, error, pause, before in again:
            if isinstance(lost, CoordinatorLost):
                self._end(pending, nobody_answers(error, lost), ended)
            elif lost is not None:
                self._end(pending, lost, ended)
            elif self._rules.members.get(pending.rank) in (before, None):
                with self._lock:
                    heapq.heappush(self.retries, (now + pause, pending._call_id, pending))
            else:
                self.again(pending)
        self._watch.wake()
        ended.run()

    def again(self, pending: Pending) -> None:
        """The next try of a call."""
        exchange = self._exchange
        with self._lock:
            if pending._state != PENDING or self._exchange.closed:
                return
            pending._attempt += 1
            line = exchange.lines[pending.rank]
            pending._line = line
            line = self.place(pending, line, monotonic())
        exchange.flush(line)

    def _link(self, line: Line) -> None:
        """An errand: makes a connection for the calls that wait for one."""
        with self._lock:
            waiting = [pending for pending in line.parked if pending._state == PENDING]
            if not waiting or self._exchange.closed:
                line.parked, line.linking = [], False
                return
        deadline, method = max(pending._deadline for pending in waiting), waiting[0].method
        try:
            member = self._lanes.member(line.rank, method, deadline)
            channel = Channel(self._lanes.connect(member, method, deadline), line)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to the calls
            self._not_linked(line, error)
            return
        now = monotonic()
        with self._lock:
            waiting, line.parked = line.parked, []
            line.linking = False
            if self._exchange.closed:
                return
            line.open(member, channel)
            line.used = now
            for pending in waiting:
                if pending._state == PENDING:
                    self._send(pending, line, channel, now)
        self._exchange.flush(line)
        with self._lock:
            if line.followers:
                line.followers[0].wake()  # to read, which it could not do before
        self._watch.wake()

    def _not_linked(self, line: Line, error: Exception) -> None:
        ended = Ended()
        with self._lock:
            waiting, line.parked, line.linking = line.parked, [], False
        for pending in waiting:
            own = error
            if isinstance(error, CallError):
                own = copy.copy(error)
                own.method = pending.method
                own.__cause__ = error.__cause__
            if isinstance(own, (Unavailable, Overloaded)):
                ended.failed.append((pending, own))
            else:
                self._end(pending, own, ended)
        self.see_to(ended)

    def due(self, now: float) -> list[Pending]:
        """Takes the calls whose next try is due."""
        due = []
        with self._lock:
            while self.retries and self.retries[0][0] <= now:
                due.append(heapq.heappop(self.retries)[2])
        return due


class _Failed(NamedTuple):
    """A call whose next try is due after ``pause`` seconds, or at once when another member than ``before`` serves."""

    pending: Pending
    error: CallError
    pause: float
    before: Member | None
