"""The control plane's sockets: bound where they were asked to be, closed when they cannot be, open to no stranger."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from support.lanes import LONG, Raw
from support.octets import GREETING

from spark_partition_server.errors import PortUnavailable
from spark_partition_server.net import control
from spark_partition_server.net.control import CONTROL_FRAME_BYTES, dealer, router
from spark_partition_server.net.endpoints import bind_tcp, tcp_endpoint

LOCAL = "127.0.0.1"


class Bound:
    """A router, closed at the end."""

    def __init__(self, host: str = LOCAL, ports: tuple[int, int] | None = None) -> None:
        self.context, self.socket, self.port = router(host, ports, 4)
        self.socket.rcvtimeo = int(LONG * 1000)

    def __enter__(self) -> Bound:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close(0)
        self.context.term()


@pytest.fixture
def free_port() -> int:
    with bind_tcp(LOCAL) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def member() -> Iterator[list[zmq.Socket[bytes]]]:
    """Closes the members' sockets that a test puts in."""
    made: list[tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]] = []
    yield made  # type: ignore[misc]
    for context, connected in made:
        connected.close(0)
        context.term()


@pytest.mark.parametrize(("host", "reached"), [
    ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("*", "127.0.0.1"), ("localhost", "127.0.0.1"),
    ("::1", "::1"), ("0::1", "::1"), ("0:0:0:0:0:0:0:1", "::1"), ("::", "::1"),
])  # fmt: skip
def test_a_member_reaches_a_router_on_every_kind_of_address(member, host, reached):
    """IPv6 in each of its spellings, and addresses that mean all of them."""
    with Bound(host) as bound:
        context, connected = dealer(tcp_endpoint(reached, bound.port))
        member.append((context, connected))
        connected.send_multipart([b"a", b"b"])
        sender, *frames = bound.socket.recv_multipart()
        assert frames == [b"a", b"b"]
        bound.socket.send_multipart([sender, b"c"])
        connected.rcvtimeo = int(LONG * 1000)
        assert connected.recv_multipart() == [b"c"]


def test_a_member_may_speak_before_the_router_is_there(member, free_port):
    """HELLO is queued until the connection is made, and made it is."""
    context, connected = dealer(tcp_endpoint(LOCAL, free_port))
    member.append((context, connected))
    connected.send(b"HELLO")
    with Bound(LOCAL, (free_port, free_port)) as bound:
        assert bound.socket.recv_multipart()[1:] == [b"HELLO"]


def test_the_first_free_port_of_a_range_is_taken(free_port):
    """Another run's coordinator has the first one."""
    with Bound(LOCAL, (free_port, free_port)) as first, Bound(LOCAL, (free_port, free_port + 50)) as second:
        assert first.port == free_port
        assert free_port < second.port <= free_port + 50


@pytest.mark.parametrize("host", [LOCAL, "203.0.113.1", "not an address"])
def test_a_port_that_cannot_be_bound_is_an_error_that_leaves_nothing(free_port, host):
    """Taken; an address of another host; no address at all. Socket and context are closed."""
    with bind_tcp(LOCAL, (free_port, free_port)), pytest.raises(PortUnavailable) as caught:
        router(host, (free_port, free_port), 4)
    assert (caught.value.host, caught.value.ports) == (host, (free_port, free_port))
    assert isinstance(caught.value.__cause__, zmq.ZMQError)


def test_a_message_to_somebody_who_has_gone_is_an_error():
    """Not silence: the coordinator learns that the member is not connected."""
    with Bound() as bound, pytest.raises(zmq.ZMQError, match="Host unreachable"):
        bound.socket.send_multipart([b"nobody", b"x"])


def test_nobody_can_take_over_a_connection_by_naming_its_identity(member):
    """Two members that claim the same identity: the first one keeps it, and the second is not heard."""
    with Bound() as bound:
        for number in (b"1", b"2"):
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            connected = context.socket(zmq.DEALER)
            member.append((context, connected))
            connected.routing_id = b"same"
            connected.connect(tcp_endpoint(LOCAL, bound.port))
            connected.send(number)
            if number == b"1":
                assert bound.socket.recv_multipart() == [b"same", b"1"]
        assert bound.socket.poll(300) == 0
        member[0][1].send(b"1 again")
        assert bound.socket.recv_multipart() == [b"same", b"1 again"]


def test_a_frame_over_the_limit_ends_its_connection_only(member):
    """Nothing on this plane is large."""
    with Bound() as bound:
        context, connected = dealer(tcp_endpoint(LOCAL, bound.port))
        member.append((context, connected))
        connected.send(bytes(CONTROL_FRAME_BYTES))
        assert len(bound.socket.recv_multipart()[1]) == CONTROL_FRAME_BYTES
        connected.send(bytes(CONTROL_FRAME_BYTES + 1))
        assert bound.socket.poll(300) == 0


def test_silent_strangers_lose_their_connection_and_members_keep_theirs():
    """After two seconds without a handshake, however far it had come."""
    with Bound() as bound, Raw((LOCAL, bound.port)) as client:
        strangers = [Raw((LOCAL, bound.port), shake=False) for _ in range(3)]
        for stranger, opening in zip(strangers, (b"", GREETING[:20], GREETING), strict=True):
            stranger.plain.sendall(opening)
        for stranger in strangers:
            stranger.read_to_the_end()
            stranger.close()
        client.send(b"x")
        assert bound.socket.recv_multipart()[1:] == [b"x"]


# -------------------------------------------------------------------------------------------- descriptors

DESCRIPTORS = """
import resource, sys
from spark_partition_server.errors import TooFewDescriptors
from spark_partition_server.net import control
soft, hard, members = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
control._open_descriptors = lambda: 36
try:
    control.raise_descriptor_limit(members)
except TooFewDescriptors as error:
    assert isinstance(error, OSError)
    print(error, error.needed, error.limit, end=" ")
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
REFUSED = (
    "{0} partitions need {1} open files in the driver, the hard limit is {2}: some could never register; raise it "
    "(ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of docker) or use fewer partitions {1} {2} "
)


@pytest.mark.parametrize(("soft", "hard", "members", "then"), [
    (100, 1000, 200, "764 1000"),  # for the members, their lanes, as many clients, and what else there is
    (100, 1000, 800, "1000 1000"),  # no more than it may
    (500, 1000, 50, "500 1000"),
    (100, 1000, 900, "1000 1000"),
    (100, 1000, 901, REFUSED.format(901, 1001, 1000) + "100 1000"),
    (100, 100, 1, REFUSED.format(1, 101, 100) + "100 100"),
])  # fmt: skip
def test_the_limit_of_open_files_is_raised_or_the_cluster_refused_loudly(soft, hard, members, then):
    """Otherwise the last members never register, libzmq burns a core accepting them, and nobody is told."""
    arguments = [sys.executable, "-c", DESCRIPTORS, str(soft), str(hard), str(members)]
    folder = str(Path(__file__).parents[2])
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        arguments, check=True, capture_output=True, text=True, cwd=folder, timeout=60, env=environment
    )
    assert done.stdout.strip() == then


def test_descriptors_in_use_are_counted(monkeypatch):
    """What the driver has open already is not there for the members; a system that does not tell costs a guess."""
    before = control._open_descriptors()
    with bind_tcp(LOCAL):
        assert control._open_descriptors() == before + 1

    def missing(path):
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:  # the leak detector, too, lists a folder
        patch.setattr(control.os, "listdir", missing)
        assert control._open_descriptors() == control.DESCRIPTORS_SPARE
