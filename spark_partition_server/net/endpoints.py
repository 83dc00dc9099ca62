"""Addresses: binding so that a port stays ours, what to tell others, and connecting.

A port is never picked, closed and bound again: between the two somebody else may take it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import Any

from ..errors import PortUnavailable
from .clock import monotonic

__all__ = [
    "Beginning",
    "address_towards",
    "bind_local",
    "bind_tcp",
    "bind_unix",
    "connect",
    "connect_to",
    "cut",
    "get_host",
    "get_open_port",
    "host_of",
    "is_loopback",
    "is_wildcard",
    "keep_alive",
    "may_share",
    "parse",
    "tcp_endpoint",
]

BACKLOG = 4096  # a whole cluster may connect at once; the default of 100 costs it SYN retries of a second
ANY_PORT = (0, 0)
# Seconds, and probes: firewalls forget idle connections after a minute. And ms that octets may wait to be acknowledged,
# those included for which the other host has no room: a busy process may not read for a while.
KEPT_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 60_000}
RESENT = 3  # times that the kernel has sent the same octets again without a word from the other host: over a second
_CREDENTIALS = struct.Struct("@iII")  # pid, uid, gid
_RESENT = struct.Struct("@2xBB")  # of the kernel's tcp_info: times that data, and that a probe, was sent again


def bind_tcp(host: str, ports: tuple[int, int] | None = None) -> socket.socket:
    """A listening TCP socket on the first free port of an inclusive range, or on any free port.

    Raises:
        PortUnavailable: every port of the range is taken, or the address is not one of this host's.
    """
    first, last = ports or ANY_PORT
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason: OSError | None = None
    for port in range(first, last + 1):
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            # a port in TIME_WAIT after an earlier run may be bound again; one that is listened on may not
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            reason = error
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
        else:
            return listening
    raise PortUnavailable(host, (first, last), str(reason)) from reason


def bind_unix(path: str | Path) -> socket.socket:
    """A listening Unix socket, in a folder that only its owner may enter.

    Raises:
        PortUnavailable: the path exists, is too long, or others can reach it; or its folder is not there.
    """
    try:
        mode = os.stat(os.path.dirname(path) or ".").st_mode
    except OSError as error:
        raise PortUnavailable(str(path), ANY_PORT, str(error)) from error
    if stat.S_IMODE(mode) & 0o077:
        raise PortUnavailable(str(path), ANY_PORT, "the folder of a Unix socket must have mode 0700")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(os.fspath(path))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise PortUnavailable(str(path), ANY_PORT, str(error)) from error
    return listening


def bind_local() -> tuple[socket.socket, str] | None:
    """A listening Unix socket for processes of this host, and its endpoint; None: not on this system.

    Its name is in Linux's abstract namespace: no file, so nothing is left when the process is killed, no folder that
    must be kept from others, no limit of path length, and containers that share a network but no files share it too.
    Anybody on the host may connect to it, so both sides look at whom they have got (``may_share``).
    """
    if not sys.platform.startswith("linux"):
        return None
    name = f"spark-partition-server-{os.getpid()}-{secrets.token_hex(16)}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(f"\0{name}")
        listening.listen(BACKLOG)
    except OSError:  # forbidden by a sandbox, say: tcp does all that is needed
        listening.close()
        return None
    return listening, f"ipc://@{name}"


def may_share(connected: socket.socket) -> bool:
    """Whether the other end of a Unix socket belongs to the user of this process, or to root."""
    if not sys.platform.startswith("linux"):
        return True  # the socket's folder has mode 0700
    try:
        octets = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return False
    user: int = _CREDENTIALS.unpack(octets)[1]
    return user in (os.geteuid(), 0)


def tcp_endpoint(host: str, port: int) -> str:
    """``tcp://host:port``, with brackets around an IPv6 address."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def parse(endpoint: str) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
    """The family and the address of ``tcp://host:port``, ``ipc://path`` or ``ipc://@name`` (without a file).

    Raises:
        ValueError: it is neither.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and rest:
        return socket.AF_UNIX, f"\0{rest[1:]}" if rest[0] == "@" else rest
    host, _, port = rest.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if scheme != "tcp" or not host or not _is_port(port) or bracketed != (":" in host):
        raise ValueError(f"{endpoint!r} is neither tcp://host:port nor ipc://path")
    return socket.AF_INET6 if bracketed else socket.AF_INET, (host, int(port))


def host_of(endpoint: str) -> str:
    """The host of ``tcp://host:port``. Raises ``ValueError`` if it is none."""
    _, address = parse(endpoint)
    if isinstance(address, str):
        raise ValueError(f"{endpoint!r} is not tcp://host:port")
    return address[0]


