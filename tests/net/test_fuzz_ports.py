"""A hundred thousand messages that nobody meant: into a server's port and a coordinator's, over sockets and libzmq.

What comes back is a message of the protocol or nothing; afterwards both serve as before, with the threads they had and
not much more memory. The seeds are fixed, so a failure comes again.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy
import pytest
import zmq
from support.lanes import LONG, Raw
from support.octets import GREETING, command, handshake, message
from support.wait import wait_until

from spark_partition_server import QueryServer, method
from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import (
    Credit,
    Error,
    Goodbye,
    Heartbeat,
    Hello,
    Items,
    Kind,
    Lookup,
    Message,
    Refuse,
    Reply,
    Results,
    Shutdown,
    View,
    Welcome,
)
from spark_partition_server.wire.payload import encode_value

BATCH = 250  # messages on one connection before it is looked at what came back
GROWTH = 64 << 20  # octets of memory; a hundred thousand messages that were kept would be more
SENTINEL = 1 << 60  # a call id that no mutation of a smaller one hits by accident


class Harmless(QueryServer):
    """Methods that may be called with anything."""

    @method
    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return [len(args), len(kwargs)]

    @method
    def add(self, one: Any, other: Any) -> Any:
        return one + other


# ---------------------------------------------------------------------------------------- what is sent


class Fuzzer:
    """Messages of a corpus, changed at random."""

    def __init__(self, seed: int, corpus: Sequence[Sequence[bytes]]) -> None:
        self.random = random.Random(seed)
        self.corpus = [list(map(bytes, frames)) for frames in corpus]
        self.count = 0

    def message(self) -> list[bytes]:
        """A message with one to three changes; never one that is cut off by libzmq or that calls a sentinel."""
        self.count += 1
        frames = list(self.random.choice(self.corpus))
        for _ in range(self.random.randint(1, 3)):
            frames = self.random.choice(self._changes)(self, frames) or [b""]
        return frames

    def octets(self, shaken: bool) -> bytes:
        """A conversation whose octets were changed: in a header, in a body, or, unless hands have been shaken, in the
        greeting."""
        whole = bytearray()
        for _ in range(self.random.randint(1, 60)):
            whole += message(self.message()[:64]) if self.random.random() < 0.9 else command(b"PING", self._noise(20))
        damages = self.random.randint(0, 2)
        if not shaken:
            opening = bytearray(handshake(self.random.choice([b"DEALER", b"REQ", b"ROUTER", b"PUB"])))
            self._damage(opening, self.random.randint(0, 2))
            whole = opening + whole
        self._damage(whole, damages)
        return bytes(whole)

    def _damage(self, octets: bytearray, times: int) -> None:
        for _ in range(times):
            place = self.random.randrange(len(octets))
            if self.random.random() < 0.3:
                del octets[place : place + self.random.randint(1, 9)]
            else:
                octets[place : place + 1] = self._noise(3)

    def _noise(self, most: int) -> bytes:
        return self.random.randbytes(self.random.randint(0, most))

    def _at(self, frames: list[bytes]) -> int:
        return self.random.randrange(len(frames))

    def flip(self, frames: list[bytes]) -> list[bytes]:
        place = self._at(frames)
        changed = bytearray(frames[place])
        if changed:
            changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        frames[place] = bytes(changed)
        return frames

    def cut(self, frames: list[bytes]) -> list[bytes]:
        place = self._at(frames)
        frames[place] = frames[place][: self.random.randint(0, len(frames[place]))]
        return frames

    def extend(self, frames: list[bytes]) -> list[bytes]:
        frames[self._at(frames)] += self._noise(40)
        return frames

    def drop(self, frames: list[bytes]) -> list[bytes]:
        del frames[self._at(frames)]
        return frames

    def double(self, frames: list[bytes]) -> list[bytes]:
        place = self._at(frames)
        return frames[:place] + [frames[place]] * self.random.choice([2, 3, 70]) + frames[place + 1 :]

    def shuffle(self, frames: list[bytes]) -> list[bytes]:
        self.random.shuffle(frames)
        return frames

    def noise(self, frames: list[bytes]) -> list[bytes]:
        return [self._noise(300) for _ in range(self.random.randint(1, 5))]

    def fields(self, frames: list[bytes]) -> list[bytes]:
        if len(frames) > 1:
            with contextlib.suppress(Exception):
                values = msgpack.unpackb(frames[1])
                values[self.random.randrange(len(values))] = self._value(0)
                frames[1] = msgpack.packb(values)
        return frames

    def payload(self, frames: list[bytes]) -> list[bytes]:
        return [*frames[:2], msgpack.packb(self._value(0)), *frames[3:]]

    def deepen(self, frames: list[bytes]) -> list[bytes]:
        place, opening = self._at(frames), self.random.choice([b"\x91", b"\x81\xc0", b"\xdd\xff\xff\xff\xff"])
        frames[place] = opening * self.random.choice([1, 100, 2000]) + frames[place]
        return frames

    def _value(self, depth: int) -> Any:
        pick = self.random.randrange(12 if depth < 4 else 8)
        if pick < 3:
            return self.random.choice([0, -1, 1, 255, 1 << 31, 1 << 32, (1 << 64) - 1, -(1 << 63)])
        if pick < 8:
            noise = self._noise(30)
            extension = msgpack.ExtType(self.random.choice([1, 2, 3, 127]), noise)
            return [None, True, 1.5, noise, noise.hex(), extension][pick - 3 + self.random.randint(0, 1)]
        if pick < 10:
            return [self._value(depth + 1) for _ in range(self.random.randint(0, 4))]
        return {str(self._value(9)): self._value(depth + 1) for _ in range(self.random.randint(0, 4))}

    _changes: tuple[Callable[[Fuzzer, list[bytes]], list[bytes]], ...] = (
        flip, flip, flip, cut, extend, drop, double, shuffle, noise, fields, fields, payload, deepen,
    )  # fmt: skip


def requests(cluster: LocalCluster, incarnation: int = 1) -> list[list[Any]]:
    """Real requests, one of them with arrays."""
    opening = codec.preamble(Kind.REQUEST, cluster.coordinator.run_id)
    values = [
        ([1, "two"], {}),
        ([], {"x": [1.5, None]}),
        ([numpy.arange(4.0), numpy.float32(1)], {"y": numpy.array(["a"])}),
    ]
    fields = [(7, "echo", 5000, 0, incarnation), (8, "add", 5000, 0, incarnation), (9, "nothing", 1, 0, incarnation)]
    return [codec.request_frames(opening, one, encode_value(value)) for one in fields for value in values]


def control(cluster: LocalCluster) -> list[list[Any]]:
    """Real messages to a coordinator; but the token is wrong, so none of them can do anything."""
    token, run_id = bytes(32), cluster.coordinator.run_id
    found: list[Message] = [
        Hello(0, 9, 0, "127.0.0.1", 80, "tcp://127.0.0.1:80", token, 1, 1, {"a": 1}),
        Goodbye(0, 1, 0, token, Code.OK, "bye", "", "host"),
        Goodbye(0, 1, 0, token, Code.INIT_FAILED, "bad", "Traceback", "host"),
        Heartbeat(0, 1, 3),
        Lookup(1),
        Welcome(1, 1, 1),
        Shutdown("stop", 1),
    ]
    return [codec.encode(one, run_id) for one in found] + requests(cluster)


# -------------------------------------------------------------------------------------- what comes back


def typed(frames: Sequence[Any], allowed: tuple[type[Message], ...]) -> Message:
    """The message that frames hold; fails when it is none, or none that may come."""
    found = codec.decode(frames, bytes(frames[0])[8:16])
    assert isinstance(found, allowed), found
    return found


TO_CLIENTS = (Reply, Error, Refuse)
TO_ANYBODY = (Refuse, View, Heartbeat, Reply, Error, Results, Items, Credit)  # what is relayed, too


def resident() -> int:
    """Octets of memory this process has in use."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def cluster(caplog: pytest.LogCaptureFixture) -> Iterator[LocalCluster]:
    """A cluster that has to be as it was, once the test has had its way with it."""
    logging.getLogger("spark_partition_server").setLevel(logging.ERROR)  # a line for each refusal is too many
    try:
        with local_cluster(Harmless(), [[]]) as made:
            client = made.client(timeout=LONG)
            assert client.call(0, "add", 1, 2) == 3
            threads = set(threading.enumerate())
            yield made
            gone = [thread.name for thread in threads if not thread.is_alive()]
            assert not gone
            assert client.call(0, "add", 1, 2) == 3
            with made.client(timeout=LONG) as other:
                assert other.call(0, "add", 1, 2) == 3
            before = made.coordinator.hosts[0]
            made.launch(0, attempt=1)
            wait_until(lambda: made.coordinator.hosts.get(0) not in (None, before))
            with made.client(timeout=LONG) as later:
                assert later.call(0, "add", 1, 2) == 3
    finally:
        logging.getLogger("spark_partition_server").setLevel(logging.NOTSET)
    assert not caplog.records, caplog.records[0].getMessage()


