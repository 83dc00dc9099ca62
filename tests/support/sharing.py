"""Two ends of a Unix socket that share memory, in one thread and with a clock of their own."""

from __future__ import annotations

import array
import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

from spark_partition_server.net.shared import Budget, Forks, SharedMemory, close_all
from spark_partition_server.wire.framing import encode_vector
from spark_partition_server.wire.zmtp import Engine, Limits

__all__ = ["LIMIT", "End", "Pair", "filled", "pairing"]

LIMIT = 8 << 20
WIDE = Limits(1 << 30, 64)


class End:
    """One end of a connection, with engine and memory; sends and receives what is asked of it."""

    def __init__(self, kind: bytes, plain: socket.socket, limit: int, budget: int, now: Any) -> None:
        self.plain = plain
        self.plain.settimeout(20)
        self._sending: threading.Thread | None = None
        self.forks = Forks()
        self.budget = Budget(budget)
        self.shared = SharedMemory(limit, self.budget, self.forks, now)
        self.engine = Engine(kind, WIDE, shared=self.shared)

    def send(self, *frames: Any) -> bool:
        """Sends a message; whether something of it was lent."""
        self._finish()  # or its last look at the socket would wait for room that this message takes
        head = self.shared.due()
        lent = self.shared.lend(frames, self.engine.lends)
        before, rest, descriptors = lent or (b"", list(frames), [])
        data = b"".join([head, before, *encode_vector(rest)])
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        sent = self.plain.sendmsg([data], passed)
        close_all(descriptors)
        if sent < len(data):
            self._sending = threading.Thread(target=self._send_rest, args=(data[sent:],))
            self._sending.start()  # while the same thread receives at the other end
        return lent is not None and b"" in rest

    def receive(self) -> list[Any]:
        """The next message."""
        found: list[Any] = []
        while not found:
            room = self.engine.room()
            if room is None:
                data = self.shared.recv(self.plain, 1 << 16)
                assert data
                found = self.engine.receive(data)
            else:
                found = self.engine.filled(self.shared.recv_into(self.plain, room))
        (frames,) = found
        return frames

    def _send_rest(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a test may end before all of it was read
            self.plain.sendall(data)

    def _finish(self) -> None:
        if self._sending is not None:
            self._sending.join(20)
            self._sending = None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.plain.shutdown(socket.SHUT_RDWR)
        self._finish()
        self.shared.close()
        self.plain.close()
        self.engine._failed = None  # it keeps what the test had in its hands


class Pair:
    """Two ends that have shaken hands, and a clock."""

    def __init__(self, limit: int = LIMIT, budget: int = LIMIT) -> None:
        self.now = 0.0
        one, other = socket.socketpair(socket.AF_UNIX)
        self.client = End(b"DEALER", one, limit, budget, lambda: self.now)
        self.server = End(b"ROUTER", other, limit, budget, lambda: self.now)
        for end in (self.client, self.server):
            end.plain.sendall(end.engine.output())
        for end in (self.client, self.server):
            end.engine.receive(end.plain.recv(4096))
            assert end.engine.lends == limit


@contextlib.contextmanager
def pairing(**options: int) -> Iterator[Pair]:
    made = Pair(**options)
    try:
        yield made
    finally:
        made.client.close()
        made.server.close()


def filled(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(64) * (size // 64)
