"""The way of a call to its server: connections are made when they are needed, and what failed is tried again."""

from __future__ import annotations

import copy
import heapq
import random
from typing import NamedTuple

from ..core.retry import Retry
from ..errors import CallError, CallTimeout, ClusterError, CoordinatorLost, Overloaded, Unavailable
from ..net.channel import Channel, Watch
from ..net.clock import monotonic
from ..wire.messages import Member
from .answers import closed, nobody_answers
from .detours import DetourChannel
from .errands import Errands
from .exchange import Ended, Exchange
from .lanes import IDLE, Lanes
from .line import Line
from .pending import PENDING, Pending
from .requests import Requests
from .routes import Routes

__all__ = ["Links"]


class Links:
    """Connects lines, sends calls over them, and decides what becomes of calls that failed.

    Args:
        exchange: the calls under way.
        routes: who serves what.
        lanes: makes connections.
        requests: makes requests, with the exchange's lock held.
        retry: when a call is tried again.
        watch: wakes the pump.

    Attributes:
        retries: a heap of calls that wait for their next try: when, call id, call.
    """

    def __init__(
        self, exchange: Exchange, routes: Routes, lanes: Lanes, requests: Requests, retry: Retry, watch: Watch
    ) -> None:
        self.retries: list[tuple[float, int, Pending]] = []
        self._exchange = exchange
        self._lock = exchange.lock
        self._routes = routes
        self._rules = routes.calls
        self._lanes = lanes
        self._requests = requests
        self._retry = retry
        self._watch = watch
        self._errands = Errands()

    def place(self, pending: Pending, line: Line, now: float) -> Line:
        """Sends a call over its line, or has a connection made and the call wait for it. The lock is held.

        Returns the line, which is a new one where calls are under way to a server that serves the partition no more.
        """
        member, channel = self._rules.members.get(line.rank), line.channel
        if now - line.used > IDLE:
            self._lanes.rest()
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
        pending._tried, pending._failure = line.member, None
        self._exchange.enqueue(pending, line, channel, frames)

    def revisit(self) -> None:
        """Leaves the relay where the straight way to a server is to be tried again: the next call has a new line."""
        with self._lock:
            for line in self._exchange.lines.values():
                channel = line.channel
                if isinstance(channel, DetourChannel) and channel.dead is None and channel.due():
                    channel.dead = ConnectionAbortedError("the straight way to the server is tried again")
                    line.used = 0.0

    # ------------------------------------------------------------------------------------------ trying again

    def see_to(self, ended: Ended) -> None:
        """What has to be done after reading, by a thread that holds nothing."""
        if ended.failed:
            self.judge(ended.failed, ended)
        ended.run()

    def judge(self, failed: list[tuple[Pending, CallError]], ended: Ended) -> None:
        """Calls that failed are tried again, or end with their error. Most wait for another look at the view first."""
        now = monotonic()
        looking: list[_Failed] = []
        for pending, error in failed:
            pending._failure = error
            if self._exchange.closed:
                self._end(pending, closed(pending.rank, pending.method), ended)
                continue
            jitter = random.random()
            pause = self._retry.pause(error, pending.method, pending._attempt, now, pending._deadline, jitter)
            if pause is None and error.code:  # a server that answers is no reason to look for another one
                self._end(pending, self._over(error), ended)
            else:
                looking.append(_Failed(pending, error, pause))
        if looking:
            self._errands.run(self._look, looking, now)

    def _over(self, error: CallError) -> Exception:
        """The error of a call, or what has become of the cluster, if its driver is in this process and knows."""
        try:
            self._routes.check_failure(error)
        except ClusterError as over:
            return over
        return error

    def _end(self, pending: Pending, error: Exception, ended: Ended) -> None:
        with self._lock:
            if self._exchange.end(pending, error):
                ended.callbacks.append(pending)

    def _look(self, looking: list[_Failed], asked: float) -> None:
        """An errand: another look at the view for calls that failed, then their next try, now or after a pause."""
        lost: Exception | None = None
        try:
            self._routes.refresh(asked, max(one.pending._deadline for one in looking))
        except (ClusterError, Unavailable, CallTimeout) as gone:
            lost = gone
        ended, now = Ended(), monotonic()
        paid: set[int] = set()
        for pending, error, pause in looking:
            if lost is not None and not (isinstance(lost, CoordinatorLost) and error.code):
                self._end(pending, nobody_answers(error, lost) if isinstance(lost, CoordinatorLost) else lost, ended)
                continue
            wait, found = pause, self._rules.members.get(pending.rank)
            if pause is not None and (error.code or pending.rank not in paid or found is not pending._tried):
                wait = self._retry.wait(error, pending._tried, found, pause)
                if wait is not None and not error.code:
                    paid.add(pending.rank)  # calls that one connection took with it are one failure
            if wait is None:
                self._end(pending, error, ended)
            elif wait:
                with self._lock:
                    heapq.heappush(self.retries, (now + wait, pending._call_id, pending))
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
        member = None
        try:
            member = self._lanes.member(line.rank, method, deadline)
            channel = self._lanes.channel(member, method, deadline, line)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to the calls
            self._not_linked(line, member, deadline, error)
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

    def _not_linked(self, line: Line, member: Member | None, deadline: float, error: Exception) -> None:
        ended = Ended()
        with self._lock:
            waiting, line.parked, line.linking = line.parked, [], False
        for pending in waiting:
            pending._tried = member
            own = error
            if isinstance(error, CallError):
                own = copy.copy(error)
                own.rank, own.method = pending.rank, pending.method
                own.__cause__ = error.__cause__
            if pending._deadline > deadline:  # it came meanwhile, and has more time than there was for this attempt
                self.again(pending)
            elif isinstance(own, (Unavailable, Overloaded)):
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
    """A call whose next try, if it goes to the same server, is due after ``pause`` seconds; None: there is none."""

    pending: Pending
    error: CallError
    pause: float | None
