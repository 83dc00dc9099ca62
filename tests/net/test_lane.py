"""The client side of the direct lane: connecting, asking, and what it does about the other side's messages."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.lanes import LONG, Acceptor, Deaf, echo, ends_by, lane_to, patterned, serving
from support.octets import GREETING, command, handshake, message

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.net import endpoints
from spark_partition_server.net.endpoints import bind_unix
from spark_partition_server.net.lane import HEAD_BYTES_MAX, Lane

LIMIT = 1 << 30


# ------------------------------------------------------------------------------------------ connecting


def test_nobody_listens(server):
    """The server has gone and its port is closed: known at once."""
    with Acceptor() as gone:
        pass
    with pytest.raises(ConnectionRefusedError):
        lane_to(gone.endpoint)


def test_the_deadline_has_passed_already(server):
    """Nothing is tried any more."""
    with pytest.raises(TimeoutError, match="no time left"):
        Lane(server.endpoint, time.monotonic() - 1, LIMIT)


@pytest.mark.parametrize("opening", [b"", GREETING[:5], GREETING, GREETING + b"\x04"], ids=range(4))
def test_a_server_that_accepts_and_never_finishes_the_handshake(opening):
    """A stopped process: its kernel accepts for it."""
    with Acceptor(opening) as server, ends_by() as deadline, pytest.raises(TimeoutError):
        Lane(server.endpoint, deadline, LIMIT)


def test_a_server_that_shakes_hands_octet_by_octet():
    """Activity does not put off the deadline."""
    over = threading.Event()
    with Acceptor(b"") as server:

        def drip() -> None:
            other = server.accepted()
            with contextlib.suppress(OSError):
                for octet in handshake(b"ROUTER"):
                    other.sendall(bytes([octet]))
                    over.wait(0.03)

        thread = threading.Thread(target=drip)
        thread.start()
        with ends_by() as deadline, pytest.raises(TimeoutError):
            Lane(server.endpoint, deadline, LIMIT)
        over.set()
        thread.join(LONG)


@contextlib.contextmanager
def deaf() -> Iterator[tuple[str, int]]:
    """An address whose host drops every SYN: its queue of connections is full."""
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            one = opened.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield listening.getsockname()


def test_a_host_that_does_not_answer():
    """A firewall that drops, a host that is off: the attempt ends by the deadline."""
    with deaf() as (host, port), ends_by() as deadline, pytest.raises(TimeoutError):
        Lane(f"tcp://{host}:{port}", deadline, LIMIT)


def test_a_name_with_several_addresses_has_one_deadline(monkeypatch):
    """Three addresses and none of them answers: not three times the deadline."""
    with deaf() as (host, port):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))] * 3
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        with ends_by() as deadline, pytest.raises(TimeoutError):
            Lane(f"tcp://name:{port}", deadline, LIMIT)


def test_a_name_whose_first_address_does_not_answer(monkeypatch, server):
    """The second one gets its share of the time."""
    port = server.listening.getsockname()[1]
    with deaf() as silent:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (silent, ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        Lane("tcp://name:1", time.monotonic() + 2.0, LIMIT).close()


@pytest.mark.parametrize("opening", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 100, GREETING + bytes(100)])
def test_a_server_of_another_protocol(opening):
    """The endpoint is somebody else's by now."""
    with Acceptor(opening) as server, pytest.raises(RemoteProtocolError):
        lane_to(server.endpoint)


def test_a_server_of_the_wrong_socket_type():
    """A PUSH socket, say."""
    with Acceptor(handshake(b"PULL")) as server, pytest.raises(RemoteProtocolError, match="PULL"):
        lane_to(server.endpoint)


def test_a_server_that_speaks_before_it_is_asked():
    """A message behind READY answers nothing."""
    with Acceptor(handshake(b"ROUTER") + message([b"x"])) as server, pytest.raises(RemoteProtocolError):
        lane_to(server.endpoint)


def test_a_server_that_hangs_up_in_the_handshake():
    """It has no room, or it is leaving."""
    with Acceptor(GREETING) as server:
        thread = threading.Thread(target=lambda: server.accepted().shutdown(socket.SHUT_RDWR))
        thread.start()
        with pytest.raises(ConnectionError):
            lane_to(server.endpoint)
        thread.join(LONG)


# --------------------------------------------------------------------------------- asking and answering


