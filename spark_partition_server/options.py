"""The options: frozen dataclasses, checked when they are made. Durations are seconds, sizes are octets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

__all__ = ["ClientOptions", "ClusterOptions", "ServerOptions"]

PortRange = tuple[int, int]


def _check(options: Any, positive: tuple[str, ...]) -> None:
    for name in positive:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ValueError(f"{type(options).__name__}.{name} must be a number above 0, got {value!r}")
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name != "ports" or value is None:
            continue
        numbers = isinstance(value, (tuple, list)) and [type(port) for port in value] == [int, int]
        if not numbers or not 0 < value[0] <= value[1] < 65536:
            raise ValueError(f"{type(options).__name__}.ports must be (first, last) within 1..65535, got {value!r}")


@dataclass(frozen=True)
class ServerOptions:
    """How a partition server listens on its executor.

    Attributes:
        bind_host: the address to bind; default: the advertised one.
        advertise_host: the address that clients are told; default: this host's address on the route to the driver.
        ports: inclusive range to bind in; default: any free port.
        message_bytes_max: the largest request accepted and the largest reply sent, all frames together.
        connections_max: direct connections at one time; one more is closed at once.
        handshake_timeout: seconds a new connection has to finish the ZMTP handshake.
        write_timeout: seconds a client may leave a finished reply untouched before it is cut off.
        leave_timeout: seconds without a word from the driver after which a server ends by itself.
        local: also listen on a Unix socket for processes of the same user on the same host.
        memory_bytes_max: octets of memory shared with clients on this host, for large arrays, all clients together; and
            as much again for large requests, kept to be used again.
        calls_max: calls that wait or are under way at one time; one more is refused as ``Overloaded``.
        calls_bytes_max: octets of the arguments of all of them.
        switch_interval: seconds after which a thread that computes gives way to one that serves (the interpreter's
            switch interval while the server serves; docs/serving.md says what it costs); None: as it is.
        stream_timeout: seconds a stream waits for credit before it is ended.
        connection_calls_max: calls of one connection that wait or run; until half of them are over, no more are read.
    """

    bind_host: str | None = None
    advertise_host: str | None = None
    ports: PortRange | None = None
    message_bytes_max: int = 256 * 1024 * 1024
    connections_max: int = 4096
    handshake_timeout: float = 2.0
    write_timeout: float = 30.0
    leave_timeout: float = 60.0
    local: bool = True
    memory_bytes_max: int = 512 * 1024 * 1024
    calls_max: int = 1024
    calls_bytes_max: int = 512 * 1024 * 1024
    connection_calls_max: int = 256
    stream_timeout: float = 30.0
    switch_interval: float | None = 1e-4

    def __post_init__(self) -> None:
        _check(
            self,
            (
                *("message_bytes_max", "connections_max", "handshake_timeout", "write_timeout", "leave_timeout"),
                *("calls_max", "calls_bytes_max", "connection_calls_max", "stream_timeout", "memory_bytes_max"),
                *(() if self.switch_interval is None else ("switch_interval",)),
            ),
        )


@dataclass(frozen=True)
class ClusterOptions:
    """How the driver runs the coordinator and waits for the servers.

    Attributes:
        bind_host: the address the coordinator binds; default: the advertised one.
        advertise_host: the address that executors and clients are told; default: the order in docs/deploying.md.
        ports: inclusive range for the coordinator; default: any free port.
        start_timeout: seconds ``start()`` waits *without progress* (an executor, a task or a registration more).
        stop_timeout: seconds ``stop()`` gives the servers to leave before the Spark job is cancelled.
        result_timeout: seconds ``stop()`` waits, once the servers have left, for what ``_build_result`` returns.
        heartbeat_interval: seconds between two heartbeats of a member.
        lease: seconds of silence after which a member is lost; at least three heartbeat intervals.
        init_attempts: failures of ``init_partition`` of one partition after which ``start()`` gives up.
        result_bytes_max: results of ``cache_result=True`` up to this size are kept on the driver (see Cluster).
    """

    bind_host: str | None = None
    advertise_host: str | None = None
    ports: PortRange | None = None
    start_timeout: float = 120.0
    stop_timeout: float = 10.0
    result_timeout: float = 3600.0
    heartbeat_interval: float = 1.0
    lease: float = 15.0
    init_attempts: int = 2
    result_bytes_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        _check(
            self,
            (
                "start_timeout",
                "stop_timeout",
                "result_timeout",
                "heartbeat_interval",
                "lease",
                "init_attempts",
                "result_bytes_max",
            ),
        )
        if self.lease < 3 * self.heartbeat_interval:
            raise ValueError(
                f"lease ({self.lease:g} s) must be at least three heartbeat intervals ({self.heartbeat_interval:g} s)"
            )


@dataclass(frozen=True)
class ClientOptions:
    """How a client calls.

    Attributes:
        timeout: seconds a call may take when the call itself does not say.
        connect_timeout: seconds one attempt to connect may take, within the call's own deadline.
        message_bytes_max: the largest request sent and the largest reply accepted, all frames together.
        memory_bytes_max: octets of memory for large arrays that the client keeps, to use them again once nobody holds
            the arrays any more; what is over it is given back to the system at once.
        calls_max: calls that one client may have under way at one time, over all threads, those that were submitted
            included; a batch counts as one.
        calls_bytes_max: octets of their requests together; a single larger one is sent when it is alone.
        local: reach servers on this host over their Unix socket instead of tcp, wherever that works.
        wait_for_ready: a call waits, within its deadline, for a partition that nobody serves; False: it fails at once.
        route: ``"direct"``: straight to the servers; ``"relay"``: by way of the coordinator; ``"auto"``: straight, and
            by relay to servers that cannot be reached.
    """

    timeout: float = 10.0
    connect_timeout: float = 2.0
    message_bytes_max: int = 256 * 1024 * 1024
    memory_bytes_max: int = 256 * 1024 * 1024
    calls_max: int = 65536
    calls_bytes_max: int = 256 * 1024 * 1024
    local: bool = True
    wait_for_ready: bool = True
    route: str = "auto"

    def __post_init__(self) -> None:
        sizes = ("message_bytes_max", "memory_bytes_max", "calls_max", "calls_bytes_max")
        _check(self, ("timeout", "connect_timeout", *sizes))
        if self.wait_for_ready not in (True, False):
            raise ValueError(f"ClientOptions.wait_for_ready must be True or False, got {self.wait_for_ready!r}")
        if self.route not in ("direct", "relay", "auto"):
            raise ValueError(f'ClientOptions.route must be "direct", "relay" or "auto", got {self.route!r}')

    @classmethod
    def given(cls, options: ClientOptions | None = None, **said: Any) -> ClientOptions:
        """Options, with those replaced that somebody has said: None is not saying."""
        return replace(options or cls(), **{name: value for name, value in said.items() if value is not None})
