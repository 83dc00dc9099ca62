"""The library's client meets a coordinator and a server that were written from wire/PROTOCOL.md, section 17.

They are sockets that play octets; what the client says to them is written down.
"""

from __future__ import annotations

import contextlib
import threading

import msgpack
import pytest
from support import transcript
from support.lanes import Acceptor
from support.leaks import leaves_nothing
from support.octets import command, handshake, message

from spark_partition_server import CallTimeout, Client, ClientOptions, CoordinatorLost
from spark_partition_server.wire.codec import preamble
from spark_partition_server.wire.messages import Kind

__all__ = ["leaves_nothing"]

BLOCKS = transcript.spoken()


def answer(octets, number):
    """The octets of a REPLY with this call id and value, made of those of the transcript."""
    assert octets.endswith(b"\x91\x01\x00\x01\x2a")
    return octets[:-5] + b"\x91" + bytes((number,)) + b"\x00\x01" + bytes((number,))


def test_a_client_passes_over_late_answers_and_answers_nothing():
    """[8.31] and [13.4]: the reply to a call that was given up must not be taken for that of the next."""
    with Acceptor() as coordinator, Acceptor() as server:
        reply = BLOCKS["S>K", "REPLY"]
        octets = answer(reply, 1) + command(b"PING", b"\0\0x") + answer(reply, 9) + answer(reply, 2)
        client = Client(coordinator.endpoint, transcript.RUN_ID, ClientOptions(timeout=20.0))
        with playing(coordinator, server, 2, octets) as heard:
            client.refresh()
            with pytest.raises(CallTimeout):
                client.call(0, "get", "alice", timeout=1.0)
            assert client.call(0, "get", "alice") == 2
            client.close()
        assert heard in ([], [command(b"PONG", b"x")])


@pytest.mark.parametrize(
    "later",
    [
        {},
        pytest.param({b"\x01\x02\x91\x01": b"\x01\x03\x92\x01\xc0"}, id="one more field"),
        pytest.param({b"SPS\x01\x21\x00": b"SPS\x01\x21\x01"}, id="flags"),
    ],
)
def test_a_client_takes_the_reply_of_a_later_release(later):
    """[6.9] and [6.12]: a server that was upgraded first must not look like one that does not answer."""
    octets = BLOCKS["S>K", "REPLY"]
    for old, new in later.items():
        assert octets.count(old) == 1
        octets = octets.replace(old, new)
    with Acceptor() as coordinator, Acceptor() as server:
        client = Client(coordinator.endpoint, transcript.RUN_ID, ClientOptions(timeout=2.0))
        with playing(coordinator, server, 1, octets):
            try:
                assert client.call(0, "get", "alice") == transcript.ANSWER
            finally:
                client.close()


@contextlib.contextmanager
def playing(coordinator, server, requests, octets):
    """Plays both in a thread; yields what came after the answers, once the block is over."""
    heard = []
    thread = threading.Thread(target=play, args=(coordinator, server, requests, octets, heard))
    thread.start()
    try:
        yield heard
    finally:
        thread.join(20.0)
    assert not thread.is_alive()


def play(coordinator, server, requests, answers, heard):
    """A VIEW, then, once so many requests have come, the octets of the answers."""
    looking = coordinator.accepted()
    wanted = len(handshake(b"DEALER")) + len(BLOCKS["K>C", "LOOKUP"])
    while wanted > 0:
        wanted -= len(looking.recv(wanted))
    port = int(server.endpoint.rpartition(":")[2])
    members = msgpack.packb([[0, 7, 0, "127.0.0.1", port, server.endpoint]])
    view = [preamble(Kind.VIEW, transcript.RUN_ID), msgpack.packb([1, 1, {}]), members]
    looking.sendall(message(view))
    calling = server.accepted()
    octets = b""
    while octets.count(b"SPS\x01\x20") < requests or not octets.endswith(b"\x80"):
        octets += calling.recv(4096)
    calling.sendall(answers)
    while octets := calling.recv(4096):
        heard.append(octets)


def test_a_client_sends_nothing_before_ready_has_come():
    """[6.2]: libzmq hangs up on a message that comes too early, now and then; a client must not fail now and then."""
    with Acceptor(opening=handshake(b"ROUTER")[:-1]) as coordinator:  # all but the last octet of READY
        client = Client(coordinator.endpoint, transcript.RUN_ID, ClientOptions())
        with pytest.raises(CoordinatorLost):
            client.refresh(timeout=0.5)
        client.close()
        accepted = coordinator.accepted()
        octets = b""
        while data := accepted.recv(4096):
            octets += data
    assert octets == BLOCKS["M>C", "opening"]
