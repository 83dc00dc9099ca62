"""What the two clients are alike in: what they are made of, how they read their arguments, how they show themselves."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any

from .calling.answers import Answers, left
from .calling.batches import Sizes
from .calling.requests import seconds_of
from .calling.room import Room
from .core.retry import Retry
from .keys import Function, Keys
from .options import ClientOptions

if TYPE_CHECKING:  # who calls by one face need not load the other's
    from .calling.loop_routes import LoopRoutes
    from .calling.routes import Routes

__all__ = ["Face"]


class Face(ABC):
    """A client, but for how it waits.

    Args:
        routes: who serves what.
        run_id: of the cluster's run.
        options: timeouts and limits.
        partitioner: key -> int, for ``call_key``; None: what the cluster tells of its own.
    """

    _routes: Routes | LoopRoutes

    def __init__(
        self, routes: Routes | LoopRoutes, run_id: bytes, options: ClientOptions, partitioner: Function | None
    ) -> None:
        self._options = options
        self._timeout = options.timeout
        self._keys = Keys(partitioner)
        self._answers = Answers(run_id)
        self._room = Room(options.calls_max, options.calls_bytes_max)
        self._retry = Retry(routes.calls, options.wait_for_ready)
        self._sizes = Sizes()

    def __repr__(self) -> str:
        routes, calls = self._routes, self._routes.calls
        if routes.closed:
            state = "closed"
        elif not calls.view_number:
            state = "the coordinator has not been asked yet"
        else:
            state = f"{len(calls.members)} of {calls.size} partitions served in view {calls.view_number}"
        kind = type(self)
        return f"<{kind.__module__.rpartition('.')[2]}.{kind.__qualname__} of {routes.coordinator}: {state}>"

    def _for_many(self, timeout: float | None, method: str, return_errors: bool) -> float:
        """The seconds of many calls together. Where errors are returned, the want of time is one of them."""
        if timeout is None:
            return self._timeout
        return seconds_of(timeout) if return_errors else left(timeout, None, method)

    def _owner(self, key: Any) -> int:
        """The partition that a key lives in, by the view that is there. Raises as ``partition_of`` does."""
        calls = self._routes.calls
        return self._keys.partition_of(key, calls.partitioner, calls.size)
