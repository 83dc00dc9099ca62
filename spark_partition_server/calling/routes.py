"""The routes of a client: the view, and the connection to the coordinator that keeps it fresh."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from ..core.calls import Calls
from ..core.failures import refusal
from ..errors import ClusterClosed, ClusterError, CoordinatorLost, RemoteProtocolError
from ..net.clock import monotonic
from ..net.lane import Lane
from ..wire import codec
from ..wire.codec import VIEW_BYTES_MAX
from ..wire.codes import Code
from ..wire.messages import Lookup, Refuse, View
from .answers import closed, unasked

__all__ = ["LOOKUP_TIMEOUT", "SHORT", "Failure", "Routes", "coordinator_lost", "other_run"]

LOOKUP_TIMEOUT = 2.0  # seconds one LOOKUP may take, within the call's own deadline
SHORT = 0.05  # seconds; a coordinator that has not answered in so little time may be there all the same

Failure = Callable[[], "ClusterError | None"]


class Routes:
    """The view, shared by all threads of a client, and the connection to the coordinator that keeps it fresh.

    Attributes:
        calls: the view, and what follows from it.
        closed: nothing is asked any more.
        file: the connection file that the client comes from; None: none. The stop of the cluster removes it.
    """

    def __init__(self, coordinator: str, run_id: bytes, failure: Failure | None) -> None:
        self.calls = Calls()
        self.file: str | os.PathLike[str] | None = None
        self.coordinator = coordinator
        self._run_id = run_id
        self._failure = failure
        self._refreshed = float("-inf")
        self.closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._lane: Lane | None = None

    def check_failure(self, cause: BaseException | None = None) -> None:
        """Raises what has become of the cluster, if its driver is in this process and knows."""
        failure = self._failure() if self._failure is not None else None
        if failure is not None:
            raise failure from (failure.__cause__ or cause)

    def size(self, deadline: float) -> int:
        """How many partitions the cluster has. Asked of the coordinator at first."""
        if self.closed or not self.calls.view_number:
            self.refresh(monotonic(), deadline)
        return self.calls.size

    def refresh(self, asked: float, deadline: float) -> None:
        """Fetches the view, unless another thread has since ``asked``.

        With next to no time left a view that is known stays as it is: that does not prove that the coordinator is gone.

        Raises:
            Unavailable: the client is closed.
            CallTimeout: there was next to no time, and no view is known.
            ClusterError: the cluster is over or gone.
        """
        if self.closed:
            raise closed(None, None)
        self.check_failure()
        self._at_home()
        seconds = deadline - monotonic()
        if not self._lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX)):
            self._lost(TimeoutError("other threads wait for it too"), seconds)
            return
        try:
            if self._refreshed < asked and self._fetch(min(deadline, monotonic() + LOOKUP_TIMEOUT), seconds):
                self._refreshed = monotonic()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Closes the connection to the coordinator."""
        self.closed = True
        self._at_home()
        with self._lock:
            self._drop()

    def _at_home(self) -> None:
        """In a child that was forked, everything is new."""
        if self._pid != os.getpid():
            self._drop()
            self._lock = threading.Lock()  # the parent's may have been held by a thread that is not here
            self._pid = os.getpid()

    def _drop(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None

    def _fetch(self, deadline: float, seconds: float) -> bool:
        """Asks the coordinator. False: there was next to no time, and what is known has to do.

        Args:
            seconds: that the caller had.
        """
        lookup = codec.encode(Lookup(self.calls.view_number), self._run_id)
        for last in (self._lane is None, True):
            try:
                lane = self._lane or Lane(self.coordinator, deadline, VIEW_BYTES_MAX)
                self._lane = lane
                lane.arm(max(deadline - monotonic(), 0.0))
                lane.send(lookup, deadline)
                self._take(lane, deadline)
                return True
            except (OSError, RemoteProtocolError) as error:
                self._drop()
                if isinstance(error, RemoteProtocolError) and error.code == Code.WRONG_RUN:
                    raise other_run(self.coordinator) from error
                if last:
                    self._lost(error, seconds)
        return False

    def _take(self, lane: Lane, deadline: float) -> None:
        while True:
            for frames in lane.receive(deadline):
                message = codec.decode(frames, self._run_id)
                if isinstance(message, Refuse):
                    raise refusal(message, self.coordinator)
                if isinstance(message, View):
                    self.calls.adopt(message)
                    return

    def _lost(self, error: Exception, seconds: float) -> None:
        """The coordinator has not answered. Returns where that proves nothing and a view is known."""
        if seconds < SHORT and isinstance(error, TimeoutError):
            if self.calls.view_number:
                return
            raise unasked(self.coordinator, seconds) from error
        raise coordinator_lost(self.coordinator, error, self.file) from error


def coordinator_lost(endpoint: str, error: Exception, file: str | os.PathLike[str] | None) -> ClusterError:
    """The coordinator did not answer: what that means to a client that comes from a connection file, or from none."""
    if file is not None and not os.path.exists(file):
        text = f"its connection file {os.fspath(file)!r} is gone and its coordinator does not answer ({error})"
        return ClusterClosed(f"the cluster has stopped: {text}")
    text = f"the coordinator at {endpoint} does not answer ({error}): is the driver running, and can it be reached"
    return CoordinatorLost(f"{text} from here?")


def other_run(endpoint: str) -> ClusterClosed:
    """Another cluster has got the port of our coordinator."""
    return ClusterClosed(f"{endpoint} belongs to another run of a cluster by now; connect with its new file")
