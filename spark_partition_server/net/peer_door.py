"""The driver of one rank's machine (``core.peers``) on its connections. There is no thread: whoever waits for a request
sends, selects and receives until it is done.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ..core.peers.contexts import Context
from ..core.peers.links import Identity, Transmit
from ..core.peers.peer import Peer
from ..core.peers.requests import Request
from ..errors import CommError
from ..wire.messages import Member
from .clock import monotonic
from .peer_link import PeerLink
from .peer_links import AGAIN, READ, PeerLinks

__all__ = ["PeerDoor"]

LONGEST = 0.25  # seconds of one select
REACH_AFTER = 0.05  # seconds of waiting for a rank after which there is to be a connection: its end tells of a death
REACH_MOST = 16  # ranks at a time
WATCH_EVERY = 0.5  # seconds between two looks at what the coordinator says
LINGER = 1.0  # seconds at the end for what is still to be sent


class PeerDoor(PeerLinks):
    """See above. One thread at a time drives it; others wait for it.

    Args:
        peer: the machine.
        run_id: of every message.
        token: the run's.
        listening: bound sockets; closed with the door.
        members: where each rank is.
        watch: called every half a second while somebody waits: who is lost, as the coordinator says.
    """

    def __init__(
        self,
        peer: Peer,
        run_id: bytes,
        token: bytes,
        listening: Sequence[socket.socket],
        members: Mapping[int, Member],
        watch: Callable[[], Sequence[Identity]] | None = None,
    ) -> None:
        super().__init__(peer, run_id, token, listening, members)
        self.lock = threading.RLock()
        self._watch = watch
        self._watch_at = monotonic() + WATCH_EVERY
        self._ended: deque[Identity] = deque()
        self._handed: deque[Callable[[], None]] = deque()
        self._leaving: tuple[Context, Request] | None = None
        self._left: set[Identity] = set()  # whose connections have ended since we are leaving
        self._closed = self._over = False
        self._pid = os.getpid()
        self._wake_out, self._wake_in = socket.socketpair()
        for one in (self._wake_out, self._wake_in):
            one.setblocking(False)
        self._selector.register(self._wake_out, READ, None)

    # ------------------------------------------------------------------------------------------ for callers

    def wait(self, request: Request) -> None:
        """Drives the machine until a request is done: by its deadline, for the machine sees to that."""
        with self.lock:
            self.perform()
            if request.done:
                return
            reach_at = monotonic() + REACH_AFTER
            while not request.done:
                self._turn(REACH_AFTER)
                if monotonic() >= reach_at:
                    self._reach(request)
                    reach_at = monotonic() + LONGEST

    def leave(self, context: Context, request: Request) -> None:
        """Waits for a barrier of all who leave: they close their connections as soon as they are through."""
        with self.lock:
            self._leaving = (context, request)
            self.wait(request)
            if request.error is not None:
                self._leaving = None
                self._ended.extend(self._left)
                self._left.clear()

    def turn(self, timeout: float) -> None:
        """Sends and receives, once, after at most ``timeout`` seconds."""
        with self.lock:
            self.perform()
            self._turn(min(timeout, LONGEST))

    def perform(self) -> None:
        """Performs the effects of the machine.

        Raises:
            CommError: the door is closed.
        """
        peer = self.peer
        if self._over:
            raise CommError(f"rank {peer.me.rank} has left its run; a communicator works only while run() does")
        while True:
            while effects := peer.take():
                for effect in effects:
                    if isinstance(effect, Transmit):
                        self._transmit(effect)
                    elif effect.request.error is not None:
                        self._move_away()
            if not self._ended:
                return
            peer.lost(self._ended.popleft())

    def hand(self, run: Callable[[], None]) -> None:
        """Has something run by whoever waits next. From any thread."""
        self._handed.append(run)
        with contextlib.suppress(OSError):
            self._wake_in.send(b"\0")

    def close(self) -> None:
        """Sends what is still to be sent, for a moment, and closes everything. Twice is harmless."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            if os.getpid() == self._pid:  # else it is a forked child's, which must not end its parent's connections
                self._linger()
            for link in list(self._all):
                link.socket.close()
            self._accepting.close()
            self._selector.close()
            self._wake_out.close()
            self._wake_in.close()
            self._over = True

    def _linger(self) -> None:
        """What is under way arrives before the ends of the connections do."""
        end = monotonic() + LINGER
        with contextlib.suppress(Exception):
            self.perform()
            while self._unsent() and monotonic() < end:
                self._turn(0.01)
        known = [link for link in self._all if link.met]
        for link in known:
            with contextlib.suppress(OSError):
                link.socket.shutdown(socket.SHUT_WR)
        for link in known:  # a socket that is closed with octets unread takes back what it has sent
            with contextlib.suppress(OSError):
                while (left := end - monotonic()) > 0:
                    link.socket.settimeout(left)
                    if not link.socket.recv(1 << 16):
                        break

    def _unsent(self) -> bool:
        return any(to not in self.peer.gone for to in self._waiting) or any(link.waiting for link in self._all)

    # ------------------------------------------------------------------------------------------------ turns

    def _turn(self, timeout: float) -> None:
        peer, now = self.peer, monotonic()
        while self._handed:
            self._handed.popleft()()
            self.perform()
            timeout = 0.0
        deadline = peer.deadline
        if deadline is not None:
            if deadline <= now:
                peer.tick(now)
                self.perform()
                return
            timeout = min(timeout, deadline - now)
        if self._again or self._accepting.again is not None:
            timeout = min(timeout, AGAIN)
            self._accepting.tick(now)
            self._try_again(now)
        for key, events in self._selector.select(timeout):
            owner = key.data
            if type(owner) is PeerLink:
                if events & READ:
                    self._readable(owner)
                if events & ~READ:
                    self._writable(owner)
            elif owner is None:
                self._wake_out.recv(4096)
            else:
                self._accepting.acceptable(owner, now)
        if self._watch is not None and now >= self._watch_at:
            self._watch_at = now + WATCH_EVERY
            for lost in self._watch():
                self._lost(lost)
        if self._left:
            self._judge_left()
        self.perform()

    def _gone(self, to: Identity) -> None:
        if self._leaving is not None:
            self._left.add(to)
        else:
            self._ended.append(to)

    def _reach(self, request: Request) -> None:
        """Connects to ranks that a request waits for: who waits for a message may have no connection to its sender."""
        context = request.context
        others = [context.group[rank] for rank in sorted(context.waits(request)) if rank < context.size]
        missing = [to for to in others if to != self.peer.me and to not in self.peer.gone and to not in self._links]
        for to in missing[:REACH_MOST]:
            if to not in self._again:
                self._open(to)
        self.perform()

    def _judge_left(self) -> None:
        """Whoever has gone while we leave has left, unless we still wait for him."""
        assert self._leaving is not None
        context, request = self._leaving
        needed = {context.group[rank] for rank in context.waits(request)} if not request.done else set()
        self._ended.extend(self._left & needed)
        self._left -= needed

    def _try_again(self, now: float) -> None:
        for to in [to for to, at in self._again.items() if at <= now]:
            del self._again[to]
            if to not in self._links:
                self._open(to)
