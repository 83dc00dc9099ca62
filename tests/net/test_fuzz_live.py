"""A hundred thousand frames of nonsense into a live server's and a live coordinator's port.

Whatever comes: a typed refusal or silence, and afterwards both still answer. The draws are seeded, so a failure can be
played again.
"""

from __future__ import annotations

import contextlib
import random
import resource
import socket
from collections.abc import Iterator

import msgpack
import pytest
import zmq

from spark_partition_server import QueryServer, method
from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.net.endpoints import parse
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Error, Goodbye, Heartbeat, Hello, Kind, Lookup, Refuse, Reply, View
from spark_partition_server.wire.zmtp import Engine, Limits, encode

SEED = 20161123
FRAMES = 50_000  # into each of the two ports
BATCH = 40  # messages a connection
STRANGER = b"not the token"


class Count(QueryServer):
    def init_partition(self, rows: Iterator[int]) -> None:
        self.rows = list(rows)

    @method
    def count(self) -> int:
        return len(self.rows)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with local_cluster(Count(), [[1, 2, 3]]) as made:
        yield made


def run_id(cluster: LocalCluster) -> bytes:
    assert cluster.coordinator is not None
    return cluster.coordinator.run_id


def requests(run: bytes, incarnation: int) -> list[list[bytes]]:
    """Requests as clients send them, to be spoilt."""
    opening = codec.preamble(Kind.REQUEST, run)
    values = [[[], {}], [[1, "a", b"b", [2.5, None]], {"k": {"n": [True]}}]]
    fields = [(1, "count", 1000, 0, incarnation), (2**64 - 1, "count", 0, 0, incarnation), (3, "x" * 256, 5, 7, 0)]
    return [
        [opening, msgpack.packb(field), msgpack.packb(value), *extra]
        for field in fields
        for value in values
        for extra in ([], [b"raw"], [b""] * 5)
    ]


def control(run: bytes, incarnation: int) -> list[list[bytes]]:
    """What members and clients send a coordinator, with a token that is not the run's."""
    messages = [
        Hello(0, incarnation + 1, 1, "h", 1, "tcp://h:1", STRANGER, 1, 1, {"k": [1]}),
        Heartbeat(0, incarnation + 9, 3),
        Goodbye(0, incarnation, 0, STRANGER, 0, "text", "detail", "host"),
        Lookup(1),
    ]
    return [[bytes(frame) for frame in codec.encode(message, run)] for message in messages]


def spoilt(rng: random.Random, frames: list[bytes]) -> list[bytes]:
    """A message with something wrong in it, or with everything."""
    frames = list(frames)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(frames))
        frame = bytearray(frames[at])
        kind = rng.randrange(7)
        if kind == 0 and frame:
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        elif kind == 1:
            frame = frame[: rng.randint(0, len(frame))]
        elif kind == 2:
            frame += rng.randbytes(rng.randint(1, 64))
        elif kind == 3:
            frame = bytearray(rng.randbytes(rng.choice((0, 1, 16, 17, 300))))
        elif kind == 4:
            frames.insert(at, rng.randbytes(rng.randint(0, 20)))
            continue
        elif kind == 5 and len(frames) > 1:
            del frames[at]
            continue
        elif kind == 6 and frame:
            start = rng.randrange(len(frame))
            frame[start : start + rng.randint(1, 8)] = rng.choice((b"\xdf\xff\xff\xff\xff", b"\xc1", b"\x93", b"\xc7"))
        frames[at] = bytes(frame)
    return frames


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_server_survives_nonsense(cluster: LocalCluster) -> None:
    """Spoilt requests in whole ZMTP frames, spoilt ZMTP too; answers are ERROR, REFUSE, REPLY or none."""
    rng = random.Random(SEED)
    client = cluster.client(timeout=10)
    assert client.call(0, "count") == 3
    member = client._calls.members[0]
    run = run_id(cluster)
    corpus = requests(run, member.incarnation)
    before, sent, answered = peak_mib(), 0, 0
    while sent < FRAMES:
        engine = Engine(b"DEALER", Limits(1 << 20, 64))
        _, address = parse(member.endpoint)
        with socket.create_connection(address, timeout=10) as raw, contextlib.suppress(OSError):
            opening = bytearray(engine.output())
            if rng.random() < 0.2:
                opening[rng.randrange(len(opening))] = rng.randrange(256)
            batch = [spoilt(rng, rng.choice(corpus)) for _ in range(BATCH)]
            octets = bytearray(b"".join(encode(frames[:64]) for frames in batch))
            if rng.random() < 0.3:
                for _ in range(rng.randint(1, 5)):
                    octets[rng.randrange(len(octets))] = rng.randrange(256)
            sent += sum(map(len, batch))
            raw.sendall(opening + octets)
            raw.shutdown(socket.SHUT_WR)
            answered += _check_answers(raw, engine, run)
    assert answered > FRAMES / 50, "hardly a message got as far as the server: this run proves nothing"
    assert client.call(0, "count") == 3
    with local_cluster(Count(), [[1]]) as other:  # and the process has not run out of anything
        assert other.client().call(0, "count") == 1
    assert peak_mib() - before < 64


