"""Addresses: what is bound stays bound, what cannot be bound says so, what is told to others can be parsed again."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wait import wait_until

from spark_partition_server.errors import ClusterError, PortUnavailable
from spark_partition_server.net.endpoints import (
    address_towards,
    bind_tcp,
    bind_unix,
    cut,
    get_host,
    get_open_port,
    is_loopback,
    is_wildcard,
    parse,
    tcp_endpoint,
)

LOCAL = "127.0.0.1"
ELSEWHERE = "203.0.113.1"  # a documentation address, no host has it


@pytest.fixture
def three_ports() -> Iterator[tuple[int, int, int]]:
    """Three ports in a row that are free now."""
    while True:
        with bind_tcp(LOCAL) as probe:
            first = probe.getsockname()[1]
        try:
            for port in (first, first + 1, first + 2):
                bind_tcp(LOCAL, (port, port)).close()
        except (PortUnavailable, OverflowError):
            continue
        yield first, first + 1, first + 2
        return


def connects(family: socket.AddressFamily, address: tuple[str, int] | str) -> bool:
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


# ------------------------------------------------------------------------------------------------ tcp


def test_a_bound_port_listens_and_nobody_else_can_take_it():
    """No gap between choosing a port and listening on it."""
    with bind_tcp(LOCAL) as bound:
        port = bound.getsockname()[1]
        assert connects(socket.AF_INET, (LOCAL, port))
        with pytest.raises(PortUnavailable):
            bind_tcp(LOCAL, (port, port))


def test_the_first_free_port_of_a_range_is_taken(three_ports):
    """A port in the middle of the range is somebody else's."""
    first, second, third = three_ports
    with bind_tcp(LOCAL, (first, third)) as one, bind_tcp(LOCAL, (first, third)) as two:
        assert one.getsockname() == (LOCAL, first)
        assert two.getsockname() == (LOCAL, second)


def test_a_full_range_is_an_error_that_names_host_and_range(three_ports):
    """Every port of the range is taken."""
    first, _, third = three_ports
    with (
        bind_tcp(LOCAL, (first, third)),
        bind_tcp(LOCAL, (first, third)),
        bind_tcp(LOCAL, (first, third)),
        pytest.raises(PortUnavailable) as caught,
    ):
        bind_tcp(LOCAL, (first, third))
    error = caught.value
    assert isinstance(error, (ClusterError, OSError))
    assert (error.host, error.ports) == (LOCAL, (first, third))
    assert f"{LOCAL} in {first}..{third}" in str(error)
    assert "Address already in use" in str(error)
    assert isinstance(error.__cause__, OSError)


def test_an_address_of_another_host_is_an_error_at_once():
    """A bind_host that is not this machine's; the other 60000 ports are not tried."""
    with pytest.raises(PortUnavailable, match=ELSEWHERE) as caught:
        bind_tcp(ELSEWHERE, (1024, 65000))
    assert caught.value.ports == (1024, 65000)


def test_the_port_of_an_earlier_run_can_be_bound_again():
    """The earlier server closed first, so the kernel keeps its connection in TIME_WAIT."""
    with bind_tcp(LOCAL) as earlier:
        port = earlier.getsockname()[1]
        with socket.create_connection((LOCAL, port)) as client:
            earlier.accept()[0].close()
            assert client.recv(1) == b""
    with bind_tcp(LOCAL, (port, port)) as later:
        assert later.getsockname()[1] == port


@pytest.mark.parametrize(("host", "family", "reached"), [
    ("127.0.0.1", socket.AF_INET, "127.0.0.1"),
    ("0.0.0.0", socket.AF_INET, "127.0.0.1"),
    ("", socket.AF_INET, "127.0.0.1"),
    ("localhost", socket.AF_INET, "127.0.0.1"),
    ("::1", socket.AF_INET6, "::1"),
    ("::", socket.AF_INET6, "::1"),
    ("::", socket.AF_INET, "127.0.0.1"),
])  # fmt: skip
def test_every_kind_of_address_can_be_bound_and_reached(host, family, reached):
    """Loopback, every address, a name; IPv4 and IPv6."""
    with bind_tcp(host) as bound:
        told = tcp_endpoint(reached, bound.getsockname()[1])
        assert parse(told)[0] is family
        assert connects(*parse(told))


def test_an_open_port_is_open():
    """The original's helper: the port can be bound after it was named."""
    port = get_open_port()
    with bind_tcp(LOCAL, (port, port)):
        pass


def test_the_name_of_this_host_is_a_name():
    """The original's helper."""
    assert get_host() == socket.getfqdn()
    assert get_host()


# ----------------------------------------------------------------------------------------------- unix


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder that only its owner may enter."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder


