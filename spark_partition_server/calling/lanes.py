"""The connections of a blocking client: each thread of each process has its own, one to each server."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from typing import Any

from ..errors import InvalidArguments, MethodNotFound, Unavailable
from ..net.channel import Channel
from ..net.clock import monotonic
from ..net.lane import Lane
from ..net.relay_lane import RelayLane, Trunk
from ..options import ClientOptions
from ..wire.messages import Member
from .answers import closed
from .requests import Requests
from .room import Room
from .routes import Routes
from .ways import Ways

__all__ = ["IDLE", "Lanes", "Local"]

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
    """

    def __init__(self, routes: Routes, run_id: bytes, options: ClientOptions, room: Room) -> None:
        self.local = Local(routes, run_id, options)
        self.closed = False
        self._routes = routes
        self._calls = routes.calls
        self._ways = Ways(routes, run_id, options)
        self._open: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._open_lock = threading.Lock()
        self._pid = os.getpid()
        self._room = room

    def get(
        self, rank: int, method: str, now: float, deadline: float, *, shake: bool = True
    ) -> tuple[Member, Lane]:
        """The connection to the server of a partition: the one of this thread, or a new one.

        Args:
            shake: wait until a new one is ready. Else the caller waits, and says what has come of it: ``reached``,
                ``missed``.

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
            if member is self._calls.members.get(rank):
                if now - lane.used <= IDLE:
                    return found
                self.rest()
                if not lane.lost():
                    return found
            self.drop(rank)
        member = self.member(rank, method, deadline)
        found = local.lanes[rank] = (member, self.connect(member, method, deadline, shake=shake, share=True))
        return found

    def reached(self, rank: int) -> None:
        """A connection of this thread, which was not waited for, is ready."""
        self._ways.reached(self.local.lanes[rank][0])

    def missed(self, rank: int, seconds: float, error: Exception, deadline: float) -> bool:
        """It has come to nothing. Returns whether the server is to be called by relay instead, which ``get`` sees to.

        Args:
            seconds: that it had.
            error: why.
        """
        member = self.local.lanes[rank][0]
        self.drop(rank)
        return isinstance(error, OSError) and not self.closed and self._ways.missed(member, seconds, error, deadline)

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
        self._at_home()

    def _at_home(self) -> None:
        """In a child that was forked, what its threads share is new, whichever of them comes first."""
        if self._pid != os.getpid():
            self._room.reset()
            self._open_lock = threading.Lock()  # the parent's may have been held by a thread that is not here
            self._pid = os.getpid()

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
            shake: wait until it is ready, as ``get``.
            share: whether large frames may come and go in shared memory, on one host.

        Raises:
            Unavailable: it cannot be reached.
        """
        self._at_home()
        self.local.dropped = member
        lane = self._ways.lane(member, method, deadline, self.local, shake, share)
        with self._open_lock:
            self._open.add(lane.trunk.lane if isinstance(lane, RelayLane) else lane)
        return lane

    def channel(self, member: Member, method: str, deadline: float, line: Any) -> Channel:
        """A new connection for many calls at once. Raises as ``connect`` does."""
        return self._ways.channel(member, method, deadline, line)

    def rest(self) -> None:
        """After a pause: gives back memory that has long been free."""
        self._ways.memory.rest()

    def close(self) -> None:
        """Ends every connection, of every thread. Twice is harmless."""
        self.closed = True
        self._at_home()
        with self._open_lock:
            lanes = list(self._open)
        for lane in lanes:
            lane.abort()
        self._ways.memory.clear()


class Local(threading.local):
    """What one thread of one process has for itself.

    Attributes:
        requests: makes its requests.
        lanes: its connections, by rank, each with the member that it leads to.
        spare: connections that streams have left, by rank.
        dropped: the member that its last connection led to which is no more, or was to lead to.
        trunk: its connection for what is relayed.
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
        trunk: Trunk | None = getattr(self, "trunk", None)
        if trunk is not None:
            trunk.close()
        self.spare: dict[int, list[tuple[Member, Lane]]] = {}
        self.lanes: dict[int, tuple[Member, Lane]] = {}
        self.trunk: Trunk | None = None
        self.pid = os.getpid()
