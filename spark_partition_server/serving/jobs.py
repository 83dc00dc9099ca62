"""Jobs: calls that run, in one piece or in several turns."""

from __future__ import annotations

from enum import Enum
from typing import Any

from ..core.dispatch import Handler, expired
from ..core.load import State, Ticket
from ..errors import RemoteProtocolError
from ..net.connection import Caller
from ..wire.codec import Fields
from ..wire.messages import Error, Frame
from ..wire.payload import decode_value
from ..wire.zmtp import Frames
from .replies import Replies, failed, invalid

__all__ = ["Job", "Next", "Single", "arguments", "run"]


class Next(Enum):
    """What a job wants after a turn."""

    DONE = 0
    AGAIN = 1
    PARK = 2


class Job(Ticket):
    """A call that waits for its turns.

    Attributes:
        caller: gets the answer.
        received: when the request was read.
        remaining_ms: how long its caller waits, from then on.
    """

    __slots__ = ("_frames", "_handler", "method", "received", "remaining_ms")

    caller: Caller

    def __init__(self, caller: Caller, fields: Fields, frames: Frames, handler: Handler, received: float) -> None:
        super().__init__(caller, fields[0], sum(map(len, frames)))
        self.method = fields[1]
        self.received = received
        self.remaining_ms = fields[2]
        self._frames: Frames | None = frames
        self._handler = handler

    @property
    def expires(self) -> float:
        """When its caller no longer waits."""
        return self.received + self.remaining_ms / 1000

    @property
    def over(self) -> bool:
        """Whether nobody waits for its answer any more."""
        return self.state is State.OVER

    def refusal(self, now: float) -> Error | None:
        """The ERROR in place of a turn, when its time is over before it has run."""
        if now <= self.expires or self._frames is None:
            return None
        return expired(self.call_id, self.received, now, self.remaining_ms)

    def step(self, replies: Replies, until: float) -> tuple[list[list[Frame]], Next]:
        """A turn, in the thread that ``replies`` belongs to: runs until about ``until``. Returns messages to send."""
        raise NotImplementedError  # not abstract: a job that is a task of asyncio's has no turns

    @property
    def ready(self) -> bool:
        """Whether what a parked job waits for has come."""
        return False

    def interrupt(self) -> None:
        """It is over while it has a turn, which may end early."""

    def close(self) -> None:
        """It is over before its end. Not called while it has a turn."""
        self._frames = None

    def _take_frames(self) -> Frames:
        frames, self._frames = self._frames, None  # the arguments' octets need not outlive their decoding
        assert frames is not None
        return frames


class Single(Job):
    """A REQUEST."""

    __slots__ = ()

    def step(self, replies: Replies, until: float) -> tuple[list[list[Frame]], Next]:
        return [run(self._handler, self.call_id, self._take_frames(), replies)], Next.DONE


def run(handler: Handler, call_id: int, frames: Frames, replies: Replies) -> list[Frame]:
    """Runs a method with the arguments of a REQUEST; the frames of its REPLY or ERROR."""
    try:
        args, kwargs = arguments(frames)
    except (RemoteProtocolError, ImportError, TypeError, ValueError) as error:
        return replies.error(invalid(call_id, f"the arguments cannot be decoded: {error}"))
    try:
        result = handler(*args, **kwargs)
    except KeyboardInterrupt:
        raise  # somebody wants this process to end
    except BaseException as error:  # noqa: BLE001 - whatever else it raises is data for the caller
        return replies.error(failed(call_id, handler, args, kwargs, error))
    return replies.reply(call_id, result)


def arguments(frames: Frames) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a REQUEST or a STREAM.

    Raises:
        RemoteProtocolError, ImportError, TypeError, ValueError: they are none.
    """
    args, kwargs = decode_value(frames[2:])
    if type(args) is not list or type(kwargs) is not dict:
        raise RemoteProtocolError("the value of a request is [args, kwargs]")
    return args, kwargs
