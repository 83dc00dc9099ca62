"""Whether keys live where their partitioner says: a sample of each partition's first rows, taken on the executor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from .errors.routing import shown
from .keys import CUSTOM, Function, Keys, describe

__all__ = ["Placement", "Sample", "complaint", "placement_of"]

SAMPLE_ROWS = 100
NO_KEY = object()


@dataclass(frozen=True)
class Placement:
    """The partitioner of a cluster's data, as it is shipped to the executors.

    Attributes:
        told: of the partitioner, as the view's meta tells clients; None: there is none.
        function: the partitioner itself, where clients cannot compute it from that.
        size: partitions of the cluster.
    """

    told: dict[str, Any] | None
    function: Function | None
    size: int

    def sample(self, rank: int) -> Sample | None:
        """What to look at the rows of one partition with; None: there is nothing to look for."""
        return Sample(self, rank) if self.told is not None else None


def placement_of(function: Function | None, seed: str | None, size: int) -> Placement:
    """The placement of data whose keys a function has placed; see ``keys.describe``."""
    told = describe(function, seed)
    return Placement(told, function if told is not None and told["name"] == CUSTOM else None, size)


class Sample:
    """Looks at the first rows of one partition as they go by.

    Attributes:
        sampled: rows with a key that could be placed.
        misplaced: those of them that belong elsewhere.
    """

    def __init__(self, placement: Placement, rank: int) -> None:
        self.sampled = 0
        self.misplaced = 0
        self._placement = placement
        self._rank = rank
        self._keys = Keys(placement.function, by_rule=True)  # what a client elsewhere computes is what is to be true
        self._example: tuple[str, int] | None = None
        self._columns = tuple((placement.told or {}).get("columns", ()))

    def watch(self, rows: Iterable[Any]) -> Iterator[Any]:
        """The rows, as lazy as they were; behind the first ones nothing is between them and their reader."""
        iterator = iter(rows)
        return chain(self._look_at(islice(iterator, SAMPLE_ROWS)), iterator)

    def report(self) -> dict[str, Any]:
        """For the meta of HELLO; empty where there was nothing to look at."""
        if not self.sampled:
            return {}
        found: dict[str, Any] = {"sampled": self.sampled, "misplaced": self.misplaced}
        if self._example is not None:
            found["example"], found["expected"] = self._example
        return {"keys": found}

    def _look_at(self, rows: Iterator[Any]) -> Iterator[Any]:
        for row in rows:
            key = self._key(row)
            if key is not NO_KEY:
                self._place(key)
            yield row

    def _key(self, row: Any) -> Any:
        """Of a pair, the first; of a DataFrame's row, the columns that the partitioner names; else NO_KEY."""
        if not self._columns:
            return row[0] if isinstance(row, (tuple, list)) and len(row) == 2 else NO_KEY
        names = getattr(row, "__fields__", ())
        if not isinstance(row, tuple) or not all(column in names for column in self._columns):
            return NO_KEY
        values = tuple(row[names.index(column)] for column in self._columns)
        return values if len(values) > 1 else values[0]

    def _place(self, key: Any) -> None:
        placement = self._placement
        try:
            expected = self._keys.partition_of(key, placement.told, placement.size)
        except Exception:  # noqa: BLE001 - a key that cannot be placed is told to whoever calls by it, not here
            return
        self.sampled += 1
        if expected != self._rank:
            self.misplaced += 1
            self._example = self._example or (shown(key), expected)


def complaint(rank: int, meta: dict[str, Any], told: dict[str, Any] | None) -> str | None:
    """What to tell the driver's user of a HELLO's meta: keys that do not live where call_key looks; None: nothing."""
    found = meta.get("keys")
    if not isinstance(found, dict) or not found.get("misplaced") or told is None:
        return None
    name = told.get("function") or told.get("name")
    return (
        f"{found['misplaced']} of the first {found.get('sampled')} keys of partition {rank} do not belong there: "
        f"{found.get('example')} lives in partition {rank}, and the partitioner ({name}) says "
        f"{found.get('expected')}, where call_key will not find it. Something has changed keys or partitions since "
        "partitionBy (map with preservesPartitioning=True, say), or Cluster(..., partitioner=...) is not the function "
        "that placed them"
    )
