"""``Stream``: the items of a generator method, as fast as they are taken and no faster.

A stream has a connection of its own, so that neither it nor the calls of its thread wait for each other. The server
sends as many items as it has been granted; more are granted once half of them have been taken. So there are never more
than ``credit`` items that nobody has taken, wherever they are.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from typing import Any

from ..errors import (
    CallError,
    CallOutcomeUnknown,
    Overloaded,
    RemoteProtocolError,
    Unavailable,
)
from ..net.clock import monotonic
from ..net.lane import Lane
from ..wire.codes import Code
from ..wire.messages import Frame, Items, Member
from ..wire.payload import decode_value, size_of
from ..wire.zmtp import Frames
from .answers import Asked, closed_after, failure, not_sent, so_far, stream_lost, timed_out
from .tries import Tries

__all__ = ["CREDIT", "Stream"]

CREDIT = 128  # items; two messages of a server's, so that one is made while the other is taken


class Stream:
    """An iterator over what a generator method of a partition yields; made by ``Client.stream``.

    Belongs to one thread at a time. To ``close`` it, to leave its ``with`` block or to drop it closes the generator at
    the server. ``yield from`` gives what the generator returned.

    Attributes:
        items: how many have come out of it.
    """

    def __init__(
        self, tries: Tries, rank: int, method: str, payload: list[Frame], timeout: float, credit: int
    ) -> None:
        self.items = 0
        self._pid = os.getpid()
        self._tries = tries
        self._rank = rank
        self._method = method
        self._payload = payload
        self._octets = size_of(payload)
        self._timeout = timeout
        self._credit = credit
        self._buffer: deque[Any] = deque()
        self._came = 0  # items received
        self._granted = 0
        self._call_id = 0
        self._attempt = 0
        self._lane: Lane | None = None
        self._broken: OSError | None = None  # why a grant could not be sent
        self._member: Member | None = None
        self._last: Exception | None = None  # what ends the stream, once everything that has come is taken
        self._open(monotonic() + timeout)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        """The next item.

        Raises:
            StopIteration: there are no more; its value is what the generator returned.
            CallTimeout: none came within the stream's ``timeout``.
            StreamLost: the server was lost; ``error.items`` says how many had come.
            CallError: as ``Client.call``. The stream is over after any of them.
        """
        if not self._buffer:
            self._fill()
        item = self._buffer.popleft()
        self.items += 1
        if self._lane is not None and self._granted - self.items <= self._credit // 2:
            self._grant(self._lane)
        return item

    def close(self) -> None:
        """Ends the stream, here and at its server. Twice is harmless."""
        self._buffer.clear()
        lane = self._lane
        if lane is None:
            return
        if self._pid == os.getpid():  # else it is the parent's stream
            with contextlib.suppress(OSError):
                lane.offer(self._tries.lanes.local.requests.cancel(self._call_id))
        self._drop()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the interpreter's end modules may be gone, or it never began
            self.close()

    # --------------------------------------------------------------------------------------------- the beginning

    def _open(self, deadline: float) -> None:
        """Sends the request, with as many tries as it takes. Nothing has come yet."""
        while True:
            self._attempt += 1
            try:
                self._send(deadline)
                return
            except (Unavailable, Overloaded) as error:
                self._again(error, deadline)

    def _send(self, deadline: float) -> None:
        tries, rank, method = self._tries, self._rank, self._method
        self._member = None
        self._member, lane = tries.lanes.borrow(rank, method, deadline)
        self._call_id = next(tries.ids)
        if not tries.room.take(-self._call_id, self._octets):
            tries.lanes.give_back(self._member, lane)
            raise tries.room.full(rank, method)
        self._lane = lane
        self._granted = self._credit
        requests = tries.lanes.local.requests
        remaining = deadline - monotonic()
        frames = requests.stream(self._call_id, method, remaining, self._member, self._payload, self._credit)
        try:
            lane.send(frames, deadline)
        except OSError as error:
            self._drop()
            raise not_sent(self._asked(), error) from error

    def _again(self, error: CallError, deadline: float) -> None:
        """Waits until it is time for another try, or raises the error."""
        tries = self._tries
        if tries.lanes.closed:
            ended = closed_after(error)
            raise ended from ended.__cause__
        tried = self._member or tries.lanes.tried(self._rank)
        wait = tries.verdict(error, self._rank, self._method, self._attempt, tried, monotonic(), deadline)
        if wait is None:
            raise error
        time.sleep(wait)

    # ------------------------------------------------------------------------------------------------- the items

    def _fill(self) -> None:
        """Waits for items. Raises whatever ends the stream."""
        deadline = monotonic() + self._timeout
        while not self._buffer:
            if self._last is not None:
                last, self._last = self._last, None
                raise last
            if self._lane is None:
                raise StopIteration
            if self._pid != os.getpid():
                self.close()
                text = "the stream belongs to the process that this one was forked from"
                raise Unavailable(text, rank=self._rank, method=self._method, definite=False)
            try:
                self._receive(self._lane, deadline)
            except (Unavailable, Overloaded, CallOutcomeUnknown) as error:
                if self._came:
                    self._last = stream_lost(error, self._came)
                    self._last.__cause__ = error
                else:
                    self._again(error, deadline)
                    self._open(deadline)
            except CallError as error:
                error.add(so_far(self._came))
                self._last = error

    def _receive(self, lane: Lane, deadline: float) -> None:
        try:
            messages = lane.receive(deadline)
        except TimeoutError:
            self.close()
            raise timed_out(self._asked(), self._timeout) from None
        except (OSError, RemoteProtocolError) as error:
            self._drop()
            raise failure(self._asked(), self._broken or error) from error
        except BaseException:  # Ctrl-C: the connection is of no further use
            self._drop()
            raise
        for frames in messages:
            self._take_in(frames, lane)

    def _take_in(self, frames: Frames, lane: Lane) -> None:
        answers = self._tries.answers
        try:
            message = answers.message(frames, lane.endpoint)
            if getattr(message, "call_id", None) != self._call_id:
                return  # it is late: of the stream that had this connection before
            if isinstance(message, Items):
                self._add(message)
                return
        except Exception as error:
            self.close()
            raise failure(self._asked(), error) from error
        assert self._member is not None
        self._tries.room.give(-self._call_id)
        self._lane = None
        self._tries.lanes.give_back(self._member, lane)
        self._last = StopIteration(answers.value(message, self._asked()))

    def _add(self, message: Items) -> None:
        items = decode_value(message.payload)
        if message.sequence != self._came or type(items) is not list or self._came + len(items) > self._granted:
            raise RemoteProtocolError("items of a stream came in disorder, or were never granted", Code.MALFORMED)
        self._came += len(items)
        self._buffer.extend(items)

    def _grant(self, lane: Lane) -> None:
        """Half of what was granted has been taken: the server may send as much again."""
        self._granted = self.items + self._credit
        requests = self._tries.lanes.local.requests
        try:
            lane.send(requests.credit(self._call_id, self._granted), monotonic() + self._timeout)
        except OSError as error:  # told once what has come is taken
            self._broken = error

    # -------------------------------------------------------------------------------------------------- the ends

    def _drop(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            self._tries.room.give(-self._call_id)
            lane.close()

    def _asked(self) -> Asked:
        assert self._member is not None
        return Asked(self._rank, self._method, self._member.endpoint, self._call_id)
