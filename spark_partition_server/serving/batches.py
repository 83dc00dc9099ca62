"""BATCH: one method, run many times, answered by one message."""

from __future__ import annotations

from typing import Any

from ..core.dispatch import Handler, expired
from ..errors import RemoteProtocolError
from ..net.clock import monotonic
from ..net.connection import Caller
from ..wire.codec import Fields
from ..wire.codes import Code
from ..wire.messages import BATCH_MAX, Error, Frame
from ..wire.payload import ARRAYS_MAX, ValueEncoder, decode_value, size_of
from ..wire.zmtp import Frames
from .jobs import Job, Next
from .replies import Replies, failed, invalid, too_large, unsendable

__all__ = ["Batch"]

ROOM_PER_RUN = 160  # octets left free for each run that may yet fail, in a reply that is filled up to the limit


class Batch(Job):
    """A BATCH. Its runs are made in order; between two of them others may have their turn.

    Attributes:
        runs: the arguments of each.
        results: of those that are over.
        failures: of those that failed, with the number of the run in place of a call id.
    """

    __slots__ = ("failures", "results", "runs")

    def __init__(self, caller: Caller, fields: Fields, frames: Frames, handler: Handler, received: float) -> None:
        super().__init__(caller, fields, frames, handler, received)
        self.results: list[Any] = []
        self.failures: list[Error] = []
        self.runs: list[list[Any]] = []

    def begin(self, replies: Replies) -> list[Frame] | None:
        """Reads the arguments of all runs. Returns the ERROR for what is none."""
        try:
            runs = decode_value(self._take_frames()[2:])
            if type(runs) is not list or not all(type(args) is list for args in runs):
                raise RemoteProtocolError("the value of a batch is [[argument, ...], ...]")
        except (RemoteProtocolError, ImportError, TypeError, ValueError) as error:
            return replies.error(invalid(self.call_id, f"the arguments cannot be decoded: {error}"))
        if len(runs) > BATCH_MAX:
            text = f"a batch of {len(runs)} runs, the limit is {BATCH_MAX}"
            return replies.error(Error(self.call_id, Code.TOO_LARGE, text))
        self.runs = runs
        return None

    def step(self, replies: Replies, until: float) -> tuple[list[list[Frame]], Next]:
        if self._frames is not None:
            refused = self.begin(replies)
            if refused is not None:
                return [refused], Next.DONE
        if self.run(until):
            return [self.frames(replies)], Next.DONE
        return [], Next.AGAIN

    def run(self, until: float) -> bool:
        """Makes runs until about ``until``. Returns whether that was the last one."""
        handler, results, runs, expires = self._handler, self.results, self.runs, self.expires
        clock = monotonic
        now = clock()
        while len(results) < len(runs):
            if now > expires:
                self.expire(now)
                break
            args = runs[len(results)]
            try:
                results.append(handler(*args))
            except KeyboardInterrupt:
                raise  # somebody wants this process to end
            except BaseException as error:  # noqa: BLE001 - whatever else it raises is data for the caller
                self.fail(failed(len(results), handler, args, {}, error))
            now = clock()
            if now >= until:
                return len(results) >= len(runs)
        return True

    def fail(self, failure: Error) -> None:
        """The next run has failed."""
        self.failures.append(failure)
        self.results.append(None)

    def expire(self, now: float) -> None:
        """The runs that are left are not made."""
        for number in range(len(self.results), len(self.runs)):
            self.fail(expired(number, self.received, now, self.remaining_ms))

    # ---------------------------------------------------------------------------------------- the answer

    def frames(self, replies: Replies) -> list[Frame]:
        """RESULTS. What cannot be sent, or has no room, fails by itself."""
        try:
            payload = replies.values.encode([self.results, [_entry(failure) for failure in self.failures]])
            if size_of(payload) <= replies.bytes_max:
                return self._framed(replies, payload)
        except TypeError:
            pass
        self._keep_what_fits(replies.bytes_max)
        payload = replies.values.encode([self.results, [_entry(failure) for failure in self.failures]])
        if size_of(payload) > replies.bytes_max:  # the failures alone are too much
            return replies.error(too_large(self.call_id, size_of(payload), replies.bytes_max))
        return self._framed(replies, payload)

    def _framed(self, replies: Replies, payload: list[Frame]) -> list[Frame]:
        replies.answered += 1
        return [replies.results, replies.pack_fields((self.call_id,)), *payload]

    def _keep_what_fits(self, bytes_max: int) -> None:
        """In order, as long as there is room for the octets and the arrays; each of the others becomes a failure."""
        values = ValueEncoder()
        failures = {failure.call_id: failure for failure in self.failures}
        room = bytes_max - ROOM_PER_RUN * len(self.results) - sum(len(failure.detail) for failure in self.failures)
        arrays = ARRAYS_MAX
        for number, result in enumerate(self.results):
            if number in failures:
                continue
            try:
                payload = values.encode(result)
            except TypeError as error:
                failures[number] = unsendable(number, error)
            else:
                size = size_of(payload)
                if size <= room and len(payload) - 1 <= arrays:
                    room -= size
                    arrays -= len(payload) - 1
                    continue
                failures[number] = self._no_room(number, size, len(payload) - 1, bytes_max)
            self.results[number] = None
        self.failures = [failures[number] for number in sorted(failures)]

    @staticmethod
    def _no_room(number: int, size: int, arrays: int, bytes_max: int) -> Error:
        text = (
            f"no room for {size} octets and {arrays} arrays beside the other results: "
            f"a reply has {bytes_max} octets (message_bytes_max) and {ARRAYS_MAX} arrays"
        )
        return Error(number, Code.REPLY_TOO_LARGE, text)


def _entry(failure: Error) -> list[Any]:
    return [failure.call_id, int(failure.code), failure.text, failure.remote_type, failure.detail]

