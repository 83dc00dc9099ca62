"""``Client``: blocking calls of partition servers, from any process, over the direct lane.

A call is made in the caller's own thread: encode, send, wait, decode. Every thread has its own connections, so a client
may be shared freely; a process that was forked gets its own as well. Who serves what is asked of the coordinator at the
first call, and again when a server is not where it was.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from . import connection_file
from .calling.answers import begun_late, closed, left
from .calling.lanes import Lanes
from .calling.many import call_all, call_many, wait_for_ready
from .calling.requests import check_credit, rank_of, seconds_of
from .calling.routes import Failure, Routes
from .calling.streams import CREDIT, Stream
from .calling.submitter import Submitter
from .calling.tries import Tries
from .keyed import KeyedCalls
from .keys import Function
from .net.clock import monotonic
from .options import ClientOptions
from .partition import Partition

__all__ = ["Client", "connect"]


def connect(
    path: str | os.PathLike[str],
    *,
    timeout: float | None = None,
    partitioner: Function | None = None,
    options: ClientOptions | None = None,
    route: str | None = None,
) -> Client:
    """A client for the cluster that a connection file names. Needs no Spark and no JVM.

    Args:
        path: the cluster's ``connection_file``.
        timeout: seconds a call may take when it does not say itself; default 10.
        partitioner: key -> int, the function that placed the cluster's keys, where it is one of the application's.
        options: more than ``timeout``.
        route: ``"direct"``, ``"relay"`` (by way of the driver) or ``"auto"``, see ``ClientOptions``; default auto.

    Raises:
        ClusterClosed: the cluster has stopped.
        CoordinatorLost: the driver does not answer.
        AuthenticationError: the file can be read by others.
    """
    found = connection_file.read(path)
    given = ClientOptions.given(options, timeout=timeout, route=route)
    client = Client(found.coordinator, found.run_id, given, partitioner=partitioner)
    client._routes.file = path
    client.refresh()
    return client


class Client(KeyedCalls):
    """Calls the methods of partition servers. May be shared between threads.

    Args:
        coordinator: the coordinator's endpoint.
        run_id: of the cluster's run.
        options: timeouts and limits.
        failure: asked whether the cluster has failed, and how, when a server cannot be reached.
        partitioner: key -> int, for ``call_key``; default: what the cluster tells of its own.
    """

    def __init__(
        self,
        coordinator: str,
        run_id: bytes,
        options: ClientOptions | None = None,
        failure: Failure | None = None,
        partitioner: Function | None = None,
    ) -> None:
        self._routes: Routes = Routes(coordinator, run_id, failure)
        super().__init__(self._routes, run_id, options or ClientOptions(), partitioner)
        self._run_id = run_id
        self._ids = itertools.count(1)  # next() of it is atomic
        self._lanes = Lanes(self._routes, run_id, self._options, self._room)
        self._local = self._lanes.local
        self._submitter: Submitter | None = None  # made at the first submit
        self._submitter_locks: dict[int, threading.Lock] = {}
        self._tries = Tries(self._routes, self._lanes, self._answers, self._ids, self._retry, self._room)

    # ----------------------------------------------------------------------------------------------- calls

    def call(self, partition: int, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Runs a method of one partition and returns its result.

        Args:
            partition: whose.
            method: its name.
            timeout: seconds; default: the client's.

        Raises:
            CallError: one of its subclasses says what happened; ``error.definite`` says whether it certainly did not.
            TypeError: an argument cannot be sent; the text names it.
            ClusterError: the cluster is over (``ClusterClosed``, ``JobFailed``) or gone (``CoordinatorLost``).
        """
        started = monotonic()
        rank = rank_of(partition)
        timeout = self._timeout if timeout is None else left(timeout, rank, method)
        payload = self._local.requests.payload(rank, method, args, kwargs)
        return self._tries.call(rank, method, payload, started, timeout, started + timeout)

    def submit(
        self, partition: int, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Future[Any]:
        """Begins a call and returns its future. Many calls may be under way at once; see docs/calling.md.

        The future's ``result`` raises what ``call`` would have raised. ``cancel`` works until the answer has come; the
        method may run all the same. Arrays among the arguments are not copied: do not change them before the end.

        Args:
            partition: whose.
            method: its name.
            timeout: seconds until the future ends at the latest; default: the client's.

        Raises:
            Overloaded: too many calls are under way (``ClientOptions.calls_max``, ``calls_bytes_max``).
            TypeError, MessageTooLarge: an argument cannot be sent.
            Unavailable: the client is closed.
        """
        rank = rank_of(partition)
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        payload = self._local.requests.payload(rank, method, args, kwargs)
        if seconds <= 0:
            over: Future[Any] = Future()
            over.set_exception(begun_late(rank, method, seconds))
            return over
        submitter = self._submitter
        if submitter is None or submitter.pid != os.getpid():
            submitter = self._open_submitter()
        return submitter.submit(rank, method, payload, seconds)

    def _open_submitter(self) -> Submitter:
        # a lock of this process: one of a parent's may have been held by a thread that is not here
        with self._submitter_locks.setdefault(os.getpid(), threading.Lock()):
            submitter = self._submitter
            if submitter is None or submitter.pid != os.getpid():
                if self._lanes.closed:
                    raise closed(None, None)
                shared = (self._routes, self._lanes, self._answers, self._retry, self._room)
                self._submitter = submitter = Submitter(*shared, self._run_id, self._options)
            return submitter

    def partition(self, partition: int) -> Partition:
        """The methods of one partition as methods: ``client.partition(3).get("alice")``."""
        return Partition(self.call, partition)

    def call_all(
        self, method: str, /, *args: Any, timeout: float | None = None, return_errors: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Runs a method of every partition at once and returns the results in partition order.

        Args:
            method: its name.
            timeout: seconds for all of them; default: the client's.
            return_errors: an error of one partition stands in the list as its exception, and nothing is raised for it.

        Raises:
            CallError: of the first partition, in order, whose call failed; the others have been called too.
            TypeError: an argument cannot be sent.
            ClusterError: the cluster is over or gone.
        """
        seconds = self._for_many(timeout, method, return_errors)
        return call_all(self._tries, method, args, kwargs, seconds, return_errors)

    def call_many(
        self, method: str, calls: Iterable[Any], /, *, timeout: float | None = None, return_errors: bool = False
    ) -> list[Any]:
        """Runs a method many times and returns the results in the order of ``calls``.

        The calls of one partition travel together, a few hundred in a message, and all servers work at once; the calls
        of one partition may run in any order. Nothing is sent before all arguments have been read and encoded.

        Args:
            method: its name.
            calls: (partition, argument, ...) for each: ``client.call_many("get", [(3, "alice"), (7, "bob")])``.
            timeout: seconds for all of them; default: the client's.
            return_errors: an error of one call stands in the list as its exception, and nothing is raised for it.

        Raises:
            CallError: of the first call, in order, that failed; the others have been made too.
            TypeError: one of ``calls`` is no such tuple, or an argument cannot be sent; nothing was sent.
            ClusterError: the cluster is over or gone.
        """
        seconds = self._for_many(timeout, method, return_errors)
        return call_many(self._tries, self._sizes, method, calls, seconds, return_errors)

    def stream(
        self,
        partition: int,
        method: str,
        /,
        *args: Any,
        timeout: float | None = None,
        credit: int = CREDIT,
        **kwargs: Any,
    ) -> Stream:
        """Iterates over what a generator method of one partition yields.

        The server runs ahead of the reader by ``credit`` items at most. To close the stream, to leave its ``with``
        block or to drop it closes the generator. A stream that has begun is never begun again by itself.

        Args:
            partition: whose.
            method: its name.
            timeout: seconds to wait for each next item; default: the client's.
            credit: items.

        Raises:
            CallError, TypeError, ClusterError: as ``call``; here, or from the iterator. ``StreamLost``: half-way.
            ValueError: ``credit`` is no number of items above 0.
        """
        rank = rank_of(partition)
        check_credit(credit)
        seconds = self._timeout if timeout is None else left(timeout, rank, method)
        payload = self._local.requests.payload(rank, method, args, kwargs)
        return Stream(self._tries, rank, method, payload, seconds, credit)

    # ------------------------------------------------------------------------------------- what is around them

    @property
    def partitions(self) -> int:
        """How many partitions the cluster has."""
        return self._routes.size(monotonic() + self._timeout)

    def refresh(self, timeout: float | None = None) -> None:
        """Asks the coordinator now who serves what. Calls do this by themselves when they need to.

        Raises:
            ClusterError: the cluster is over or gone.
            CallTimeout: there was no time to ask, and nothing is known yet.
        """
        now = monotonic()
        self._routes.refresh(now, now + (self._timeout if timeout is None else seconds_of(timeout)))

    def wait_for_ready(self, timeout: float | None = None) -> None:
        """Returns once every partition is served and answers.

        Args:
            timeout: seconds; default: the client's.

        Raises:
            NotReady: some do not; the error names them.
            ClusterError: the cluster is over or gone.
            CallTimeout: there was no time to learn how many partitions there are.
        """
        wait_for_ready(self._tries, self._timeout if timeout is None else seconds_of(timeout))

    def close(self) -> None:
        """Closes every connection, of every thread. Twice is harmless."""
        self._lanes.closed = True
        self._routes.close()
        self._lanes.close()
        submitter = self._submitter
        if submitter is not None and submitter.pid == os.getpid():
            submitter.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
