"""Shared memory and an other side that lies: each lie ends its connection, and nothing else."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.sharing import LIMIT, Pair, pairing

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.net.shared import LENT_FROM, SharedMemory
from spark_partition_server.wire.lending import memory_octets

pytestmark = pytest.mark.skipif(not SharedMemory.possible(), reason="the system has no memfd")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pairing() as made:
        yield made


def memfd(size: int, seals: int) -> int:
    made = os.memfd_create("liar", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(made, size)
    if seals:
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
    return made


def tell(pair: Pair, size: int, descriptors: list[int]) -> None:
    """The server sends MEMORY with these descriptors, whatever they are."""
    octets = memory_octets(1, size, [(0, 0, 1)])
    pair.server.plain.sendmsg([octets], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
    for one in descriptors:
        os.close(one)


BOTH = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
LIES = {
    "not sealed": lambda: [memfd(4096, 0)],
    "may shrink": lambda: [memfd(4096, fcntl.F_SEAL_GROW)],
    "may grow": lambda: [memfd(4096, fcntl.F_SEAL_SHRINK)],
    "smaller": lambda: [memfd(4095, BOTH)],
    "larger": lambda: [memfd(8192, BOTH)],
    "no memory at all": lambda: [os.open("/dev/null", os.O_RDWR)],
    "a folder": lambda: [os.open("/", os.O_RDONLY)],
    "none": lambda: [],
    "too many": lambda: [memfd(4096, BOTH) for _ in range(4)] + [os.open("/dev/null", os.O_RDWR)],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_descriptor_is_looked_at_before_it_is_mapped(lie, pair):
    """[6.16] The receiver MUST check both before it maps it: a peer that cuts it off later must not end the process."""
    tell(pair, 4096, LIES[lie]())
    with pytest.raises(RemoteProtocolError):
        pair.client.receive()


def test_more_than_was_offered(pair):
    """[6.14] A receiver MUST end the connection of one that lends more."""
    tell(pair, LIMIT + 4096, [memfd(LIMIT + 4096, BOTH)])
    with pytest.raises(RemoteProtocolError, match="more shared memory"):
        pair.client.receive()


def test_a_slot_that_changes_its_size(pair):
    """[6.16] The size that the command says is the slot's, each time."""
    pair.server.send(bytes(LENT_FROM))
    pair.client.receive()
    pair.client.send(b"next")
    pair.server.plain.sendall(memory_octets(1, 4096, [(0, 0, 1)]))
    with pytest.raises(RemoteProtocolError, match="slot 1"):
        pair.client.receive()


def test_a_slot_that_was_not_returned_is_lent_again(pair):
    """[6.18] A second MEMORY of what is lent: the connection MUST end before the user's array changes."""
    pair.server.send(bytes(LENT_FROM))
    frames = pair.client.receive()
    pair.server.plain.sendall(memory_octets(1, len(pair.server.shared._slots[1]), [(0, 0, 1)]))
    with pytest.raises(RemoteProtocolError, match="slot 1 twice"):
        pair.client.receive()
    assert len(frames.pop()) == LENT_FROM


@pytest.mark.parametrize("slots", [[1], [2], [1, 1]])
def test_slots_given_up_or_returned_that_are_not(slots, pair):
    """[6.18] A RELEASE of what is not lent, a FORGET of what is: each would have somebody look at what changes."""
    pair.server.send(bytes(LENT_FROM))
    frames = pair.client.receive()
    if slots == [1]:
        with pytest.raises(RemoteProtocolError, match="given up"):
            pair.client.shared.forget(slots)
    with pytest.raises(RemoteProtocolError, match="returned"):
        pair.server.shared.returned([*slots, 1] if slots == [1] else slots)
    assert len(frames.pop()) == LENT_FROM


def test_a_system_that_gives_no_memory(pair, monkeypatch):
    """No descriptors left, say: frames are sent as ever."""

    def refused(*arguments: Any) -> int:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, "memfd_create", refused)
    assert not pair.server.send(bytes(LENT_FROM))
    assert pair.client.receive() == [bytes(LENT_FROM)]
    assert pair.server.budget.used == 0
