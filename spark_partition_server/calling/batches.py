"""Many runs of one method in few messages: grouped by partition, encoded once, in batches of a useful size.

Nothing is sent before everything is encoded, so that an argument that cannot be sent, wherever it stands, means that
nothing has happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ..wire.messages import Frame
from ..wire.payload import ARRAYS_MAX, size_of
from .requests import rank_of

__all__ = ["PROBE", "RUNS_MAX", "Group", "Packed", "Sizes", "grouped", "packed"]

RUNS_MAX = 256  # runs of one batch: the cost of a message is small beside theirs
BATCH_BYTES = 1 << 20  # octets of their arguments, if they are more than one
ANSWER_BYTES = 4 << 20  # octets of their results, as far as those of earlier runs tell
PROBE = 16  # runs of the first batch of a method: what they return says how many fit an answer

Encode = Callable[[Any], "list[Frame]"]


class Group:
    """The runs on one partition.

    Attributes:
        runs: the arguments of each.
        places: the index of each in the whole.
    """

    __slots__ = ("places", "runs")

    def __init__(self) -> None:
        self.runs: list[list[Any]] = []
        self.places: list[int] = []


class Packed(NamedTuple):
    """Some runs of one partition, encoded."""

    payload: list[Frame]
    runs: list[list[Any]]
    places: list[int]


def grouped(calls: Iterable[Any]) -> tuple[dict[int, Group], int]:
    """The calls by partition, and how many there are.

    Args:
        calls: (partition, argument, ...) each.

    Raises:
        TypeError: one of them is something else; the text says which.
    """
    groups: dict[int, Group] = {}
    index = -1
    for index, call in enumerate(calls):
        if type(call) is not tuple and type(call) is not list:
            raise TypeError(f"calls[{index}] is {call!r:.60}, and a tuple (partition, argument, ...) is wanted")
        if not call:
            raise TypeError(f"calls[{index}] is empty, and a tuple (partition, argument, ...) is wanted")
        partition, *arguments = call
        if type(partition) is not int:
            try:
                partition = rank_of(partition)
            except TypeError:
                text = f"calls[{index}]: the partition must be an integer, not {partition!r:.60}"
                raise TypeError(text) from None
        group = groups.get(partition)
        if group is None:
            group = groups[partition] = Group()
        group.runs.append(arguments)
        group.places.append(index)
    return groups, index + 1


def packed(group: Group, encode: Encode, first: int, most: int) -> Iterator[Packed]:
    """The runs of a group in batches.

    Args:
        first: runs of the first batch, at most.
        most: runs of the others, at most.

    Raises:
        TypeError: an argument cannot be sent; the text says of which call.
    """
    runs, places = group.runs, group.places
    size = _first_size(group, encode, most)
    start = 0
    while start < len(runs):
        stop = start + (min(size, first) if start == 0 else size)
        some = runs[start:stop]
        try:
            payload = encode(some)
        except TypeError:
            _blame(some, places[start:stop], encode)  # else they hold too many arrays together
            payload = None
        if payload is None or (len(some) > 1 and size_of(payload) > BATCH_BYTES):
            size = max(len(some) // 2, 1)
            continue
        yield Packed(payload, some, places[start:stop])
        start += len(some)
        size = min(size * 2, most)


def _first_size(group: Group, encode: Encode, most: int) -> int:
    """How many runs a batch may have, judged by the first, one in the middle and the last."""
    runs = group.runs
    if len(runs) == 1:
        return 1
    largest, arrays = 1, 0
    for index in {0, len(runs) // 2, len(runs) - 1}:
        try:
            frames = encode(runs[index])
        except TypeError:
            return most  # to be blamed when its turn comes
        largest = max(largest, size_of(frames))
        arrays = max(arrays, len(frames) - 1)
    size = min(most, BATCH_BYTES // largest)
    if arrays:
        size = min(size, ARRAYS_MAX // arrays)
    return max(size, 1)


def _blame(runs: list[list[Any]], places: list[int], encode: Encode) -> None:
    """Raises for the first run that cannot be encoded by itself."""
    for arguments, place in zip(runs, places, strict=True):
        try:
            encode(arguments)
        except TypeError as error:
            text = str(error).replace("value[", "argument [", 1)
            raise TypeError(f"calls[{place}]: {text}") from None


class Sizes:
    """How many runs of each method fit an answer, learnt from those that came. Shared by the threads of a client."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, method: str) -> int | None:
        """Runs for one batch; None: the method has never been called in one."""
        return self._known.get(method)

    def learn(self, method: str, runs: int, octets: int, arrays: int) -> int:
        """Takes in what a batch returned. Returns ``of``.

        Args:
            runs: how many it had.
            octets: of all their results.
            arrays: in all their results.
        """
        fit = min(RUNS_MAX, max(ANSWER_BYTES * runs // max(octets, 1), 1))
        if arrays:
            each = -(-arrays // runs)
            fit = min(fit, max(ARRAYS_MAX // each, 1))
        known = self._known.get(method, RUNS_MAX)
        fit = self._known[method] = min(known, fit)
        return fit

    def halve(self, method: str, runs: int) -> int:
        """The answer to that many runs had no room for all their results. Returns ``of``."""
        fit = self._known[method] = min(self._known.get(method, RUNS_MAX), max(runs // 2, 1))
        return fit
