"""Our ZMTP engine on plain blocking sockets, and real libzmq sockets for the other end."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import zmq

from spark_partition_server.wire.zmtp import Engine, Limits, encode, encode_vector

__all__ = ["PATIENCE", "RECEIVE_BYTES", "Lane", "Libzmq", "Listener", "connect"]

PATIENCE = 20.0  # seconds until a test gives up; none of them measures time
RECEIVE_BYTES = 256 * 1024
LIMITS = Limits(64 << 20, 64)


class Lane:
    """A blocking socket and an engine: the smallest owner that an engine can have."""

    def __init__(self, plain: socket.socket, socket_type: bytes, opening: int | None = None) -> None:
        """``plain`` is connected; the first ``opening`` octets of what the engine has to say leave at once."""
        plain.settimeout(PATIENCE)
        self.plain = plain
        self.engine = Engine(socket_type, LIMITS)
        self.waiting: list[list[bytes]] = []
        self.pongs_sent = 0
        self.pongs_inside = 0  # of them, sent between the frames of a message
        self.under_way = False  # a long frame of a message has been seen, its end has not
        plain.sendall(self.engine.output()[:opening])

    def flush(self) -> None:
        octets = self.engine.output()
        self.pongs_sent += octets.count(b"\x04PONG")
        self.plain.sendall(octets)

    def send(self, frames: Sequence[bytes], *, vector: bool = False) -> None:
        self.shake_hands()  # libzmq hangs up on a message that arrives before its own READY has left
        if not vector:
            self.plain.sendall(encode(frames))
            return
        for part in encode_vector(frames):
            self.plain.sendall(part)

    def step(self) -> None:
        """One receive; raises EOFError when the other side has hung up."""
        room = self.engine.room()
        if room is not None:
            count = self.plain.recv_into(room)
            found = self.engine.filled(count) if count else None
        else:
            octets = self.plain.recv(RECEIVE_BYTES)
            found = self.engine.receive(octets) if octets else None
        if found is None:
            raise EOFError("the other side hung up")
        self.waiting += [[bytes(frame) for frame in frames] for frames in found]
        before = self.pongs_sent
        self.flush()
        if self.under_way and not found:
            self.pongs_inside += self.pongs_sent - before
        self.under_way = self.engine.room() is not None or (self.under_way and not found)

    def receive(self) -> list[bytes]:
        while not self.waiting:
            self.step()
        return self.waiting.pop(0)

    def shake_hands(self) -> None:
        while not self.engine.ready:
            self.step()


class Libzmq:
    """Makes libzmq sockets, and closes all of them, without lingering, when the test is over."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.sockets: list[zmq.Socket] = []

    def __call__(self, kind: int) -> zmq.Socket:
        made = self.context.socket(kind)
        made.sndtimeo = made.rcvtimeo = int(PATIENCE * 1000)
        self.sockets.append(made)
        return made

    def close(self) -> None:
        for made in self.sockets:
            made.close(linger=0)
        self.context.term()


class Listener:
    """Accepts one lane of ours on the transport; libzmq connects to ``endpoint``."""

    def __init__(self, transport: str, address: str) -> None:
        if transport == "tcp":
            self.plain = socket.create_server(("127.0.0.1", 0))
            self.endpoint = f"tcp://127.0.0.1:{self.plain.getsockname()[1]}"
        else:
            self.plain = socket.socket(socket.AF_UNIX)
            self.plain.bind(address)
            self.plain.listen()
            self.endpoint = f"ipc://{address}"
        self.plain.settimeout(PATIENCE)
        self.lanes: list[Lane] = []

    def accept(self, opening: int | None = None) -> Lane:
        lane = Lane(self.plain.accept()[0], b"ROUTER", opening)
        self.lanes.append(lane)
        return lane

    def close(self) -> None:
        for lane in self.lanes:
            lane.plain.close()
        self.plain.close()


def connect(bound: zmq.Socket, opening: int | None = None) -> Lane:
    """A lane of ours to a bound libzmq socket."""
    endpoint = bound.last_endpoint.rstrip(b"\0").decode()
    if endpoint.startswith("ipc://"):
        plain = socket.socket(socket.AF_UNIX)
        plain.connect(endpoint.removeprefix("ipc://"))
    else:
        plain = socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])))
    return Lane(plain, b"DEALER", opening)
