"""The connections of an asyncio client: a line to each server that was called, shared by all calls.

What is large has a second one: large requests, calls of methods that have returned something large before, and any line
over which something large has begun to come. What is small would wait behind it.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from functools import partial

from ..core.reach import Reach
from ..errors import CoordinatorLost, InvalidArguments, MethodNotFound, RemoteProtocolError, Unavailable
from ..net.clock import monotonic
from ..net.memory import IDLE, Blocks
from ..options import ClientOptions
from ..wire.messages import Member
from .answers import Answers, cannot_connect, closed
from .loop_detours import LoopDetours
from .loop_line import Line
from .loop_routes import LoopRoutes, finished, shared
from .relay_line import RelayedLine
from .ways import LOCAL_TIMEOUT, Entrance, Notice, waited

__all__ = ["Lines"]

log = logging.getLogger("spark_partition_server.client")

HEAVY_MAX = 1000  # methods
REPLACED = "another server has taken its place"
CLOSED = "the client was closed"


class Lines:
    """The lines of one client.

    Args:
        routes: who serves what.
        answers: reads what servers send.
        options: limits.
        scratch: to receive into.

    Attributes:
        ready: the lines that can be used, by rank. One leads to a server of the past if its member is not the view's.
        bulk: the same, for what is large.
        heavy: the methods that have returned something large.
        closed: no connection is made any more.
    """

    def __init__(self, routes: LoopRoutes, answers: Answers, options: ClientOptions, scratch: memoryview) -> None:
        self.ready: dict[int, Line] = {}
        self.bulk: dict[int, Line] = {}
        self.heavy: set[str] = set()
        self.closed = False
        self._routes = routes
        self._calls = routes.calls
        self._answers = answers
        self._options = options
        self._scratch = scratch
        self._memory = Blocks(options.memory_bytes_max)
        self._resting: asyncio.TimerHandle | None = None  # until memory is looked at
        self._reach = reach = Reach(options.route)
        self._entrance = Entrance(routes.calls, routes.coordinator)
        self._notice = Notice(routes.coordinator)
        self._detours = LoopDetours((self.ready, self.bulk), lambda member: reach.due(_life(member), monotonic()))
        self._making: dict[tuple[Member, bool], asyncio.Task[Line | None]] = {}
        self._all: set[Line] = set()

    async def open(self, rank: int, method: str, deadline: float, bulk: bool = False) -> Line:
        """The line to the server of a partition, made now where there is none. Callers at the same time share it.

        Args:
            bulk: the one for what is large.

        Raises:
            Unavailable: nobody serves the partition, or its server cannot be reached, or the client is closed.
            InvalidArguments: there is no such partition.
            MethodNotFound: its server takes no calls.
            ClusterError: the cluster is over or gone.
        """
        while True:
            member = await self._member(rank, method, deadline)
            for old in (self.ready.get(rank), self.bulk.get(rank)):
                if old is not None and old.member is not member:
                    old.close(ConnectionResetError(REPLACED))
            line = (self.bulk if bulk else self.ready).get(rank)
            if line is not None:
                return line
            task = self._making.get((member, bulk))
            if task is None:
                task = self._making[member, bulk] = shared(self._make(member, bulk, deadline))
                task.add_done_callback(partial(self._made, (member, bulk)))
            if not await finished(task, deadline):
                raise cannot_connect(member.endpoint, rank, method, TimeoutError("no time left"))
            if task.cancelled():
                raise closed(rank, method)
            error = task.exception()
            if isinstance(error, OSError):
                raise cannot_connect(member.endpoint, rank, method, error) from error
            line = task.result()
            if line is not None:
                return line

    async def close(self) -> None:
        """Closes every connection, and waits until that is done."""
        self.abort()
        if self._making:
            await asyncio.wait(list(self._making.values()))
        for line in list(self._all):
            if line.gone is not None:
                await line.gone

    def abort(self) -> None:
        """The same, without waiting for the end."""
        self.closed = True
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._memory.clear()
        for task in self._making.values():
            task.cancel()
        self._detours.stop()
        for line in list(self._all):
            line.close(ConnectionAbortedError(CLOSED))

    async def _member(self, rank: int, method: str, deadline: float) -> Member:
        """Who serves a partition, after another look at the view where nobody is known to."""
        if self.closed:
            raise closed(rank, method)
        size = await self._routes.size(deadline)
        if not 0 <= rank < size:
            text = f"there is no such partition; the cluster has {size}"
            raise InvalidArguments(text, rank=rank, method=method)
        member = self._calls.members.get(rank)
        if member is None:
            await self._routes.refresh(monotonic(), deadline)
            member = self._calls.members.get(rank)
        if member is None:
            raise Unavailable(f"nobody serves it in view {self._calls.view_number}", rank=rank, method=method)
        if not member.endpoint:
            text = "its server takes no calls (it is no QueryServer)"
            raise MethodNotFound(text, rank=rank, method=method, endpoint=f"{member.host}:{member.port}")
        return member

    async def _make(self, member: Member, bulk: bool, deadline: float) -> Line | None:
        """A line that is ready; None: another server has taken the place of this one meanwhile."""
        line = await self._reached(member, deadline)
        if self._calls.members.get(member.rank) is not member:
            line.close(ConnectionResetError(REPLACED))
            return None
        lines = self.bulk if bulk else self.ready
        before = lines.get(member.rank)
        if before is not None:  # it was set aside meanwhile
            line.close(ConnectionAbortedError("there is one already"))
            return before
        lines[member.rank] = line
        if isinstance(line, RelayedLine) and self._reach.falls_back:
            self._detours.add(line)
        return line

    def _made(self, key: tuple[Member, bool], task: asyncio.Task[Line | None]) -> None:
        del self._making[key]

    async def _reached(self, member: Member, deadline: float) -> Line:
        """A line straight to a server, or by way of the coordinator where that fails and the route allows it."""
        now, server, timeout = monotonic(), _life(member), self._options.connect_timeout
        remaining = deadline - now if self._reach.falls_back else timeout
        seconds = self._reach.direct(server, now, remaining, timeout)
        missed: BaseException | None = None
        if seconds is not None:
            try:
                line = await self._locally(member, now + min(seconds, LOCAL_TIMEOUT))
                if line is None:
                    line = await self._opened(self._line(Line, member), member.endpoint, now + seconds)
                self._reach.reached(server)
                return line
            except OSError as error:
                if self.closed or not self._reach.falls_back or not await self._is_there(member, deadline):
                    raise
                missed = error
                self._reach.missed(server, monotonic(), waited(error, seconds))
        proved = None if missed is None else partial(self._notice.tell, member, missed)
        relayed = partial(self._line, partial(RelayedLine, coordinator=self._routes.coordinator, proved=proved), member)
        now = monotonic()
        door = self._entrance.door(now, deadline - now, timeout)
        shut: Exception | None = None
        if door is not None:
            try:
                line = await self._opened(relayed(), door.endpoint, now + door.seconds)
                self._entrance.reached()
                return line
            except (OSError, RemoteProtocolError) as error:
                shut = error
        line = relayed()
        try:
            await self._opened(line, self._routes.coordinator, monotonic() + timeout)
        except OSError as error:
            raise OSError(f"{line.endpoint} does not answer: {error}") from error
        if door is not None and shut is not None:
            self._entrance.missed(door, shut, monotonic())
        return line

    async def _locally(self, member: Member, by: float) -> Line | None:
        """A connection within this host. That it can be made at all is the proof that the server is on this host."""
        if not member.local or not self._options.local:
            return None
        try:
            return await self._opened(self._line(Line, member), member.local, by)
        except (OSError, RemoteProtocolError, ValueError) as error:
            log.debug("no same-host lane partition=%d endpoint=%s error=%s", member.rank, member.local, error)
            return None

    def _line(self, kind: Callable[..., Line], member: Member) -> Line:
        loop = asyncio.get_running_loop()
        return kind(loop, member, self._answers, self._options, self._scratch, self._allocate, self)

    def _allocate(self, size: int) -> memoryview:
        memory = self._memory.allocate(size)
        if self._resting is None and self._memory.blocks and not self.closed:
            self._resting = _later(self)
        return memory

    def rest(self) -> None:
        """Gives memory back that has long been free, and looks again later for the rest."""
        self._memory.rest()
        self._resting = _later(self) if self._memory.blocks and not self.closed else None

    async def _opened(self, line: Line, endpoint: str, by: float) -> Line:
        """Connects a line. Raises as ``LoopLane.open``, and ``TimeoutError``."""
        if self.closed:  # asyncio.wait_for may have taken a cancellation for itself
            raise ConnectionAbortedError(CLOSED)
        seconds = by - monotonic()
        try:
            self._all.add(line)
            await asyncio.wait_for(line.open(endpoint), seconds)
            if line.lost is not None:
                raise line.lost
        except asyncio.TimeoutError as error:
            self.forget(line)
            raise TimeoutError(str(error) or f"no answer within {seconds:.2g} s") from error
        except BaseException:
            self.forget(line)
            raise
        return line

    async def _is_there(self, member: Member, deadline: float) -> bool:
        """Whether the coordinator still says so. A server that has ended refuses connections too."""
        try:
            await self._routes.refresh(monotonic(), deadline)
        except CoordinatorLost:
            return False
        return self._calls.members.get(member.rank) is member

    def set_aside(self, line: Line) -> None:
        """Something large has begun to come over a line: from here on it is for that."""
        rank = line.member.rank
        if self.ready.get(rank) is line and rank not in self.bulk:
            del self.ready[rank]
            self.bulk[rank] = line

    def weigh(self, method: str) -> None:
        """A method has returned something large, and will do so again."""
        if len(self.heavy) < HEAVY_MAX:
            self.heavy.add(method)

    def forget(self, line: Line) -> None:
        """A line is of no further use."""
        for lines in (self.ready, self.bulk):
            if lines.get(line.member.rank) is line:
                del lines[line.member.rank]
        if line.gone is None or line.gone.done():
            self._all.discard(line)
        else:
            line.gone.add_done_callback(lambda _: self._all.discard(line))


def _life(member: Member) -> tuple[str, int]:
    """What tells one life of a server from others."""
    return member.endpoint, member.incarnation


def _later(lines: Lines) -> asyncio.TimerHandle:
    """Has its memory looked at in a while, unless nobody holds it any more by then."""
    known = weakref.ref(lines)

    def rest() -> None:
        found = known()
        if found is not None:
            found.rest()

    return asyncio.get_running_loop().call_later(IDLE, rest)
