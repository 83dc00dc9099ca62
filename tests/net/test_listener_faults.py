"""The server side of the direct lane and clients that misbehave: each test names the fault that it provokes."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lanes import LONG, Raw, echo, patterned, serving
from support.octets import GREETING, command, handshake, message
from support.wait import wait_until

from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.net.listener import BACKLOG_BYTES

LOCAL = "127.0.0.1"
SMALL = 64 * 1024  # octets of the kernel's buffers where a test wants to fill them


def tight() -> socket.socket:
    """A listening socket whose connections have small buffers in the kernel."""
    bound = bind_tcp(LOCAL)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        bound.setsockopt(socket.SOL_SOCKET, option, SMALL)
    return bound


# ---------------------------------------------------------------------------------------- slow readers


def test_a_client_that_does_not_read_is_not_read_from_and_others_are_served():
    """It pipelines ten thousand requests: what waits for it is bounded, and in the end it gets every answer."""
    answer, count, answered = bytes(16 * 1024), 4000, 0

    def answering(frames, received, caller):
        nonlocal answered
        if frames != [b"other"]:
            answered += len(answer)
            frames = [answer, frames[0]]
        return frames

    with serving(answering, [tight()]) as served, served.raw(buffer=SMALL) as slow, served.raw() as other:
        octets = b"".join(message([b"%d" % number, bytes(500)]) for number in range(count))
        sender = threading.Thread(target=slow.plain.sendall, args=(octets,))
        sender.start()
        wait_until(lambda: answered > BACKLOG_BYTES, LONG)
        for _ in range(500):
            assert other.ask(b"other") == [b"other"]
        assert sender.is_alive(), "the requests have all been taken in"
        kernel = 4 * SMALL  # it keeps twice what it is asked for, on both sides
        assert answered <= BACKLOG_BYTES + kernel + 2 * len(answer)
        for number in range(count):
            assert slow.receive() == [answer, b"%d" % number]
        sender.join(LONG)


def test_a_client_that_reads_in_small_pieces_gets_everything():
    """A window that opens a little at a time: the server writes in many parts."""
    large = patterned(3_000_000)
    with (
        serving(lambda frames, received, caller: [b"head", large], [tight()]) as served,
        served.raw(buffer=4096) as client,
    ):
        client.send(b"x")
        data = bytearray()
        while len(data) < len(large):
            data += client.plain.recv(3000)
        assert bytes(data).endswith(large[-1000:])
        assert large in data


def test_a_client_that_leaves_an_answer_unread_is_cut_off():
    """After write_timeout seconds; its memory is given back, others are served on."""
    large = bytes(8 << 20)
    with (
        serving(lambda frames, _, caller: [large] if frames == [b"big"] else frames, write_timeout=0.2) as served,
        served.raw(buffer=SMALL) as stuck,
        served.raw() as other,
    ):
        stuck.send(b"big")
        assert other.ask(b"x") == [b"x"]
        wait_until(lambda: served.listener.connections == 1, LONG)
        assert stuck.read_to_the_end() < len(large)
        assert other.ask(b"x") == [b"x"]


def test_a_client_that_reads_slowly_is_not_cut_off():
    """It takes something within every write_timeout, and it keeps asking, so that the server is never done with it."""
    timeout, each, size = 0.4, 0.01, 20_000  # an answer takes 10 ms to make, and to read

    def busy(frames, received, caller):
        until = time.monotonic() + each
        while time.monotonic() < until:
            pass
        return [bytes(int(frames[0]))]

    with serving(busy, [tight()], write_timeout=timeout) as served, served.raw(buffer=SMALL) as client:

        def ask_on() -> None:
            with contextlib.suppress(OSError):
                client.send(b"600000")
                while True:
                    client.send(b"%d" % size, bytes(60_000))  # the server reads one of them at a time

        sender = threading.Thread(target=ask_on)
        sender.start()
        taken, began = 0, time.monotonic()
        while (elapsed := time.monotonic() - began) < 4 * timeout:
            while taken < size * elapsed / each:
                data = client.plain.recv(size)
                assert data, "it was cut off"
                taken += len(data)
            wait_until(lambda elapsed=elapsed: time.monotonic() - began > elapsed + each)
        assert served.listener.connections == 1
        client.plain.shutdown(socket.SHUT_RDWR)
        sender.join(LONG)


def test_a_client_that_pings_and_does_not_read_costs_a_bounded_amount():
    """Every PING is answered; while a mebibyte of PONGs waits, no more PINGs are read."""
    pings = command(b"PING", bytes(2) + b"0123456789abcdef") * 1_000_000
    with serving(listening=[tight()]) as served, served.raw(buffer=SMALL) as flooder, served.raw() as other:
        flooder.plain.settimeout(1.0)
        with pytest.raises(TimeoutError):
            flooder.plain.sendall(pings)
        assert max(one.outbox_bytes for one in list(served.listener._connections)) < 2 * BACKLOG_BYTES
        assert other.ask(b"x") == [b"x"]


# ------------------------------------------------------------------------------------ half a conversation


def test_silent_strangers_lose_their_connection_and_real_clients_do_not():
    """A port scanner, a load balancer's probe: handshake_timeout seconds and no more."""
    with serving(handshake_timeout=0.2) as served, served.raw() as client:
        with served.raw(shake=False) as silent, served.raw(shake=False) as half:
            half.plain.sendall(GREETING)
            assert silent.read_to_the_end() == half.read_to_the_end() > 0
        assert client.ask(b"x") == [b"x"]


