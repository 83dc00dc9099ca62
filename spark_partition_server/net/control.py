"""The control plane's doors: the coordinator's ROUTER and a member's DEALER, with every option set and argued."""

from __future__ import annotations

import errno
import logging
import random
import resource
from typing import Any

import zmq

from ..errors import PortUnavailable
from ..wire.codec import VIEW_BYTES_MAX
from .endpoints import BACKLOG

__all__ = ["dealer", "router"]

log = logging.getLogger("spark_partition_server.net")

CONTROL_FRAME_BYTES = 256 * 1024  # fields have 64 KiB at the most; there is no bulk on this plane
DESCRIPTORS_SPARE = 256


def router(host: str, ports: tuple[int, int] | None, expected: int) -> tuple[zmq.Context[Any], zmq.Socket[bytes], int]:
    """The coordinator's socket, bound; its context, which is nobody else's; and its port.

    Args:
        host: the address to bind; every address: ``0.0.0.0``.
        ports: inclusive range; None: any free port.
        expected: members that will connect.

    Raises:
        PortUnavailable: no port of the range can be bound.
    """
    raise_descriptor_limit(2 * expected + DESCRIPTORS_SPARE)
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 64)
    bound = context.socket(zmq.ROUTER)
    # Identities are never set by members: ROUTER draws a fresh one a connection, so nobody can take one over.
    bound.router_mandatory = True  # a message to somebody who has gone is an error, not silence
    bound.router_handover = False
    bound.sndhwm = bound.rcvhwm = 1000  # a member that does not read costs a thousand small messages, then EAGAIN
    bound.linger = 500  # ms: the last SHUTDOWN and REFUSE get this long at close
    bound.maxmsgsize = CONTROL_FRAME_BYTES
    bound.handshake_ivl = 2000  # ms: idle strangers lose their connection, and give its descriptor back
    bound.backlog = BACKLOG
    _common(bound, ipv6=":" in host)
    try:
        return context, bound, _bind(bound, host, ports)
    except zmq.ZMQError as error:
        bound.close(0)
        context.term()
        raise PortUnavailable(host, ports or (0, 0), str(error)) from error


def dealer(endpoint: str) -> tuple[zmq.Context[Any], zmq.Socket[bytes]]:
    """A member's socket, connecting to the coordinator, and its context, which is nobody else's."""
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 16)
    connected = context.socket(zmq.DEALER)
    connected.sndhwm = connected.rcvhwm = 1000
    connected.linger = 1000  # ms: GOODBYE gets this long
    # a view may be large; libzmq never reconnects a client socket that got more than its limit, so there is slack
    connected.maxmsgsize = VIEW_BYTES_MAX + CONTROL_FRAME_BYTES
    connected.immediate = False  # HELLO may be queued while the connection is being made
    connected.handshake_ivl = 5000
    connected.connect_timeout = 2000
    connected.reconnect_ivl = random.randint(100, 500)  # ms: a thousand members do not come back in step
    connected.reconnect_ivl_max = 5000
    _common(connected, ipv6="[" in endpoint)
    connected.connect(endpoint)
    return context, connected


def _common(socket: zmq.Socket[bytes], ipv6: bool) -> None:
    socket.ipv6 = ipv6
    # They find a dead network or a stopped host. A hung Python answers them all the same: libzmq's thread does.
    socket.heartbeat_ivl = 1000
    socket.heartbeat_timeout = 5000
    socket.heartbeat_ttl = 10000
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 30  # firewalls forget idle connections after a minute


def _bind(socket: zmq.Socket[bytes], host: str, ports: tuple[int, int] | None) -> int:
    name = f"[{host}]" if ":" in host else host
    if ports is None:
        socket.bind(f"tcp://{name}:*")
    else:
        for port in range(ports[0], ports[1] + 1):
            try:
                socket.bind(f"tcp://{name}:{port}")
                break
            except zmq.ZMQError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES) or port == ports[1]:
                    raise
    endpoint = socket.last_endpoint
    assert isinstance(endpoint, bytes)
    return int(endpoint.rpartition(b":")[2].rstrip(b"\0"))


def raise_descriptor_limit(wanted: int) -> None:
    """Raises this process's soft limit of open files, as far as the hard limit goes; warns where that is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("descriptors wanted=%d allowed=%d: raise the hard limit (ulimit -Hn)", wanted, allowed)
