"""The client side of the direct lane: it keeps its deadline, whatever the server does or leaves undone."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.lanes import LONG, SOON, ends_by, lane_to, patterned, serving
from support.octets import command, message
from support.wait import wait_until

from spark_partition_server.net.lane import Lane

LIMIT = 1 << 30


# --------------------------------------------------------------------------------------------- deadlines


def silent(other: socket.socket, over: threading.Event) -> None:
    """A hung method."""


def dripping(other: socket.socket, over: threading.Event) -> None:
    """An answer that comes octet by octet, and would take a minute."""
    with contextlib.suppress(OSError):
        for octet in message([bytes(2000)]):
            other.sendall(bytes([octet]))
            over.wait(0.03)


def dripping_long(other: socket.socket, over: threading.Event) -> None:
    """The same with a frame that is received straight into its memory."""
    with contextlib.suppress(OSError):
        other.sendall(message([bytes(100_000)])[:20])
        while not over.wait(0.03):
            other.sendall(b"\0")


def pinging(other: socket.socket, over: threading.Event) -> None:
    """A server whose library is alive and whose Python hangs."""
    with contextlib.suppress(OSError):
        while not over.wait(0.03):
            other.sendall(command(b"PING", b"\0\0"))


def pouring(other: socket.socket, over: threading.Event) -> None:
    """A frame without end, as fast as it can."""
    with contextlib.suppress(OSError):
        other.sendall(b"\x02" + LIMIT.to_bytes(8, "big"))
        while not over.is_set():
            other.sendall(bytes(1000))


def half(other: socket.socket, over: threading.Event) -> None:
    """It stops in the middle of a frame."""
    other.sendall(message([b"x" * 100])[:50])


@pytest.mark.parametrize(("behaviour", "armed"), [
    *((behaviour, 5.0) for behaviour in (silent, dripping, dripping_long, pinging, pouring, half)),
    (silent, None), (silent, 0.05), (dripping_long, 0.05),
])  # fmt: skip
def test_no_answer_by_the_deadline(pair, behaviour: Callable[..., None], armed):
    """However long a system call was allowed to wait before: shorter, longer, for ever."""
    lane, other = pair
    over = threading.Event()
    thread = threading.Thread(target=behaviour, args=(other, over))
    if armed is not None:
        lane.arm(armed)
    thread.start()
    with ends_by() as deadline, pytest.raises(TimeoutError):
        lane.receive(deadline)
    over.set()
    lane.close()
    thread.join(LONG)


def test_an_answer_that_is_here_is_taken_after_the_deadline(pair):
    """Of many calls at once the last ones are looked at late; their answers have come in time."""
    lane, other = pair
    other.sendall(message([b"x"]))
    wait_until(lambda: not lane.lost())
    assert lane.receive(time.monotonic() - 1.0) == [[b"x"]]
    with ends_by(0.0), pytest.raises(TimeoutError):
        lane.receive(time.monotonic() - 1.0)


def test_a_late_answer_stays_in_the_lane(pair):
    """The deadline passes in the middle of it; the rest comes later, and nothing is lost or mixed up."""
    lane, other = pair
    octets = message([b"late", patterned(50_000)])
    other.sendall(octets[:20_000])
    with pytest.raises(TimeoutError):
        lane.receive(time.monotonic() + 0.05)
    other.sendall(octets[20_000:] + message([b"next"]))
    received: list[list[bytes]] = []
    while len(received) < 2:
        received += lane.receive(time.monotonic() + LONG)
    assert received == [[b"late", patterned(50_000)], [b"next"]]


def send_on(lane: Lane, size: int, deadline: float) -> None:
    """Requests until one does not leave."""
    lane.arm(deadline - time.monotonic())
    while True:
        lane.send([bytes(size)], deadline)


@pytest.mark.parametrize("size", [2000, 20_000, 1 << 20, 64 << 20])
def test_a_server_that_stops_reading(pair, size):
    """The kernel's buffers fill up and a request cannot leave: an error by the deadline, small or large."""
    lane, _ = pair
    with ends_by(0.3) as deadline, pytest.raises(TimeoutError, match="does not read"):
        send_on(lane, size, deadline)


@pytest.fixture
def interrupted() -> Iterator[None]:
    """Fifty signals a second; their handler ends a test that does not end."""
    give_up = time.monotonic() + SOON + 2.0

    def handler(number: int, where: object) -> None:
        assert time.monotonic() < give_up, "the deadline was not kept"

    before = signal.signal(signal.SIGUSR1, handler)
    over = threading.Event()

    def interrupt() -> None:
        while not over.wait(0.02):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    over.set()
    thread.join(LONG)
    signal.signal(signal.SIGUSR1, before)


def test_signals_do_not_put_off_the_deadline_of_an_answer(interrupted, server):
    """A profiler's timer interrupts every system call before its time is over."""
    lane = lane_to(server.endpoint)
    lane.arm(SOON)
    with ends_by() as deadline, pytest.raises(TimeoutError):
        lane.receive(deadline)
    lane.close()


