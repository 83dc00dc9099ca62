"""``Submitter``: calls without waiting. Begins them, waits for them, and tries again those that failed.

No thread stands between a caller and the servers while callers wait: a thread that waits in ``result`` sends what has
been collected, reads, and ends every call whose answer has come, until its own is there. Other threads that wait
meanwhile sleep. When nobody waits, one thread of the client's, the pump, does the same; it also keeps deadlines, and
begins again what failed. Connections are made by errand threads, which come and go: neither a caller nor the pump waits
for a server that does not answer.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import TimeoutError as FutureTimeout

from ..core.retry import BUDGET, Retry
from ..errors import CallError, CallOutcomeUnknown, Overloaded, Unavailable
from ..net.channel import READ, WRITE, Channel, Watch
from ..net.clock import monotonic
from ..options import ClientOptions
from ..wire import codec
from ..wire.messages import Cancel, Frame
from ..wire.payload import size_of
from .answers import Answers, closed
from .exchange import COLLECTED, COLLECTED_BYTES, Ended, Exchange, late
from .lanes import IDLE, Lanes
from .line import Line
from .links import Links
from .pending import PENDING, Pending, Sleeper
from .pump import Pump
from .requests import Requests
from .room import RETRY_AFTER, Room
from .routes import Routes

__all__ = ["Submitter"]

SLICE = 0.05  # seconds a thread waits before it looks again whether its call was ended by another one
CLOSE_TIMEOUT = 0.5  # seconds for a thread that reads to notice
LOOK = 0.01  # seconds between two looks for deadlines that have come
LOOK_AGAIN = 0.5  # seconds between two looks for ways that are to be tried again
TICK = 0.001  # seconds between two turns of the pump while others read: a request waits no longer to be sent
STEADY = 5  # turns in a row in which others have read from a line, after which the pump disturbs them less
STEADY_TICK = 0.004
PATIENCE = 2  # turns without a read that it then lets pass: they may be busy with the answers they have
LINGER = 20  # turns without any call before the pump sleeps for good: waking it costs a caller more than a turn costs
LONGEST = 1.0  # seconds the pump sleeps while calls are under way: others may end the last, and the client may be gone


class Submitter:
    """The calls of one client, in one process, that were submitted.

    Args:
        routes: who serves what.
        lanes: makes connections.
        answers: reads what servers send.
        retry: when a call is tried again.
        room: counts the calls under way of threads that wait for them.
        run_id: of the cluster's run.
        options: limits.

    Attributes:
        pid: the process it belongs to; in another one, make another.
    """

    def __init__(
        self,
        routes: Routes,
        lanes: Lanes,
        answers: Answers,
        retry: Retry,
        room: Room,
        run_id: bytes,
        options: ClientOptions,
    ) -> None:
        self.pid = os.getpid()
        self._rules = routes.calls
        self._budget = retry.budget
        self._run_id = run_id
        self._options = options
        self._requests = Requests(run_id, routes.calls, options.message_bytes_max)  # used with the lock held
        self._exchange = Exchange(answers, options.calls_max, options.calls_bytes_max)
        self._room = room
        room.submitted = self._exchange.table
        self._lock = self._exchange.lock
        self._looked = 0.0  # when deadlines were looked at last
        self._revisited = 0.0  # when ways were looked at last
        self._wakes_at = 0.0  # when the pump wakes by itself
        self._quiet = 0  # turns since the last call
        self._pumping = False  # it has read something since its last turn, and does so again soon
        self._steady = False  # others read from some line turn after turn
        self._watch = Watch()
        self._links = Links(self._exchange, routes, lanes, self._requests, retry, self._watch)
        self._pump = Pump(self, self._watch)

    # ------------------------------------------------------------------------------------------ beginning

    def submit(self, rank: int, method: str, payload: list[Frame], timeout: float) -> Pending:
        """Begins a call.

        Raises:
            Overloaded: too many calls are under way; this one was not begun.
            Unavailable: the client is closed.
        """
        exchange = self._exchange
        now = monotonic()
        octets = len(payload[0]) if len(payload) == 1 else size_of(payload)
        with self._lock:
            line = exchange.lines.get(rank)
            if line is None:
                line = exchange.lines[rank] = Line(rank)
            pending = Pending(self, exchange.condition, line, method, payload, octets, now, now + timeout)
            pending._call_id = call_id = next(exchange.ids)
            if self._exchange.closed:
                raise closed(rank, method)
            table, waited = exchange.table, len(self._room.active)
            if (waited and waited + len(table) >= self._room.calls_max) or not table.begin(
                call_id, pending, pending._deadline, octets
            ):
                raise self._full(rank, method)
            if self._budget.left < BUDGET:
                self._budget.earn()
            channel, member = line.channel, line.member
            usable = now - line.used <= IDLE and member is not None and member is self._rules.members.get(rank)
            if channel is None or not usable:
                line = self._links.place(pending, line, now)
            else:
                assert member is not None
                line.used = now
                small = self._requests.octets(call_id, method, timeout, member, payload)
                if small is None:
                    frames = self._requests.frames(call_id, method, timeout, member, payload)
                    exchange.enqueue(pending, line, channel, frames)
                    pending._tried = member
                else:
                    pending._mark = channel.add_small(small)
                    pending._channel, pending._tried = channel, member
                    line.calls += 1
                    few = channel.count < COLLECTED and channel.waiting < COLLECTED_BYTES
                    if few and line.calls > 1 and exchange.ticking:
                        return pending  # it leaves with others
                    exchange.active[line] = None
            flush = self._must_flush(line, pending)
        if flush:
            exchange.flush(line)
            if line.stuck:
                self._watch.wake()
        return pending

    def _must_flush(self, line: Line, pending: Pending) -> bool:
        """Whether a request is to be sent now, and not with others. Sees to it that the pump knows of the call."""
        exchange, channel = self._exchange, line.channel
        if not exchange.ticking and (pending._deadline < self._wakes_at or not (line.watched or line.reading.locked())):
            self._watch.wake()
        if channel is None or line.stuck:
            return False
        if not exchange.ticking or line.calls == 1:
            return True
        return channel.count >= COLLECTED or channel.waiting >= COLLECTED_BYTES

    def _full(self, rank: int, method: str) -> Overloaded:
        count, octets = len(self._exchange.table), self._exchange.table.bytes
        text = (
            f"{count} calls of {octets} octets are under way, the limits are {self._options.calls_max} calls and "
            f"{self._options.calls_bytes_max} octets (calls_max, calls_bytes_max): take results before you submit more"
        )
        error = Overloaded(text, rank=rank, method=method, definite=True)
        error.retry_after = RETRY_AFTER
        return error

    # -------------------------------------------------------------------------------------------- waiting

    def wait(self, pending: Pending, timeout: float | None) -> None:
        """Returns once the call is over.

        Raises:
            concurrent.futures.TimeoutError: after ``timeout`` seconds.
        """
        if os.getpid() != self.pid:
            text = "it was submitted by another process, before a fork: only that one gets the answer"
            raise Unavailable(text, rank=pending.rank, method=pending.method, definite=False)
        began = monotonic()
        until = pending._deadline if timeout is None else min(pending._deadline, began + timeout)
        while pending._state == PENDING:
            now = monotonic()
            if now >= until:
                if now < pending._deadline:
                    raise FutureTimeout
                self._late(pending)
                return
            line = pending._line
            if line is None:
                return  # it has just ended
            channel = line.channel
            seconds = min(until - now, SLICE)
            if channel is not None and pending._channel is channel and line.reading.acquire(False):
                self._lead(line, channel, seconds)
            else:
                self._follow(pending, line, seconds)

    def _lead(self, line: Line, channel: Channel, seconds: float) -> None:
        """Reads once from a line whose ``reading`` this thread holds."""
        ended = None
        try:
            if line.watched:
                line.watched = False  # the pump need not wake for the answers that this thread waits for
                self._watch.wake()
            self._exchange.flush(line)
            ended = self._exchange.read(line, channel, seconds)
            if ended is not None:
                line.turns += 1
        finally:
            line.reading.release()
        if ended is not None:
            self._links.see_to(ended)
        if line.calls or line.followers:
            self._hand_over(line)

    def _hand_over(self, line: Line) -> None:
        """This thread reads no more: another one that waits is to, or the pump."""
        with self._lock:
            if line.followers:
                line.followers[0].wake()
            elif not self._exchange.ticking:
                self._watch.wake()

    def _follow(self, pending: Pending, line: Line, seconds: float) -> None:
        """Sleeps until the call is over, or it is this thread's turn to read."""
        sleeper = Sleeper()
        with self._lock:
            if pending._state != PENDING:
                return
            pending.followed(sleeper)
            line.followers.append(sleeper)
        try:
            if line.channel is None or pending._channel is not line.channel or line.reading.locked():
                sleeper.sleep(seconds)
        finally:
            with self._lock:
                pending.left(sleeper)
                line.followers.remove(sleeper)

    # --------------------------------------------------------------------------------------------- ending

    def cancel(self, pending: Pending) -> bool:
        """Ends a call that is not over, and tells its server. Returns whether the call is cancelled."""
        exchange = self._exchange
        with self._lock:
            if pending._state != PENDING:
                return pending.cancelled()
            line, channel = pending._line, pending._channel
            exchange.table.cancel(pending._call_id)
            exchange.leave(pending)
            if line is not None and channel is not None and line.channel is channel:
                channel.add(codec.encode(Cancel(pending._call_id), self._run_id))
                line.cancels += 1
            pending._abandon()
        if line is not None and line.channel is not None:
            exchange.flush(line)
        pending.run_callbacks()
        return True

    def close(self) -> None:
        """Ends every call under way, and every connection. Twice is harmless."""
        ended = Ended()
        channels = []
        with self._lock:
            self._exchange.closed = True
            for pending in self._exchange.table.tokens():
                channel = pending._channel
                error: CallError = closed(pending.rank, pending.method)
                if channel is not None and pending._mark <= channel.handed:
                    text = "the client was closed before the answer came; the call may have run"
                    error = CallOutcomeUnknown(
                        text, rank=pending.rank, method=pending.method, endpoint=channel.endpoint
                    )
                if self._exchange.end(pending, error):
                    ended.callbacks.append(pending)
            for line in {*self._exchange.lines.values(), *self._exchange.active}:
                line.parked.clear()
                if line.channel is not None:
                    channels.append((line, line.channel))
                line.drop()
        self._watch.wake()
        ended.run()
        self._pump.join()
        for line, channel in channels:
            if line.reading.acquire(timeout=CLOSE_TIMEOUT):  # whoever reads has been woken by the drop
                channel.close()
                line.reading.release()

    def _late(self, pending: Pending) -> None:
        with self._lock:
            callbacks = self._exchange.end(pending, late(pending))
        if callbacks:
            pending.run_callbacks()

    # -------------------------------------------------------------------------------------------- the pump

    @property
    def closed(self) -> bool:
        """The pump's thread is to end."""
        return self._exchange.closed

    def turn(self) -> float | None:
        """What the pump does each time it wakes. Returns seconds until the next time; None: nothing is under way."""
        exchange, now, ended = self._exchange, monotonic(), Ended()
        if exchange.table.deadline <= now and self._looked + LOOK <= now:
            self._looked = now
            exchange.expire(now, ended)
        if self._revisited + LOOK_AGAIN <= now:
            self._revisited = now
            self._links.revisit()
        for pending in self._links.due(now):
            self._links.again(pending)
        self._links.see_to(ended)
        with self._lock:
            lines = [line for line in exchange.active if line.channel is not None and line.channel.count]
        for line in lines:
            exchange.flush(line)
        with self._lock:
            return self._sleep(self._follow_lines(), monotonic())

    def pumped(self, ready: list[Channel]) -> None:
        """Reads from channels that can be read, writes to those that can be written to."""
        exchange = self._exchange
        with self._lock:
            exchange.ticking = self._pumping = True  # turn() follows at once
        for channel in ready:
            line: Line = channel.line
            if line.stuck:
                exchange.flush(line)
            if not line.reading.acquire(False):
                continue
            try:
                ended = exchange.read(line, channel, 0)
            finally:
                line.reading.release()
            if ended is not None:
                self._links.see_to(ended)

    def _follow_lines(self) -> bool:
        """Chooses what the pump waits for: lines from which nobody reads. Returns whether it has to look again soon."""
        exchange, soon = self._exchange, False
        wanted: dict[Channel, int] = {}
        self._steady = False
        for line in list(exchange.active):
            channel = line.channel
            if channel is None or (not line.calls and not channel.waiting):
                del exchange.active[line]
                line.watched = False
                continue
            led = line.led(STEADY, PATIENCE)
            soon = soon or led or bool(channel.count and not line.stuck)
            self._steady = self._steady or line.steady >= STEADY
            line.watched = not led and not line.reading.locked()
            events = (READ if line.watched else 0) | (WRITE if line.stuck else 0)
            if events:
                wanted[channel] = events
        self._watch.follow(wanted)
        return soon

    def _sleep(self, soon: bool, now: float) -> float | None:
        """How long the pump sleeps. While ``ticking`` it wakes by itself before a call waits too long to be sent."""
        exchange = self._exchange
        busy = len(exchange.table) > 0 or bool(exchange.active)
        self._quiet = 0 if busy else self._quiet + 1
        exchange.ticking = soon or self._pumping or (not busy and self._quiet <= LINGER)
        self._pumping = False
        if exchange.ticking:
            return STEADY_TICK if self._steady else TICK
        if not busy:
            self._wakes_at = math.inf
            return None
        at = max(exchange.table.deadline, self._looked + LOOK)
        if self._links.retries:
            at = min(at, self._links.retries[0][0])
        self._wakes_at = at
        return min(max(at - now, 0.0), LONGEST)