def _is_port(text: str) -> bool:
    return text.isdecimal() and int(text) < 65536


def connect(endpoint: str, deadline: float) -> socket.socket:
    """Connects to the first of the endpoint's addresses that answers; a name may have several."""
    addresses = _addresses(endpoint)
    failure: OSError = TimeoutError("no time left to connect")
    for index, (family, address) in enumerate(addresses):
        timeout = (deadline - monotonic()) / (len(addresses) - index)  # all of them within the one deadline
        if timeout <= 0:
            break
        try:
            return connect_to(family, address, timeout)
        except OSError as error:
            failure = error
    raise failure


def _addresses(endpoint: str) -> list[tuple[socket.AddressFamily, Any]]:
    family, address = parse(endpoint)
    if isinstance(address, str):
        return [(family, address)]
    host, port = address
    return [(found[0], found[4]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def connect_to(family: socket.AddressFamily, address: Any, timeout: float) -> socket.socket:
    """A socket with that timeout, connected to one address. A Unix socket is connected at once or not at all."""
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout)
        connected.connect(address)
        _settle(connected)
    except BaseException:
        connected.close()
        raise
    return connected


def cut(connected: Any) -> bool:
    """Whether a connection leads nowhere any more: the other host has long acknowledged nothing of what was sent to it.

    So it is where a firewall has forgotten a connection, or drops its packets; the kernel itself would go on for a
    quarter of an hour. A host acknowledges what it gets however busy its processes are.
    """
    if connected.family == socket.AF_UNIX or not sys.platform.startswith("linux"):
        return False
    try:
        data, probes = _RESENT.unpack(connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RESENT.size))
    except OSError:
        return False
    return bool(max(data, probes) >= RESENT)


class Beginning:
    """Connecting to an endpoint without waiting for it: one of its addresses after the other.

    Attributes:
        left: addresses that have not been tried.
    """

    def __init__(self, endpoint: str) -> None:
        self._addresses = _addresses(endpoint)
        self.left = len(self._addresses)

    def next(self) -> socket.socket:
        """A socket that connects to the next address, or has: it can be written to once it is connected.

        Raises:
            OSError: that has failed at once, for this address and those behind it.
        """
        while True:
            family, address = self._addresses[-self.left]
            self.left -= 1
            begun = socket.socket(family, socket.SOCK_STREAM)
            try:
                begun.setblocking(False)
                code = begun.connect_ex(address)
                if code not in (0, errno.EINPROGRESS):  # of a Unix socket, EAGAIN: its server accepts nobody now
                    raise OSError(code, os.strerror(code))
                _settle(begun)
                return begun
            except BaseException as error:
                begun.close()
                if not self.left or not isinstance(error, OSError):
                    raise


def keep_alive(connected: socket.socket) -> None:
    """For a connection over which nothing may come for long: firewalls do not forget it, and its end is noticed."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEPT_ALIVE.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _settle(connecting: socket.socket) -> None:
    """What is wanted of every connection. Raises ``PermissionError`` for one that is another user's."""
    if connecting.family == socket.AF_UNIX:
        if not may_share(connecting):
            raise PermissionError("the server's socket belongs to another user")
    else:
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def address_towards(host: str) -> str | None:
    """This host's address on the route to ``host``, as the routing table says; nothing is sent. None: no route."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            name: str = probe.getsockname()[0]
            return name
    except OSError:
        return None


def is_wildcard(host: str) -> bool:
    """Whether ``host`` means every address, which is nothing to tell others."""
    return host in ("", "*", "0.0.0.0", "::", "[::]")


def is_loopback(host: str) -> bool:
    """Whether ``host`` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def get_host() -> str:
    """The fully qualified name of this host."""
    return socket.getfqdn()


def get_open_port() -> int:
    """A port that is free now. Somebody else may take it before it is bound: prefer binding port 0."""
    with bind_tcp("") as probe:
        port: int = probe.getsockname()[1]
        return port
