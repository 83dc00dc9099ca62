"""``run``: a function of a communicator on every partition at once, and the values it returned."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .cluster import Cluster
from .comm import Comm
from .core.dispatch import shorten
from .errors import ClusterClosed, CommError, CommRevoked, RankFailed, RankLost
from .errors.comm import ranked
from .options import ClusterOptions, ServerOptions
from .peer_server import PeerServer
from .spark.shipping import packed, unpacked
from .wire.messages import DETAIL_CHARS_MAX, View

__all__ = ["Outcome", "Program", "run", "values_of"]

Function = Callable[[Comm, Iterable[Any]], Any]


def run(
    sc: Any,
    rdd: Any,
    function: Function,
    timeout: float | None = None,
    *,
    options: ClusterOptions | None = None,
    server_options: ServerOptions | None = None,
) -> list[Any]:
    """Calls ``function(comm, iterator)`` on every partition at once; returns what it returned, in rank order.

    ``comm`` is the communicator of all partitions, ``iterator`` the partition's elements. All partitions run at the
    same time, so the RDD must have no more of them than Spark has task slots.

    Args:
        sc: the SparkContext, or a SparkSession.
        rdd: an RDD, or a DataFrame.
        function: shipped to the executors as Spark ships functions.
        timeout: seconds that an operation between ranks may take; None: 600. The function itself may take any time.
        options: how the driver waits for the ranks.
        server_options: how the ranks listen.

    Raises:
        RankFailed: the function raised on a rank: that one's traceback. The other ranks are told, and end.
        RankLost, CollectiveMismatch, CommTimeout: it let such an error of a communicator through.
        ClusterClosed: somebody has stopped the run.
        InsufficientSlots, StartTimeout, JobFailed: as ``Cluster.start`` raises them.
    """
    cluster = _Run(sc, rdd, Program(function, timeout, server_options), verbose=False, options=options)
    with cluster:
        cluster.wait()
    if len(cluster.outcomes) < cluster.rdd.getNumPartitions():
        raise ClusterClosed("the run was stopped before all ranks had returned")
    return values_of(cluster.outcomes)


class Outcome(NamedTuple):
    """What became of a rank.

    Attributes:
        value: what the function returned, as octets.
        failure: what it raised, as text; None: it returned.
        error: the same as it was, if it was an error of a communicator.
    """

    rank: int
    value: bytes
    failure: RankFailed | None = None
    error: CommError | None = None


class Program(PeerServer):
    """Runs a function, and keeps what came of it: an error too, for Spark is not to begin again."""

    def __init__(self, function: Function, timeout: float | None = None, options: ServerOptions | None = None) -> None:
        super().__init__(options=options, timeout=timeout)
        self.function = function
        self._began = False
        self._outcome: Outcome | None = None

    def run(self, comm: Comm) -> None:
        """Calls the function."""
        self._began = True
        value = self.function(comm, self.itr)
        self._outcome = Outcome(self.partition_ind, packed(value))

    def _launch_server(self) -> None:
        try:
            super()._launch_server()
        except (Exception, SystemExit) as error:
            known = error if isinstance(error, CommError) else None
            if not self._began and known is None:
                raise
            detail = shorten("".join(traceback.format_exception(error)), DETAIL_CHARS_MAX)
            failure = RankFailed(self.partition_ind, type(error).__qualname__, str(error), detail)
            self._outcome = Outcome(self.partition_ind, b"", failure, known)

    def _check_view(self, view: View, missing: tuple[int, ...]) -> None:
        if view.number > view.size:  # each joins once: somebody has gone, and Spark begins tasks again
            gone = missing or (self.partition_ind,)
            raise RankLost(f"{ranked(gone)} left, or was lost, before rank {self.partition_ind} began", gone)

    def _build_result(self) -> list[Outcome]:
        return [] if self._outcome is None else [self._outcome]


class _Run(Cluster):
    """A cluster whose job brings the outcomes.

    Attributes:
        outcomes: of the ranks, once it has stopped.
    """

    outcomes: Sequence[Outcome] = ()

    def _act(self, server: Any) -> None:
        self.outcomes = self.rdd.mapPartitionsWithIndex(server).collect()

    def _has_begun(self) -> bool:
        return super()._has_begun() or (self._job is not None and self._job.done and self._job.error is None)


def values_of(outcomes: Iterable[Outcome]) -> list[Any]:
    """The values, in rank order.

    Raises:
        CommError: what the first rank to blame ended in; whoever was only told that another has failed is not.
    """
    found = sorted(outcomes, key=lambda one: one.rank)
    failed = [one for one in found if one.failure is not None]
    if not failed:
        return [unpacked(one.value) for one in found]
    worst = min(failed, key=lambda one: _blame(one.error))
    assert worst.failure is not None
    if worst.error is not None:
        raise worst.error from worst.failure
    raise worst.failure


def _blame(error: CommError | None) -> int:
    if error is None:
        return 0
    if isinstance(error, RankLost):
        return 2
    return 3 if isinstance(error, CommRevoked) else 1