def test_a_stranger_that_greets_octet_by_octet_gets_no_more_time():
    """Activity does not put off the end of the handshake."""
    with serving(handshake_timeout=0.3) as served, served.raw(shake=False) as stranger:
        sent = 0
        while not is_over(stranger.plain):
            pause = time.monotonic() + 0.02
            with contextlib.suppress(ConnectionError):
                sent += stranger.plain.send(GREETING[sent : sent + 1])
            wait_until(lambda pause=pause: time.monotonic() > pause)
        assert 0 < sent < len(GREETING)


def test_clients_that_vanish_in_the_middle_of_an_answer_are_forgotten():
    """A reset while megabytes are on their way, twenty times."""
    large = bytes(4 << 20)
    with (
        serving(lambda frames, received, caller: [large] if frames == [b"big"] else frames) as served,
        served.raw() as other,
    ):
        for _ in range(20):
            client = served.raw(buffer=SMALL)
            client.send(b"big")
            client.plain.recv(1000)
            client.vanish()
            assert other.ask(b"x") == [b"x"]
        wait_until(lambda: served.listener.connections == 1)


def test_clients_that_vanish_in_the_middle_of_a_request_are_forgotten():
    """Half a header, half a frame, half a message: none of it reaches the answer function."""
    seen: list[list[bytes]] = []
    with serving(lambda frames, received, caller: seen.append(frames) or frames) as served:
        whole = message([b"a", bytes(100_000)])
        for size in (1, 2, 3, 7, 12, 13, 5000, 100_000):
            with served.raw() as client:
                client.plain.sendall(whole[:size])
                client.vanish()
        wait_until(lambda: served.listener.connections == 0)
        with served.raw() as client:
            assert client.ask(b"x") == [b"x"]
        assert seen == [[b"x"]]


def test_a_request_that_never_ends_costs_no_memory_ahead_of_its_octets():
    """A header that announces 900 MB, and nothing behind it; others are served."""
    with serving() as served, served.raw() as liar, served.raw() as other:
        before = resident()
        liar.plain.sendall(b"\x02" + (900 << 20).to_bytes(8, "big") + bytes(1000))
        for _ in range(100):
            assert other.ask(b"x") == [b"x"]
        assert resident() - before < 50 << 20


def resident() -> int:
    """Octets of memory this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ------------------------------------------------------------------------------ a full descriptor table

SERVER = """
import resource, sys, time
from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.net.listener import Listener

