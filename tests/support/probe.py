"""A server to call: every way in which a call can end, and switches that the test holds.

Servers of ``local_cluster`` run in threads of the test's process, so they and the test share what is in this module.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import Any

from spark_partition_server import PartitionServer, QueryServer, method

__all__ = ["LATE", "LONG", "PAIRS", "Page", "Probe", "Switches", "switches"]

LONG = 20.0  # seconds; whoever waits this long has failed
LATE = 0.6  # seconds over a deadline; promised are 0.1, but a shared machine may hold any thread up
PAIRS = [[("a", 1)], [("b", 2)], [("c", 3)]]


class Switches:
    """What the test and the servers say to each other.

    Attributes:
        gate: ``wait`` waits for it.
        entered: ``wait`` was entered.
        runs: how often a counting method ran, by its argument.
        servers: every server that was initialised.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.runs: Counter[str] = Counter()
        self.servers: list[Probe] = []

    def reset(self) -> None:
        self.gate.set()  # whoever still waits
        self.__init__()  # type: ignore[misc]


switches = Switches()


class Probe(QueryServer):
    """Pairs by key, and methods that behave as they are told."""

    def init_partition(self, rows: Any) -> None:
        self.values = dict(rows)
        switches.servers.append(self)

    @method(idempotent=True)
    def get(self, key: str) -> Any:
        return self.values.get(key)

    @method
    def rank(self) -> int:
        return self.partition_ind

    @method
    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    @method
    def run(self, name: str) -> int:
        switches.runs[name] += 1
        return switches.runs[name]

    @method
    def wait(self, name: str = "wait") -> str:
        switches.runs[name] += 1
        switches.entered.set()
        switches.gate.wait(LONG)
        return name

    @method
    def fail(self, text: str) -> None:
        raise ValueError(text)

    @method
    def large(self, size: int) -> bytes:
        return bytes(size)

    @method
    def cut(self, name: str) -> int:
        """Runs, and the first time its caller's connection is lost before the answer."""
        return self._cut(name)

    @method(idempotent=True)
    def cut_and_repeat(self, name: str) -> int:
        return self._cut(name)

    def _cut(self, name: str) -> int:
        switches.runs[name] += 1
        if switches.runs[name] == 1:
            for connection in self._listener._connections:
                connection.socket.shutdown(socket.SHUT_RDWR)
        return switches.runs[name]

    def not_a_method(self) -> None:
        """Not marked, so nobody can call it."""


class Page(PartitionServer):
    """A server of the HTTP kind: it registers a port, and takes no calls."""

    def _launch_server(self) -> None:
        self.over = threading.Event()
        self.port = 80
        self._register()
        self.over.wait(LONG)

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        self.over.set()
