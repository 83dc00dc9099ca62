"""``Cluster``: partition servers on the partitions of an RDD, from start to result RDD, on the driver."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

from . import connection_file
from .at_exit import stop_at_exit
from .client import Client
from .clusters import check_server, default_server, described
from .coordinator import Coordinator
from .core.failures import init_failure
from .errors import (
    ClusterClosed,
    ClusterError,
    CoordinatorLost,
    InvalidCluster,
    NotStarted,
    StartTimeout,
)
from .keys import Function
from .net.clock import monotonic
from .options import ClientOptions, ClusterOptions
from .partition_server import PartitionServer
from .placement import placement_of
from .progress import Progress
from .query_server import told_to_clients
from .spark import job as spark_job
from .spark.address import driver_host
from .spark.job import Job
from .spark.partitioner import hash_seed, partitioner_of
from .spark.results import keep, run_keeping, run_only
from .spark.shipping import Shipped, pickled
from .spark.slots import JOB_GROUP_PREFIX, await_no_tasks, await_slots, tasks_of, why_missing

__all__ = ["Cluster"]

log = logging.getLogger("spark_partition_server.cluster")

LOOK_EVERY = 0.25  # seconds between two looks at slots and tasks while starting
TASKS_TIMEOUT = 10.0  # seconds for the tasks of a job that is over
CANCEL_TIMEOUT = 15.0  # seconds for Spark to end a cancelled job


class Cluster:
    """Partition servers on the partitions of an RDD or a DataFrame.

    A context manager: ``with Cluster(sc, rdd, server) as cluster`` waits until every partition is served, and stops the
    servers on the way out. A stopped cluster can be started again.

    Args:
        sc: the SparkContext, or a SparkSession.
        rdd: an RDD, or a DataFrame; one server runs on each of its partitions.
        partition_server: what to run; default: a ``FlaskPartitionServer`` without routes.
        cache_result: keep what the servers return from ``_build_result``; see ``get_result_rdd``.
        verbose: draw a start-up bar on a terminal, and log registrations at INFO rather than DEBUG (an application
            that has not configured logging shows warnings only).
        options: timeouts, addresses, ports.
        partitioner: key -> int, the partition of a key by modulus; default: the RDD's own. See docs/keys.md.

    Attributes:
        coordinator: the coordinator of the running or last run; ``coordinator.hosts[i]`` is (host, port).
        connection_file: path of the file that clients in other processes connect with; None while not running.
    """

    def __init__(
        self,
        sc: Any,
        rdd: Any,
        partition_server: PartitionServer | None = None,
        cache_result: bool = False,
        verbose: bool = True,
        options: ClusterOptions | None = None,
        partitioner: Function | None = None,
    ) -> None:
        self.sc = spark_job.as_context(sc)
        self.rdd = spark_job.as_rdd(rdd)
        self.partition_server = default_server() if partition_server is None else partition_server
        check_server(self.partition_server)
        self.cache_result = cache_result
        self.verbose = verbose
        self.options = options or ClusterOptions()
        self.partitioner = partitioner
        self.coordinator: Coordinator | None = None
        self.connection_file: str | None = None
        self._lock = threading.RLock()  # start and stop, from any thread
        self._interrupted = threading.Event()  # stop() was called while start() waits
        self._ended = threading.Event()  # not active
        self._ended.set()
        self._is_active = False
        self._job: Job | None = None
        self._function: Function | None = None  # that placed the keys, where clients must be given it
        self._result: Any = None
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self._at_exit: Any = None

    # ------------------------------------------------------------------------------------------ the life

    def start(self, await_hosts: bool = True) -> None:
        """Starts a server on every partition. A running cluster: nothing happens.

        Args:
            await_hosts: wait until every partition is served; False: return once the Spark job is submitted.

        Raises:
            InvalidCluster: the RDD has no partitions, or the SparkContext has been stopped.
            InsufficientSlots: more partitions than task slots; within a second.
            NotSerializable: the server cannot be pickled.
            ClusterClosed: ``stop()`` was called meanwhile.
            PartitionInitError: ``init_partition`` raised on an executor.
            StartTimeout: for ``options.start_timeout`` seconds nothing moved.
            JobFailed, MissingDependency, PortUnavailable: as they say. Whatever is raised, everything is cleaned up.
        """
        with self._lock:
            if self._is_active:
                return
            if not spark_job.is_alive(self.sc):
                raise InvalidCluster("the SparkContext has been stopped; make a new one, and the RDD with it")
            size = self.rdd.getNumPartitions()
            if size == 0:
                raise InvalidCluster("the RDD has no partitions, so there is nothing to serve; repartition it")
            server = pickled(self.partition_server)
            self._interrupted.clear()
            await_slots(self.sc, size, self.options.start_timeout, self._interrupted)
            self._launch(size, server)
            if await_hosts:
                try:
                    self._await_members(size)
                except BaseException:
                    self._tear_down(cancel=True)
                    raise

    def stop(self) -> None:
        """Stops the servers, waits for their results, and removes everything. Twice is harmless.

        Raises:
            JobFailed: the servers' Spark job had failed, or did so now. Everything is removed all the same.
        """
        self._interrupted.set()
        if self.coordinator is not None:
            self.coordinator.notify()
        with self._lock:
            if not self._is_active:
                return
            failure = self._tear_down(cancel=False)
        if failure is not None:
            raise failure

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the cluster has been stopped, by another thread or by ``spark-partition-server stop``; or until
        its servers have left by themselves, as peer servers do. A cluster that is not running: returns at once.

        Args:
            timeout: seconds; None: as long as it takes.

        Returns:
            Whether that is so.

        Raises:
            JobFailed: the servers' Spark job has failed; ``stop()`` is still to be called.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self._ended.is_set():
            failure = self._failure()
            if failure is not None and self._is_active:
                raise failure
            if self._job is not None and self._job.done:
                return True
            left = LOOK_EVERY if deadline is None else min(deadline - monotonic(), LOOK_EVERY)
            if left <= 0:
                return False
            self._ended.wait(left)
        return True

    def is_active(self) -> bool:
        """Whether the cluster is running: started, and not stopped."""
        return self._is_active

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
            return
        try:
            self.stop()
        except ClusterError as second:  # the first error is the one to tell
            log.warning("stop after an error failed too error=%s", second)

    # ------------------------------------------------------------------------------------------ the faces

    def client(
        self, timeout: float | None = None, options: ClientOptions | None = None, *, route: str | None = None
    ) -> Client:
        """A client of this cluster, closed with it.

        Args: see ``ClientOptions``; ``timeout`` and ``route`` go before what is in ``options``.

        Raises:
            NotStarted: the cluster is not running.
            JobFailed: the servers' Spark job has failed.
        """
        coordinator = self._running()
        url = coordinator.get_url()
        assert url is not None
        given = ClientOptions.given(options, timeout=timeout, route=route)
        client = Client(url, coordinator.run_id, given, self._failure, self._function)
        self._clients.add(client)
        return client

    def get_hosts(self) -> dict[int, tuple[str, int]] | None:
        """Partition -> (host, port) of every server registered now; None before the first start. Live."""
        return self.coordinator.hosts if self.coordinator is not None else None

    def get_result_rdd(self) -> Any:
        """What the servers returned from ``_build_result``, as an RDD with the same partitions.

        Only with ``cache_result=True`` and after ``stop()``; otherwise None. The result never starts a server again: it
        is held on the driver, or in the checkpoint directory if ``sc.setCheckpointDir`` was called (see
        docs/results.md). A new start drops this object's reference to it.
        """
        if self._result is None and not self.cache_result:
            log.warning("there is no result: the cluster was made without cache_result=True")
        return self._result

    def __repr__(self) -> str:
        return described(self, self.partition_server, self.coordinator if self._is_active else None)

    # ------------------------------------------------------------------------------------------- starting

    def _launch(self, size: int, server: bytes) -> None:
        group = JOB_GROUP_PREFIX + os.urandom(8).hex()
        self._result = None
        placement = placement_of(partitioner_of(self.rdd, self.partitioner, size), hash_seed(self.sc), size)
        shipped_placement = pickled(placement, "Its partitioner must be a function of plain data.")
        coordinator = Coordinator(
            size,
            self.verbose,
            host=driver_host(self.sc, self.options.advertise_host),
            options=self.options,
            **told_to_clients(self.partition_server),
            partitioner=placement.told,
        )
        coordinator.start()
        url = coordinator.get_url()
        assert url is not None
        shipped = Shipped(server, url, coordinator.token, coordinator.run_id, group, shipped_placement)
        self._function = placement.function
        description = f"{size} partition servers: {type(self.partition_server).__qualname__}"
        self.coordinator = coordinator
        self._job = Job(self.sc, group, description, lambda: self._act(shipped), self._job_ended)
        try:
            known = connection_file.Connection(url, coordinator.run_id, coordinator.admin_token)
            self.connection_file = str(connection_file.write(known))
        except OSError:  # no room for it: nothing has started but the coordinator
            coordinator.shutdown()
            raise
        coordinator.set_stop_callback(self._stop_asked)
        self._is_active = True
        self._ended.clear()
        self._at_exit = stop_at_exit(self)
        self._job.start()
        log.info("started partitions=%d coordinator=%s", size, url)

    def _act(self, server: Shipped) -> Any:
        """The Spark action, in the job's thread."""
        if self.cache_result:
            return keep(run_keeping(self.rdd, server), self.options.result_bytes_max)
        run_only(self.rdd, server)
        return None

    def _job_ended(self) -> None:
        """In the job's thread."""
        coordinator, failure = self.coordinator, self._failure()
        if coordinator is None:
            return
        if failure is not None and self._is_active:
            coordinator.fail(str(failure))
        coordinator.notify()

    def _await_members(self, size: int) -> None:
        """Waits until every partition is served, for as long as something moves."""
        coordinator, job = self._running(), self._job
        assert job is not None
        timeout = self.options.start_timeout
        seen: tuple[int, int, int] | None = None
        moved = monotonic()
        with Progress(size, self.verbose) as progress:
            while True:
                coordinator.wait(lambda: self._has_begun() or self._broken() is not None, LOOK_EVERY)
                progress.update(len(coordinator.hosts))
                if self._has_begun():
                    return
                broken = self._broken()
                if broken is not None:
                    if not coordinator.init_failures:  # a server's own word may be just behind Spark's
                        coordinator.wait(lambda: bool(coordinator.init_failures), LOOK_EVERY)
                    raise self._broken() or broken
                running = tasks_of(self.sc, job.group).running
                state = (len(coordinator.hosts), running, len(coordinator.init_failures))
                if state != seen:
                    seen, moved = state, monotonic()
                elif monotonic() - moved >= timeout:
                    missing = set(range(size)) - set(coordinator.hosts)
                    raise StartTimeout(set(coordinator.hosts), missing, timeout, why_missing(self.sc, running, size))

    def _has_begun(self) -> bool:
        return self.coordinator is not None and self.coordinator.was_full

    def _broken(self) -> ClusterError | None:
        """Why the cluster will not be complete, if that is known."""
        coordinator = self.coordinator
        assert coordinator is not None
        job = self._job
        assert job is not None
        if self._interrupted.is_set():
            return ClusterClosed("stop() was called while the cluster was starting")
        attempts = 1 if job.done else self.options.init_attempts
        return init_failure(coordinator.init_failures, attempts, self.partition_server._ports()) or self._failure()

    # ------------------------------------------------------------------------------------------- stopping

    def _tear_down(self, cancel: bool) -> ClusterError | None:
        """Ends servers, job, coordinator, clients and file, whatever state they are in. Returns the job's failure."""
        coordinator, job = self.coordinator, self._job
        assert coordinator is not None
        assert job is not None
        failure = None if cancel else self._failure()
        self._is_active = False
        cancel = cancel or failure is not None or not coordinator.was_full
        try:
            self._end_job(coordinator, job, cancel)
        finally:
            coordinator.shutdown()
            for client in list(self._clients):
                client.close()
            self._clients.clear()
            if self.connection_file is not None:
                connection_file.remove(Path(self.connection_file))
                self.connection_file = None
            if self._at_exit is not None:
                self._at_exit()
                self._at_exit = None
            self._result = job.result
            self._ended.set()
        log.info("stopped")
        return failure if cancel else self._failure()

    def _end_job(self, coordinator: Coordinator, job: Job, cancel: bool) -> None:
        options = self.options
        coordinator.shutdown_hosts(grace=options.stop_timeout)
        try:
            left = coordinator.wait(lambda: not coordinator.hosts or not job.alive, options.stop_timeout)
        except CoordinatorLost:
            left = False  # the coordinator has logged why
        if left and not cancel:
            # every server has left; what remains is the result, which may take its time
            job.join(options.result_timeout if self.cache_result else options.stop_timeout)
        elif cancel:
            job.join(1.0)  # it has failed, or ends by itself as the servers leave
        if job.alive:
            hosts = dict(coordinator.hosts)
            log.warning("cancelling the job: not left within %g s: %s", options.stop_timeout, hosts or "its result")
            if not job.cancel(CANCEL_TIMEOUT):
                log.error("the Spark job still runs %g s after it was cancelled", CANCEL_TIMEOUT)
        await_no_tasks(self.sc, job.group, TASKS_TIMEOUT)

    def _stop_asked(self, reason: str) -> None:
        """In the coordinator's thread: must not block."""
        threading.Thread(target=self._stop_by_message, name="spark-partition-server-stop", daemon=True).start()

    def _stop_by_message(self) -> None:
        try:
            self.stop()
        except ClusterError as error:
            log.warning("stop failed error=%s", error)

    # --------------------------------------------------------------------------------------------- helpers

    def _running(self) -> Coordinator:
        if not self._is_active or self.coordinator is None:
            raise NotStarted("the cluster is not running: call start(), or use it in a with block")
        return self.coordinator

    def _failure(self) -> ClusterError | None:
        """What has become of the job, if it is over before its time."""
        return self._job.failure() if self._job is not None else None
