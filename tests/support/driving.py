"""A loop around a machine that writes down what happens to it, and bare sockets to talk to it with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from spark_partition_server.core.effects import Effect, Send
from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.net.control import dealer, router
from spark_partition_server.net.loop import Loop
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Heartbeat, Message

from .lanes import LONG

__all__ = ["BEAT", "LOCAL", "RUN", "Driven", "Peer", "Recorder", "driven"]

LOCAL = "127.0.0.1"
RUN = b"run-----"
BEAT = Heartbeat(3, 1, 7)


class Recorder:
    """A machine that writes down what reaches it, and sends heartbeats back."""

    def __init__(self, interval: float | None = None) -> None:
        self.deadline = None if interval is None else time.monotonic() + interval
        self.received: list[tuple[Message, bytes]] = []
        self.refused: list[tuple[int, bytes]] = []
        self.ticks: list[float] = []
        self.interval = interval

    def receive(self, message: Message, sender: bytes, now: float) -> list[Effect]:
        self.received.append((message, sender))
        return [Send(sender or None, message)] if isinstance(message, Heartbeat) else []

    def malformed(self, error: RemoteProtocolError, sender: bytes) -> list[Effect]:
        self.refused.append((error.code, sender))
        return []

    def tick(self, now: float) -> list[Effect]:
        self.ticks.append(now)
        if self.deadline is not None and now >= self.deadline:
            self.deadline = now + (self.interval or 0.0)
        return []


class Driven:
    """A loop around a recorder, and what was performed."""

    def __init__(self, machine: Any, perform: Callable[[Effect], None] | None, endpoint: str | None) -> None:
        self.performed: list[Effect] = []
        self.machine = machine
        if endpoint is None:
            context, bound, port = router(LOCAL, None, 4)
            self.endpoint = f"tcp://{LOCAL}:{port}"
        else:
            context, bound = dealer(endpoint)
        self.loop = Loop("driven", context, bound, machine, RUN, perform or self.performed.append)

    def do(self, *effects: Effect) -> None:
        self.loop.call(lambda now: list(effects))


@contextlib.contextmanager
def driven(
    machine: Any = None, perform: Callable[[Effect], None] | None = None, endpoint: str | None = None
) -> Iterator[Driven]:
    made = Driven(machine or Recorder(), perform, endpoint)
    made.loop.start()
    try:
        yield made
    finally:
        assert made.loop.stop()


class Peer:
    """A bare socket of libzmq."""

    def __init__(self, kind: int, endpoint: str | None = None, rcvhwm: int = 1000) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.rcvtimeo, self.socket.linger, self.socket.rcvhwm = int(LONG * 1000), 0, rcvhwm
        if endpoint is None:
            self.endpoint = f"tcp://{LOCAL}:{self.socket.bind_to_random_port(f'tcp://{LOCAL}')}"
        else:
            self.socket.connect(endpoint)

    def ask(self, message: Message) -> Message:
        self.socket.send_multipart(codec.encode(message, RUN))
        return codec.decode(self.socket.recv_multipart(), RUN)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()
        self.context.term()
