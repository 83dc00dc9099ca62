"""``Client``: blocking calls of partition servers, from any process, over the direct lane.

A call is made in the caller's own thread: encode, send, wait, decode. Every thread has its own connections, so a client
may be shared freely; a process that was forked gets its own as well. Who serves what is asked of the coordinator at the
first call, and again when a server is not where it was.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
import weakref
from operator import index
from typing import Any, NamedTuple

from . import connection_file
from .core.failures import call_error, refusal
from .errors import (
    CallError,
    CallOutcomeUnknown,
    CallTimeout,
    ClusterError,
    CoordinatorLost,
    InvalidArguments,
    MessageTooLarge,
    MethodNotFound,
    Overloaded,
    RemoteProtocolError,
    Unavailable,
)
from .net.clock import monotonic
from .net.lane import Lane
from .options import ClientOptions
from .partition import Partition
from .routes import Failure, Routes
from .wire import codec
from .wire.codes import Code
from .wire.messages import METHOD_CHARS_MAX, U32, Error, Frame, Kind, Member, Refuse, Reply
from .wire.payload import ValueEncoder, decode_value, size_of
from .wire.zmtp import Frames

__all__ = ["Client", "connect"]

LONGEST_TIMEOUT = 4e6  # seconds; the field for it ends at 49 days
IDLE = 0.5  # seconds after which a connection is looked at before it is used: its server may have gone meanwhile


def connect(path: str | os.PathLike[str], *, timeout: float | None = None) -> Client:
    """A client for the cluster that a connection file names. Needs no Spark and no JVM.

    Args:
        path: the cluster's ``connection_file``.
        timeout: seconds a call may take when it does not say itself; default 10.

    Raises:
        ClusterClosed: the cluster has stopped.
        CoordinatorLost: the driver does not answer.
        AuthenticationError: the file can be read by others.
    """
    found = connection_file.read(path)
    client = Client(found.coordinator, found.run_id, _options(timeout))
    client.refresh()
    return client


class Client:
    """Calls the methods of partition servers. May be shared between threads.

    Args:
        coordinator: the coordinator's endpoint.
        run_id: of the cluster's run.
        options: timeouts and limits.
        failure: asked whether the cluster has failed, and how, when a server cannot be reached.
    """

    def __init__(
        self, coordinator: str, run_id: bytes, options: ClientOptions | None = None, failure: Failure | None = None
    ) -> None:
        self._options = options or ClientOptions()
        self._timeout = self._options.timeout
        self._routes = Routes(coordinator, run_id, failure)
        self._calls = self._routes.calls
        self._run_id = run_id
        self._request = codec.preamble(Kind.REQUEST, run_id)
        self._reply = codec.preamble(Kind.REPLY, run_id)
        self._ids = itertools.count(1)  # next() of it is atomic
        self._local = _Local()
        self._open: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._open_lock = threading.Lock()
        self._closed = False

    # ------------------------------------------------------------------------------------------- the face

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
        if timeout is None:
            timeout = self._timeout
        started = monotonic()
        deadline = started + timeout
        partition = _rank(partition)
        payload = self._encode(partition, method, args, kwargs)
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._finish(self._begin(partition, method, payload, started, timeout, deadline), deadline)
            except (Unavailable, Overloaded, CallOutcomeUnknown) as error:
                self._pause(error, method, attempt, deadline)
            started = monotonic()
            timeout = deadline - started

    def partition(self, partition: int) -> Partition:
        """The methods of one partition as methods: ``client.partition(3).get("alice")``."""
        return Partition(self.call, partition)

    def call_all(self, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> list[Any]:
        """Runs a method of every partition at once and returns the results in partition order.

        Raises:
            CallError: of the first partition, in order, whose call failed; the others have been called too.
            TypeError: an argument cannot be sent.
            ClusterError: the cluster is over or gone.
        """
        if timeout is None:
            timeout = self._timeout
        started = monotonic()
        deadline = started + timeout
        payload = self._encode(0, method, args, kwargs)
        begun: list[_Begun | CallError] = []
        for rank in range(self._size(deadline)):
            try:
                begun.append(self._begin(rank, method, payload, started, timeout, deadline))
            except (Unavailable, Overloaded) as error:
                begun.append(error)
        return [self._collect(rank, one, method, payload, deadline) for rank, one in enumerate(begun)]

    @property
    def partitions(self) -> int:
        """How many partitions the cluster has."""
        return self._size(monotonic() + self._timeout)

    def refresh(self, timeout: float | None = None) -> None:
        """Asks the coordinator now who serves what. Calls do this by themselves when they need to.

        Raises:
            ClusterError: the cluster is over or gone.
        """
        now = monotonic()
        self._routes.refresh(now, now + (self._timeout if timeout is None else timeout))

    def close(self) -> None:
        """Closes every connection, of every thread. Twice is harmless."""
        self._closed = True
        self._routes.close()
        with self._open_lock:
            lanes = list(self._open)
        for lane in lanes:
            lane.abort()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------- one try of a call

    def _encode(self, partition: int, method: str, args: Any, kwargs: Any) -> list[Frame]:
        if not 0 < len(method) <= METHOD_CHARS_MAX:
            text = f"a method's name has 1 to {METHOD_CHARS_MAX} characters, not {len(method)}"
            raise MethodNotFound(text, rank=partition, method=method[:METHOD_CHARS_MAX])
        payload = self._local.values.encode((args, kwargs), ("args", "kwargs"))
        if len(payload) > 1 or len(payload[0]) > 4096:
            size, limit = size_of(payload), self._options.message_bytes_max
            if size > limit:
                text = f"the request takes {size} octets, the limit is {limit} (message_bytes_max)"
                raise MessageTooLarge(text, rank=partition, method=method, code=Code.TOO_LARGE, definite=True)
        return payload

    def _begin(
        self, partition: int, method: str, payload: list[Frame], started: float, timeout: float, deadline: float
    ) -> _Begun:
        """Sends the request."""
        member, lane = self._lane(partition, method, started, deadline)
        call_id = next(self._ids)
        remaining_ms = int(timeout * 1000) + 1 if timeout < LONGEST_TIMEOUT else U32
        fields = (call_id, method, remaining_ms, partition, member.incarnation)
        lane.arm(timeout)
        lane.used = started
        try:
            lane.send(codec.request_frames(self._request, fields, payload, self._local.pack_fields), deadline)
        except OSError as error:  # TimeoutError too; the request did not leave whole, so it was not run
            self._drop(partition)
            text = f"the request could not be sent: {error}"
            raise Unavailable(text, rank=partition, method=method, endpoint=lane.endpoint) from error
        return _Begun(partition, method, lane, call_id, started)

    def _finish(self, begun: _Begun, deadline: float) -> Any:
        """Waits for the answer; late answers to earlier calls are passed over."""
        partition, method, lane, call_id, started = begun
        while True:
            try:
                messages = lane.receive(deadline)
            except TimeoutError:
                text = f"no answer within {deadline - started:.3g} s; it may still run"
                raise CallTimeout(text, rank=partition, method=method, endpoint=lane.endpoint) from None
            except OSError as error:
                self._drop(partition)
                text = f"the server was lost before it answered ({error}); the call may have run"
                raise CallOutcomeUnknown(text, rank=partition, method=method, endpoint=lane.endpoint) from error
            except RemoteProtocolError as error:
                self._drop(partition)
                if error.code == Code.TOO_LARGE:
                    text = f"its reply is over this client's limit (message_bytes_max): {error}"
                    raise MessageTooLarge(
                        text, rank=partition, method=method, endpoint=lane.endpoint, code=error.code, definite=False
                    ) from error
                raise
            for frames in messages:
                if codec.read_reply(frames, self._reply) == call_id:
                    return decode_value(frames[2:])
                reply = self._other(frames, begun)
                if reply is not None:
                    return decode_value(reply.payload)

    def _other(self, frames: Frames, begun: _Begun) -> Reply | None:
        """An answer that is not this version's plain reply: a later version's, an error, a refusal, or late (None)."""
        endpoint = begun.lane.endpoint
        try:
            message = codec.decode(frames, self._run_id)
        except RemoteProtocolError as error:
            self._drop(begun.rank)
            if error.code == Code.WRONG_RUN:
                raise self._foreign(begun) from error
            raise
        if isinstance(message, Refuse):
            self._drop(begun.rank)
            if message.code == Code.WRONG_RUN:
                raise self._foreign(begun)
            raise refusal(message, endpoint)
        if isinstance(message, Error) and message.call_id == begun.call_id:
            raise call_error(message, begun.rank, begun.method, endpoint)
        return message if isinstance(message, Reply) and message.call_id == begun.call_id else None

    @staticmethod
    def _foreign(begun: _Begun) -> Unavailable:
        """Another cluster has got the port of our server: look for it again."""
        text = "a server of another cluster has its port by now"
        return Unavailable(text, rank=begun.rank, method=begun.method, endpoint=begun.lane.endpoint)

    def _collect(
        self, rank: int, begun: _Begun | CallError, method: str, payload: list[Frame], deadline: float
    ) -> Any:
        """The result of one partition of ``call_all``, with the tries that a single call would have had."""
        attempt = 0
        while True:
            attempt += 1
            try:
                if isinstance(begun, CallError):
                    raise begun
                return self._finish(begun, deadline)
            except (Unavailable, Overloaded, CallOutcomeUnknown) as error:
                self._pause(error, method, attempt, deadline)
            started = monotonic()
            try:
                begun = self._begin(rank, method, payload, started, deadline - started, deadline)
            except (Unavailable, Overloaded) as error:
                begun = error

    # ---------------------------------------------------------------------------------------------- routes

    def _pause(self, error: CallError, method: str, attempt: int, deadline: float) -> None:
        """After a failed try: looks at the view again and waits, or raises the error."""
        asked = monotonic()
        if self._closed:
            raise self._is_closed(error.rank, method) from error
        pause = self._calls.pause(method, error.definite, attempt, asked, deadline, random.random())
        if pause is None or (error.code and not self._calls.retryable(Code.of(error.code))):
            self._routes.check_failure(error)
            raise error
        before = self._calls.members.get(error.rank or 0)
        try:
            self._routes.refresh(asked, deadline)
        except CoordinatorLost as lost:
            raise error from lost
        except ClusterError as over:
            raise over from error
        if self._calls.members.get(error.rank or 0) in (before, None):
            time.sleep(pause)

    def _size(self, deadline: float) -> int:
        if self._closed or not self._calls.view_number:
            self._routes.refresh(monotonic(), deadline)
        return self._calls.size

    def _lane(self, partition: int, method: str, now: float, deadline: float) -> tuple[Member, Lane]:
        """The connection to the server of a partition: the one of this thread, or a new one."""
        local = self._local
        if local.pid != os.getpid():
            local.reset()
            self._open_lock = threading.Lock()  # the parent's may have been held by a thread that is not here
        found = local.lanes.get(partition)
        if found is not None:
            member, lane = found
            if member is self._calls.members.get(partition) and not (now - lane.used > IDLE and lane.lost()):
                return member, lane
            self._drop(partition)
        return self._connect(partition, method, deadline)

    def _connect(self, partition: int, method: str, deadline: float) -> tuple[Member, Lane]:
        if self._closed:
            raise self._is_closed(partition, method)
        size = self._size(deadline)
        if not 0 <= partition < size:
            text = f"there is no such partition; the cluster has {size}"
            raise InvalidArguments(text, rank=partition, method=method)
        member = self._calls.members.get(partition)
        if member is None:
            self._routes.refresh(monotonic(), deadline)
            member = self._calls.members.get(partition)
        if member is None:
            raise Unavailable(f"nobody serves it in view {self._calls.view_number}", rank=partition, method=method)
        if not member.endpoint:
            text = "its server takes no calls (it is no QueryServer)"
            raise MethodNotFound(text, rank=partition, method=method, endpoint=f"{member.host}:{member.port}")
        options = self._options
        try:
            by = min(deadline, monotonic() + options.connect_timeout)
            lane = Lane(member.endpoint, by, options.message_bytes_max)
        except OSError as error:
            text = f"cannot connect: {error}"
            raise Unavailable(text, rank=partition, method=method, endpoint=member.endpoint) from error
        with self._open_lock:
            self._open.add(lane)
        self._local.lanes[partition] = (member, lane)
        return member, lane

    @staticmethod
    def _is_closed(partition: int | None, method: str) -> Unavailable:
        text = "the client is closed, by close() or by the stop of its cluster; make a new one"
        return Unavailable(text, rank=partition, method=method)

    def _drop(self, partition: int) -> None:
        found = self._local.lanes.pop(partition, None)
        if found is not None:
            found[1].close()


class _Begun(NamedTuple):
    """A request that has left."""

    rank: int
    method: str
    lane: Lane
    call_id: int
    started: float


class _Local(threading.local):
    """The connections of one thread of one process."""

    def __init__(self) -> None:
        self.values = ValueEncoder()
        self.pack_fields = codec.field_packer()
        self.reset()

    def reset(self) -> None:
        """After a fork the parent's connections are the parent's: the child closes its copies and makes its own."""
        for _, lane in getattr(self, "lanes", {}).values():
            lane.close()
        self.lanes: dict[int, tuple[Member, Lane]] = {}
        self.pid = os.getpid()


def _options(timeout: float | None) -> ClientOptions:
    return ClientOptions() if timeout is None else ClientOptions(timeout=timeout)


def _rank(partition: Any) -> int:
    try:
        return index(partition)
    except TypeError:
        raise TypeError(f"partition must be an integer, not {partition!r:.60}: call(partition, method, ...)") from None
