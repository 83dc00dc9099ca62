"""Plain HTTP on loopback."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["LOCAL", "LONG", "ask", "ended", "in_thread", "read_all", "refuses"]

LOCAL = "127.0.0.1"
LONG = 60.0  # seconds; a test that waits this long has failed


def ask(
    port: int, path: str = "/", method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] = {}
) -> tuple[int, str]:
    """Status and text of one request on a connection of its own."""
    connection = http.client.HTTPConnection(LOCAL, port, timeout=LONG)
    try:
        connection.request(method, path, body, dict(headers))
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def refuses(port: int) -> bool:
    """Whether nobody listens on ``port``."""
    with socket.socket() as probe:
        return probe.connect_ex((LOCAL, port)) != 0


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes, gently or not."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(1 << 20):
            data += piece
    return data


def in_thread(function: Callable[..., Any], *args: Any) -> threading.Thread:
    """``function(*args)`` in a thread that cannot keep pytest alive."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    """Whether ``thread`` ends within LONG seconds."""
    thread.join(LONG)
    return not thread.is_alive()
