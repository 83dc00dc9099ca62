"""A server whose methods are generators that behave as they are told, for tests of streams."""

from __future__ import annotations

from typing import Any

import numpy

from spark_partition_server import QueryServer, method

from .probe import LONG, switches

__all__ = ["Source"]


class Source(QueryServer):
    """Generators that behave as they are told."""

    def init_partition(self, rows: Any) -> None:
        self.values = dict(rows)
        switches.servers.append(self)  # type: ignore[arg-type]

    @method
    def count(self, until: int) -> Any:
        try:
            for number in range(until):
                switches.runs["made"] += 1
                yield number
        finally:
            switches.runs["closed"] += 1
        return "done"

    @method
    def arrays(self, count: int) -> Any:
        for number in range(count):
            yield numpy.full(1000, number)

    @method
    def fail(self, after: int) -> Any:
        yield from range(after)
        raise ValueError("enough")

    @method
    def wait(self) -> Any:
        yield 1
        switches.entered.set()
        switches.gate.wait(LONG)
        yield 2

    @method
    def cut(self, after: int) -> Any:
        switches.runs["cut"] += 1
        yield from range(after)
        self.hang_up()

    @method(idempotent=True)
    def cut_first(self, until: int) -> Any:
        switches.runs["cut"] += 1
        if switches.runs["cut"] == 1:
            self.hang_up()
        yield from range(until)

    @method
    def same(self, value: Any) -> Any:
        return value

    @method
    def plain(self) -> int:
        return 7

    def hang_up(self) -> None:
        for connection in list(self._listener._connections):
            connection.socket.shutdown(2)
