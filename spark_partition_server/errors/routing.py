"""The errors of routing a call by its key: nothing was called."""

from __future__ import annotations

from typing import Any

from .base import SparkPartitionServerError

__all__ = ["NoPartitioner", "RoutingError", "UnroutableKey", "shown"]


class RoutingError(SparkPartitionServerError):
    """The partition of a key cannot be told, so nothing was called; the text names the fix."""


class NoPartitioner(RoutingError):
    """The cluster's data has no partitioner, or one that this client was not given."""


class UnroutableKey(RoutingError, TypeError):
    """The partitioner cannot place this key, or not outside of the executors.

    Attributes:
        key: the key's repr, shortened.
    """

    def __init__(self, text: str, key: Any) -> None:
        self.key = shown(key)
        self.text = text
        super().__init__(text, self.key)

    def __str__(self) -> str:
        return f"key {self.key}: {self.text}"


def shown(value: Any, most: int = 100) -> str:
    """The repr of anything, shortened, for a text. Raises nothing."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - what cannot be printed can still be named
        text = f"<a {type(value).__qualname__} that cannot be printed>"
    return text if len(text) <= most else f"{text[: most - 3]}..."
