"""The connections of a blocking client: each thread of each process has its own, one to each server."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref

from ..errors import InvalidArguments, MethodNotFound, RemoteProtocolError, Unavailable
from ..net.clock import monotonic
from ..net.lane import Lane
from ..net.memory import Blocks
from ..net.shared import Budget, Forks, SharedMemory
from ..options import ClientOptions
from ..wire.messages import Member
from .answers import cannot_connect, closed
from .requests import Requests
from .room import Room
from .routes import Routes

__all__ = ["Lanes", "Local"]

log = logging.getLogger("spark_partition_server.client")

LOCAL_TIMEOUT = 0.5  # seconds one attempt over the same-host lane may take, before tcp is tried
SPARE_MAX = 4  # connections to one server that wait for another stream of a thread
IDLE = 0.5  # seconds after which a connection is looked at before it is used: its server may have gone meanwhile


class Lanes:
    """The direct lanes of one client.

    Args:
        routes: who serves what.
        run_id: of the cluster's run.
        options: limits.
        room: for the calls under way.

    Attributes:
        local: what the calling thread has for itself.
        closed: no connection is opened any more.
        connect_timeout: seconds that a connection may take.
    """

    def __init__(self, routes: Routes, run_id: bytes, options: ClientOptions, room: Room) -> None:
        self.local = Local(routes, run_id, options)
        self.closed = False
        self.connect_timeout = options.connect_timeout
        self._routes = routes
        self._calls = routes.calls
        self._options = options
        self._memory = Blocks(options.memory_bytes_max)
        self._forks = Forks()
        self._open: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._open_lock = threading.Lock()
        self._room = room

    def get(
        self, rank: int, method: str, now: float, deadline: float, *, shake: bool = True
    ) -> tuple[Member, Lane]:
        """The connection to the server of a partition: the one of this thread, or a new one.

        Args:
            shake: wait until a new one is ready.

        Raises:
            Unavailable: nobody serves the partition, or its server cannot be reached, or the client is closed.
            InvalidArguments: there is no such partition.
            MethodNotFound: its server takes no calls.
            ClusterError: the cluster is over or gone.
        """
        local = self.local
        if local.pid != os.getpid():
            self._forked(local)
        found = local.lanes.get(rank)
        if found is not None:
            member, lane = found
            if member is self._calls.members.get(rank) and not (now - lane.used > IDLE and lane.lost()):
                return found
            self.drop(rank)
        member = self.member(rank, method, deadline)
        found = local.lanes[rank] = (member, self.connect(member, method, deadline, shake=shake, share=True))
        return found

    def borrow(self, rank: int, method: str, deadline: float) -> tuple[Member, Lane]:
        """A connection for a stream alone: one that an earlier stream of this thread has left, or a new one.

        Raises: as ``get``.
        """
        local = self.local
        if local.pid != os.getpid():
            self._forked(local)
        member = self.member(rank, method, deadline)
        spare = local.spare.get(rank, [])
        while spare:
            owner, lane = spare.pop()
            if owner is member and not lane.lost():
                return member, lane
            lane.close()
        return member, self.connect(member, method, deadline)

    def give_back(self, member: Member, lane: Lane) -> None:
        """What was borrowed, in order and with nothing under way."""
        local = self.local
        spare = local.spare.setdefault(member.rank, [])
        if local.pid == os.getpid() and not self.closed and len(spare) < SPARE_MAX:
            spare.append((member, lane))
        else:
            lane.close()

    def _forked(self, local: Local) -> None:
        local.reset()
        self._room.reset()
        self._open_lock = threading.Lock()  # the parent's may have been held by a thread that is not here

    def drop(self, rank: int) -> None:
        """Closes this thread's connection to the server of a partition."""
        local = self.local
        found = local.lanes.pop(rank, None)
        if found is not None:
            local.dropped = found[0]
            found[1].close()

    def tried(self, rank: int) -> Member | None:
        """Whom the last try of this thread to call that partition went to, or was to go to; None: nobody served it."""
        found = self.local.lanes.get(rank)
        return self.local.dropped if found is None else found[0]

    def member(self, rank: int, method: str, deadline: float) -> Member:
        """Who serves a partition, after another look at the view where nobody is known to. Raises as ``get`` does."""
        self.local.dropped = None
        if self.closed:
            raise closed(rank, method)
        size = self._routes.size(deadline)
        if not 0 <= rank < size:
            text = f"there is no such partition; the cluster has {size}"
            raise InvalidArguments(text, rank=rank, method=method)
        member = self._calls.members.get(rank)
        if member is None:
            self._routes.refresh(monotonic(), deadline)
            member = self._calls.members.get(rank)
        if member is None:
            raise Unavailable(f"nobody serves it in view {self._calls.view_number}", rank=rank, method=method)
        if not member.endpoint:
            text = "its server takes no calls (it is no QueryServer)"
            raise MethodNotFound(text, rank=rank, method=method, endpoint=f"{member.host}:{member.port}")
        return member

    def connect(
        self, member: Member, method: str, deadline: float, *, shake: bool = True, share: bool = False
    ) -> Lane:
        """A new connection to a server.

        Args:
            member: which.
            method: what errors call the method.
            deadline: of the call.
            shake: wait until it is ready.
            share: whether large frames may come and go in shared memory, on one host.

        Raises:
            Unavailable: it cannot be reached.
        """
        self.local.dropped = member
        now = monotonic()
        by = min(deadline, now + self.connect_timeout)
        lane = self._locally(member, min(by, now + LOCAL_TIMEOUT), shake, share)
        if lane is None:
            try:
                limit = self._options.message_bytes_max
                lane = Lane(member.endpoint, by, limit, self._memory.allocate, shake=shake)
            except OSError as error:
                raise cannot_connect(member.endpoint, member.rank, method, error) from error
        with self._open_lock:
            self._open.add(lane)
        return lane

    def _locally(self, member: Member, by: float, shake: bool, share: bool) -> Lane | None:
        """A connection within this host. That it can be made at all is the proof that the server is on this host."""
        if not member.local or not self._options.local:
            return None
        try:
            memory = self._options.memory_bytes_max
            shared = SharedMemory(memory, Budget(memory), self._forks) if share and SharedMemory.possible() else None
            limit = self._options.message_bytes_max
            lane = Lane(member.local, by, limit, self._memory.allocate, shake=shake, shared=shared)
            lane.endpoint = member.endpoint  # what errors call the server, whatever way leads there
            return lane
        except (OSError, RemoteProtocolError, ValueError) as error:
            log.debug("no same-host lane partition=%d endpoint=%s error=%s", member.rank, member.local, error)
            return None

    def close(self) -> None:
        """Ends every connection, of every thread. Twice is harmless."""
        self.closed = True
        with self._open_lock:
            lanes = list(self._open)
        for lane in lanes:
            lane.abort()


class Local(threading.local):
    """What one thread of one process has for itself.

    Attributes:
        requests: makes its requests.
        lanes: its connections, by rank, each with the member that it leads to.
        spare: connections that streams have left, by rank.
        dropped: the member that its last connection led to which is no more, or was to lead to.
        pid: its process.
    """

    dropped: Member | None = None

    def __init__(self, routes: Routes, run_id: bytes, options: ClientOptions) -> None:
        self.requests = Requests(run_id, routes.calls, options.message_bytes_max)
        self.reset()

    def reset(self) -> None:
        """After a fork the parent's connections are the parent's: the child closes its copies and makes its own."""
        spare = getattr(self, "spare", {}).values()
        for _, lane in itertools.chain(getattr(self, "lanes", {}).values(), *spare):
            lane.close()
        self.spare: dict[int, list[tuple[Member, Lane]]] = {}
        self.lanes: dict[int, tuple[Member, Lane]] = {}
        self.pid = os.getpid()