@pytest.mark.parametrize("size", [20_000, 64 << 20])
def test_signals_do_not_put_off_the_deadline_of_a_request(interrupted, server, size):
    """The same while it cannot leave."""
    lane = lane_to(server.endpoint)
    with ends_by() as deadline, pytest.raises(TimeoutError):
        send_on(lane, size, deadline)
    lane.close()


def test_signals_do_not_cut_large_messages(interrupted):
    """They are sent and received in the pieces that the signals leave of them."""
    frames = [patterned(8 << 20)]
    with serving() as served:
        lane = lane_to(f"tcp://127.0.0.1:{served.address[1]}")
        for _ in range(5):
            lane.send(frames, time.monotonic() + LONG)
            assert lane.receive(time.monotonic() + LONG) == [frames]
        lane.close()


# ------------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("sent", [0, 1, 50, 70_000])
@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_dies(pair, sent, reset):
    """Between frames or in the middle of one; with a goodbye of its kernel or without."""
    lane, other = pair
    other.sendall(message([bytes(100_000)])[:sent])
    if reset:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    with pytest.raises(ConnectionError):
        lane.receive(time.monotonic() + LONG)


def test_a_lost_connection_is_seen_before_it_is_used(pair):
    """A server that went while nobody called it; an answer that nobody has read is no loss."""
    lane, other = pair
    assert not lane.lost()
    other.sendall(message([b"late"]))
    wait_until(lambda: not lane.lost())
    assert lane.receive(time.monotonic() + LONG) == [[b"late"]]
    other.close()
    wait_until(lane.lost)
    lane.close()
    assert lane.lost()


def test_close_is_harmless_twice(pair):
    """And in any order with abort; afterwards the lane is of no use, which is an error and no wait."""
    lane, _ = pair
    lane.close()
    lane.abort()
    lane.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        lane.send([b"x"], time.monotonic() + LONG)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lane.receive(time.monotonic() + LONG)


def test_an_answer_is_not_lost_with_the_connection_it_came_over(pair):
    """The server answers, pings, and dies: nobody is there to hear the PONG."""
    lane, other = pair
    other.sendall(command(b"PING", b"\0\0") * 1000 + message([b"answer"]))
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.shutdown(socket.SHUT_RD)
    assert lane.receive(time.monotonic() + LONG) == [[b"answer"]]
    other.close()
    with pytest.raises(OSError, match=r"reset|closed|descriptor"):
        lane.receive(time.monotonic() + LONG)


class Stop(BaseException):
    """What Ctrl-C raises, for instance."""


@contextlib.contextmanager
def stopped_soon() -> Iterator[None]:
    """A signal's handler raises in the middle of the block."""

    def handler(number: int, where: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Stop):
            yield
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_request_that_was_interrupted_does_not_become_part_of_the_next(pair):
    """Ctrl-C while a large request leaves: the lane is closed, and says so."""
    lane, _ = pair
    with stopped_soon():
        lane.send([bytes(64 << 20)], time.monotonic() + LONG)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lane.send([b"x"], time.monotonic() + LONG)


def test_an_answer_that_was_interrupted_is_not_taken_for_the_next(pair):
    """Ctrl-C while a large answer comes: octets may be missing, so nothing more is read."""
    lane, other = pair
    other.sendall(message([bytes(100_000)])[:50_000])
    with stopped_soon():
        lane.receive(time.monotonic() + LONG)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lane.receive(time.monotonic() + LONG)


def test_abort_wakes_the_thread_that_waits(pair):
    """A client that is closed does not leave its threads to their timeouts."""
    lane, _ = pair
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            lane.receive(time.monotonic() + 1000)
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    lane.abort()
    thread.join(LONG)
    assert not thread.is_alive()
    assert caught


def test_a_forgotten_lane_is_closed_without_a_warning(server):
    """The lanes of a thread go with the thread; warnings are errors here."""
    lane = lane_to(server.endpoint)
    other = server.accepted()
    other.recv(1000)
    del lane
    gc.collect()
    assert other.recv(1000) == b""


FORK = """
import os, time
from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.net.lane import Lane
from spark_partition_server.net.listener import Listener

bound = bind_tcp("127.0.0.1")
server = os.fork()
if server == 0:
    Listener([bound], lambda frames, received, caller: frames, 1000).serve()
lane = Lane(f"tcp://127.0.0.1:{bound.getsockname()[1]}", time.monotonic() + 20, 1000)
child = os.fork()
if child == 0:
    lane.abort()
    os._exit(0)
os.waitpid(child, 0)
lane.send([b"x"], time.monotonic() + 20)
print(lane.receive(time.monotonic() + 20))
os.kill(server, 9)
os.waitpid(server, 0)
"""


def test_a_forked_child_does_not_end_its_parents_connection():
    """The child closes what it inherited, as a worker process does when it cleans up."""
    folder = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", FORK], check=False, capture_output=True, text=True, cwd=folder, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[[b'x']]\n", "")
