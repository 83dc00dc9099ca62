"""Partition servers for the Spark tests.

The classes are made inside functions: cloudpickle ships those by value, so executors need not be able to import the
tests.
"""

from __future__ import annotations

from typing import Any

from spark_partition_server import QueryServer, method

__all__ = ["failing_server", "lookup_server"]


def lookup_server(**arguments: Any) -> QueryServer:
    """Pairs by key, with a few methods to look at the process."""

    class Lookup(QueryServer):
        def init_partition(self, rows: Any) -> None:
            self.values = dict(rows)

        @method(idempotent=True)
        def get(self, key: Any) -> Any:
            return self.values.get(key)

        @method
        def count(self) -> int:
            return len(self.values)

        @method
        def pid(self) -> int:
            import os

            return os.getpid()

        @method
        def parent(self) -> int:
            import os

            return os.getppid()

        def _build_result(self) -> list[Any]:
            return [(self.partition_ind, len(self.values), str(self.values)[:100])]

    return Lookup(**arguments)


def failing_server(text: str) -> QueryServer:
    """Raises ``ValueError(text)`` in ``init_partition``."""

    class Failing(QueryServer):
        def init_partition(self, rows: Any) -> None:
            raise ValueError(text)

    return Failing()
