"""The connections of an asyncio client: one line to each server that was called, shared by all calls."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial

from ..core.reach import Reach
from ..errors import CoordinatorLost, InvalidArguments, MethodNotFound, Unavailable
from ..net.clock import monotonic
from ..net.memory import IDLE, Blocks
from ..options import ClientOptions
from ..wire.messages import Member
from .answers import Answers, closed
from .loop_line import Line
from .loop_routes import LoopRoutes, finished, shared
from .relay_line import RelayedLine
from .ways import Notice, waited

__all__ = ["Lines"]


class Lines:
    """The lines of one client.

    Args:
        routes: who serves what.
        answers: reads what servers send.
        options: limits.
        scratch: to receive into.

    Attributes:
        ready: the lines that can be used, by rank. One leads to a server of the past if its member is not the view's.
        closed: no connection is made any more.
    """

    def __init__(self, routes: LoopRoutes, answers: Answers, options: ClientOptions, scratch: memoryview) -> None:
        self.ready: dict[int, Line] = {}
        self.closed = False
        self._routes = routes
        self._calls = routes.calls
        self._answers = answers
        self._options = options
        self._scratch = scratch
        self._memory = Blocks(options.memory_bytes_max)
        self._resting: asyncio.TimerHandle | None = None  # until memory is looked at
        self._reach = Reach(options.route)
        self._notice = Notice(routes.coordinator)
        self._making: dict[int, tuple[Member, asyncio.Task[Line]]] = {}
        self._all: set[Line] = set()

    async def open(self, rank: int, method: str, deadline: float) -> Line:
        """The line to the server of a partition, made now where there is none. Callers at the same time share it.

        Raises:
            Unavailable: nobody serves the partition, or its server cannot be reached, or the client is closed.
            InvalidArguments: there is no such partition.
            MethodNotFound: its server takes no calls.
            ClusterError: the cluster is over or gone.
        """
        member = await self._member(rank, method, deadline)
        line = self.ready.get(rank)
        if line is not None:
            if line.member is member:
                return line
            line.close(ConnectionResetError("another server has taken its place"))
        making, task = self._making.get(rank, (None, None))
        if task is None or making is not member:
            task = shared(self._make(member, deadline))
            self._making[rank] = (member, task)
        if not await finished(task, deadline):
            raise _unreachable(member, method, TimeoutError("no time left to connect"))
        if task.cancelled():
            raise closed(rank, method)
        error = task.exception()
        if isinstance(error, (OSError, asyncio.TimeoutError)):
            reason = error if str(error) else TimeoutError(f"no answer within {self._options.connect_timeout:g} s")
            raise _unreachable(member, method, reason) from error
        return task.result()

    async def close(self) -> None:
        """Closes every connection, and waits until that is done."""
        self.abort()
        tasks = {task for _, task in self._making.values()}
        if tasks:
            await asyncio.wait(tasks)
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
        for _, task in self._making.values():
            task.cancel()
        for line in list(self.ready.values()):
            line.close(ConnectionAbortedError("the client was closed"))

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

    async def _make(self, member: Member, deadline: float) -> Line:
        try:
            line = await self._reached(member, deadline)
        finally:
            if self._making.get(member.rank, (None,))[0] is member:
                del self._making[member.rank]
        self.ready[member.rank] = line
        return line

    async def _reached(self, member: Member, deadline: float) -> Line:
        """A line straight to a server, or by way of the coordinator where that fails and the route allows it."""
        now, server, timeout = monotonic(), (member.endpoint, member.incarnation), self._options.connect_timeout
        remaining = deadline - now if self._reach.falls_back else timeout
        seconds = self._reach.direct(server, now, remaining, timeout)
        missed: BaseException | None = None
        if seconds is not None:
            try:
                line = await self._opened(self._line(Line, member), seconds)
                self._reach.reached(server)
                return line
            except (OSError, asyncio.TimeoutError) as error:
                if not self._reach.falls_back or not await self._is_there(member, deadline):
                    raise
                missed = error
                self._reach.missed(server, monotonic(), waited(error, seconds))
        proved = None if missed is None else partial(self._notice.tell, member, missed)
        coordinator = self._routes.coordinator
        line = self._line(partial(RelayedLine, coordinator=coordinator, proved=proved), member)
        return await self._opened(line, timeout)

    def _line(self, kind: Callable[..., Line], member: Member) -> Line:
        loop = asyncio.get_running_loop()
        return kind(loop, member, self._answers, self._options, self._scratch, self._allocate, self._forget)

    def _allocate(self, size: int) -> memoryview:
        memory = self._memory.allocate(size)
        if self._resting is None and self._memory.blocks and not self.closed:
            self._resting = _later(self)
        return memory

    def rest(self) -> None:
        """Gives memory back that has long been free, and looks again later for the rest."""
        self._memory.rest()
        self._resting = _later(self) if self._memory.blocks and not self.closed else None

    async def _opened(self, line: Line, seconds: float) -> Line:
        try:
            self._all.add(line)
            await asyncio.wait_for(line.open(), seconds)
            if line.lost is not None:
                raise line.lost
        except BaseException:
            self._forget(line)
            raise
        return line

    async def _is_there(self, member: Member, deadline: float) -> bool:
        """Whether the coordinator still says so. A server that has ended refuses connections too."""
        try:
            await self._routes.refresh(monotonic(), deadline)
        except CoordinatorLost:
            return False
        return self._calls.members.get(member.rank) is member

    def _forget(self, line: Line) -> None:
        if self.ready.get(line.member.rank) is line:
            del self.ready[line.member.rank]
        if line.gone is None or line.gone.done():
            self._all.discard(line)
        else:
            line.gone.add_done_callback(lambda _: self._all.discard(line))


def _later(lines: Lines) -> asyncio.TimerHandle:
    """Has its memory looked at in a while, unless nobody holds it any more by then."""
    known = weakref.ref(lines)

    def rest() -> None:
        found = known()
        if found is not None:
            found.rest()

    return asyncio.get_running_loop().call_later(IDLE, rest)


def _unreachable(member: Member, method: str, error: BaseException) -> Unavailable:
    return Unavailable(f"cannot connect: {error}", rank=member.rank, method=method, endpoint=member.endpoint)
