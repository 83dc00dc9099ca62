"""The control plane's doors: the coordinator's ROUTER and a member's DEALER, with every option set and argued."""

from __future__ import annotations

import errno
import os
import random
import resource
from typing import Any

import zmq

from ..errors import PortUnavailable, TooFewDescriptors
from ..wire.codec import VIEW_BYTES_MAX
from .endpoints import BACKLOG

__all__ = ["dealer", "router", "set_member_options"]

CONTROL_FRAME_BYTES = 256 * 1024  # fields have 64 KiB at the most; there is no bulk on this plane
DESCRIPTORS_SPARE = 64  # the control plane's own, and what the driver opens later


def router(host: str, ports: tuple[int, int] | None, expected: int) -> tuple[zmq.Context[Any], zmq.Socket[bytes], int]:
    """The coordinator's socket, bound; its context, which is nobody else's; and its port.

    Args:
        host: the address to bind; every address: ``0.0.0.0``.
        ports: inclusive range; None: any free port.
        expected: members that will connect.

    Raises:
        PortUnavailable: no port of the range can be bound.
        TooFewDescriptors: this process may not open enough sockets for them.
    """
    raise_descriptor_limit(expected)
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
    # No PING of its own: libzmq looks through the timers of all connections whenever it sets one back, which takes all
    # of its thread at some thousand members. The lease finds who is silent, TCP who cannot be reached.
    _common(bound, ipv6=":" in host)
    # The kernel counts octets for which a full buffer has no room, too: a client of relayed streams that takes its time
    # must not lose its connection over it.
    bound.tcp_maxrt = 60_000
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
    set_member_options(connected, ipv6="[" in endpoint)
    connected.connect(endpoint)
    return context, connected


def set_member_options(connected: zmq.Socket[bytes], ipv6: bool) -> None:
    """What a member's socket needs before it connects."""
    connected.sndhwm = connected.rcvhwm = 1000
    connected.linger = 1000  # ms: GOODBYE gets this long
    # a view may be large; libzmq never reconnects a client socket that got more than its limit, so there is slack
    connected.maxmsgsize = VIEW_BYTES_MAX + CONTROL_FRAME_BYTES
    connected.immediate = False  # HELLO may be queued while the connection is being made
    connected.handshake_ivl = 5000
    connected.connect_timeout = 2000
    connected.reconnect_ivl = random.randint(100, 500)  # ms: a thousand members do not come back in step
    connected.reconnect_ivl_max = 5000
    # PINGs find a stopped host behind a proxy. A hung Python answers them all the same: libzmq's thread does. No ttl is
    # told: the coordinator's libzmq would have a timer to set back at every PING.
    connected.heartbeat_ivl = 5000
    connected.heartbeat_timeout = 5000
    _common(connected, ipv6)


def _common(socket: zmq.Socket[bytes], ipv6: bool) -> None:
    socket.ipv6 = ipv6
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 30  # firewalls forget idle connections after a minute
    socket.tcp_keepalive_intvl = 5
    socket.tcp_keepalive_cnt = 4
    socket.tcp_maxrt = 10_000  # ms: octets that nobody acknowledges for so long end the connection


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


def raise_descriptor_limit(members: int) -> None:
    """Raises this process's soft limit of open files: room for every member and its lane, and as many clients.

    At the limit libzmq tries to accept for ever, with a whole core, and whoever is outside learns nothing.

    Raises:
        TooFewDescriptors: the hard limit is too low for the members alone.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_descriptors() + members + DESCRIPTORS_SPARE
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TooFewDescriptors(members, needed, hard)
    wanted = needed + 2 * members + DESCRIPTORS_SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:  # a system without that folder
        return DESCRIPTORS_SPARE
