"""A cluster whose driver and executors are processes of their own, on hosts of ``support.hosts`` or on this one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spark_partition_server import ClusterOptions, QueryServer, ServerOptions, connection_file, method
from spark_partition_server.coordinator import Coordinator
from spark_partition_server.keys import stable_hash
from spark_partition_server.placement import placement_of
from spark_partition_server.query_server import told_to_clients
from spark_partition_server.spark.task import Identity

__all__ = ["DRIVER_PORTS", "EXECUTOR_PORTS", "Apart", "Store", "drive", "peak", "remember", "serve"]

DRIVER_PORTS = (7100, 7119)
EXECUTOR_PORTS = (7200, 7299)
PATIENCE = 30.0  # seconds
LEAVING = 5.0  # seconds; who has not left by then is ended with its process


class Store(QueryServer):
    """Pairs by key, and values of any size."""

    def init_partition(self, rows: Any) -> None:
        self.values = dict(rows)

    @method(idempotent=True)
    def get(self, key: str) -> Any:
        return self.values.get(key)

    @method
    def rank(self) -> int:
        return self.partition_ind

    @method
    def array(self, octets: int) -> Any:
        import numpy

        return numpy.arange(octets // 8, dtype="<i8")

    @method
    def total(self, array: Any) -> int:
        return int(array.sum())

    @method
    def count(self, limit: int) -> Iterator[int]:
        yield from range(limit)

    @method
    def fail(self, text: str) -> None:
        raise ValueError(text)


def pairs_of(rank: int, size: int) -> list[tuple[str, int]]:
    """The rows of a partition: the keys that belong to it, of a few hundred."""
    return [(f"k{number}", number) for number in range(200) if stable_hash(f"k{number}") % size == rank]


class Driver:
    """What a test may ask of the driver."""

    def __init__(self, coordinator: Coordinator, lost: list[str]) -> None:
        self.coordinator = coordinator
        self._lost = lost

    def wait(self) -> bool:
        """Until all serve."""
        return self.coordinator.wait(lambda: bool(self.coordinator.full_cluster), PATIENCE)

    def addresses(self) -> dict[int, tuple[str, int]]:
        return dict(self.coordinator.hosts)

    def lost(self) -> list[str]:
        """What the coordinator has said of servers that it lost."""
        return list(self._lost)

    def peak(self, anew: bool = False) -> int:
        """See ``peak``."""
        return peak(anew)

    def stop(self, rank: int) -> None:
        """Asks one server to leave."""
        self.coordinator.shutdown_host(rank)


def drive(size: int, host: str, options: ClusterOptions) -> Iterator[Any]:
    """A driver: yields the coordinator's endpoint, run id, token and the connection file's path; then answers."""
    lost: list[str] = remember("spark_partition_server.coordinator", logging.WARNING)
    placement = placement_of(stable_hash, None, size)
    told = told_to_clients(Store())
    coordinator = Coordinator(size, False, host=host, options=options, partitioner=placement.told, **told)
    coordinator.start()
    url = coordinator.get_url() or ""
    path = connection_file.write(connection_file.Connection(url, coordinator.run_id))
    driver = Driver(coordinator, lost)
    try:
        question = yield url, coordinator.run_id, coordinator.token, str(path)
        while True:
            question = yield getattr(driver, question[0])(*question[1:])
    finally:
        coordinator.shutdown_hosts()
        coordinator.wait(lambda: not coordinator.hosts, 5.0)
        coordinator.shutdown()
        connection_file.remove(Path(path))


def serve(
    ranks: Sequence[int], size: int, url: str, run_id: bytes, token: bytes, ports: tuple[int, int] | None
) -> Iterator[Any]:
    """An executor: a thread for each of its servers, until they are told to leave."""
    placement = placement_of(stable_hash, None, size)
    threads = []
    for rank in ranks:
        server = Store(options=ServerOptions(ports=ports))
        server.set_coordinator_url(url)
        server.set_token(token)
        server.set_run(run_id, None)
        server.set_placement(placement)
        arguments = (rank, pairs_of(rank, size), Identity(rank, 0, 1))
        threads.append(threading.Thread(target=server, args=arguments, daemon=True))
        threads[-1].start()
    try:
        yield None
    finally:
        for thread in threads:
            thread.join(LEAVING)


class Apart:
    """The cluster.

    Args:
        driver: starts a function on the driver's host (``Host.start``, ``Remote`` itself for this one).
        executors: the same for each executor, with the ranks that it serves.
        fixed: the driver and the executors listen in ``DRIVER_PORTS`` and ``EXECUTOR_PORTS``.
        options: of the driver.

    Attributes:
        path: of the connection file.
    """

    def __init__(
        self,
        driver: Any,
        host: str,
        executors: Sequence[tuple[Any, Sequence[int]]],
        *,
        fixed: bool = False,
        **options: Any,
    ) -> None:
        self.size = sum(len(ranks) for _, ranks in executors)
        self._processes = []
        self._driver = driver(drive, self.size, host, ClusterOptions(ports=DRIVER_PORTS if fixed else None, **options))
        self._processes.append(self._driver)
        try:
            self.url, run_id, token, self.path = self._driver.get()
            ports = EXECUTOR_PORTS if fixed else None
            for start, ranks in executors:
                self._processes.append(start(serve, ranks, self.size, self.url, run_id, token, ports))
            assert self.driver("wait"), "not all servers have registered"
        except BaseException:
            self.end()
            raise

    def driver(self, question: str, *arguments: Any) -> Any:
        """Asks the driver; see ``Driver``."""
        return self._driver.ask((question, *arguments))

    def end(self) -> None:
        """Ends all processes, the driver first: it tells the others."""
        for process in self._processes:
            process.end()

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()


def remember(logger: str, level: int) -> list[str]:
    """The list that the texts of a logger will be appended to, from a level on."""
    texts: list[str] = []

    class Remembering(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    logging.getLogger(logger).addHandler(Remembering(level))
    return texts


def peak(anew: bool = False) -> int:
    """Octets of memory that this process has had at most.

    Args:
        anew: count from what it has now on.
    """
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
