"""The Spark job that runs the servers: one job, in a thread of its own, under a job group of its own."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from typing import Any

from ..errors import ClusterError, InvalidCluster, JobFailed, MissingDependency

__all__ = ["Job", "as_context", "as_rdd", "is_alive", "seconds_since_start"]

log = logging.getLogger("spark_partition_server.spark")

CANCEL_EVERY = 0.5  # seconds; a job submitted just after one cancel needs another
OURS = ("zmq", "msgpack", "nacl", "spark_partition_server", "flask", "waitress", "werkzeug")
_MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


class Job:
    """A Spark action in a thread.

    Args:
        sc: the SparkContext.
        group: the job group, for cancelling; nobody else's.
        description: shown in Spark's web page.
        action: runs the job; what it returns is ``result``.
        ended: called in the job's thread when the action is over, either way.

    Attributes:
        group: as given.
        done: the action is over, one way or the other.
        result: of the action, once it has returned.
        error: what the action raised.
    """

    def __init__(
        self, sc: Any, group: str, description: str, action: Callable[[], Any], ended: Callable[[], None]
    ) -> None:
        from pyspark import InheritableThread  # noqa: PLC0415

        self.result: Any = None
        self.error: BaseException | None = None
        self.group = group
        self.done = False  # the action is over
        self._sc = sc
        self._description = description
        self._action = action
        self._ended = ended
        # It inherits the local properties of the caller's thread (a FAIR scheduler pool, say) and cleans its JVM
        # thread up at its end.
        self._thread = InheritableThread(target=self._run, name="spark-partition-server-job", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the job runs."""
        return bool(self._thread.is_alive())

    def start(self) -> None:
        """Submits the job."""
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Waits for the end. Returns whether it came within ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def cancel(self, timeout: float) -> bool:
        """Cancels the job until it is over. Returns whether it was within ``timeout`` seconds."""
        while timeout > 0 and self._thread.is_alive():
            with contextlib.suppress(Exception):  # the SparkContext may be gone, and the job with it
                self._sc.cancelJobGroup(self.group)
            self._thread.join(min(CANCEL_EVERY, timeout))
            timeout -= CANCEL_EVERY
        return not self._thread.is_alive()

    def failure(self) -> ClusterError | None:
        """The job's error as one of ours, with Spark's own as its cause; None while it has not failed."""
        if not self.done or self.error is None:
            return None
        text = str(self.error)
        missing = _MISSING.search(text)
        found: ClusterError
        if missing and missing.group(1).partition(".")[0] in OURS:
            found = MissingDependency(missing.group(1), str(getattr(self._sc, "pythonExec", "")))
        else:
            found = JobFailed(f"the Spark job that runs the partition servers failed: {_summary(text)}")
        found.__cause__ = self.error
        return found

    def _run(self) -> None:
        try:
            self._sc.setJobGroup(self.group, self._description)
            self.result = self._action()
        except BaseException as error:  # noqa: BLE001 - it is raised again where somebody can hear it
            self.error = error
            log.debug("job failed error=%s", error)
        finally:
            self.done = True
            self._ended()


def _summary(text: str, most: int = 2000) -> str:
    """The part of Spark's text that says what happened: the end of a Python traceback, else the first lines."""
    text = text.partition("\n\tat ")[0].strip()  # without the JVM's frames; __cause__ has them
    reason = re.search(r"(?:^|\n)([\w.]+(?:Error|Exception|Closed|Lost|Exit): [^\n]+)\s*(?:SQLSTATE: \w+\s*)?$", text)
    if reason is None:
        return text[:most] or "no reason given"
    return f"{text.splitlines()[0]} {reason.group(1)}"[:most]


def as_context(given: Any) -> Any:
    """The SparkContext of a SparkContext or a SparkSession.

    Raises:
        InvalidCluster: it is neither, or Spark Connect's session, which has no context in this process.
    """
    if not hasattr(given, "statusTracker"):
        try:
            given = given.sparkContext
        except Exception as error:
            kind = f"{type(given).__module__}.{type(given).__qualname__}"
            raise InvalidCluster(f"a SparkContext is wanted, not {kind}; Spark Connect has none") from error
    return given


def as_rdd(data: Any) -> Any:
    """The RDD of an RDD or a DataFrame.

    Raises:
        TypeError: it is neither.
    """
    if hasattr(data, "mapPartitionsWithIndex"):
        return data
    rdd = getattr(data, "rdd", None)
    if rdd is None or not hasattr(rdd, "mapPartitionsWithIndex"):
        raise TypeError(f"an RDD or a DataFrame is wanted, not {type(data).__module__}.{type(data).__qualname__}")
    return rdd


def is_alive(sc: Any) -> bool:
    """Whether the SparkContext runs."""
    try:
        return sc._jsc is not None and not sc._jsc.sc().isStopped()
    except Exception:  # noqa: BLE001 - the JVM is gone
        return False


def seconds_since_start(sc: Any) -> float:
    """Seconds since the application started."""
    scala = sc._jsc.sc()
    return max(float(sc._jvm.System.currentTimeMillis() - scala.startTime()) / 1000, 0.0)

