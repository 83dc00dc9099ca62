"""The errors of starting, running and stopping a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .base import SparkPartitionServerError

__all__ = [
    "ClusterClosed",
    "ClusterError",
    "CoordinatorLost",
    "InsufficientSlots",
    "InvalidCluster",
    "JobFailed",
    "MissingDependency",
    "NotReady",
    "NotSerializable",
    "NotStarted",
    "PartitionInitError",
    "PortUnavailable",
    "StartTimeout",
    "TooFewDescriptors",
]


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


class NotReady(ClusterError, TimeoutError):
    """``Client.wait_for_ready``: not every partition answered in time; ``__cause__`` is the error of the first.

    Attributes:
        ready: the partitions that did answer, ascending.
        missing: the partitions that did not, ascending.
        timeout: seconds they were given.
    """

    def __init__(self, ready: Iterable[int], missing: Iterable[int], timeout: float) -> None:
        self.ready = sorted(ready)
        self.missing = sorted(missing)
        self.timeout = timeout
        super().__init__(self.ready, self.missing, timeout)

    def __str__(self) -> str:
        size = len(self.ready) + len(self.missing)
        why = f" ({self.__cause__})" if self.__cause__ else ""
        some = f"{len(self.ready)} of {size} partitions answer after {self.timeout:g} s"
        return f"{some}; missing: {_some(self.missing)}{why}"


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
        flask = self.module.partition(".")[0] in ("flask", "waitress", "werkzeug")
        wanted = "spark-partition-server[flask]" if flask else "spark-partition-server with pyzmq and msgpack"
        return (
            f"the Python of the executors ({self.python or 'PYSPARK_PYTHON'}) cannot import {self.module!r}. Point "
            f"PYSPARK_PYTHON or spark.pyspark.python at one that can, install {wanted} there, "
            "or ship an environment that has them (README, 'Running on a cluster': spark.archives "
            "with venv-pack, or a container image); --py-files cannot ship compiled packages"
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


class TooFewDescriptors(ClusterError, OSError):
    """This process may not open as many files and sockets as the cluster has members.

    Attributes:
        needed: open files at the least.
        limit: the hard limit of this process.
    """

    def __init__(self, members: int, needed: int, limit: int) -> None:
        super().__init__(
            f"{members} partitions need {needed} open files in the driver, the hard limit is {limit}: some could "
            "never register; raise it (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of docker) "
            "or use fewer partitions"
        )
        self.members = members
        self.needed = needed
        self.limit = limit

    def __reduce__(self) -> tuple[type[TooFewDescriptors], tuple[int, int, int]]:
        return type(self), (self.members, self.needed, self.limit)


class JobFailed(ClusterError):
    """The Spark job that runs the partition servers failed; ``__cause__`` is Spark's own exception, where known."""


class CoordinatorLost(ClusterError, ConnectionError):
    """The coordinator on the driver does not answer."""


class ClusterClosed(ClusterError):
    """The cluster has stopped. A server of a stopped cluster is never started again by Spark."""


class NotStarted(ClusterError):
    """The cluster is not running: call ``start()`` first, or use it in a ``with`` block."""


def _some(ranks: Sequence[int], most: int = 10) -> str:
    """The first few of a list of partitions, for an error text."""
    shown = ", ".join(str(rank) for rank in ranks[:most])
    return shown if len(ranks) <= most else f"{shown} and {len(ranks) - most} more"
