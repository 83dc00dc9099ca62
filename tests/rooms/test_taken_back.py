"""A CANCEL that has reached a server which runs methods in the thread that serves: what waited is not run."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from support.lanes import LONG, Raw
from support.octets import message
from support.probe import PAIRS, Probe, switches
from support.wait import wait_until

from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Batch, Cancel, Message, Reply, Request
from spark_partition_server.wire.payload import encode_value


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    yield
    switches.reset()


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with local_cluster(Probe(), PAIRS) as running:
        yield running


class Pipeline:
    """A client that sends what it is told and waits for nothing."""

    def __init__(self, cluster: LocalCluster) -> None:
        assert cluster.coordinator is not None
        self.run_id = cluster.coordinator.run_id
        self.raw = Raw(cluster.coordinator.hosts[0])
        self.raw.plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *messages: Message) -> None:
        """All of them at once; when this returns, the server's host has them."""
        octets = [message([bytes(frame) for frame in codec.encode(one, self.run_id)]) for one in messages]
        self.raw.plain.sendall(b"".join(octets))
        wait_until(lambda: self.unread() == 0, LONG)

    def unread(self) -> int:
        """Octets that the other host has not acknowledged."""
        count = array.array("i", [0])
        fcntl.ioctl(self.raw.plain, termios.TIOCOUTQ, count)
        return count[0]

    def answered(self) -> int:
        reply = codec.decode(self.raw.receive(), self.run_id)
        assert isinstance(reply, Reply), reply
        return reply.call_id

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.raw.close()


def call(call_id: int, name: str, *args: Any) -> Request:
    return Request(call_id, name, 60_000, 0, 1, tuple(encode_value([args, {}])))


def batch(call_id: int, name: str, *runs: Any) -> Batch:
    return Batch(call_id, name, 60_000, 0, 1, tuple(encode_value(list(runs))))


@pytest.mark.parametrize("kind", [call, lambda number, name, arg: batch(number, name, [arg])], ids=["call", "batch"])
def test_a_call_whose_cancel_is_read_with_it_is_not_run(cluster, kind):
    """[8.24] Both came while a slow method ran, and are read together after it."""
    with Pipeline(cluster) as client:
        client.send(call(1, "wait", "slow"))
        assert switches.entered.wait(LONG)
        client.send(kind(2, "run", "taken back"), call(3, "run", "kept"), Cancel(2), call(4, "run", "kept"))
        switches.gate.set()
        assert [client.answered() for _ in range(3)] == [1, 3, 4]
    assert switches.runs == {"slow": 1, "kept": 2}


def test_a_call_that_waits_behind_a_slow_one_is_not_run_once_its_cancel_has_come(cluster):
    """[8.24] The call was read with the slow one, its CANCEL came while that ran: it goes before the call's turn."""
    with Pipeline(cluster) as client:
        client.send(call(1, "wait", "slow"), call(2, "run", "taken back"), call(3, "run", "kept"))
        assert switches.entered.wait(LONG)
        read = monotonic()
        client.send(Cancel(2))
        wait_until(lambda: monotonic() > read + 0.01)  # ten times as long as what counts as slow
        switches.gate.set()
        assert [client.answered() for _ in range(2)] == [1, 3]
    assert switches.runs == {"slow": 1, "kept": 1}


def test_only_what_came_before_its_cancel_is_taken_back(cluster):
    """A call id may be used again; the CANCEL of an unknown call, of another run or of no sense takes nothing back."""
    with Pipeline(cluster) as client:
        client.send(call(1, "wait", "slow"))
        assert switches.entered.wait(LONG)
        stranger = [bytes(frame) for frame in codec.encode(Cancel(5), bytes(8))]
        senseless = [codec.preamble(codec.Kind.CANCEL, client.run_id), b"\xc1"]
        client.raw.plain.sendall(b"".join([message(stranger), message(senseless)]))
        client.send(call(2, "run", "first"), Cancel(2), Cancel(77), call(2, "run", "second"), call(5, "run", "kept"))
        switches.gate.set()
        answers = [client.raw.receive() for _ in range(4)]
    kinds = [frames[0][4] for frames in answers]
    assert kinds == [codec.Kind.REPLY, codec.Kind.REFUSE, codec.Kind.REPLY, codec.Kind.REPLY]
    assert switches.runs == {"slow": 1, "second": 1, "kept": 1}
