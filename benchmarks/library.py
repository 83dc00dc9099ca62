"""The processes of the library that the benchmarks call: a coordinator as on a driver, servers as on executors.

Every server is called as Spark calls it, in a process of its own that has what the Python worker of an executor has:
the main thread serves, one more keeps the session with the coordinator. Spark itself is not needed for that.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import floor
import numpy
from measuring import Child, pin, say

from spark_partition_server import Coordinator, QueryServer, ServerOptions, connect, method
from spark_partition_server.connection_file import Connection, remove, write
from spark_partition_server.spark.task import Identity

SERVE_TIMEOUT = 30.0
HANDLER_SECONDS = 0.001
IDLE_SECONDS = 0.1
MEGABYTES = (1, 16, 100)


class Lookup(QueryServer):
    """What a user writes."""

    def init_partition(self, rows: Any) -> None:
        self.values = dict(rows)

    @method
    def get(self, key: str) -> Any:
        return self.values.get(key)


class BusyLookup(Lookup):
    """The same, beside a thread that computes in pure Python, and so holds the interpreter as long as it is let.

    It computes while calls come, so that the variants that are measured in between have the processors.
    """

    def init_partition(self, rows: Any) -> None:
        super().init_partition(rows)
        self.called = threading.Event()
        threading.Thread(target=self.compute, daemon=True).start()

    def compute(self) -> None:
        number = 0
        while self.called.wait():
            self.called.clear()
            until = time.monotonic() + IDLE_SECONDS
            while time.monotonic() < until:
                for _ in range(100_000):
                    number = (number * 31 + 7) % 1_000_003

    @method
    def get(self, key: str) -> Any:
        self.called.set()
        return self.values.get(key)


class SlowLookup(Lookup):
    """Answers after a millisecond, one call at a time: a thousand calls a second are its capacity."""

    @method
    def slow(self, key: str) -> Any:
        time.sleep(HANDLER_SECONDS)
        return self.values.get(key)


class Arrays(QueryServer):
    """Arrays of float32 that are there already; a megabyte is 1e6 octets."""

    def init_partition(self, rows: Any) -> None:
        self.arrays = make_arrays()

    @method
    def fetch(self, megabytes: int) -> Any:
        return self.arrays[megabytes]


def make_arrays() -> dict[int, Any]:
    return {megabytes: numpy.arange(megabytes * 250_000, dtype=numpy.float32) for megabytes in MEGABYTES}


TCP = ServerOptions(local=False)  # no lane of its own for clients on the same host
KINDS: dict[str, Callable[[], QueryServer]] = {
    "lookup": Lookup,
    "lookup tcp": lambda: Lookup(options=TCP),
    "busy": lambda: BusyLookup(options=TCP),
    "slow": lambda: SlowLookup(options=TCP),
    "arrays": Arrays,
    "arrays tcp": lambda: Arrays(options=TCP),
}


class Losses(logging.Handler):
    """Counts the members that the coordinator says it has lost."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += str(record.msg).startswith("lost")


def run_coordinator(partitions: int) -> None:
    """Until stdin is closed. Says where it is, then that every partition is served, and on every line how it is."""
    losses = Losses()
    logging.getLogger("spark_partition_server.coordinator").addHandler(losses)
    coordinator = Coordinator(partitions, verbose=False)
    coordinator.start()
    url = coordinator.get_url()
    assert url is not None
    path = write(Connection(url, coordinator.run_id))
    try:
        say(url=url, token=coordinator.token.hex(), run=coordinator.run_id.hex(), path=str(path))
        coordinator.wait(lambda: bool(coordinator.full_cluster), SERVE_TIMEOUT)
        say(complete=coordinator.full_cluster)
        while sys.stdin.readline():
            say(registered=len(coordinator.hosts), lost=losses.count)
        coordinator.shutdown_hosts()
        coordinator.wait(lambda: not coordinator.hosts, 1.0)
    finally:
        coordinator.shutdown()
        remove(path)


def run_server(kind: str, rank: int, where: dict[str, str]) -> None:
    """One partition; says that the process is there, and serves until it is told to stop."""
    server = KINDS[kind]()
    server.set_coordinator_url(where["url"])
    server.set_token(bytes.fromhex(where["token"]))
    server.set_run(bytes.fromhex(where["run"]), None)
    say(rank=rank)
    list(server(rank, iter(floor.make_table().items()), Identity(rank, 0, rank + 1)))


@dataclass
class Cluster:
    """A running one: its connection file, and the processes that serve, by rank."""

    path: str
    pids: list[int]
    coordinator: Child

    def state(self) -> dict[str, int]:
        """Of its coordinator: how many members are ``registered`` now, how many it has ``lost`` since its start."""
        self.coordinator.tell("state")
        return self.coordinator.line()


def open_cluster(
    stack: ExitStack,
    *kinds: str,
    cpu: int | None = None,
    join: Callable[[dict[str, Any]], Any] | None = None,
) -> Cluster:
    """Starts coordinator and servers, which end with the stack, because the coordinator tells them to.

    ``join`` brings one more member, of rank ``len(kinds)``; it is told where the coordinator is.
    """
    coordinator = Child(__file__, "--coordinate", str(len(kinds) + (join is not None)), grace=5.0)
    servers = []
    for rank, kind in enumerate(kinds):
        where = json.dumps(coordinator.hello)
        arguments = ("--serve", kind, "--rank", str(rank), "--where", where)
        servers.append(stack.enter_context(Child(__file__, *arguments, cpu=cpu, grace=5.0)))
    stack.enter_context(coordinator)
    if join is not None:
        join(coordinator.hello)
    assert coordinator.line() == {"complete": True}
    return Cluster(coordinator.hello["path"], [server.pid for server in servers], coordinator)


class Call:
    """``Client.call``, as anybody uses it."""

    def __init__(self, path: str, rank: int = 0, **options: Any) -> None:
        self.client = connect(path, **options)
        self.rank = rank

    def call(self, key: str) -> Any:
        return self.client.call(self.rank, "get", key)

    def close(self) -> None:
        self.client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coordinate", type=int)
    parser.add_argument("--serve", choices=KINDS)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--where", type=json.loads)
    parser.add_argument("--cpu", type=int)
    options = parser.parse_args()
    if options.coordinate is not None:
        return run_coordinator(options.coordinate)
    pin(options.cpu)
    return run_server(options.serve, options.rank, options.where)


if __name__ == "__main__":
    main()
