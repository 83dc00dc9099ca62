"""Accepting connections on listening sockets, also while the table of descriptors is full."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import selectors
import socket
from collections.abc import Callable, Sequence

from .endpoints import may_share

__all__ = ["ACCEPT_PAUSE", "Accepting"]

log = logging.getLogger("spark_partition_server.net")

ACCEPTS = 64  # connections taken at a time
ACCEPT_PAUSE = 0.1  # seconds without accepting when the descriptor table is full and nothing can be given back
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Accepting:
    """The listening sockets of a listener.

    Args:
        listening: bound sockets; closed by ``close``.
        accept: takes an accepted socket over, with its options set.
        make_room: closes somebody who has not finished its handshake; returns whether there was one.

    Attributes:
        again: when to begin to accept again, once the table was full.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        accept: Callable[[socket.socket], None],
        make_room: Callable[[], bool],
    ) -> None:
        self.listening = list(listening)
        self.again: float | None = None
        self._accept = accept
        self._make_room = make_room
        self._spare: int | None = None  # a descriptor held back, to be able to refuse when there are none
        self._selector: selectors.BaseSelector

    def begin(self, selector: selectors.BaseSelector) -> None:
        """Has ``acceptable`` called for what the selector reports with a listening socket as data."""
        self._selector = selector
        for listening in self.listening:
            listening.setblocking(False)
        self._hold_spare()
        self._watch()

    def tick(self, now: float) -> None:
        """Accepts again after a pause."""
        if self.again is not None and now >= self.again:
            self.again = None
            self._hold_spare()
            self._watch()

    def end(self) -> None:
        """Accepts nobody any more."""
        self.again = None
        for listening in self.listening:
            listening.close()

    def close(self) -> None:
        self.end()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def acceptable(self, listening: socket.socket, now: float) -> None:
        """Somebody is there."""
        if self.again is not None:
            return  # another of the listening sockets has found the table full in this very turn
        for _ in range(ACCEPTS):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in FULL:
                    self._full(listening, error, now)
                    return
                log.warning("accept failed error=%s", error)
                return
            if _prepared(accepted):
                self._accept(accepted)

    def _full(self, listening: socket.socket, error: OSError, now: float) -> None:
        """The descriptor table is full: whoever has not finished its handshake gives way, then the newcomer."""
        if not _has_newcomer(listening):  # the kernel says so as well when nobody is there to be accepted
            return
        if self._make_room():
            return
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with contextlib.suppress(OSError):
                listening.accept()[0].close()  # it learns at once that there is no room, instead of waiting
            self._hold_spare()
        log.warning("accept paused seconds=%g error=%s: raise the limit of open files", ACCEPT_PAUSE, error)
        self.again = now + ACCEPT_PAUSE
        for other in self.listening:
            self._selector.unregister(other)

    def _watch(self) -> None:
        for listening in self.listening:
            self._selector.register(listening, selectors.EVENT_READ, listening)

    def _hold_spare(self) -> None:
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)


def _prepared(accepted: socket.socket) -> bool:
    """Sets the options of an accepted socket; one of another user's process is closed instead."""
    accepted.setblocking(False)
    if accepted.family != socket.AF_UNIX:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    elif not may_share(accepted):
        log.warning("refused: a process of another user connects to the same-host lane")
        accepted.close()
        return False
    return True


def _has_newcomer(listening: socket.socket) -> bool:
    poll = select.poll()  # needs no descriptor of its own
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))