def test_a_unix_socket_is_bound_in_a_private_folder(private):
    """It listens at once, and a second server cannot take its path."""
    with bind_unix(private / "socket"):
        assert connects(*parse(f"ipc://{private}/socket"))
        with pytest.raises(PortUnavailable, match="in use"):
            bind_unix(str(private / "socket"))


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o710, 0o777, 0o702])
def test_a_unix_socket_is_not_bound_where_others_can_reach_it(private, mode):
    """Any permission of group or others on the folder."""
    private.chmod(mode)
    with pytest.raises(PortUnavailable, match="0700"):
        bind_unix(private / "socket")
    assert not list(private.iterdir())


def test_a_unix_socket_without_a_folder_in_its_path_is_judged_by_the_working_folder(private, monkeypatch):
    """A relative name must not slip past the look at the folder's mode."""
    monkeypatch.chdir(private)
    with bind_unix("socket"):
        pass
    os.unlink("socket")
    private.chmod(0o755)
    with pytest.raises(PortUnavailable, match="0700"):
        bind_unix("socket")


def test_a_unix_path_that_is_too_long_is_an_error(private):
    """The kernel takes 107 octets."""
    with pytest.raises(PortUnavailable, match="too long"):
        bind_unix(private / ("x" * 200))


def test_a_unix_socket_in_a_folder_that_is_not_there_is_an_error(private):
    """The folder was removed, or never made."""
    with pytest.raises(PortUnavailable, match="No such file"):
        bind_unix(private / "nowhere" / "socket")


# ------------------------------------------------------------------------------------------ endpoints


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_tcp_endpoint_can_be_parsed_again(address, port):
    """What is told to others comes back as it was."""
    family = socket.AF_INET6 if isinstance(address, ipaddress.IPv6Address) else socket.AF_INET
    assert parse(tcp_endpoint(str(address), port)) == (family, (str(address), port))


@pytest.mark.parametrize(("endpoint", "found"), [
    ("tcp://host.example:80", (socket.AF_INET, ("host.example", 80))),
    ("tcp://[::1]:1", (socket.AF_INET6, ("::1", 1))),
    ("ipc:///run/x/socket", (socket.AF_UNIX, "/run/x/socket")),
    ("ipc://a:b", (socket.AF_UNIX, "a:b")),
])  # fmt: skip
def test_endpoints_are_parsed(endpoint, found):
    """The three forms."""
    assert parse(endpoint) == found


@pytest.mark.parametrize("endpoint", [
    "", "tcp://", "tcp://host", "tcp://:80", "tcp://host:", "tcp://host:http", "tcp://host:-1", "tcp://host:1.5",
    "ipc://", "udp://host:80", "host:80", "http://host:80", "TCP://host:80", "tcp:/host:80", "tcp://host:65536",
    "tcp://::1:80", "tcp://[]:80",
])  # fmt: skip
def test_what_is_no_endpoint_is_refused(endpoint):
    """A text that would fail later with a worse word, or mean something else, is refused here, and named."""
    with pytest.raises(ValueError, match="neither tcp://host:port nor ipc://path") as caught:
        parse(endpoint)
    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize(("host", "wildcard", "loopback"), [
    ("", True, False), ("*", True, False), ("0.0.0.0", True, False), ("::", True, False), ("[::]", True, False),
    ("127.0.0.1", False, True), ("127.1.2.3", False, True), ("::1", False, True), ("[::1]", False, True),
    ("localhost", False, True), ("10.0.0.1", False, False), ("fd00::1", False, False), ("host", False, False),
    ("127.example.org", False, False),
])  # fmt: skip
def test_wildcards_and_loopbacks_are_known(host, wildcard, loopback):
    """What must not be told to others, and what means something to this machine only."""
    assert (is_wildcard(host), is_loopback(host)) == (wildcard, loopback)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_towards_loopback_is_loopback(host):
    """The routing table is asked; nothing is sent."""
    assert address_towards(host) == host


def test_without_a_route_there_is_no_address():
    """A name that cannot be one; no exception reaches the caller."""
    assert address_towards("256.256.256.256.") is None
    assert address_towards("") in (None, "127.0.0.1", "::1")


def test_a_connection_to_a_busy_process_is_not_cut():
    """It reads nothing, and its host asks for nothing more; but it answers each time that it is asked about that."""

    def backoff() -> int:
        return near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[4]  # grows with each question

    with bind_tcp(LOCAL) as listening, socket.create_connection(listening.getsockname()) as near:
        far, _ = listening.accept()
        with far:
            assert not cut(near)
            near.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    near.send(bytes(1 << 16))
            wait_until(lambda: backoff() > 3, 20.0, "the kernel to have asked a few times")
            assert not cut(near)


def test_a_unix_socket_is_never_cut():
    """Nothing is between its ends."""
    near, far = socket.socketpair()
    with near, far:
        assert not cut(near)
