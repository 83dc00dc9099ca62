"""``QueryServer``: the methods of a class, answered over the direct lane."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, unwrap
from typing import Any, TypeVar, overload

from .core.dispatch import Dispatch
from .net.clock import monotonic
from .net.endpoints import bind_local, bind_tcp, tcp_endpoint
from .net.listener import Listener
from .net.member_lane import MemberLane
from .net.relayed import RelayedCaller
from .options import ServerOptions
from .partition_server import PartitionServer
from .serving.answering import Answering
from .serving.switching import SwitchInterval
from .wire.messages import Attach
from .wire.relays import room_for
from .wire.zmtp import Frames

__all__ = ["QueryServer", "idempotent_methods", "marks_of", "method", "told_to_clients"]

MARK = "__partition_server_method__"
# what PartitionServer sets on an instance, which would hide a method of that name
RESERVED_NAMES = frozenset(
    {
        *("config", "coordinator_url", "host", "itr", "job_group", "options", "partition_ind", "port", "run_id"),
        *("threads", "token"),
    }
)
RESERVED = "timeout"  # client.call(partition, method, timeout=...) takes it

AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Any])


@overload
def method(function: AnyHandler, /) -> AnyHandler: ...
@overload
def method(*, idempotent: bool = False) -> Callable[[AnyHandler], AnyHandler]: ...
def method(function: Any = None, /, *, idempotent: bool = False) -> Any:
    """Marks a method of a ``QueryServer`` as one that clients may call.

    Args:
        idempotent: running it twice is as good as once; the client then repeats it when its outcome is unknown.

    Raises:
        TypeError: the method has a parameter called ``timeout``, which ``call`` keeps for itself.
    """

    def mark(marked: AnyHandler) -> AnyHandler:
        function = getattr(marked, "__func__", marked)  # of a static method or a class method
        if RESERVED in inspect.signature(function).parameters:
            raise TypeError(f"{function.__qualname__}: 'timeout' is reserved for the caller; rename the parameter")
        setattr(function, MARK, {"idempotent": idempotent})
        return marked

    return mark if function is None else mark(function)


class QueryServer(PartitionServer):
    """Serves the methods marked with ``@method``.

    A plain method runs in the thread that serves, one at a time, which is the fastest way; with ``threads`` it runs on
    one of so many threads. An ``async def`` method runs on an asyncio loop of the server's, beside all others. A
    generator, of either kind, is a stream: ``client.stream``.

    Args:
        port: as in ``PartitionServer``.
        config: as in ``PartitionServer``.
        options: as in ``PartitionServer``.
        threads: how many threads run plain methods; default: what the class says.

    Attributes:
        threads: the same. A subclass may set it as a class attribute; 0: the thread that serves.

    Example::

        class Lookup(QueryServer):
            def init_partition(self, rows):
                self.values = dict(rows)

            @method
            def get(self, key):
                return self.values.get(key)
    """

    threads: int = 0

    def __init__(
        self,
        port: int | None = None,
        config: dict[str, Any] | None = None,
        options: ServerOptions | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        super().__init__(port, config, options)
        if threads is not None:
            self.threads = threads
        _check_threads(self)

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        taken = sorted(name for name in marks_of(cls) if name in RESERVED_NAMES or hasattr(PartitionServer, name))
        if taken:
            raise TypeError(f"{cls.__qualname__}.{taken[0]}: PartitionServer uses that name itself; rename the method")

    def init_partition(self, rows: Iterable[Any]) -> None:
        """Builds the state that the methods use. Override.

        Args:
            rows: the partition's iterator; empty where the partition is.
        """

    def _launch_server(self) -> None:
        options = self.options
        listening = [bind_tcp(self._bind_host(), self._ports())]
        try:
            self.port = port = listening[0].getsockname()[1]
            local = bind_local() if options.local else None
            if local is not None:
                listening.append(local[0])
            self._local_lane = "" if local is None else local[1]
            self.init_partition(self.itr)
            self.host, self.port = self._life.host, port  # names that init_partition may have used
            self._answering = answering_of(self)
            self._listener = Listener(
                listening,
                self._answering.answer,
                options.message_bytes_max,
                options.connections_max,
                options.handshake_timeout,
                options.write_timeout,
                sift=self._answering.sift,
                gone=self._answering.gone,
                work=self._answering.work,
                busy=self._busy,
                memory_bytes_max=options.memory_bytes_max,
            )
            self._relay_lane = self._lane()
            self._register()
        except BaseException:
            for one in listening:
                one.close()
            raise
        with SwitchInterval.of(options.switch_interval):
            try:
                self._answering.open()
                self._listener.serve()
            finally:
                self._answering.close()
                self._relay_lane.close()

    def _endpoint(self) -> str:
        assert self.port is not None
        return tcp_endpoint(self.host, self.port)

    def _local_endpoint(self) -> str:
        return self._local_lane

    def _lane(self) -> MemberLane:
        life, answering = self._life, self._answering
        attach = Attach(life.who.rank, life.who.incarnation, life.token)
        limit = room_for(life.options.message_bytes_max)
        return MemberLane(self._listener, answering.answer, answering.gone, attach, life.run_id, limit)

    def _busy(self) -> bool:
        """Whether answers are still to come, or to leave."""
        return self._answering.busy() or self._relay_lane.waiting or self._life.relays()

    def _deliver(self, caller: RelayedCaller, frames: Frames) -> None:
        self._listener.deliver(caller, frames)
        door = self._life.door
        if door is not None:
            self._relay_lane.wanted(door)

    def _relieved(self) -> None:
        self._listener.hand(_nothing)  # what waited for it has its turn

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        """Answers no more requests; replies that wait to be sent get ``grace`` seconds."""
        self._answering.dispatch.leaving = True
        self._listener.stop(grace)


def _nothing() -> None:
    pass


def answering_of(server: QueryServer) -> Answering:
    """What answers in the name of a server that has been called by Spark."""
    life = server._life
    began = monotonic()

    def status() -> dict[str, Any]:
        return {
            "partition": life.who.rank,
            "incarnation": life.who.incarnation,
            "attempt": life.who.attempt,
            "pid": os.getpid(),
            "host": life.host,
            "uptime_s": monotonic() - began,
            "threads": server.threads,
            "connections": server._listener.connections,
            "rss_bytes": _resident(),
        }

    names = list(_marks(server))
    functions = {name: unwrap(getattr(server, name)) for name in names}
    streams = {name for name in names if isgeneratorfunction(functions[name]) or isasyncgenfunction(functions[name])}
    coroutines = {name for name in names if iscoroutinefunction(functions[name]) or isasyncgenfunction(functions[name])}
    dispatch = Dispatch(
        life.who.rank,
        life.who.incarnation,
        {name: getattr(server, name) for name in names if name not in streams},
        {name: getattr(server, name) for name in streams},
    )
    _check_threads(server)
    threads = server.threads
    return Answering(dispatch, life.run_id, life.options, threads=threads, coroutines=coroutines, status=status)


def _resident() -> int:
    """Octets of memory in use; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def told_to_clients(server: PartitionServer) -> dict[str, Any]:
    """What a coordinator tells clients about the servers it expects: arguments of ``Coordinator``."""
    return {"idempotent": idempotent_methods(server), "message_bytes_max": server.options.message_bytes_max}


def idempotent_methods(server: PartitionServer) -> list[str]:
    """The names of the methods that may run twice, for the view's meta."""
    return sorted(name for name, mark in _marks(server).items() if mark["idempotent"])


def _marks(server: Any) -> dict[str, dict[str, bool]]:
    return marks_of(type(server))


def marks_of(kind: type) -> dict[str, dict[str, bool]]:
    """The methods of a class that are marked with ``@method``, by name, with what the mark says."""
    marks = {}
    for name in dir(kind):
        mark = getattr(getattr(kind, name, None), MARK, None)
        if mark is not None:
            marks[name] = mark
    return marks


def _check_threads(server: QueryServer) -> None:
    threads = server.threads
    if type(threads) is not int or threads < 0:
        raise ValueError(f"{type(server).__qualname__}.threads must be a number of threads, 0 or more, not {threads!r}")
