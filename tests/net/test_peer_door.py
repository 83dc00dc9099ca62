"""The connections between ranks: who is let in, and what is said first."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from spark_partition_server.core.peers.links import Identity
from spark_partition_server.core.peers.peer import Peer, first_context
from spark_partition_server.errors import CommError, RankLost
from spark_partition_server.net.clock import monotonic
from spark_partition_server.net.endpoints import bind_tcp, tcp_endpoint
from spark_partition_server.net.lane import Lane
from spark_partition_server.net.peer_door import PeerDoor
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Member
from spark_partition_server.wire.peering import Meet, Tell

RUN, TOKEN = b"run-door", b"t" * 32
ME, OTHER = Identity(0, 5), Identity(1, 6)
LONG = 10.0
CONTEXT = first_context(3)


def made_door(listening: list[socket.socket], endpoint: str = "") -> PeerDoor:
    """Of rank 0, of two; rank 1 is at ``endpoint``."""
    peer = Peer(ME, 2)
    peer.open(CONTEXT, [ME, OTHER])
    there = {1: Member(1, OTHER.incarnation, 0, "127.0.0.1", 0, endpoint)}
    return PeerDoor(peer, RUN, TOKEN, listening, there)


@contextlib.contextmanager
def driven() -> Iterator[tuple[PeerDoor, str]]:
    """A door that somebody waits at, and its endpoint."""
    listening = bind_tcp("127.0.0.1")
    endpoint = tcp_endpoint("127.0.0.1", listening.getsockname()[1])
    door, over = made_door([listening]), threading.Event()

    def drive() -> None:
        while not over.is_set():
            door.turn(0.02)
            over.wait(0.002)  # others want the lock too

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield door, endpoint
    finally:
        over.set()
        thread.join()
        door.close()


WRONG = [
    Tell(CONTEXT, 0, 0, "", (b"x",)),
    Meet(*OTHER, *ME, b"u" * 32),
    Meet(*OTHER, ME.rank, ME.incarnation + 1, TOKEN),
    Meet(*OTHER, 1, ME.incarnation, TOKEN),
    Meet(*ME, *ME, TOKEN),
]


@pytest.mark.parametrize("first", WRONG, ids=["no MEET", "token", "incarnation", "rank", "itself"])
def test_who_does_not_say_a_true_meet_first_is_turned_away(first):
    """[8.60] Promise: a stranger says nothing to the machine. Provoked: a message before MEET, and MEETs that are wrong
    in one thing each."""
    with driven() as (door, endpoint):
        lane = Lane(endpoint, monotonic() + LONG, 1 << 20)
        with contextlib.closing(lane):
            lane.send(codec.encode(first, RUN), monotonic() + LONG)
            with pytest.raises(OSError, match=r"closed|reset"):
                lane.receive(monotonic() + LONG)
        assert door.peer.contexts[CONTEXT].verdict is None
        assert next(door.peer.contexts[CONTEXT].points.held(), None) is None


def test_a_true_meet_is_answered_and_messages_follow():
    """[8.60] Promise: both say who they are. Provoked: a rank connects and sends."""
    with driven() as (door, endpoint):
        lane = Lane(endpoint, monotonic() + LONG, 1 << 20)
        with contextlib.closing(lane):
            lane.send(codec.encode(Meet(*OTHER, *ME, TOKEN), RUN), monotonic() + LONG)
            answer = codec.decode(lane.receive(monotonic() + LONG)[0], RUN)
            assert answer == Meet(*ME, *OTHER, TOKEN)
            context = door.peer.contexts[CONTEXT]
            with door.lock:
                request = door.peer.recv(context, 1, 3, monotonic() + LONG)
            lane.send(codec.encode(Tell(CONTEXT, 0, 3, "", (b"hello",)), RUN), monotonic() + LONG)
            door.wait(request)
            assert [bytes(frame) for frame in request.result()] == [b"hello"]
            # and its end is a loss
            with door.lock:
                request = door.peer.recv(context, 1, 3, monotonic() + LONG)
        door.wait(request)
        with pytest.raises(RankLost):
            request.result()


def test_a_rank_that_nobody_serves_any_more_is_lost_at_once():
    """Promise: a refused connection is no wait. Provoked: the endpoint of a rank whose process has gone."""
    with bind_tcp("127.0.0.1") as gone:
        endpoint = tcp_endpoint("127.0.0.1", gone.getsockname()[1])
    door = made_door([], endpoint)
    try:
        context = door.peer.contexts[CONTEXT]
        request = door.peer.recv(context, 1, 3, monotonic() + 60)
        began = monotonic()
        door.wait(request)
        assert monotonic() - began < LONG
        with pytest.raises(RankLost):
            request.result()
    finally:
        door.close()


def test_a_door_that_is_closed_says_so():
    """Promise: a communicator that somebody has kept is a typed error, not a wait. Provoked: a call after the end."""
    door = made_door([])
    door.close()
    door.close()
    request = door.peer.recv(door.peer.contexts[CONTEXT], 1, 3, monotonic() + 60)
    with pytest.raises(CommError, match="rank 0 has left its run"):
        door.wait(request)
