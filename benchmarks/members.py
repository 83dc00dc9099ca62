"""Simulated members for ``coordinator.py``: what a coordinator sees of a partition server, and nothing more.

Each is a TCP connection of its own that speaks ZMTP as a DEALER, by the library's own engine: greeting, handshake,
HELLO, a HEARTBEAT a second, a PING every fifth second as libzmq sends it for a real member. Ten thousand libzmq sockets
would need more of the machine than the coordinator that is to be measured.
"""

from __future__ import annotations

import random
import select
import selectors
import socket
import sys
import time
from contextlib import suppress
from typing import Any

import msgpack
from measuring import say

from spark_partition_server.net.control import raise_descriptor_limit
from spark_partition_server.net.endpoints import parse
from spark_partition_server.wire import codec
from spark_partition_server.wire.framing import encode
from spark_partition_server.wire.messages import Hello, Kind
from spark_partition_server.wire.zmtp import Engine, Limits

INTERVAL = 1.0  # seconds between two heartbeats of a member
PING_EVERY = 5  # heartbeats
LIMITS = Limits(1 << 20, 64)


def hello_of(where: dict[str, Any], rank: int) -> list[Any]:
    """The frames of a HELLO that is welcome."""
    token = bytes.fromhex(where["token"])
    hello = Hello(rank, 1, 0, "127.0.0.1", 1024 + rank % 60_000, "", token, codec.VERSION, codec.VERSION)
    return codec.encode(hello, bytes.fromhex(where["run"]))


class Member:
    """One of them."""

    def __init__(self, where: dict[str, Any], rank: int) -> None:
        run_id = bytes.fromhex(where["run"])
        self.rank, self.sequence, self.refused = rank, 0, 0
        self.said_hello = self.welcome = False
        self.opening = codec.preamble(Kind.HEARTBEAT, run_id)
        self.known = {codec.preamble(Kind.WELCOME, run_id), self.opening}
        self.hello = encode(hello_of(where, rank))
        self.engine = Engine(b"DEALER", LIMITS)
        self.ping = self.engine.ping()
        self.address = parse(where["url"])[1]
        self.socket = socket.socket()
        self.socket.setblocking(False)

    def connect(self) -> None:
        with suppress(BlockingIOError):
            self.socket.connect(self.address)

    def take(self) -> None:
        """What has come meanwhile: the handshake, the WELCOME, the echo of the heartbeat before."""
        with suppress(BlockingIOError):
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError(f"the coordinator has hung up on member {self.rank}")
            for frames in self.engine.receive(data):
                self.welcome = True
                self.refused += frames[0] not in self.known
        answer = self.engine.output()
        if self.engine.ready and not self.said_hello:
            answer, self.said_hello = answer + self.hello, True
        if answer:
            self.socket.send(answer)

    def beat(self) -> None:
        self.sequence += 1
        octets = encode([self.opening, msgpack.packb((self.rank, 1, self.sequence))])
        self.socket.send(octets if self.sequence % PING_EVERY else self.ping + octets)


def join(members: list[Member]) -> None:
    """All connect at once; returns when all are welcome."""
    with selectors.DefaultSelector() as waiting:
        for member in members:
            member.connect()
            waiting.register(member.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, member)
        left = len(members)
        while left:
            for key, events in waiting.select():
                member = key.data
                if events & selectors.EVENT_WRITE:  # connected: the greeting may go
                    member.socket.send(member.engine.output())
                    waiting.modify(member.socket, selectors.EVENT_READ, member)
                if events & selectors.EVENT_READ:
                    member.take()
                    if member.welcome:
                        waiting.unregister(member.socket)
                        left -= 1


def beat(members: list[Member]) -> float:
    """Each at its own moment within the second, until a line comes; returns the seconds that took."""
    count = len(members)
    began = time.monotonic() + random.Random(members[0].rank).random() * INTERVAL / count
    turn = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        time.sleep(max(began + turn * INTERVAL / count - time.monotonic(), 0.0))
        member = members[turn % count]
        member.take()
        member.beat()
        turn += 1
    return time.monotonic() - began


def run_members(first: int, count: int, where: dict[str, Any]) -> None:
    """``count`` members from ``first`` on: they join at the first line of stdin and beat until the second."""
    raise_descriptor_limit(count)
    members = [Member(where, rank) for rank in range(first, first + count)]
    say(ready=count)
    sys.stdin.readline()
    join(members)
    elapsed = beat(members)
    sent = sum(member.sequence for member in members)
    refused = sum(member.refused for member in members)
    say(sent_per_s=sent / elapsed, refused=refused, behind_s=elapsed - sent * INTERVAL / count)
    for member in members:
        member.socket.close()