def _check_answers(raw: socket.socket, engine: Engine, run: bytes) -> int:
    """Everything that comes back until the server closes is a message a client may get; returns how many came."""
    count = 0
    while True:
        data = raw.recv(65536)
        if not data:
            return count
        try:
            answers = engine.receive(data)
        except RemoteProtocolError:  # an ERROR command: our opening was spoilt
            return count
        count += len(answers)
        for frames in answers:
            if not frames[0]:
                del frames[0]  # ours began with an empty frame, so the answer does
            message = codec.decode(frames, codec.run_id_of(frames[0], run))
            assert isinstance(message, (Error, Refuse, Reply))


def test_a_coordinator_survives_nonsense(cluster: LocalCluster) -> None:
    """Over libzmq, which takes care of ZMTP; a raw port of octets besides. Nobody joins, leaves or dies of it."""
    rng = random.Random(SEED + 1)
    client = cluster.client(timeout=10)
    assert client.call(0, "count") == 3
    member = client._calls.members[0]
    coordinator = cluster.coordinator
    assert coordinator is not None
    url = coordinator.get_url()
    assert url is not None
    run, hosts = coordinator.run_id, dict(coordinator.hosts)
    corpus = control(run, member.incarnation)
    before, sent = peak_mib(), 0
    context = zmq.Context()
    try:
        while sent < FRAMES:
            dealer = context.socket(zmq.DEALER)
            dealer.linger = 0
            dealer.sndtimeo = dealer.rcvtimeo = 10_000
            dealer.connect(url)
            for _ in range(BATCH * 25):
                frames = spoilt(rng, rng.choice(corpus))
                dealer.send_multipart(frames or [b""])
                sent += len(frames)
            dealer.send_multipart(codec.encode(Lookup(0), run))  # everything before it has been read
            while True:
                frames = dealer.recv_multipart()
                message = codec.decode(frames, codec.run_id_of(frames[0], run))
                assert isinstance(message, (Refuse, View, Heartbeat))
                if isinstance(message, View):
                    break
            dealer.close()
            _, address = parse(url)
            with socket.create_connection(address, timeout=10) as raw, contextlib.suppress(OSError):
                raw.sendall(rng.randbytes(rng.randint(1, 2000)))
    finally:
        context.destroy(0)
    client.refresh()
    assert client.call(0, "count") == 3
    assert coordinator.hosts == hosts
    cluster.launch(0, 1)  # a new member can still join
    assert coordinator.wait(lambda: coordinator.hosts != hosts, 10)
    assert client.call(0, "count") == 3
    assert peak_mib() - before < 64
