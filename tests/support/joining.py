"""A member of a cluster that is only a socket: says what it is told to, and shows what it was told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import zmq

from spark_partition_server.coordinator import Coordinator
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Hello, Message

from .lanes import LONG

__all__ = ["Member", "coordinating", "hello"]


def hello(coordinator: Coordinator, rank: int, incarnation: int = 1, port: int = 0, **fields: Any) -> Hello:
    """The HELLO of a server; ``port`` is 1000 + rank where nothing else is said."""
    return Hello(
        rank,
        incarnation,
        fields.pop("attempt", 0),
        "127.0.0.1",
        port or 1000 + rank,
        "",
        fields.pop("token", coordinator.token),
        codec.VERSION,
        codec.VERSION,
        **fields,
    )


class Member:
    """A DEALER connected to a coordinator."""

    def __init__(self, coordinator: Coordinator, run_id: bytes | None = None) -> None:
        self.coordinator = coordinator
        self.run_id = run_id or coordinator.run_id
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.rcvtimeo, self.socket.linger = int(LONG * 1000), 0
        self.socket.connect(coordinator.get_url() or "")

    def say(self, message: Message) -> None:
        self.socket.send_multipart(codec.encode(message, self.run_id))

    def hear(self) -> Message:
        return codec.decode(self.socket.recv_multipart(), self.run_id)

    def ask(self, message: Message) -> Message:
        self.say(message)
        return self.hear()

    def join(self, rank: int, incarnation: int = 1, **fields: Any) -> Message:
        """HELLO, and the answer to it."""
        return self.ask(hello(self.coordinator, rank, incarnation, **fields))

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()
        self.context.term()


@contextlib.contextmanager
def coordinating(await_partitions: int | None = 2, **options: Any) -> Iterator[Coordinator]:
    """A coordinator that has been started, stopped at the end."""
    coordinator = Coordinator(await_partitions, options.pop("verbose", False), options.pop("token", None), **options)
    coordinator.start()
    try:
        yield coordinator
    finally:
        coordinator.stop()