@contextlib.contextmanager
def bounded(warm_up: Callable[[], None]) -> Iterator[None]:
    """Fails when the block makes this process grow. ``warm_up``: the same work, less of it."""
    warm_up()
    before = resident()
    yield
    assert resident() - before < GROWTH


def sentinel(cluster: LocalCluster, number: int) -> list[Any]:
    """A request whose answer says that everything before it has been dealt with."""
    opening = codec.preamble(Kind.REQUEST, cluster.coordinator.run_id)
    return codec.request_frames(opening, (number, "add", 60_000, 0, 1), encode_value(([1, 2], {})))


# ----------------------------------------------------------------------------------------------- streams


def ask_server(cluster: LocalCluster, fuzzer: Fuzzer, batches: int) -> None:
    """Well-formed ZMTP, malformed messages, over plain sockets."""
    for number in range(SENTINEL, SENTINEL + batches):
        with Raw(cluster.coordinator.hosts[0]) as raw:
            sent = [message(fuzzer.message()[:64]) for _ in range(BATCH)]
            raw.plain.sendall(b"".join(sent) + message(sentinel(cluster, number)))
            found = None
            for _ in range(BATCH + 1):
                found = typed([frame for frame in raw.receive() if frame], TO_CLIENTS)
                if isinstance(found, Reply) and found.call_id == number:
                    break
            assert found.call_id == number


