"""What a refusal or an error message means to a caller: the exception it becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..errors import (
    AuthenticationError,
    CallError,
    CallOutcomeUnknown,
    CallTimeout,
    ClusterClosed,
    ClusterError,
    HandlerError,
    InvalidArguments,
    JobFailed,
    MessageTooLarge,
    MethodNotFound,
    Overloaded,
    PartitionInitError,
    PortUnavailable,
    RemoteProtocolError,
    SparkPartitionServerError,
    Unavailable,
    VersionMismatch,
)
from ..wire import codec
from ..wire.codes import CODES, Code
from ..wire.messages import Error, Goodbye, Refuse

__all__ = ["call_error", "init_failure", "refusal"]

_CLASSES: dict[Code, type[CallError]] = {
    Code.TIMEOUT: CallTimeout,
    Code.WRONG_MEMBER: Unavailable,
    Code.UNAVAILABLE: Unavailable,
    Code.UNIMPLEMENTED: MethodNotFound,
    Code.INVALID_ARGUMENT: InvalidArguments,
    Code.OVERLOADED: Overloaded,
    Code.TOO_LARGE: MessageTooLarge,
    Code.REPLY_TOO_LARGE: MessageTooLarge,
    Code.LOST: CallOutcomeUnknown,
}


def call_error(error: Error, rank: int, method: str, endpoint: str) -> CallError:
    """The exception for an ERROR that answers a call."""
    code = Code.of(error.code)
    definite = CODES[code].definite if code is not Code.UNEXPECTED else False
    if code is Code.HANDLER:
        return HandlerError(
            f"raised {error.remote_type}: {error.text}",
            remote_type=error.remote_type,
            remote_message=error.text,
            remote_traceback=error.detail,
            rank=rank,
            method=method,
            endpoint=endpoint,
            code=error.code,
            definite=definite,
        )
    made = _CLASSES.get(code, CallError)(
        error.text, rank=rank, method=method, endpoint=endpoint, code=error.code, definite=definite
    )
    if isinstance(made, Overloaded):
        made.retry_after = error.retry_ms / 1000
    return made


def refusal(refuse: Refuse, endpoint: str) -> SparkPartitionServerError:
    """The exception for a REFUSE of the coordinator or of a server."""
    code = Code.of(refuse.code)
    if code is Code.CLOSED:
        return ClusterClosed(f"the cluster at {endpoint} is over: {refuse.text}")
    if code is Code.WRONG_RUN:
        return ClusterClosed(f"{endpoint} belongs to another run of a cluster by now; connect with its new file")
    if code is Code.JOB_FAILED:
        return JobFailed(refuse.text)
    if code is Code.VERSION:
        return VersionMismatch(codec.VERSION, refuse.text)
    if code is Code.BAD_TOKEN:
        return AuthenticationError(f"{endpoint} refused our credentials: {refuse.text}")
    return RemoteProtocolError(f"{endpoint} refused a message ({code.name}): {refuse.text}", code)


def init_failure(failures: Sequence[Goodbye], attempts: int, ports: tuple[int, int] | None) -> ClusterError | None:
    """The error of the first partition that failed to start as often as ``attempts``; None: none has yet.

    Args:
        failures: what its servers said, in order.
        attempts: how often a partition may fail.
        ports: that the servers were to bind; None: any.
    """
    times = Counter(failed.rank for failed in failures)
    for failed in failures:
        if times[failed.rank] < attempts:
            continue
        if failed.code == Code.PORT_UNAVAILABLE:
            return PortUnavailable(failed.host, ports or (0, 0), failed.text)
        return PartitionInitError(failed.rank, failed.attempt, failed.host, failed.text, failed.detail)
    return None
