"""The calls under way of one client: what goes out over its lines, and what comes back.

Everything is done in the threads of those who call, and in that of the pump. One lock guards all that is written here;
it is never held while something waits, nor while code of others runs. Nothing here decides what follows a failure:
calls that failed are handed out.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from ..core.inflight import Inflight
from ..errors import (
    CallError,
    CallOutcomeUnknown,
    MessageTooLarge,
    Overloaded,
    RemoteProtocolError,
    Unavailable,
)
from ..net.channel import Channel
from ..wire.codes import Code
from ..wire.messages import Error, Frame, Reply
from ..wire.payload import decode_value
from ..wire.zmtp import Frames
from .answers import Answers, Asked, failure, never_sent, not_sent, timed_out
from .line import Line
from .pending import PENDING, Pending

__all__ = ["Ended", "Exchange", "asked"]

COLLECTED = 16  # requests that leave together, when more are under way
COLLECTED_BYTES = 16 * 1024
NOBODY = 0  # no call has this number


class Ended:
    """What reading has brought about, for its caller to see to once it holds nothing.

    Attributes:
        callbacks: calls that are over and have callbacks to be run.
        failed: calls that are not over: the error may be worth another try.
    """

    __slots__ = ("callbacks", "failed")

    def __init__(self) -> None:
        self.callbacks: list[Pending] = []
        self.failed: list[tuple[Pending, CallError]] = []

    def run(self) -> None:
        """Runs the callbacks; what they raise is logged."""
        interrupted: BaseException | None = None
        for pending in self.callbacks:
            try:
                pending.run_callbacks()
            except BaseException as error:  # noqa: BLE001 - Ctrl-C, in one of them; the others have to run too
                interrupted = error
        if interrupted is not None:
            raise interrupted


class Exchange:
    """See the module.

    Args:
        answers: reads what servers send.
        calls_max: calls under way at one time.
        bytes_max: octets of their requests.

    Attributes:
        lock: guards the lines, the calls and itself.
        condition: with that lock; what all calls share.
        table: the calls under way, whether they have been sent or not.
        lines: by rank.
        active: lines with calls under way, and some without.
        ticking: the pump sends soon what has been collected.
        closed: nothing is begun any more.
    """

    def __init__(self, answers: Answers, calls_max: int, bytes_max: int) -> None:
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)
        self.table: Inflight[Pending] = Inflight(calls_max, bytes_max)
        self.lines: dict[int, Line] = {}
        self.active: dict[Line, None] = {}
        self.ticking = False
        self.closed = False
        self.bytes_max = bytes_max
        self.ids = itertools.count(1)
        self._answers = answers

    # ------------------------------------------------------------------------------------------- sending

    def enqueue(self, pending: Pending, line: Line, channel: Channel, frames: list[Frame]) -> None:
        """Adds a request to what leaves next. The lock is held, and the call is in the table."""
        pending._mark = channel.add(frames)
        pending._channel = channel
        line.calls += 1
        if line.calls == 1:
            self.active[line] = None

    def flush(self, line: Line) -> None:
        """Sends what has been collected, unless another thread is at it: then that one goes on with it."""
        channel = line.channel
        while channel is not None:
            with self.lock:
                if line.sending or line.channel is not channel:
                    return
                pieces = channel.collect()
                if not pieces:
                    return
                line.sending = True
            rest: list[Frame] = []
            try:
                rest = channel.send(pieces)
            except OSError as error:
                channel.dead = error  # whoever reads finds out; what has come until then is not lost
            finally:
                with self.lock:
                    if line.channel is channel:
                        line.sending = False
                        line.stuck = bool(rest)
                    channel.put_back(rest)
            if rest:
                return

    # ----------------------------------------------------------------------------------------- receiving

    def read(self, line: Line, channel: Channel, seconds: float) -> Ended | None:
        """Takes what has come, after waiting for it. The caller holds ``line.reading``. None: nothing has.

        Whatever is raised here, Ctrl-C say, ends the connection: octets may have been taken and not understood.
        """
        ended = Ended()
        try:
            messages = channel.take()
            if messages is None and seconds > 0:
                channel.wait(seconds)
                messages = channel.take()
            if messages is None:
                return None
            self._settle(line, channel, messages, ended)
            output = channel.output()
            if output:
                with self.lock:
                    channel.add_octets(output)
                self.flush(line)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to the calls
            self.lose(line, channel, error, ended)
        except BaseException:
            self.lose(line, channel, ConnectionAbortedError("the thread that read was interrupted"), ended)
            raise
        return ended

    def _settle(self, line: Line, channel: Channel, messages: list[Frames], ended: Ended) -> None:
        """Ends the calls that the messages answer. Values are decoded before the lock is taken."""
        answers: list[tuple[int, Any, Exception | None]] = []
        read_id = self._answers.call_id
        for frames in messages:
            call_id = read_id(frames)
            if call_id is None:
                answers.append(self._other(frames, line, channel))
                continue
            try:
                answers.append((call_id, decode_value(frames[2:]), None))
            except Exception as error:  # noqa: BLE001 - of the value; it belongs to the caller
                answers.append((call_id, None, error))
        over = self.table.receive
        pending: Pending | None = None
        with self.lock:
            try:
                for call_id, value, wrong in answers:
                    pending = over(call_id)
                    if pending is None:
                        continue
                    if pending._channel is not channel:  # an answer by a server that was not asked
                        self.table.begin(call_id, pending, pending._deadline, pending._octets)
                        continue
                    line.calls -= 1
                    if wrong is not None and isinstance(wrong, (Unavailable, Overloaded)):
                        self._unsend(pending)
                        ended.failed.append((pending, wrong))
                    elif pending._end(value, wrong):
                        ended.callbacks.append(pending)
            except BaseException as error:  # Ctrl-C between two steps: this call is in no table any more
                if pending is not None and pending._state == PENDING:
                    pending._end(None, ConnectionAbortedError(f"the thread that read was interrupted: {error!r}"))
                raise

    def _other(self, frames: Frames, line: Line, channel: Channel) -> tuple[int, Any, Exception | None]:
        """The call id, and the value or the error, of an answer that is not this version's plain reply."""
        try:
            message = self._answers.message(frames, channel.endpoint)
        except RemoteProtocolError as error:
            if line.cancels and error.code in (Code.UNEXPECTED, Code.UNKNOWN_KIND):
                line.cancels -= 1  # the server knows no CANCEL: the call runs to its end there, and nothing is lost
                return NOBODY, None, None
            raise
        if not isinstance(message, (Reply, Error)):
            raise RemoteProtocolError(f"{channel.endpoint} sent a {message.kind.name}", Code.UNEXPECTED)
        call_id = message.call_id
        with self.lock:
            pending = self.table.find(call_id)
        if pending is None:
            return NOBODY, None, None  # it is late
        try:
            return call_id, self._answers.value(message, asked(pending, channel)), None
        except Exception as error:  # noqa: BLE001 - of the method, or of the value
            return call_id, None, error

    # --------------------------------------------------------------------------------------------- ending

    def lose(self, line: Line, channel: Channel, error: Exception, ended: Ended) -> None:
        """A connection is of no further use: the calls over it are over, or have failed. ``line.reading`` is held."""
        culprit = channel.culprit() if isinstance(error, RemoteProtocolError) and error.code == Code.TOO_LARGE else None
        with self.lock:
            if line.channel is channel:
                line.drop()
            channel.abort()
            for pending in [one for one in self.table.tokens() if one._channel is channel]:
                why = self._why(pending, channel, error, culprit)
                if isinstance(why, (Unavailable, Overloaded, CallOutcomeUnknown)):
                    self._unsend(pending)
                    ended.failed.append((pending, why))
                elif self.end(pending, why):
                    ended.callbacks.append(pending)
            if not line.sending:  # else it is closed once nobody has it any more
                channel.close()

    @staticmethod
    def _why(pending: Pending, channel: Channel, error: Exception, culprit: int | None) -> Exception:
        """What the end of a connection means to one call over it."""
        if pending._mark > channel.handed:
            cause = channel.dead or (error if isinstance(error, OSError) else ConnectionAbortedError(str(error)))
            return not_sent(asked(pending, channel), cause)
        found = failure(asked(pending, channel), error)
        if isinstance(found, MessageTooLarge) and culprit != pending._call_id:
            text = "the connection ended with another call's reply, which was over the limit (message_bytes_max)"
            return CallOutcomeUnknown(
                f"{text}; the call may have run", rank=pending.rank, method=pending.method, endpoint=channel.endpoint
            )
        return found

    def _unsend(self, pending: Pending) -> None:
        """A try of a call is over, the call is not: it gets a number that no answer to that try has."""
        self.table.cancel(pending._call_id)
        pending._channel = None
        pending._call_id = next(self.ids)
        self.table.begin(pending._call_id, pending, pending._deadline, pending._octets)

    def end(self, pending: Pending, error: Exception) -> bool:
        """Ends a call with an error, unless it is over; the lock is held. Returns whether it has callbacks to run."""
        if pending._state != PENDING:
            return False
        self.table.cancel(pending._call_id)
        self.leave(pending)
        return pending._end(None, error)

    def leave(self, pending: Pending) -> None:
        """A call goes from the line it is on. The lock is held."""
        line, channel = pending._line, pending._channel
        if line is not None and channel is not None and line.channel is channel:
            line.calls -= 1

    def expire(self, now: float, ended: Ended) -> None:
        """Ends every call whose deadline has come. A connection over which nothing arrives gets no more of them."""
        with self.lock:
            for pending in self.table.expired(now):
                channel, line = pending._channel, pending._line
                if channel is not None and line is not None and channel.dead is None and channel.lost():
                    channel.dead = TimeoutError("nothing has reached the other side for a while")
                    line.used = 0.0  # it is looked at before it is used again
                self.leave(pending)
                if pending._end(None, late(pending)):
                    ended.callbacks.append(pending)


def asked(pending: Pending, channel: Channel) -> Asked:
    """A call as errors tell of it."""
    return Asked(pending.rank, pending.method, channel.endpoint, pending._call_id)


def late(pending: Pending) -> CallError:
    """The error of a call whose time is over: where it waits for another try, that of the last."""
    channel, seconds = pending._channel, pending._deadline - pending._started
    if channel is not None and pending._mark <= channel.handed:
        return timed_out(asked(pending, channel), seconds)
    if channel is None and pending._failure is not None:
        return pending._failure
    error = never_sent(pending.rank, pending.method, seconds)
    if channel is not None:
        error.endpoint = channel.endpoint
    else:
        error.add("there was no connection to its server yet")
    return error
