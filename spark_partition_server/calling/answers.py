"""The frames of an answer, and the loss of a connection, as a value or a typed error. Waits for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.failures import call_error, refusal
from ..errors import (
    CallError,
    CallOutcomeUnknown,
    CallTimeout,
    CoordinatorLost,
    LocalProtocolError,
    MessageTooLarge,
    RemoteProtocolError,
    SparkPartitionServerError,
    StreamLost,
    Unavailable,
)
from ..wire import codec
from ..wire.codes import Code
from ..wire.messages import Error, Frame, Kind, Message, Refuse, Reply, Results
from ..wire.payload import decode_value
from .requests import seconds_of

__all__ = [
    "Answers",
    "Asked",
    "begun_late",
    "cannot_connect",
    "closed",
    "closed_after",
    "failure",
    "left",
    "never_sent",
    "nobody_answers",
    "not_sent",
    "so_far",
    "stream_lost",
    "timed_out",
    "unasked",
]


class Asked(NamedTuple):
    """A request that has left: what its answer, or the want of one, is told of."""

    rank: int
    method: str
    endpoint: str
    call_id: int


class Answers:
    """Reads what the servers of one run send. Nothing in it changes, so any thread may use it.

    A message is tried first as what it is most often: ``call_id`` names the call of a plain REPLY, whose value is
    ``decode_value(frames[2:])``. Everything else is for ``message`` and ``value``.
    """

    __slots__ = ("opening", "run_id")

    def __init__(self, run_id: bytes) -> None:
        self.opening = codec.preamble(Kind.REPLY, run_id)
        self.run_id = run_id

    def call_id(self, frames: Sequence[Frame]) -> int | None:
        """The call that a plain REPLY answers; None: the message is another one."""
        return codec.read_reply(frames, self.opening)

    def encode(self, message: Message) -> list[Frame]:
        """The frames of a message to these servers."""
        return codec.encode(message, self.run_id)

    def message(self, frames: Sequence[Frame], endpoint: str) -> Message:
        """Any other message of a server.

        Raises:
            SparkPartitionServerError: it cannot be used, or the server refuses to talk to us. The connection is to be
                closed, and ``failure`` says what that means to the calls that wait on it.
        """
        message = codec.decode(frames, self.run_id)
        if isinstance(message, Refuse):
            if message.code == Code.WRONG_RUN:
                raise RemoteProtocolError(message.text, Code.WRONG_RUN)
            raise refusal(message, endpoint)
        return message

    @staticmethod
    def value(message: Message, asked: Asked) -> Any:
        """What a REPLY or an ERROR says to the call that it answers.

        Raises:
            CallError: it is an ERROR.
            RemoteProtocolError: it is neither, or holds no value.
        """
        if isinstance(message, Error):
            raise call_error(message, asked.rank, asked.method, asked.endpoint)
        if not isinstance(message, Reply):
            raise RemoteProtocolError(f"{asked.endpoint} answered a call with {message.kind.name}", Code.UNEXPECTED)
        return decode_value(message.payload)

    @staticmethod
    def results(message: Results, asked: Asked, runs: int) -> tuple[list[Any], dict[int, CallError]]:
        """What the runs of a BATCH returned, and the errors of those that failed, by the index of the run.

        Raises:
            RemoteProtocolError: it is not an answer to a batch of ``runs``.
        """
        value = decode_value(message.payload)
        try:
            results, failures = value
            errors = {}
            for index, *fields in failures:
                error = Error(asked.call_id, *fields[:4])
                errors[index] = call_error(error, asked.rank, asked.method, asked.endpoint)
            if type(results) is not list or len(results) != runs or not all(0 <= index < runs for index in errors):
                raise ValueError(f"{runs} results are wanted")
        except (TypeError, ValueError, LocalProtocolError) as error:
            raise RemoteProtocolError(f"{asked.endpoint} answered a batch with {error}", Code.MALFORMED) from None
        return results, errors


def failure(asked: Asked, error: Exception) -> Exception:
    """What the end of a connection means to a call whose request has left over it.

    Args:
        error: what the connection raised, or ``Answers.message``.
    """
    rank, method, endpoint, _ = asked
    if isinstance(error, OSError):
        text = f"the server was lost before it answered ({error}); the call may have run"
        return CallOutcomeUnknown(text, rank=rank, method=method, endpoint=endpoint)
    code = error.code if isinstance(error, RemoteProtocolError) else Code.OK
    if code == Code.TOO_LARGE:
        text = f"its reply is over this client's limit (message_bytes_max): {error}"
        return MessageTooLarge(text, rank=rank, method=method, endpoint=endpoint, code=code, definite=False)
    if code == Code.WRONG_RUN:  # look for our own server again
        text = "a server of another cluster has its port by now"
        return Unavailable(text, rank=rank, method=method, endpoint=endpoint)
    return error


def not_sent(asked: Asked, error: Exception) -> Unavailable:
    """The request did not leave whole, so it was not run."""
    text = f"the request could not be sent: {error}"
    return Unavailable(text, rank=asked.rank, method=asked.method, endpoint=asked.endpoint)


def cannot_connect(endpoint: str, rank: int, method: str, error: Exception) -> Unavailable:
    """The server cannot be reached, or does not shake hands."""
    return Unavailable(f"cannot connect: {error}", rank=rank, method=method, endpoint=endpoint)


def closed_after(error: CallError) -> CallError:
    """What a failed try ends with where the client was closed meanwhile: nothing can follow it."""
    if not error.definite:
        error.add("the client was closed")
        return error
    ended = closed(error.rank, error.method)
    ended.__cause__ = error
    return ended


def nobody_answers(error: CallError, lost: CoordinatorLost) -> SparkPartitionServerError:
    """Neither the server nor the coordinator can be reached: what a failed call is to end with.

    The cluster's error where nothing can have happened; otherwise the call's, which says so.
    """
    if error.definite:
        lost.__cause__ = error
        return lost
    error.add("the coordinator does not answer either: has the cluster stopped?")
    error.__cause__ = lost
    return error


def timed_out(asked: Asked, seconds: float) -> CallTimeout:
    """No answer in the time that the call allowed."""
    text = f"no answer within {seconds:.3g} s; it may still run"
    return CallTimeout(text, rank=asked.rank, method=asked.method, endpoint=asked.endpoint)


def never_sent(rank: int, method: str, seconds: float) -> CallTimeout:
    """The time was over before the request could leave."""
    text = f"it could not be sent within {seconds:.3g} s; it was not run"
    return CallTimeout(text, rank=rank, method=method, definite=True)


def unasked(coordinator: str, seconds: float) -> CallTimeout:
    """The time was over before the coordinator could say who serves what."""
    text = f"there was no time to ask the coordinator at {coordinator} who serves what"
    return CallTimeout(f"{text} ({max(seconds, 0.0):.3g} s were left); nothing was run", definite=True)


def begun_late(rank: int | None, method: str, seconds: float) -> CallTimeout:
    """The time was over before the call began."""
    text = f"no time is left for it, its timeout is {seconds:.3g} s; it was not run"
    return CallTimeout(text, rank=rank, method=method, definite=True)


def left(timeout: Any, rank: int | None, method: str) -> float:
    """The seconds of a call: what is over before it begins is not begun.

    Raises:
        CallTimeout: none are left. It is definite.
        TypeError, ValueError: it is no number of seconds.
    """
    seconds = seconds_of(timeout)
    if seconds <= 0:
        raise begun_late(rank, method, seconds)
    return seconds


def so_far(items: int) -> str:
    """What an error says of a stream that it ends."""
    return f"{items} items had come"


def stream_lost(error: CallError, items: int) -> StreamLost:
    """The server was lost, or took the stream back, when some ``items`` had come already."""
    text = f"{error.text}; {so_far(items)}; it is not begun again"
    lost = StreamLost(text, rank=error.rank, method=error.method, endpoint=error.endpoint, code=error.code)
    lost.items = items
    return lost


def closed(rank: int | None, method: str | None) -> Unavailable:
    """The client is of no further use."""
    text = "the client is closed, by close() or by the stop of its cluster; make a new one"
    return Unavailable(text, rank=rank, method=method)
