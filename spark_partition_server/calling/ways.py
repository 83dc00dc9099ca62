"""The way to a server: within the host, straight, or by way of the coordinator where it cannot be reached."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..core.calls import Calls
from ..core.reach import SHORT, Reach
from ..errors import CoordinatorLost, RemoteProtocolError, Unavailable
from ..net.channel import Channel
from ..net.clock import monotonic
from ..net.endpoints import host_of, tcp_endpoint
from ..net.lane import Lane
from ..net.memory import Blocks
from ..net.relay_channel import RelayChannel
from ..net.relay_lane import RelayLane, Trunk, coordinator_lane
from ..net.shared import Budget, Forks, SharedMemory
from ..options import ClientOptions
from ..wire.messages import Member
from .answers import cannot_connect
from .detours import Detour, DetourChannel
from .routes import Routes

__all__ = ["Entrance", "Notice", "Trunked", "Ways", "waited"]

log = logging.getLogger("spark_partition_server.client")

LOCAL_TIMEOUT = 0.5  # seconds one attempt over the same-host lane may take, before tcp is tried


def waited(error: BaseException, seconds: float) -> float:
    """How much an attempt to connect that has failed proves, in seconds: a refusal as much as there is."""
    refused = isinstance(error, OSError) and not isinstance(error, TimeoutError)
    return math.inf if refused else seconds


class Trunked(Protocol):
    """Whoever keeps a connection for what is relayed: a thread."""

    trunk: Trunk | None


class Notice:
    """Tells once for a client that servers cannot be reached, as that costs time.

    Args:
        coordinator: its endpoint.
    """

    def __init__(self, coordinator: str) -> None:
        self._coordinator = coordinator
        self._told = False

    def tell(self, member: Member, missed: BaseException) -> None:
        """The relay has answered for a server that could not be reached."""
        level = logging.INFO if self._told else logging.WARNING
        self._told = True
        log.log(
            level,
            "partition %d: its server at %s cannot be reached from here (%s), so it is called by way of the driver, at "
            "%s, which takes longer. Let clients connect to the executors' ports, or ask for route='relay' to save the "
            "attempt (docs/deploying.md, 'Relay')",
            *(member.rank, member.endpoint, str(missed) or "no answer in time", self._coordinator),
        )


class Door(NamedTuple):
    """The relay's door, as one attempt to connect to it sees it.

    Attributes:
        endpoint: where it is.
        seconds: that the attempt may take.
    """

    endpoint: str
    seconds: float


class Entrance:
    """Where the relay is entered: at its door, or, where that cannot be reached, at the coordinator's own port.

    Args:
        calls: the view, which tells the door's port.
        coordinator: its endpoint.
    """

    def __init__(self, calls: Calls, coordinator: str) -> None:
        self._calls = calls
        self._coordinator = coordinator
        self._reach = Reach("auto")
        self._told = False

    def door(self, now: float, remaining: float, timeout: float) -> Door | None:
        """The door, if an attempt to connect to it is to be made.

        Args:
            remaining: seconds that the call has.
            timeout: seconds that an attempt may take.
        """
        port = self._calls.relay_port
        seconds = self._reach.direct(port, now, remaining, timeout) if port else None
        return None if seconds is None else Door(tcp_endpoint(host_of(self._coordinator), port), seconds)

    def reached(self) -> None:
        """The door could be reached."""
        self._reach.reached(self._calls.relay_port)

    def missed(self, door: Door, error: BaseException, now: float) -> None:
        """The door could not be reached, and the coordinator's own port could."""
        proved = waited(error, door.seconds)
        self._reach.missed(self._calls.relay_port, now, proved)
        if proved < SHORT:
            return  # a call with next to no time left has found out nothing to tell
        level = logging.INFO if self._told else logging.WARNING
        self._told = True
        log.log(
            level,
            "the relay's door at %s cannot be reached from here (%s): relayed calls go by way of %s, which takes "
            "longer. Let clients connect to that port of the driver as well (docs/deploying.md, 'Relay')",
            *(door.endpoint, str(error) or "no answer in time", self._coordinator),
        )


class _Relay(NamedTuple):
    """A server is to be called by relay; what is to be told when that has worked."""

    endpoint: str
    proved: Callable[[], None] | None


