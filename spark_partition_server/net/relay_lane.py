"""The relay, client side: lanes to servers that lead over one connection to the coordinator.

A thread has one ``Trunk``; every server that it calls by relay has a ``RelayLane`` on it, which is used as any other
lane. Answers find their lane by the call's id. Like a lane, all of it belongs to one thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

from ..errors import RemoteProtocolError
from ..wire import codec
from ..wire.messages import Cancel, Frame, Kind
from ..wire.parts import Parts
from ..wire.relays import BEGINNINGS, FINAL, BadPart, call_of, frames_of, opening_of, room_for
from ..wire.zmtp import Frames
from .clock import monotonic
from .lane import Lane

__all__ = ["JOINING_BYTES_MAX", "RELAYED_BYTES_MAX", "RelayLane", "Trunk", "coordinator_lane"]

RELAYED_BYTES_MAX = 1 << 20  # a message of the coordinator; large ones come in parts
SEND_TIMEOUT = 1.0  # seconds that the coordinator may leave octets untaken while nothing else is waited for
JOINING_BYTES_MAX = 1 << 62  # what the caller has asked for is his own concern


def coordinator_lane(endpoint: str, deadline: float) -> Lane:
    """A connection to the coordinator for what is relayed. Raises as ``Lane`` does."""
    return Lane(endpoint, deadline, RELAYED_BYTES_MAX)


class Trunk:
    """A connection to the coordinator, for calls.

    Args:
        lane: the connection.
        message_bytes_max: the largest payload accepted, all frames of a message together.
        run_id: of the messages.

    Attributes:
        lane: as given.
        closed: it is of no further use.
    """

    def __init__(self, lane: Lane, message_bytes_max: int, run_id: bytes) -> None:
        self.closed = False
        self.lane = lane
        self._run_id = run_id
        self._pid = os.getpid()
        self._calls: dict[int, tuple[RelayLane, float]] = {}
        self._parts = Parts(run_id, room_for(message_bytes_max), JOINING_BYTES_MAX, self._calls.__contains__)

    def send(self, lane: RelayLane, frames: Sequence[Frame], deadline: float) -> None:
        """Sends a message, or as much of a large one as may leave now; the rest leaves while answers are waited for."""
        if frames[0][4] in BEGINNINGS:
            self._give_up_late()
            self._calls[call_of(frames)] = (lane, deadline)
        elif frames[0][4] == Kind.CANCEL:
            self._calls.pop(call_of(frames), None)
        try:
            for message in self._parts.send(frames):
                self.lane.send(message, deadline)
        except OSError:
            self.closed = True
            raise

    def send_octets(self, lane: RelayLane, octets: bytes, deadline: float) -> None:
        """Sends a request that has been encoded, and is small enough to be relayed whole."""
        if not self._parts.idle:
            self.send(lane, frames_of(memoryview(octets)), deadline)
            return
        call_id = call_of(opening_of(octets))
        if self._calls:
            self._give_up_late()
        self._calls[call_id] = (lane, deadline)
        try:
            self.lane.send_octets(octets, deadline)
        except OSError:
            self.closed = True
            raise

    def pump(self, waiting: RelayLane, deadline: float) -> None:
        """Waits for messages, and gives them to their lanes. What is about no call is for the lane that waits.

        Raises:
            As ``Lane.receive``.
        """
        self._hand_out(lambda: self.lane.receive(deadline), waiting, deadline)

    def take(self, waiting: RelayLane) -> None:
        """The same with what is here now. Raises as ``Lane.take`` does."""
        self._hand_out(self.lane.take, waiting, monotonic() + SEND_TIMEOUT)

    def _hand_out(self, receive: Callable[[], list[Frames]], waiting: RelayLane, deadline: float) -> None:
        try:
            for frames in receive():
                try:
                    whole, messages = self._parts.take(frames)
                except BadPart as error:
                    self._bad(error, waiting)
                    continue
                for message in messages:
                    self.lane.send(message, deadline)
                if whole is not None:
                    self._deliver(whole, waiting)
        except TimeoutError:
            self.closed = self.closed or self.lane.fileno() < 0
            raise
        except BaseException:
            self.closed = True
            self.lane.close()
            raise

    def lost(self) -> bool:
        """Whether the coordinator has closed the connection, as far as this host knows."""
        if not self.closed and self.lane.lost():
            self.closed = True
        return self.closed

    def leave(self, lane: RelayLane) -> None:
        """Nobody waits for the calls of a lane any more."""
        for call_id in [call_id for call_id, (other, _) in self._calls.items() if other is lane]:
            self._give_up(call_id)

    def close(self) -> None:
        """Closes this process's end of the connection. Twice is harmless."""
        self.closed = True
        self.lane.close()

    # --------------------------------------------------------------------------------------------- helpers

    def _deliver(self, frames: Frames, waiting: RelayLane) -> None:
        kind = frames[0][4] if len(frames[0]) == codec.PREAMBLE_BYTES else 0
        if kind < Kind.REQUEST:  # a REFUSE, or nothing we know
            waiting.inbox.append(frames)
            return
        call_id = call_of(frames)
        lane, _ = self._calls.get(call_id, (None, 0.0))
        if lane is None:
            return  # late
        if kind in FINAL:
            del self._calls[call_id]
        lane.inbox.append(frames)
        lane.answered(frames)

    def _bad(self, error: BadPart, waiting: RelayLane) -> None:
        lane, _ = self._calls.get(error.call_id, (waiting, 0.0))
        lane.failure = error
        self._give_up(error.call_id)

    def _give_up(self, call_id: int) -> None:
        self._calls.pop(call_id, None)
        self._parts.forget(call_id)
        if not self.closed and self._pid == os.getpid():  # a forked child must not speak for its parent
            with contextlib.suppress(OSError):
                self.lane.send(codec.encode(Cancel(call_id), self._run_id), monotonic())

    def _give_up_late(self) -> None:
        """Takes back calls that nobody waits for any more: their answers, in parts say, would only be in the way."""
        while self._calls:
            call_id, (_, deadline) = next(iter(self._calls.items()))
            if deadline > monotonic():
                return
            self._give_up(call_id)


