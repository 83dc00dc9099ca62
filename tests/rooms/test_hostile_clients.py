"""A server in a process of its own, and clients that mean it harm: others are served, and its memory stays bounded."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.lanes import Raw
from support.octets import message
from support.wait import wait_until

from spark_partition_server import Client, connect, connection_file
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Error, Items, Message, Request, Stream
from spark_partition_server.wire.payload import encode_value

LONG = 30.0
MIB = 1 << 20
SERVER = """
import sys, time
from spark_partition_server import QueryServer, ServerOptions, method
from spark_partition_server.testing import local_cluster

class Target(QueryServer):
    closed = 0

    @method
    def echo(self, value): return value

    @method
    def large(self, size): return bytes(size)

    @method
    def spin(self, seconds):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end: pass

    @method
    def scan(self, size):
        try:
            while True: yield bytes(size)
        finally:
            Target.closed += 1

    @method
    def ended(self): return Target.closed

options = ServerOptions(message_bytes_max=16 << 20, calls_bytes_max=48 << 20, write_timeout=60.0)
with local_cluster(Target(threads=int(sys.argv[1]), options=options), [[]]) as cluster:
    print(cluster.connection_file, *cluster.coordinator.hosts[0], flush=True)
    sys.stdin.read()
"""


class Target:
    """The server's process, and a client that means well."""

    def __init__(self, client: Client, run_id: bytes, address: tuple[str, int]) -> None:
        self.client, self.run_id, self.address = client, run_id, address
        client.call(0, "large", MIB)
        self.before = self.resident()

    def resident(self) -> int:
        """Octets of memory that the server has in use."""
        status = self.client.call(0, "sps.status")
        return int(status["rss_bytes"])

    def grown(self) -> int:
        return self.resident() - self.before

    def raw(self, buffer: int = 0) -> Raw:
        return Raw(self.address, buffer=buffer)

    def octets(self, made: Message) -> bytes:
        return message([bytes(frame) for frame in codec.encode(made, self.run_id)])

    def request(self, call_id: int, name: str, *args: Any, remaining_ms: int = 60_000) -> bytes:
        return self.octets(Request(call_id, name, remaining_ms, 0, 1, tuple(encode_value([args, {}]))))

    def receive(self, raw: Raw) -> Message:
        return codec.decode(raw.receive(), self.run_id)

    def serves(self, count: int = 30) -> None:
        """Others are served: each of these calls in less than its ten seconds."""
        for number in range(count):
            assert self.client.call(0, "echo", number) == number


@pytest.fixture(params=[0, 2], ids=["inline", "threads"])
def target(request: Any) -> Iterator[Target]:
    arguments = [sys.executable, "-c", SERVER, str(request.param)]
    folder = str(Path(__file__).parents[2])
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        path, host, port = process.stdout.readline().split()
        with connect(path, timeout=10.0) as client:
            yield Target(client, connection_file.read(path).run_id, (host, int(port)))
            assert process.poll() is None, "the server has ended"
    finally:
        process.stdin.close()
        try:
            process.wait(LONG)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def push(raw: Raw, octets: bytes, times: int) -> threading.Thread:
    """Sends ``octets`` again and again, as far as the other side takes them, in a thread of its own."""

    def run() -> None:
        with contextlib.suppress(OSError):
            for _ in range(times):
                raw.plain.sendall(octets)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def hang_up(raw: Raw, *threads: threading.Thread) -> None:
    with contextlib.suppress(OSError):
        raw.plain.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(LONG)
    raw.close()


def test_a_reader_that_never_reads(target):
    """It asks for gigabytes: a few mebibytes of answers are made, and no more of its requests are read."""
    with contextlib.ExitStack() as opened:
        for _ in range(4):
            raw = target.raw(buffer=64 * 1024)
            pushing = push(raw, target.request(1, "large", 64 * 1024) * 100, 1000)
            opened.callback(hang_up, raw, pushing)
        target.serves()
        wait_until(lambda: target.client.call(0, "sps.status")["calls"] > 50, LONG)
        target.serves()
        assert target.grown() < 64 * MIB


def test_a_flood_of_requests(target):
    """Six clients send as fast as they can and read nothing; each request would take the server a millisecond."""
    with contextlib.ExitStack() as opened:
        for _ in range(6):
            raw = target.raw()
            pushing = push(raw, target.request(1, "spin", 0.001) * 200, 5000)
            opened.callback(hang_up, raw, pushing)
        target.serves()
        assert target.grown() < 64 * MIB
    wait_until(lambda: target.client.call(0, "sps.status")["connections"] == 1, LONG)
    target.serves()


def test_a_flood_of_large_requests(target):
    """[8.25]: octets are bounded as well as calls: of 96 MiB of arguments at most 48 wait, the rest is turned away."""
    with contextlib.ExitStack() as opened:
        raws = [opened.enter_context(target.raw()) for _ in range(12)]
        for raw in raws:
            raw.plain.sendall(target.request(1, "spin", 0.3))
        codes = []
        large = target.request(2, "echo", bytes(8 * MIB))
        senders = [push(raw, large, 1) for raw in raws]
        for thread in senders:
            thread.join(LONG)
        for raw in raws:
            answers = {answer.call_id: answer for answer in (target.receive(raw), target.receive(raw))}
            codes.append(answers[2].code if isinstance(answers[2], Error) else None)
        assert set(codes) == {None, Code.OVERLOADED}
        target.serves()
    assert target.grown() < 200 * MIB


def test_a_stream_that_is_abandoned_half_way(target):
    """Its reader gives all the credit there is, reads a little and then nothing: it waits, and is closed."""
    begin = target.octets(Stream(1, "scan", 60_000, 0, 1, 1 << 40, (msgpack.packb([[10_000], {}]),)))
    raws = [target.raw(buffer=64 * 1024) for _ in range(4)]
    for raw in raws:
        raw.plain.sendall(begin)
        assert isinstance(target.receive(raw), Items)
    target.serves()
    assert target.grown() < 64 * MIB
    assert target.client.call(0, "sps.status")["streams"] == 4
    for raw in raws:
        raw.vanish()
    wait_until(lambda: target.client.call(0, "ended") == 4, LONG)
    assert target.client.call(0, "sps.status")["streams"] == 0


@pytest.mark.parametrize("size", [1 << 30, (16 << 20) + 70_000, 1 << 62])
def test_a_request_of_a_gigabyte(target, size):
    """[6.7]: refused at its header, before it has cost any memory; the connection ends."""
    with target.raw() as raw:
        head = codec.encode(Request(1, "echo", 60_000, 0, 1), target.run_id)
        raw.plain.sendall(b"".join(b"\x01" + bytes((len(frame),)) + bytes(frame) for frame in head))
        with contextlib.suppress(OSError):
            raw.plain.sendall(b"\x02" + size.to_bytes(8, "big") + bytes(100_000))
        raw.read_to_the_end()
        target.serves()
        assert target.grown() < 32 * MIB


def test_requests_and_their_cancels_without_end(target):
    """[8.24]: what was taken back leaves nothing behind."""
    with target.raw() as raw:
        pairs = b"".join(
            target.request(number, "echo", bytes(1000)) + target.octets(codec.KINDS[codec.Kind.CANCEL](number))
            for number in range(100)
        )
        pushing = push(raw, pairs, 100)
        reading = threading.Thread(target=raw.read_to_the_end)
        reading.start()
        target.serves()
        pushing.join(LONG)
        wait_until(lambda: target.client.call(0, "sps.status")["queued"] == 0, LONG)
        hang_up(raw, reading)
    assert target.grown() < 32 * MIB
