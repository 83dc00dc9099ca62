"""One partition seen by a client, its methods as methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["Partition"]


class Partition:
    """The methods of one partition: ``partition.get("alice")`` is ``client.call(3, "get", "alice")``."""

    __slots__ = ("_call", "_partition")

    def __init__(self, call: Callable[..., Any], partition: int) -> None:
        self._call = call
        self._partition = partition

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return partial(self._call, self._partition, name)

    def __repr__(self) -> str:
        return f"<partition {self._partition}>"