def ask_server_by_libzmq(cluster: LocalCluster, fuzzer: Fuzzer, batches: int) -> None:
    """The same over a DEALER."""
    host, port = cluster.coordinator.hosts[0]
    for number in range(SENTINEL, SENTINEL + batches):
        with dealer(f"tcp://{host}:{port}") as socket_:
            for _ in range(BATCH):
                socket_.send_multipart(fuzzer.message()[:64])
            socket_.send_multipart(sentinel(cluster, number))
            while True:
                found = typed([frame for frame in socket_.recv_multipart() if frame], TO_CLIENTS)
                if isinstance(found, Reply) and found.call_id == number:
                    break


def ask_coordinator(cluster: LocalCluster, fuzzer: Fuzzer, batches: int) -> None:
    """Malformed and misplaced messages of the control plane, over a DEALER; a LOOKUP behind each batch."""
    for _ in range(batches):
        with dealer(cluster.coordinator.get_url()) as socket_:
            for _ in range(BATCH):
                socket_.send_multipart(fuzzer.message())
            socket_.send_multipart(codec.encode(Heartbeat(0, 1, SENTINEL), cluster.coordinator.run_id))
            answers, last = 0, False
            while not last or socket_.poll(20):  # answers of the server, to what was relayed, may come behind the last
                found = typed(socket_.recv_multipart(), TO_ANYBODY)
                answers += 1
                last = last or (isinstance(found, Refuse) and found.code == Code.NOT_MEMBER)
            assert answers <= BATCH + 1


@contextlib.contextmanager
def dealer(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as made:
        made.rcvtimeo, made.linger, made.sndhwm = int(LONG * 1000), 0, 0
        made.connect(endpoint)
        yield made


def converse(address: tuple[str, int], fuzzer: Fuzzer, times: int, allowed: tuple[type[Message], ...]) -> None:
    """Octets that are not even ZMTP, or not for long; whatever comes back until the other side hangs up is."""
    for number in range(times):
        shaken = number % 2 == 0
        with Raw(address, shake=shaken) as raw:
            octets = b""
            with contextlib.suppress(OSError):
                raw.plain.sendall(fuzzer.octets(shaken))
                while select.select([raw.plain], [], [], 0.002)[0] and (data := raw.plain.recv(1 << 16)):
                    octets += data
                raw.plain.shutdown(socket.SHUT_WR)
                while data := raw.plain.recv(1 << 16):
                    octets += data
        try:
            found = raw.engine.receive(octets)
        except RemoteProtocolError as error:
            assert "refused the connection" in str(error) or not octets.startswith(GREETING[:11]), error  # noqa: PT017
            continue
        for frames in found:
            typed([frame for frame in frames if frame], allowed)


# ------------------------------------------------------------------------------------------------ tests


def test_messages_to_a_server(cluster):
    """60000 of them over plain sockets, each answered by a message of the protocol or not at all."""
    fuzzer = Fuzzer(1, requests(cluster))
    with bounded(lambda: ask_server(cluster, fuzzer, 8)):
        ask_server(cluster, fuzzer, 232)
    assert fuzzer.count == 60_000


def test_messages_to_a_server_by_libzmq(cluster):
    """10000 of them from a socket that reconnects by itself."""
    fuzzer = Fuzzer(2, requests(cluster))
    with bounded(lambda: ask_server_by_libzmq(cluster, fuzzer, 4)):
        ask_server_by_libzmq(cluster, fuzzer, 36)
    assert fuzzer.count == 10_000


def test_messages_to_a_coordinator(cluster):
    """25000 of them: registrations, farewells, heartbeats, requests, noise."""
    fuzzer = Fuzzer(3, control(cluster))
    with bounded(lambda: ask_coordinator(cluster, fuzzer, 8)):
        ask_coordinator(cluster, fuzzer, 92)
    assert fuzzer.count == 25_000


def test_octets_to_a_server(cluster):
    """2000 conversations that go wrong anywhere, from the first octet on."""
    fuzzer = Fuzzer(4, requests(cluster))
    with bounded(lambda: converse(cluster.coordinator.hosts[0], fuzzer, 100, TO_CLIENTS)):
        converse(cluster.coordinator.hosts[0], fuzzer, 1900, TO_CLIENTS)
    assert fuzzer.count > 50_000


def test_octets_to_a_coordinator(cluster):
    """1000 of them; there libzmq reads what is no message."""
    fuzzer = Fuzzer(5, control(cluster))
    address = cluster.coordinator.address
    with bounded(lambda: converse(address, fuzzer, 50, TO_ANYBODY)):
        converse(address, fuzzer, 950, TO_ANYBODY)
    assert fuzzer.count > 25_000