class RelayLane(Lane):
    """A lane to one server, by way of the coordinator.

    Args:
        trunk: the connection.
        endpoint: what errors call it.
        proved: called once, when the server has answered.
    """

    __slots__ = ("_proved", "failure", "inbox", "trunk")

    def __init__(self, trunk: Trunk, endpoint: str, proved: Callable[[], None] | None = None) -> None:
        self.endpoint = endpoint
        self.used = 0.0
        self.trunk = trunk
        self.inbox: list[Frames] = []
        self.failure: RemoteProtocolError | None = None
        self._proved = proved

    def arm(self, timeout: float) -> None:
        self.trunk.lane.arm(timeout)

    def send(self, frames: Sequence[Frame], deadline: float) -> None:
        self.trunk.send(self, frames, deadline)

    def send_octets(self, octets: bytes, deadline: float) -> None:
        self.trunk.send_octets(self, octets, deadline)

    def receive(self, deadline: float) -> list[Frames]:
        while not self.inbox:
            if self.failure is not None:
                raise self.failure
            self.trunk.pump(self, deadline)
        messages, self.inbox = self.inbox, []
        return messages

    @property
    def ready(self) -> bool:
        return True  # the trunk is

    @property
    def held(self) -> bool:
        return bool(self.inbox) or self.failure is not None

    def fileno(self) -> int:
        return self.trunk.lane.fileno()

    def offer(self, frames: Sequence[Frame]) -> list[Frame]:
        # It all leaves over one connection, whose other side always reads: what would wait for this one waits anyway.
        self.trunk.send(self, frames, monotonic() + SEND_TIMEOUT)
        return []

    def take(self) -> list[Frames]:
        if not self.held:
            if self.trunk.closed:
                raise ConnectionResetError("the connection to the coordinator has ended")
            self.trunk.take(self)
        if self.failure is not None and not self.inbox:
            raise self.failure
        messages, self.inbox = self.inbox, []
        return messages

    def answered(self, frames: Frames) -> None:
        """An answer has come."""
        if self._proved is not None and frames[0][4] != Kind.ERROR:
            self._proved()
            self._proved = None

    def lost(self) -> bool:
        return self.failure is not None or self.trunk.lost()

    def close(self) -> None:
        self.trunk.leave(self)

    def abort(self) -> None:
        self.trunk.lane.abort()

    def __del__(self) -> None:
        pass  # the connection is the trunk's
