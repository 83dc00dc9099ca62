"""``call_all`` and ``call_many``: one method on many partitions, or many times, at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core.retry import Retry
from ..errors import CallError, InvalidArguments, MethodNotFound, NotReady, RemoteProtocolError
from ..net.clock import monotonic
from ..wire.codes import Code
from ..wire.messages import Error, Message, Results
from ..wire.payload import size_of
from ..wire.zmtp import Frames
from .answers import Asked
from .batches import PROBE, RUNS_MAX, Group, Sizes, grouped, packed
from .fanout import WINDOW, Fanout
from .parcels import Line, Parcel
from .requests import check_method
from .tries import Tries

__all__ = ["call_all", "call_many", "wait_for_ready"]

STATUS = "sps.status"  # every server answers it, whatever it has to do


def call_all(
    tries: Tries, method: str, args: Any, kwargs: Any, timeout: float, return_errors: bool
) -> list[Any]:
    """See ``Client.call_all``."""
    started = monotonic()
    deadline = started + timeout
    payload = tries.lanes.local.requests.payload(0, method, args, kwargs)
    size = tries.routes.size(deadline)
    tries.lanes.local.requests.check_size(payload, 0, method)  # now that the servers' limit is known for certain
    out: list[Any] = [None] * size
    fanout = Fanout(tries, method, out, started, timeout, deadline)
    fanout.run(Parcel(rank, payload, [rank]) for rank in range(size))
    return _checked(out, fanout.failed and not return_errors)


def call_many(
    tries: Tries, sizes: Sizes, method: str, calls: Iterable[Any], timeout: float, return_errors: bool
) -> list[Any]:
    """See ``Client.call_many``."""
    started = monotonic()
    deadline = started + timeout
    requests = tries.lanes.local.requests
    check_method(0, method)
    groups, count = grouped(calls)
    if not count:
        return []
    size = tries.routes.size(deadline)
    for rank, group in groups.items():
        if not 0 <= rank < size:
            text = f"there is no such partition; the cluster has {size}; this was calls[{group.places[0]}]"
            raise InvalidArguments(text, rank=rank, method=method)
    known = sizes.of(method)
    parcels = []
    for rank, group in groups.items():
        for payload, runs, places in packed(group, requests.encode, known or PROBE, known or RUNS_MAX):
            requests.check_size(payload, rank, method)
            parcels.append(Parcel(rank, payload, places, runs))
    out: list[Any] = [None] * count
    fanout = Runs(tries, sizes, method, out, started, timeout, deadline)
    fanout.run(parcels)
    return _checked(out, fanout.failed and not return_errors)


def wait_for_ready(tries: Tries, timeout: float) -> None:
    """See ``Client.wait_for_ready``."""
    waiting = Retry(tries.routes.calls)  # whatever the client's other calls do
    patient = Tries(tries.routes, tries.lanes, tries.answers, tries.ids, waiting, tries.room)
    found = call_all(patient, STATUS, (), {}, timeout, return_errors=True)
    # a server that takes no calls is there all the same
    errors = {
        rank: one
        for rank, one in enumerate(found)
        if isinstance(one, Exception) and not isinstance(one, MethodNotFound)
    }
    if errors:
        ready = [rank for rank in range(len(found)) if rank not in errors]
        raise NotReady(ready, errors, timeout) from next(iter(errors.values()))


def _checked(out: list[Any], failed: bool) -> list[Any]:
    if failed:
        raise next(one for one in out if isinstance(one, Exception))
    return out


class Runs(Fanout):
    """Batches of runs: ``Fanout``, with what the answers to batches need.

    Args:
        sizes: learns how large results are.
    """

    def __init__(self, tries: Tries, sizes: Sizes, *rest: Any) -> None:
        super().__init__(tries, *rest)
        self._sizes = sizes

    def _window(self) -> int:
        # the first answer to a batch says how many runs the next ones may have
        return WINDOW if self._sizes.of(self._method) else 1

    def _take_in(self, parcel: Parcel, line: Line, frames: Frames, message: Message | None) -> None:
        assert parcel.runs is not None
        if isinstance(message, Error):
            super()._take_in(parcel, line, frames, message)
        if not isinstance(message, Results):
            raise RemoteProtocolError(f"{parcel.lane.endpoint} answered a batch as if it were a call", Code.UNEXPECTED)
        asked = Asked(parcel.rank, self._method, parcel.lane.endpoint, parcel.call_id)
        results, errors = self._tries.answers.results(message, asked, len(parcel.runs))
        out = self._out
        for place, result in zip(parcel.places, results, strict=True):
            out[place] = result
        self._learn(len(parcel.runs), frames)
        if errors:
            self._runs_failed(parcel, errors)
        self._left -= 1

    def _learn(self, runs: int, frames: Frames) -> None:
        """Takes in how large the results are; the first time, batches that wait may have to be made smaller."""
        first = not self._sizes.of(self._method)
        most = self._sizes.learn(self._method, runs, size_of(frames), len(frames) - 3)
        if not first:
            return
        for line in self._lines.values():
            for parcel in [one for one in line.waiting if one.runs is not None and len(one.runs) > most]:
                line.waiting.remove(parcel)
                self._left -= 1
                self._split(parcel.rank, parcel.runs or [], parcel.places, most)
            self._queue(line)

    def _split(self, rank: int, runs: list[list[Any]], places: list[int], most: int) -> None:
        group = Group()
        group.runs, group.places = runs, places
        for payload, some, where in packed(group, self._requests.encode, most, most):
            self._add(Parcel(rank, payload, where, some))

    def _runs_failed(self, parcel: Parcel, errors: dict[int, CallError]) -> None:
        """Some runs of a batch have failed. Those whose results had no room are repeated, if they may be."""
        assert parcel.runs is not None
        repeatable = len(parcel.runs) > 1 and self._method in self._tries.routes.calls.idempotent
        again = []
        for index, error in errors.items():
            if repeatable and error.code == Code.REPLY_TOO_LARGE:
                again.append(index)
                continue
            place = parcel.places[index]
            error.add(f"this was calls[{place}]")
            self._out[place] = error
            self.failed = True
        if again:
            most = self._sizes.halve(self._method, len(parcel.runs))
            runs, places = [parcel.runs[index] for index in again], [parcel.places[index] for index in again]
            self._split(parcel.rank, runs, places, most)
