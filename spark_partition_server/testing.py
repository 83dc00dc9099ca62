"""For tests of partition servers: a cluster on plain lists, without Spark and without a JVM.

Coordinator, servers and clients are the real ones and talk over real sockets on 127.0.0.1; only Spark is not there.
Each server runs in a thread of this process, on a pickled copy, as an executor would.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from . import connection_file
from .client import Client
from .clusters import check_server, described
from .coordinator import Coordinator
from .errors import NotStarted, PartitionInitError, StartTimeout
from .keys import Function
from .net.clock import monotonic
from .options import ClientOptions, ClusterOptions
from .partition_server import PartitionServer
from .placement import placement_of
from .query_server import told_to_clients
from .spark.shipping import copied
from .spark.task import Identity

__all__ = ["LocalCluster", "local_cluster"]

STOP_TIMEOUT = 10.0
GOODBYE_TIMEOUT = 0.5


def local_cluster(
    server: PartitionServer,
    partitions: Sequence[Iterable[Any]],
    *,
    options: ClusterOptions | None = None,
    start_timeout: float = 30.0,
    partitioner: Function | None = None,
) -> LocalCluster:
    """A context manager that serves each of ``partitions``::

        with local_cluster(Lookup(), partitions=[[("a", 1)], [("b", 2)]]) as cluster:
            assert cluster.client().call(1, "get", "b") == 2

    Args:
        server: what to run.
        partitions: the elements of each partition.
        options: heartbeats, addresses.
        start_timeout: seconds until all must serve.
        partitioner: key -> int, as ``Cluster`` takes it; the elements must be where it says.

    Raises (on entering the block):
        NotSerializable: the server cannot be pickled, so Spark could not ship it either.
        PartitionInitError: ``init_partition`` raised.
        StartTimeout: not every partition is served after ``start_timeout``.
    """
    return LocalCluster(server, partitions, options, start_timeout, partitioner)


class LocalCluster:
    """See ``local_cluster``.

    Attributes:
        coordinator: the running coordinator.
        connection_file: for clients in other processes.
        results: what ``_build_result`` returned, by partition, after the end.
    """

    def __init__(
        self,
        server: PartitionServer,
        partitions: Sequence[Iterable[Any]],
        options: ClusterOptions | None,
        start_timeout: float,
        partitioner: Function | None = None,
    ) -> None:
        check_server(server)
        self.coordinator: Coordinator | None = None
        self.connection_file: str | None = None
        self.results: dict[int, list[Any]] = {}
        self.failures: dict[int, BaseException] = {}
        self._server = server
        self._partitions = list(partitions)
        self._options = options or ClusterOptions()
        self._start_timeout = start_timeout
        self._placement = placement_of(partitioner, os.environ.get("PYTHONHASHSEED"), len(self._partitions))
        self._incarnations = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._clients: list[Client] = []
        self._stopping = threading.Lock()  # the end of the with block, and a STOP from outside

    def __enter__(self) -> LocalCluster:
        size = len(self._partitions)
        told = told_to_clients(self._server)
        coordinator = Coordinator(size, False, options=self._options, partitioner=self._placement.told, **told)
        coordinator.start()
        self.coordinator = coordinator
        url = coordinator.get_url()
        assert url is not None
        coordinator.set_stop_callback(self._stop_asked)
        try:
            connection = connection_file.Connection(url, coordinator.run_id, coordinator.admin_token)
            self.connection_file = str(connection_file.write(connection))
            for rank in range(size):
                self.launch(rank)
            complete = coordinator.wait(lambda: bool(coordinator.was_full or self.failures), self._start_timeout)
            self._check(coordinator, complete)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return described(self, self._server, self.coordinator)

    def launch(self, rank: int, attempt: int = 0) -> None:
        """Starts a server, another life of one that runs already included: the newer one takes over."""
        coordinator = self._running()
        server = copied(self._server)
        server.set_coordinator_url(coordinator.get_url() or "")
        server.set_token(coordinator.token)
        server.set_run(coordinator.run_id, None)
        server.set_placement(self._placement)
        who = Identity(rank, attempt, next(self._incarnations))
        thread = threading.Thread(target=self._serve, args=(server, who), name=f"local-cluster-{rank}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def client(
        self, timeout: float | None = None, options: ClientOptions | None = None, *, route: str | None = None
    ) -> Client:
        """A client, closed with the cluster; arguments as of ``Cluster.client``."""
        coordinator = self._running()
        given = ClientOptions.given(options, timeout=timeout, route=route)
        function = self._placement.function
        client = Client(coordinator.get_url() or "", coordinator.run_id, given, partitioner=function)
        self._clients.append(client)
        return client

    def wait(self, timeout: float = 60.0) -> bool:
        """Waits until all servers have left by themselves, as peer servers do. Returns whether they have."""
        deadline = monotonic() + timeout
        for thread in self._threads:
            thread.join(max(deadline - monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Stops servers and coordinator. Twice is harmless."""
        with self._stopping:
            if self.coordinator is None:
                return
            self.coordinator.shutdown_hosts()
            for thread in self._threads:
                thread.join(STOP_TIMEOUT)
            self.coordinator.shutdown()
            for client in self._clients:
                client.close()
            if self.connection_file is not None:
                connection_file.remove(Path(self.connection_file))
            self.coordinator = self.connection_file = None

    def _stop_asked(self, reason: str) -> None:
        """In the coordinator's thread: must not block."""
        threading.Thread(target=self.stop, name="local-cluster-stop", daemon=True).start()

    def _serve(self, server: PartitionServer, who: Identity) -> None:
        try:
            self.results[who.rank] = list(server(who.rank, iter(self._partitions[who.rank]), who))
        except BaseException as error:  # noqa: BLE001 - told by whoever started the cluster
            self.failures[who.rank] = error
            if self.coordinator is not None:
                self.coordinator.notify()

    def _check(self, coordinator: Coordinator, complete: bool) -> None:
        if self.failures:  # a server's own word travels, and may come just behind the end of its thread
            coordinator.wait(lambda: bool(coordinator.init_failures), GOODBYE_TIMEOUT)
        for failed in coordinator.init_failures:
            raise PartitionInitError(failed.rank, failed.attempt, failed.host, failed.text, failed.detail)
        for error in self.failures.values():
            raise error
        if not complete:
            missing = set(range(len(self._partitions))) - set(coordinator.hosts)
            raise StartTimeout(coordinator.hosts, missing, self._start_timeout, "init_partition is still at work.")

    def _running(self) -> Coordinator:
        if self.coordinator is None:
            raise NotStarted("a local cluster runs inside its with block")
        return self.coordinator
