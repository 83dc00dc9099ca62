"""The two ends of a direct lane, to be driven by hand: a client that does only what it is told, and a listener."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.net.lane import Lane
from spark_partition_server.net.listener import Listener
from spark_partition_server.wire.zmtp import Engine, Limits

from .octets import handshake, message

__all__ = ["LONG", "SOON", "Acceptor", "Deaf", "Raw", "echo", "ends_by", "lane_to", "patterned", "serving"]

LONG = 20.0  # seconds; whoever waits this long has failed
SOON = 0.2  # seconds until the deadline of a call that is to miss it
LATE = 0.5  # seconds after the deadline; promised are 0.1, but a shared machine may hold any thread up
WIDE = Limits(1 << 30, 64)


class Deaf:
    """A port whose host seems to be unreachable: what wants to connect gets no word, as if packets were dropped."""

    def __init__(self) -> None:
        self._sockets = [socket.socket() for _ in range(5)]
        listening, *filling = self._sockets
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)  # one connection may wait to be accepted; the kernel drops the SYNs of others
        self.port: int = listening.getsockname()[1]
        for plain in filling:
            plain.setblocking(False)
            plain.connect_ex(listening.getsockname())

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for plain in self._sockets:
            plain.close()


class Raw:
    """A client: a plain blocking socket; sends octets as they are given, receives whole messages."""

    def __init__(self, address: tuple[str, int] | str | Path, *, shake: bool = True, buffer: int = 0) -> None:
        """``buffer``: octets of the kernel's buffers, for clients that are to fill them soon."""
        unix = not isinstance(address, tuple)
        self.plain = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        if buffer:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self.plain.setsockopt(socket.SOL_SOCKET, option, buffer)
        self.plain.settimeout(LONG)
        self.plain.connect(str(address) if unix else address)
        self.engine = Engine(b"DEALER", WIDE)
        self.waiting: list[list[bytes]] = []
        if shake:
            self.shake()

    def shake(self) -> None:
        """The handshake, whole."""
        self.plain.sendall(handshake(b"DEALER"))
        while not self.engine.ready:
            self._take()

    def send(self, *frames: bytes) -> None:
        self.plain.sendall(message(frames))

    def receive(self) -> list[bytes]:
        """One message; EOFError: the other side has hung up."""
        while not self.waiting:
            self._take()
        return self.waiting.pop(0)

    def ask(self, *frames: bytes) -> list[bytes]:
        self.send(*frames)
        return self.receive()

    def read_to_the_end(self) -> int:
        """How many octets come until the other side hangs up, gently or not."""
        count = 0
        with contextlib.suppress(ConnectionError):
            while data := self.plain.recv(1 << 16):
                count += len(data)
        return count

    def vanish(self) -> None:
        """Closes with a reset instead of a goodbye."""
        self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.plain.close()

    def close(self) -> None:
        self.plain.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.plain.close()

    def _take(self) -> None:
        room = self.engine.room()
        if room is not None:
            count = self.plain.recv_into(room)
            found = self.engine.filled(count) if count else None
        else:
            data = self.plain.recv(1 << 16)
            found = self.engine.receive(data) if data else None
        if found is None:
            raise EOFError("the other side hung up")
        self.waiting += [[bytes(frame) for frame in frames] for frames in found]


def echo(frames: Sequence[Any], received: float, caller: Any) -> Sequence[Any]:
    """An answer function: every message back as it came."""
    return frames


class Served:
    """A listener that serves in a thread."""

    def __init__(self, listening: Sequence[socket.socket], answer: Callable[..., Any], **options: Any) -> None:
        self.address = listening[0].getsockname()
        self.listener = Listener(listening, answer, options.pop("message_bytes_max", 1 << 30), **options)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="served", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.listener.serve()
        except BaseException as error:  # noqa: BLE001 - the test sees it
            self.failure = error

    def raw(self, **options: Any) -> Raw:
        return Raw(self.address, **options)

    def ended(self) -> bool:
        """Whether ``serve`` has returned by itself or after ``stop``."""
        self.thread.join(LONG)
        return not self.thread.is_alive()


@contextlib.contextmanager
def serving(
    answer: Callable[..., Any] = echo, listening: Sequence[socket.socket] | None = None, **options: Any
) -> Iterator[Served]:
    """A listener on loopback, stopped at the end; fails when it could not be, or ended with an exception."""
    served = Served(listening or [bind_tcp("127.0.0.1")], answer, **options)
    try:
        yield served
    finally:
        served.listener.stop()
        assert served.ended(), "the listener does not stop"
        assert served.failure is None, served.failure


class Acceptor:
    """A server that accepts, shakes hands if it is told to, and leaves the rest to the test."""

    def __init__(self, opening: bytes = handshake(b"ROUTER")) -> None:
        self.listening = bind_tcp("127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{self.listening.getsockname()[1]}"
        self._opening = opening
        self._accepted: queue.Queue[socket.socket] = queue.Queue()
        self._all: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self.listening.accept()
                accepted.settimeout(LONG)
                self._all.append(accepted)
                with contextlib.suppress(OSError):
                    accepted.sendall(self._opening)
                self._accepted.put(accepted)

    def accepted(self) -> socket.socket:
        """The next connection, in the order in which they came."""
        return self._accepted.get(timeout=LONG)

    def __enter__(self) -> Acceptor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.listening.close()
        self._thread.join(LONG)
        for one in self._all:
            one.close()


def patterned(size: int) -> bytes:
    """Octets in which a piece lost, doubled or moved would be seen."""
    return array("Q", range(size // 8 + 1)).tobytes()[:size]


def lane_to(endpoint: str, limit: int = 1 << 30) -> Lane:
    """A lane that takes large messages."""
    return Lane(endpoint, time.monotonic() + LONG, limit)


@contextlib.contextmanager
def ends_by(seconds: float = SOON) -> Iterator[float]:
    """A deadline in ``seconds``, and the check that the block has not run over it."""
    deadline = time.monotonic() + seconds
    yield deadline
    assert time.monotonic() < deadline + LATE, "the deadline was not kept"
