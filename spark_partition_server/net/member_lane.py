"""A member's lane to the relay's door: a connection of the server's own for what is relayed to it.

It is opened at the first call that comes the other way, over the control plane, so that a member to which nobody relays
costs the driver nothing. It is one more connection of the listener's: a call that comes over it is answered in the
thread that serves, without a hand-over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from ..core.relayed import Relayed, Route
from ..errors import RemoteProtocolError
from ..wire import codec
from ..wire.messages import Attach, Frame, Refuse
from ..wire.zmtp import Frames
from .clock import monotonic
from .connection import Connection
from .connections import Answer, Gone
from .endpoints import keep_alive
from .lane import Lane
from .listener import Listener
from .relay_lane import RELAYED_BYTES_MAX
from .relayed import RelayedCaller

__all__ = ["MemberLane"]

log = logging.getLogger("spark_partition_server.net")

CONNECT_TIMEOUT = 2.0  # seconds
FIRST_PAUSE = 1.0  # seconds between the beginnings of two attempts; twice as many after each that came to nothing
LONGEST_PAUSE = 60.0


class LaneCaller(RelayedCaller):
    """A client whose calls come over the lane."""

    __slots__ = ("_connection", "_listener")

    def __init__(self, relayed: Relayed, route: Route, listener: Listener, connection: Connection) -> None:
        super().__init__(relayed, route)
        self._listener = listener
        self._connection = connection

    @property
    def congested(self) -> bool:
        return self._connection.congested or super().congested

    def send(self, frames: Sequence[Frame]) -> None:
        if self._listener.serves_here():
            for forward in self._relayed.answer(self._route, frames):
                self._connection.send(forward.frames)
        else:
            self._listener.hand(lambda: self.send(frames))


class MemberLane:
    """The lane of one server. ``wanted`` and ``close`` may be called in any thread, the rest belongs to the listener's.

    Args:
        listener: serves the connection.
        answer, gone: of whoever answers messages.
        attach: who this member is.
        run_id: of the messages.
        message_bytes_max: the largest request put together.
    """

    def __init__(
        self, listener: Listener, answer: Answer, gone: Gone, attach: Attach, run_id: bytes, message_bytes_max: int
    ) -> None:
        self._listener = listener
        self._answer_one = answer
        self._gone_one = gone
        self._attach = codec.encode(attach, run_id)
        self._run_id = run_id
        self._limit = message_bytes_max
        self._relayed = Relayed(run_id, message_bytes_max)
        self._there = False  # or about to be
        self._again = 0.0  # when the next attempt may begin
        self._pause = FIRST_PAUSE
        self._opening: threading.Thread | None = None
        self._made: Lane | None = None  # and not yet served

    @property
    def waiting(self) -> bool:
        """Whether parts of answers have yet to leave."""
        return self._relayed.waiting

    def wanted(self, endpoint: str) -> None:
        """A call has come the other way: opens the lane to that door, unless it is there, or failed a moment ago."""
        now = monotonic()
        if self._there or now < self._again:
            return
        self._there = True
        self._again = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        # not here: heartbeats must go on meanwhile
        self._opening = threading.Thread(target=self._open, args=(endpoint,), name="relay-lane", daemon=True)
        self._opening.start()

    def close(self) -> None:
        """Waits until no attempt is under way. The listener has ended, and with it the lane."""
        if self._opening is not None:
            self._opening.join(CONNECT_TIMEOUT + 1)
        if self._made is not None:
            self._made.close()

    def _open(self, endpoint: str) -> None:
        deadline = monotonic() + CONNECT_TIMEOUT
        try:
            lane = Lane(endpoint, deadline, RELAYED_BYTES_MAX)
            lane.send(self._attach, deadline)
        except (OSError, RemoteProtocolError) as error:
            self._there = False
            log.info("no lane to the relay's door at %s (%s): calls come over the control plane", endpoint, error)
            return
        self._made = lane
        self._listener.hand(self._begin)

    # -------------------------------------------------------------------------------- in the listener's thread

    def _begin(self) -> None:
        lane, self._made = self._made, None
        assert lane is not None
        self._relayed = Relayed(self._run_id, self._limit)
        connected, engine = lane.release()
        keep_alive(connected)
        self._listener.adopt(connected, engine, self._take, self._ended)

    def _take(self, frames: Frames, received: float, connection: Connection) -> Sequence[Frame] | None:
        """A message of the coordinator. Returns the last message of the answer, if there is one now."""
        relayed = self._relayed
        for index, frame in enumerate(frames[:4]):
            if type(frame) is not bytes:  # long, so received into memory of its own
                frames[index] = bytes(frame)
        taken = relayed.receive(frames)  # type: ignore[arg-type]  # of which it reads the heads
        if taken is None:
            self._other(frames)
            return None
        self._pause = FIRST_PAUSE  # it is of use
        request, out = taken
        for forward in out:
            connection.queue(forward.frames)
        if request is None:
            return None
        route = request.route
        if route.caller is None:
            route.caller = LaneCaller(relayed, route, self._listener, connection)
        answer = self._answer_one(request.frames, received, route.caller)
        if answer is None:
            return None
        messages = relayed.answer(route, answer)
        for forward in messages[:-1]:
            connection.queue(forward.frames)
        return messages[-1].frames if messages else None

    def _other(self, frames: Frames) -> None:
        try:
            message = codec.decode(frames, self._run_id)
        except RemoteProtocolError as error:
            log.debug("malformed error=%s", error)
            return
        if isinstance(message, Refuse):  # the connection ends with it
            log.warning("the relay's door refuses this server: %s", message.text)

    def _ended(self, connection: Connection) -> None:
        for caller in self._relayed.clear():
            self._gone_one(caller)
        self._there = False