@pytest.mark.parametrize("size", [0, 255, 256, 32 * 1024, 32 * 1024 + 1, 1 << 20, 20 << 20])
def test_frames_of_every_size_pass_both_ways(size):
    """Below and above what is copied into one piece, below and above what memory is mapped for."""
    frames = [b"head", patterned(size), b"", patterned(size // 3)]
    with serving() as served:
        lane = lane_to(f"tcp://127.0.0.1:{served.address[1]}")
        for _ in range(3):
            lane.send(frames, time.monotonic() + LONG)
            (received,) = lane.receive(time.monotonic() + LONG)
            assert received == frames
        lane.close()


def test_a_lane_over_a_unix_socket(tmp_path: Path):
    """The same protocol, another address."""
    tmp_path.chmod(0o700)
    with serving(echo, [bind_unix(tmp_path / "s")]):
        lane = lane_to(f"ipc://{tmp_path}/s")
        lane.send([b"x"], time.monotonic() + LONG)
        assert lane.receive(time.monotonic() + LONG) == [[b"x"]]
        lane.close()


def test_messages_that_come_together_are_returned_together(pair):
    """Oldest first; none is kept back."""
    lane, other = pair
    other.sendall(message([b"1"]) + message([b"2", b"3"]) + message([b"4"]))
    received: list[list[bytes]] = []
    while len(received) < 3:
        received += lane.receive(time.monotonic() + LONG)
    assert received == [[b"1"], [b"2", b"3"], [b"4"]]


def test_pings_are_answered_while_the_lane_waits(pair):
    """Else a libzmq server would cut a client that waits for a long call."""
    lane, other = pair
    other.sendall(command(b"PING", b"\0\0abc"))
    thread = threading.Thread(target=lane.receive, args=(time.monotonic() + LONG,))
    thread.start()
    assert other.recv(1000) == command(b"PONG", b"abc")
    other.sendall(message([b"x"]))
    thread.join(LONG)
    assert not thread.is_alive()


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_a_message_of_the_limit_is_taken_and_a_longer_one_refused(pair, server, limit):
    """Before its memory is there; the limit is the payload's."""
    lane = lane_to(server.endpoint, limit)
    other = server.accepted()
    other.sendall(message([bytes(16), bytes(3), bytes(limit)]))
    assert lane.receive(time.monotonic() + LONG) == [[bytes(16), bytes(3), bytes(limit)]]
    other.sendall(b"\x02" + (limit + HEAD_BYTES_MAX + 1).to_bytes(8, "big"))
    with pytest.raises(RemoteProtocolError, match="limit"):
        lane.receive(time.monotonic() + LONG)
    lane.close()


# ------------------------------------------------------------------------------- a connection that is not waited for


def shaken(lane: Lane, rest: list[Any]) -> None:
    """Waits until the lane is ready, as somebody with many of them does."""
    deadline = time.monotonic() + LONG
    while not lane.ready:
        poll = select.poll()
        poll.register(lane, select.POLLIN | select.POLLOUT if rest else select.POLLIN)
        for _, events in poll.poll(1000):
            if events & select.POLLOUT:
                rest = lane.push(rest)
            if events & ~select.POLLOUT:
                assert lane.take() == []
        assert time.monotonic() < deadline


def test_a_lane_that_waits_for_nothing_tries_one_address_after_the_other(monkeypatch):
    """The first drops packets; each has its share of the time. Then it is a lane like others."""
    with Deaf() as deaf, serving() as server:
        addresses = [(socket.AF_INET, ("127.0.0.1", deaf.port)), (socket.AF_INET, server.address)]
        monkeypatch.setattr(endpoints, "_addresses", lambda _: addresses)
        lane = Lane("tcp://several:1", time.monotonic() + 4.0, LIMIT, shake=False)
        assert 1.0 < lane.patience <= 2.0
        rest = lane.greet()
        assert lane.push(rest) == rest  # nothing leaves before there is a connection
        assert not lane.ready
        assert not lane.lost()
        assert lane.again()
        shaken(lane, rest)
        lane.send([b"x"], time.monotonic() + LONG)
        assert [[bytes(frame) for frame in frames] for frames in lane.receive(time.monotonic() + LONG)] == [[b"x"]]
    assert not lane.again()  # there is no other address
    assert lane.fileno() < 0


def test_a_lane_that_waits_for_nothing_is_refused_all_the_same():
    """Nobody listens: told at once, or when its owner looks."""
    with Acceptor() as gone:
        pass

    def refused() -> None:
        lane = Lane(gone.endpoint, time.monotonic() + LONG, LIMIT, shake=False)
        shaken(lane, lane.greet())

    with pytest.raises(ConnectionRefusedError):
        refused()


def test_a_lane_that_waits_for_nothing_to_a_file_that_is_not_there(tmp_path):
    """A Unix socket says so at once."""
    with pytest.raises(FileNotFoundError):
        Lane(f"ipc://{tmp_path}/none", time.monotonic() + LONG, LIMIT, shake=False)
