"""``call_all`` and ``call_many``: one method on many partitions, or many times, at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core.retry import Retry
from ..errors import CallTimeout, RemoteProtocolError
from ..net.clock import monotonic
from ..wire.codes import Code
from ..wire.messages import Error, Message, Results
from ..wire.payload import size_of
from ..wire.zmtp import Frames
from .batches import Sizes, grouped
from .fanout import WINDOW, Fanout
from .harvest import STATUS, first_error, not_ready, out_of_time, planned, sorted_in, split
from .parcels import Line, Parcel
from .requests import check_method
from .tries import Tries

__all__ = ["call_all", "call_many", "wait_for_ready"]


def call_all(
    tries: Tries, method: str, args: Any, kwargs: Any, timeout: float, return_errors: bool
) -> list[Any]:
    """See ``Client.call_all``."""
    deadline = monotonic() + timeout
    payload = tries.lanes.local.requests.payload(0, method, args, kwargs)
    size = tries.routes.size(deadline)
    tries.lanes.local.requests.check_size(payload, 0, method)  # now that the servers' limit is known for certain
    out: list[Any] = [None] * size
    fanout = Fanout(tries, method, out, timeout, deadline)
    fanout.run(Parcel(rank, payload, [rank]) for rank in range(size))
    return first_error(out, fanout.failed and not return_errors)


def call_many(
    tries: Tries, sizes: Sizes, method: str, calls: Iterable[Any], timeout: float, return_errors: bool
) -> list[Any]:
    """See ``Client.call_many``."""
    deadline = monotonic() + timeout
    requests = tries.lanes.local.requests
    check_method(0, method)
    groups, count = grouped(calls)
    if not count:
        return []
    try:
        size = tries.routes.size(deadline)
    except CallTimeout:
        if return_errors:
            return out_of_time(groups, count, method, timeout)
        raise
    parcels = planned(groups, size, method, sizes, requests)
    out: list[Any] = [None] * count
    fanout = Runs(tries, sizes, method, out, timeout, deadline)
    fanout.run(parcels)
    return first_error(out, fanout.failed and not return_errors)


def wait_for_ready(tries: Tries, timeout: float) -> None:
    """See ``Client.wait_for_ready``."""
    waiting = Retry(tries.routes.calls)  # whatever the client's other calls do
    patient = Tries(tries.routes, tries.lanes, tries.answers, tries.ids, waiting, tries.room)
    found = call_all(patient, STATUS, (), {}, timeout, return_errors=True)
    not_ready(found, timeout)


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
        results, errors = self._tries.answers.results(message, self._asked(parcel), len(parcel.runs))
        out, idempotent = self._out, self._method in self._tries.routes.calls.idempotent
        again, failed = sorted_in(parcel, results, errors, out, idempotent)
        self.failed = self.failed or failed
        self._learn(len(parcel.runs), frames)
        if again:
            self._split(parcel, again, self._sizes.halve(self._method, len(parcel.runs)))
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
                self._split(parcel, None, most)
            self._queue(line)

    def _split(self, parcel: Parcel, indexes: list[int] | None, most: int) -> None:
        for smaller in split(parcel, indexes, most, self._requests.encode):
            self._add(smaller)