def answer(frames, received, caller):
    return [repr(time.process_time()).encode()] if frames == [b"cpu"] else frames

bound = [bind_tcp("127.0.0.1") for _ in range(2)]
print(*(one.getsockname()[1] for one in bound), flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
Listener(bound, answer, 1 << 20, handshake_timeout=float(sys.argv[1])).serve()
"""


@contextlib.contextmanager
def poor_server(handshake_timeout: float = 60.0) -> Iterator[list[tuple[str, int]]]:
    """A server on two ports, in a process that may have forty descriptors."""
    folder = str(Path(__file__).parents[2])
    arguments = [sys.executable, "-c", SERVER, str(handshake_timeout)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    try:
        yield [(LOCAL, int(port)) for port in process.stdout.readline().split()]
        assert process.poll() is None, "the server has ended"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def hoard(addresses: list[tuple[str, int]], shake: bool, count: int) -> Iterator[list[socket.socket]]:
    """Connections that take up the server's descriptors, silent or after a proper handshake."""
    with contextlib.ExitStack() as opened:
        found = []
        for number in range(count):
            plain = opened.enter_context(socket.create_connection(addresses[number % 2], LONG))
            if shake:
                with contextlib.suppress(ConnectionError):
                    plain.sendall(handshake(b"DEALER"))
            found.append(plain)
        yield found


def cpu(client: Raw) -> float:
    """Seconds of processor time that the server has used."""
    return float(client.ask(b"cpu")[0])


def test_a_full_table_of_real_clients_neither_spins_nor_harms_those_inside():
    """More clients than descriptors: the loop sleeps, whoever is in is served, whoever comes is turned away."""
    with poor_server() as addresses, Raw(addresses[0]) as inside:
        with hoard(addresses, shake=True, count=150) as hoarded:
            for _ in range(200):
                assert inside.ask(b"x") == [b"x"]
            wait_until(lambda: any(is_over(one) for one in hoarded), LONG, "a newcomer to be turned away")
            began, used = time.monotonic(), cpu(inside)
            wait_until(lambda: time.monotonic() > began + 1.0)
            assert cpu(inside) - used < 0.5 * (time.monotonic() - began), "the loop spins"
        for address in addresses:
            with Raw(address) as newcomer:
                assert newcomer.ask(b"x") == [b"x"]
        assert inside.ask(b"x") == [b"x"]


def test_a_full_table_of_silent_strangers_gives_way_to_real_clients():
    """Whoever has not finished its handshake makes room, long before its time is over."""
    with poor_server(600.0) as addresses, Raw(addresses[0]) as inside, hoard(addresses, False, 200):
        for address in addresses:
            with Raw(address) as newcomer:
                assert newcomer.ask(b"x") == [b"x"]
        assert inside.ask(b"x") == [b"x"]


def is_over(plain: socket.socket) -> bool:
    """Whether the other side has closed the connection. What it has said is passed over."""
    while select.select([plain], [], [], 0)[0]:
        try:
            if not plain.recv(1000):
                return True
        except ConnectionError:
            return True
    return False


def test_nothing_waits_for_a_client_that_has_gone():
    """Its answers are dropped with its connection: ``stop`` with a long grace does not wait for them."""
    large = bytes(8 << 20)
    with serving(lambda frames, received, caller: [large]) as served:
        client = served.raw(buffer=SMALL)
        client.send(b"x")
        client.plain.recv(1000)
        client.vanish()
        wait_until(lambda: served.listener.connections == 0)
        served.listener.stop(grace=1000.0)
        assert served.ended()


def test_a_thousand_clients_come_at_once_and_all_are_served():
    """A whole cluster connects in one moment; nobody is turned away."""
    with serving(echo) as served, contextlib.ExitStack() as opened:
        clients = [opened.enter_context(served.raw(shake=False)) for _ in range(400)]
        for client in clients:
            client.plain.sendall(handshake(b"DEALER") + message([b"x"]))
        for client in clients:
            assert client.receive() == [b"x"]
        assert served.listener.connections == len(clients)
