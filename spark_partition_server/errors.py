"""Every exception this library raises, one tree::

    SparkPartitionServerError
    ├── ProtocolError                 bytes or messages that break wire/PROTOCOL.md
    │   ├── LocalProtocolError        we broke a rule (a bug here, or a message that could not be built)
    │   ├── RemoteProtocolError       the other side did                         .code
    │   └── VersionMismatch           no protocol version in common              .local .remote
    ├── CallError                     one call    .rank .method .endpoint .code .definite
    │   ├── CallTimeout               (also TimeoutError) no answer by the deadline
    │   ├── Unavailable               (also ConnectionError) nobody serves the partition, or nobody can be reached
    │   ├── Overloaded                refused for lack of room; try again later
    │   ├── MethodNotFound            the server has no method of that name
    │   ├── InvalidArguments          the arguments do not fit the method, or no such partition
    │   ├── MessageTooLarge           request or reply over the limit
    │   ├── HandlerError              the method raised     .remote_type .remote_message .remote_traceback
    │   └── CallOutcomeUnknown        (also ConnectionError) the server was lost after the request left
    ├── ClusterError                  starting, running and stopping a cluster
    │   ├── InvalidCluster            (also ValueError) an RDD without partitions, a server of the wrong type
    │   ├── NotSerializable           (also TypeError) the server cannot be shipped to the executors
    │   ├── InsufficientSlots         more partitions than task slots            .needed .available
    │   ├── StartTimeout              (also TimeoutError) no progress            .registered .missing
    │   ├── PartitionInitError        init_partition raised      .rank .attempt .remote_traceback
    │   ├── MissingDependency         (also ImportError) an executor lacks a package      .module
    │   ├── PortUnavailable           (also OSError) no port of the range can be bound    .host .ports
    │   ├── JobFailed                 the Spark job that runs the servers failed (``__cause__``)
    │   ├── CoordinatorLost           (also ConnectionError) the driver does not answer
    │   ├── ClusterClosed             the cluster has stopped; its servers are not started again
    │   └── NotStarted                the cluster was never started
    └── AuthenticationError           the other side refused our credentials

*Definite* means: it certainly did not happen and never will, so doing it again is safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

__all__ = [
    "AuthenticationError",
    "CallError",
    "CallOutcomeUnknown",
    "CallTimeout",
    "ClusterClosed",
    "ClusterError",
    "CoordinatorLost",
    "HandlerError",
    "InsufficientSlots",
    "InvalidArguments",
    "InvalidCluster",
    "JobFailed",
    "LocalProtocolError",
    "MessageTooLarge",
    "MethodNotFound",
    "MissingDependency",
    "NotSerializable",
    "NotStarted",
    "Overloaded",
    "PartitionInitError",
    "PortUnavailable",
    "ProtocolError",
    "RemoteProtocolError",
    "SparkPartitionServerError",
    "StartTimeout",
    "Unavailable",
    "VersionMismatch",
]


class SparkPartitionServerError(Exception):
    """Base of every error of this library. All of them can be pickled, for users who send them on."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[SparkPartitionServerError], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    """An error as it was, without its constructor, which may take other arguments than it keeps."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


# ------------------------------------------------------------------------------------------- protocol


class ProtocolError(SparkPartitionServerError):
    """A message or a stream of bytes that breaks the protocol."""


class LocalProtocolError(ProtocolError):
    """This side tried to build a message that the protocol forbids."""


class RemoteProtocolError(ProtocolError):
    """The other side sent what the protocol forbids.

    Attributes:
        code: the error code (``wire.codes.Code``) that a refusal would carry.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class VersionMismatch(ProtocolError):
    """The two sides have no protocol version in common.

    Attributes:
        local: the version that this side speaks.
        remote: what the other side said of itself, as text.
    """

    def __init__(self, local: int, remote: str) -> None:
        super().__init__(local, remote)
        self.local = local
        self.remote = remote

    def __str__(self) -> str:
        return (
            f"this side speaks protocol version {self.local}, the other one says: {self.remote}; "
            "install the same release of spark-partition-server on both"
        )


# ---------------------------------------------------------------------------------------------- calls


class CallError(SparkPartitionServerError):
    """One call that did not end in a reply.

    Attributes:
        rank: the partition that was called.
        method: the method that was called.
        endpoint: where the request went or would have gone, or ``None`` where there was nowhere to go.
        code: the wire's error code, 0 where no message carried one.
        definite: True when the call certainly did not and will not take effect.
    """

    definite_by_default: ClassVar[bool] = False

    def __init__(
        self,
        text: str,
        *,
        rank: int | None = None,
        method: str | None = None,
        endpoint: str | None = None,
        code: int = 0,
        definite: bool | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.rank = rank
        self.method = method
        self.endpoint = endpoint
        self.code = code
        self.definite = self.definite_by_default if definite is None else definite

    def __str__(self) -> str:
        if self.rank is None:
            return self.text
        where = f" at {self.endpoint}" if self.endpoint else ""
        return f"partition {self.rank}{where}, method {self.method!r}: {self.text}"


class CallTimeout(CallError, TimeoutError):
    """No answer by the deadline. The method may still run (``definite`` is False) once the request has left."""


class Unavailable(CallError, ConnectionError):
    """Nobody serves the partition, or its server cannot be reached; the request was not run."""

    definite_by_default = True


class Overloaded(CallError):
    """The server had no room for the request; try again later."""

    definite_by_default = True


class MethodNotFound(CallError):
    """The server has no method of that name."""

    definite_by_default = True


class InvalidArguments(CallError):
    """The arguments do not fit the method's signature, or the partition does not exist."""

    definite_by_default = True


