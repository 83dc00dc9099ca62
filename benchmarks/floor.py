"""How fast can one process ask another at all, before any library adds to it?

Three hand-written servers, each in a process of its own on 127.0.0.1, asked by one synchronous client, one request
(about 50 octets) in flight, each reply about 100 octets:

    raw_reqrep              pyzmq REQ to REP, fixed octets, nothing looked up: what libzmq costs alone
    msgpack_dealer_router   pyzmq DEALER to ROUTER, msgpack, a dict of handlers: what one would write without a library
    plain_socket            a TCP socket, a length before each message, msgpack, a dict of handlers

Expected order of magnitude, written down before the first run: raw_reqrep 100 to 200 us, because libzmq's threads cost
four context switches a call on each side; msgpack_dealer_router 1.2 to 1.5 times that; plain_socket 30 us where the
scheduler puts both processes on one core, 100 us across two cores, where waking a sleeping core is most of it.

    python benchmarks/floor.py [--free | --pin] [--rounds 40] [--calls 300] [--json FILE]

``--free`` lets the scheduler place the processes, ``--pin`` puts the client on CPU 0 and the servers on CPU 1; both are
run by default. The variants are taken in turn, in random order, within every round, on connections that stay open, and
are compared within the round. A burst during which processes that do not belong to the benchmark used more than 15 %
of a core is dropped. ``latency.py`` uses the servers and the clients too.
"""

from __future__ import annotations

import argparse
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from typing import Any

import msgpack
import zmq
from measuring import (
    ENTRIES,
    Caller,
    Child,
    Regime,
    Variant,
    add_arguments,
    key_of,
    measure_regimes,
    pin,
    placed,
    say,
)

LENGTH = struct.Struct("!I")


def value_of(number: int) -> str:
    return f"{number:096}"


def make_table() -> dict[str, str]:
    """What every server that looks something up looks it up in."""
    return {key_of(number): value_of(number) for number in range(ENTRIES)}


# ----------------------------------------------------------------------------------- the servers
# Each runs in the main thread of its process, says its port by calling `ready`, and is ended by a signal.

Ready = Callable[[int], None]


def serve_reqrep(ready: Ready) -> None:
    replying = zmq.Context().socket(zmq.REP)
    ready(replying.bind_to_random_port("tcp://127.0.0.1"))
    reply = value_of(0).encode()
    while True:
        replying.recv()
        replying.send(reply)


def serve_router(ready: Ready) -> None:
    handlers: dict[str, Callable[..., Any]] = {"get": make_table().get}
    router = zmq.Context().socket(zmq.ROUTER)
    ready(router.bind_to_random_port("tcp://127.0.0.1"))
    while True:
        sender, request_id, body = router.recv_multipart()
        method, arguments = msgpack.unpackb(body)
        router.send_multipart([sender, request_id, msgpack.packb(handlers[method](*arguments))])


def serve_batches(ready: Ready) -> None:
    """As ``serve_router``, with any number of requests in one message; for ``batch.py``."""
    handlers: dict[str, Callable[..., Any]] = {"get": make_table().get}
    router = zmq.Context().socket(zmq.ROUTER)
    ready(router.bind_to_random_port("tcp://127.0.0.1"))
    while True:
        sender, request_id, body = router.recv_multipart()
        answers = [handlers[method](*arguments) for method, arguments in msgpack.unpackb(body)]
        router.send_multipart([sender, request_id, msgpack.packb(answers)])


def serve_socket(ready: Ready) -> None:
    handlers: dict[str, Callable[..., Any]] = {"get": make_table().get}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ready(listening.getsockname()[1])
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, suppress(ConnectionError):
                while True:
                    request_id, method, arguments = receive(connection)
                    send(connection, [request_id, handlers[method](*arguments)])


def send(connection: socket.socket, message: list[Any]) -> None:
    body = msgpack.packb(message)
    connection.sendall(LENGTH.pack(len(body)) + body)


def receive(connection: socket.socket) -> list[Any]:
    data = connection.recv(65536)
    while data and len(data) < 4 + LENGTH.unpack_from(data)[0]:
        data += connection.recv(65536)
    if not data:
        raise ConnectionResetError
    message: list[Any] = msgpack.unpackb(data[4:])
    return message


SERVERS: dict[str, Callable[[Ready], None]] = {
    "raw_reqrep": serve_reqrep,
    "msgpack_dealer_router": serve_router,
    "plain_socket": serve_socket,
}
BATCHES = "msgpack_batches"


# ----------------------------------------------------------------------------------- the clients


class ReqRep:
    def __init__(self, port: int) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.REQ)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def call(self, key: str) -> Any:
        self.socket.send(b"fixed octets, as many as the other requests have..")
        return self.socket.recv()

    def close(self) -> None:
        self.context.destroy(linger=0)


class Dealer:
    """Threads that share a context have a ``Dealer`` each."""

    def __init__(self, port: int, context: zmq.Context[Any] | None = None) -> None:
        self.context = context or zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.last = 0

    def call(self, key: str) -> Any:
        self.last += 1
        request_id = LENGTH.pack(self.last)
        self.socket.send_multipart([request_id, msgpack.packb(["get", [key]])])
        while True:
            answered, body = self.socket.recv_multipart()
            if answered == request_id:
                return msgpack.unpackb(body)

    def pipeline(self, keys: Sequence[str], window: int) -> int:
        """Asks for all of them with ``window`` requests under way, and returns how many were answered."""
        dealer, waiting = self.socket, set()
        ahead = iter(keys)
        for key in islice(ahead, window):
            waiting.add(self.send(key))
        answered = 0
        while waiting:
            request_id, body = dealer.recv_multipart()
            waiting.remove(request_id)
            assert msgpack.unpackb(body) is not None
            answered += 1
            for key in islice(ahead, 1):
                waiting.add(self.send(key))
        return answered

    def send(self, key: str) -> bytes:
        self.last += 1
        request_id = LENGTH.pack(self.last)
        self.socket.send_multipart([request_id, msgpack.packb(["get", [key]])])
        return request_id

    def close(self) -> None:
        self.context.destroy(linger=0)


class PlainSocket:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last = 0

    def call(self, key: str) -> Any:
        self.last += 1
        send(self.socket, [self.last, "get", [key]])
        while True:
            answered, value = receive(self.socket)
            if answered == self.last:
                return value

    def close(self) -> None:
        self.socket.close()


CLIENTS: dict[str, Callable[[int], Caller]] = {
    "raw_reqrep": ReqRep,
    "msgpack_dealer_router": Dealer,
    "plain_socket": PlainSocket,
}

BASELINE = "msgpack_dealer_router"


def open_variant(name: str, regime: Regime, stack: ExitStack) -> Variant:
    """Starts a server and connects to it; both end with the stack."""
    server = stack.enter_context(Child(__file__, "--serve", name, cpu=regime.server_cpu))
    with placed(regime.client_cpu):  # libzmq's threads run where the thread that makes their context does
        caller = CLIENTS[name](server.hello["port"])
    stack.callback(caller.close)
    return Variant(caller, server.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    servers = SERVERS | {BATCHES: serve_batches}
    parser.add_argument("--serve", choices=servers, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        pin(options.cpu)
        servers[options.serve](lambda port: say(port=port))
    else:
        measure_regimes(options, "floor", BASELINE, open_all)


def open_all(regime: Regime, stack: ExitStack) -> dict[str, Variant]:
    return {name: open_variant(name, regime, stack) for name in SERVERS}


if __name__ == "__main__":
    main()