class Ways:
    """Makes connections to servers.

    Args:
        routes: who serves what.
        run_id: of the cluster's run.
        options: the route, limits.

    Attributes:
        memory: where all connections receive long frames into.
    """

    def __init__(self, routes: Routes, run_id: bytes, options: ClientOptions) -> None:
        self._routes = routes
        self._run_id = run_id
        self._options = options
        self.memory = Blocks(options.memory_bytes_max)
        self._forks = Forks()
        self._reach = Reach(options.route)
        self._entrance = Entrance(routes.calls, routes.coordinator)
        self._notice = Notice(routes.coordinator)
        self._why: dict[tuple[str, int], OSError] = {}  # servers to be called by relay, and why

    def lane(self, member: Member, method: str, deadline: float, thread: Trunked, shake: bool, share: bool) -> Lane:
        """A lane to a server, for one thread.

        Args:
            shake: wait until it is ready. Else say what came of it: ``reached``, ``missed``.
            share: whether large frames may come and go in shared memory, on one host.

        Raises:
            Unavailable: it cannot be reached.
            ClusterError: the cluster is over.
        """
        way = self._way(member, method, deadline, shake, share)
        if isinstance(way, Lane):
            return way
        trunk = thread.trunk
        if trunk is None or trunk.lost():
            options = self._options
            lane = self._to_coordinator(member, method, deadline)
            trunk = thread.trunk = Trunk(lane, options.message_bytes_max, self._run_id)
        if not self._reach.falls_back:
            return RelayLane(trunk, way.endpoint)
        return Detour(trunk, way.endpoint, way.proved, self._due(member))

    def channel(self, member: Member, method: str, deadline: float, line: Any) -> Channel:
        """A connection for many calls at once. Raises as ``lane`` does."""
        way = self._way(member, method, deadline, True, False)
        if isinstance(way, Lane):
            return Channel(way, line)
        lane = self._to_coordinator(member, method, deadline)
        lane.endpoint = way.endpoint
        limit = self._options.message_bytes_max
        if not self._reach.falls_back:
            return RelayChannel(lane, line, self._run_id, limit, None)
        return DetourChannel(lane, line, self._run_id, limit, way.proved, self._due(member))

    def _due(self, member: Member) -> Callable[[], bool]:
        """Tells whether it is time to try the straight way to a server again."""
        reach, server = self._reach, _life(member)
        return lambda: reach.due(server, monotonic())

    def _way(self, member: Member, method: str, deadline: float, shake: bool, share: bool) -> Lane | _Relay:
        """A lane that leads straight to a server, or word that there is none."""
        now = monotonic()
        seconds = self._reach.direct(_life(member), now, deadline - now, self._options.connect_timeout)
        if seconds is None:
            return self._by_relay(member)
        try:
            lane = self._locally(member, now, seconds, shake, share)
            if lane is None:
                limit = self._options.message_bytes_max
                lane = Lane(member.endpoint, now + seconds, limit, self.memory.allocate, shake=shake)
        except OSError as error:
            if not self.missed(member, seconds, error, deadline):
                raise cannot_connect(member.endpoint, member.rank, method, error) from error
            return self._by_relay(member)
        if shake:
            self.reached(member)
        return lane

    def reached(self, member: Member) -> None:
        """A connection straight to a server is ready."""
        self._reach.reached(_life(member))

    def missed(self, member: Member, seconds: float, error: OSError, deadline: float) -> bool:
        """A server could not be reached in ``seconds``. Returns whether it is to be called by relay instead."""
        if not self._reach.falls_back or not self._is_there(member, deadline):
            return False
        self._why[_life(member)] = error
        self._reach.missed(_life(member), monotonic(), waited(error, seconds))
        return True

    def _locally(self, member: Member, now: float, seconds: float, shake: bool, share: bool) -> Lane | None:
        """A connection within this host. That it can be made at all is the proof that the server is on this host."""
        if not member.local or not self._options.local:
            return None
        try:
            memory = self._options.memory_bytes_max
            shared = SharedMemory(memory, Budget(memory), self._forks) if share and SharedMemory.possible() else None
            limit = self._options.message_bytes_max
            by = now + (min(seconds, LOCAL_TIMEOUT) if shake else seconds)
            lane = Lane(member.local, by, limit, self.memory.allocate, shake=shake, shared=shared)
            lane.endpoint = member.endpoint  # what errors call the server, whatever way leads there
            return lane
        except (OSError, RemoteProtocolError, ValueError) as error:
            log.debug("no same-host lane partition=%d endpoint=%s error=%s", member.rank, member.local, error)
            return None

    def _is_there(self, member: Member, deadline: float) -> bool:
        """Whether the coordinator still says so. A server that has ended refuses connections too."""
        try:
            self._routes.refresh(monotonic(), deadline)
        except (CoordinatorLost, Unavailable):  # the latter: the client is closed
            return False
        return self._routes.calls.members.get(member.rank) is member

    def _by_relay(self, member: Member) -> _Relay:
        endpoint, missed = f"the relay {self._routes.coordinator}", self._why.pop(_life(member), None)
        return _Relay(endpoint, None if missed is None else lambda: self._notice.tell(member, missed))

    def _to_coordinator(self, member: Member, method: str, deadline: float) -> Lane:
        coordinator, timeout = self._routes.coordinator, self._options.connect_timeout
        now = monotonic()
        door = self._entrance.door(now, deadline - now, timeout)
        missed: Exception | None = None
        if door is not None:
            try:
                lane = coordinator_lane(door.endpoint, now + door.seconds)
                self._entrance.reached()
                return lane
            except (OSError, RemoteProtocolError) as error:
                missed = error
        try:
            lane = coordinator_lane(coordinator, min(deadline, monotonic() + timeout))
        except OSError as error:
            raise cannot_connect(f"the relay {coordinator}", member.rank, method, error) from error
        if door is not None and missed is not None:
            self._entrance.missed(door, missed, monotonic())
        return lane


def _life(member: Member) -> tuple[str, int]:
    """What ``Reach`` knows a server by."""
    return member.endpoint, member.incarnation