class MessageTooLarge(CallError):
    """The request (definite) or the reply (not definite: the method has run) is over the limit."""


class HandlerError(CallError):
    """The method raised.

    Attributes:
        remote_type: the class name of the exception on the server.
        remote_message: its text.
        remote_traceback: the formatted traceback, as text; never code.
    """

    def __init__(
        self,
        text: str,
        *,
        remote_type: str = "",
        remote_message: str = "",
        remote_traceback: str = "",
        **where: Any,
    ) -> None:
        super().__init__(text, **where)
        self.remote_type = remote_type
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\n{self.remote_traceback.rstrip()}" if self.remote_traceback else text


class CallOutcomeUnknown(CallError, ConnectionError):
    """The server was lost after the request had left: the method may or may not have run.

    Declare the method ``@method(idempotent=True)`` and the client repeats it by itself.
    """


# -------------------------------------------------------------------------------------------- cluster


class ClusterError(SparkPartitionServerError):
    """Starting, running or stopping a cluster failed."""


class InvalidCluster(ClusterError, ValueError):
    """What was given to ``Cluster`` cannot be served."""


class NotSerializable(ClusterError, TypeError):
    """The partition server cannot be pickled, so it cannot be shipped to the executors."""


class InsufficientSlots(ClusterError):
    """Every partition needs a task slot for as long as the cluster runs, and there are too few.

    Attributes:
        needed: partitions to serve.
        available: slots that are not held by other partition servers.
        total: slots of the application.
    """

    def __init__(self, needed: int, available: int, total: int, how: str = "") -> None:
        super().__init__(needed, available, total, how)
        self.needed = needed
        self.available = available
        self.total = total
        self.how = how

    def __str__(self) -> str:
        held = self.total - self.available
        also = f" ({held} of {self.total} are held by other partition servers)" if held > 0 else ""
        return (
            f"{self.needed} partitions need {self.needed} task slots at once, and the application has "
            f"{self.available}{also}. Serve fewer partitions, for instance rdd.coalesce({max(self.available, 1)}), "
            f"or start the application with more slots{self.how}."
        )


class StartTimeout(ClusterError, TimeoutError):
    """Not every partition registered, and for ``timeout`` seconds nothing moved.

    Attributes:
        registered: the partitions that did register, ascending.
        missing: the partitions that did not, ascending.
        timeout: seconds without progress.
    """

    def __init__(self, registered: Iterable[int], missing: Iterable[int], timeout: float, why: str) -> None:
        self.registered = sorted(registered)
        self.missing = sorted(missing)
        self.timeout = timeout
        self.why = why
        super().__init__(self.registered, self.missing, timeout, why)

    def __str__(self) -> str:
        size = len(self.registered) + len(self.missing)
        return (
            f"{len(self.registered)} of {size} partitions registered and nothing moved for {self.timeout:g} s; "
            f"missing: {_some(self.missing)}. {self.why}"
        )


class PartitionInitError(ClusterError):
    """``init_partition`` raised on an executor.

    Attributes:
        rank: the partition.
        attempt: Spark's attempt number.
        host: where it happened.
        remote_traceback: the formatted traceback, as text.
    """

    def __init__(self, rank: int, attempt: int, host: str, text: str, remote_traceback: str = "") -> None:
        super().__init__(rank, attempt, host, text, remote_traceback)
        self.rank = rank
        self.attempt = attempt
        self.host = host
        self.text = text
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        head = f"partition {self.rank} could not be initialised on {self.host} (attempt {self.attempt}): {self.text}"
        return f"{head}\n\n{self.remote_traceback.rstrip()}" if self.remote_traceback else head


class MissingDependency(ClusterError, ImportError):
    """The Python of an executor lacks a package that the servers need.

    Attributes:
        module: the module that could not be imported.
        python: the interpreter that the executors run.
    """

    def __init__(self, module: str, python: str = "") -> None:
        super().__init__(module, python)
        self.module = module
        self.python = python

    def __str__(self) -> str:
        return (
            f"the Python of the executors ({self.python or 'PYSPARK_PYTHON'}) cannot import {self.module!r}. Point "
            "PYSPARK_PYTHON or spark.pyspark.python at one that can, install spark-partition-server with "
            "pyzmq and msgpack there, or ship an environment that has them (README, 'Running on a cluster': "
            "spark.archives with venv-pack, or a container image); --py-files cannot ship compiled packages"
        )


class PortUnavailable(ClusterError, OSError):
    """No port of the asked range could be bound.

    Attributes:
        host: the address that was to be bound.
        ports: the first and the last port of the range.
    """

    def __init__(self, host: str, ports: tuple[int, int], reason: str) -> None:
        super().__init__(f"no free port on {host} in {ports[0]}..{ports[1]}: {reason}; widen the range or free a port")
        self.host = host
        self.ports = ports
        self.reason = reason


class JobFailed(ClusterError):
    """The Spark job that runs the partition servers failed; ``__cause__`` is Spark's own exception, where known."""


class CoordinatorLost(ClusterError, ConnectionError):
    """The coordinator on the driver does not answer."""


class ClusterClosed(ClusterError):
    """The cluster has stopped. A server of a stopped cluster is never started again by Spark."""


class NotStarted(ClusterError):
    """The cluster is not running: call ``start()`` first, or use it in a ``with`` block."""


class AuthenticationError(SparkPartitionServerError):
    """The other side refused our credentials."""


def _some(ranks: Sequence[int], most: int = 10) -> str:
    """The first few of a list of partitions, for an error text."""
    shown = ", ".join(str(rank) for rank in ranks[:most])
    return shown if len(ranks) <= most else f"{shown} and {len(ranks) - most} more"
