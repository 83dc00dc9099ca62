"""A port that leads elsewhere, as ``ssh -L`` makes one: what connects to it comes out at another place."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

__all__ = ["forward"]


def forward(listen: tuple[str, int] | str, target: tuple[str, int] | str) -> Iterator[object]:
    """Yields the address that it listens at, and passes on octets, both ways, until it is closed.

    Args:
        listen: a tcp address, or the path of a Unix socket, which network namespaces do not part.
        target: the same.
    """
    listening = socket.socket(_family(listen))
    sockets = [listening]
    with contextlib.closing(listening):
        listening.bind(listen)
        listening.listen()
        threading.Thread(target=_accept, args=(listening, target, sockets), daemon=True).start()
        try:
            yield listening.getsockname()
        finally:
            for one in sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            if isinstance(listen, str):
                os.unlink(listen)


def _accept(listening: socket.socket, target: tuple[str, int] | str, sockets: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):
        while True:
            near, _ = listening.accept()
            far = socket.socket(_family(target))
            try:
                far.connect(target)
            except OSError:
                near.close()
                far.close()
                continue
            sockets += (near, far)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pass, args=(source, sink), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while octets := source.recv(1 << 16):
            sink.sendall(octets)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _family(place: tuple[str, int] | str) -> int:
    return socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
