"""The function that placed the keys of an RDD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InvalidCluster

__all__ = ["hash_seed", "partitioner_of"]


def partitioner_of(rdd: Any, given: Any, size: int) -> Callable[[Any], int] | None:
    """Key -> int, to be taken modulo the number of partitions; None: nobody knows.

    Args:
        rdd: whose own partitioner is taken, if it has one.
        given: a function that goes before that one, or another RDD's ``partitioner``.
        size: partitions of the RDD.

    Raises:
        InvalidCluster: what was given is no function.
    """
    own = getattr(rdd, "partitioner", None) if given is None else given
    if own is None:
        return None
    function: Any = getattr(own, "partitionFunc", own)
    if not callable(function):
        raise InvalidCluster(f"a partitioner is a function from a key to an int, not a {type(function).__qualname__}")
    made_for = getattr(own, "numPartitions", None)
    if made_for is not None and made_for != size:
        if given is None:
            return None  # coalesced, say: its keys are elsewhere by now
        raise InvalidCluster(f"the partitioner is of {made_for} partitions, the RDD has {size}")
    found: Callable[[Any], int] = function
    return found


def hash_seed(sc: Any) -> str | None:
    """PYTHONHASHSEED of the executors' Python, which Spark starts with the SparkContext's environment."""
    seed = sc.environment.get("PYTHONHASHSEED")
    return None if seed is None else str(seed)
