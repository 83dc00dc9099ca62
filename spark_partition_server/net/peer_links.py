"""The connections of one rank to the others: opened when they are first needed, accepted, met, kept, lost.

The end of one is a loss: what was on its way is gone, and nobody could say what. Two ranks that connect to each other
at the same time keep both connections, each to send over its own.
"""

from __future__ import annotations

import hmac
import logging
import os
import selectors
import socket
from collections import deque
from collections.abc import Mapping, Sequence

from ..core.peers.links import Identity, Transmit
from ..core.peers.peer import Peer
from ..errors import ProtocolError, RemoteProtocolError
from ..wire import codec
from ..wire.messages import Member
from ..wire.peering import Data, Meet, Tell
from ..wire.zmtp import Frames
from .accepting import Accepting
from .clock import monotonic
from .endpoints import Beginning
from .peer_link import PeerLink

__all__ = ["AGAIN", "READ", "PeerLinks"]

log = logging.getLogger("spark_partition_server.net")

READ = selectors.EVENT_READ
READ_WRITE = selectors.EVENT_READ | selectors.EVENT_WRITE
AGAIN = 0.02  # seconds until a rank that accepts nobody now is tried again
STRANGERS_MAX = 256  # connections that have not said MEET; one more ends the oldest
READS = 16  # system calls for one connection before the others have their turn


class PeerLinks:
    """See above. ``PeerDoor`` drives it.

    Args:
        peer: the machine.
        run_id: of every message.
        token: the run's.
        listening: bound sockets; closed with the door.
        members: where each rank is.
    """

    def __init__(
        self,
        peer: Peer,
        run_id: bytes,
        token: bytes,
        listening: Sequence[socket.socket],
        members: Mapping[int, Member],
    ) -> None:
        self.peer = peer
        self._run_id = run_id
        self._token = token
        self._members = members
        self._links: dict[Identity, PeerLink] = {}  # over which we send
        self._all: dict[PeerLink, None] = {}
        self._strangers: dict[PeerLink, None] = {}  # have not said who they are
        self._waiting: dict[Identity, deque[Transmit]] = {}  # until there is a connection
        self._ways: dict[Identity, list[str]] = {}  # endpoints to be tried
        self._again: dict[Identity, float] = {}
        self._selector = selectors.DefaultSelector()
        self._accepting = Accepting(listening, self._accepted, self._make_room)
        self._accepting.begin(self._selector)

    def _gone(self, to: Identity) -> None:
        """The connections of a rank have ended, or there is no way to it. The driver knows what that means."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------- sending

    def _transmit(self, effect: Transmit) -> None:
        to = effect.to
        link = self._links.get(to)
        if link is not None and link.met:
            link.put(codec.encode(effect.message, self._run_id), effect.ticket)
            self._writable(link)
        elif to in self.peer.gone:
            if effect.ticket is not None:
                self.peer.sent(effect.ticket)
        else:
            self._waiting.setdefault(to, deque()).append(effect)
            if link is None and to not in self._again:
                self._open(to)

    def _open(self, to: Identity) -> None:
        """Connects to a rank, by the first of its endpoints that takes us."""
        ways = self._ways.get(to)
        if ways is None:
            member = self._members.get(to.rank)
            known = member is not None and member.incarnation == to.incarnation
            ways = self._ways[to] = [one for one in (member.local, member.endpoint) if one] if known and member else []
        while ways:
            try:
                begun = Beginning(ways[0]).next()
            except BlockingIOError:  # a Unix socket whose owner accepts nobody now, and many wait
                self._again[to] = monotonic() + AGAIN
                return
            except (OSError, ValueError) as error:
                log.debug("no connection to=%s endpoint=%s error=%s", to, ways[0], error)
                ways.pop(0)
                continue
            link = self._links[to] = PeerLink(begun, to)
            link.watched = True
            self._all[link] = None
            self._selector.register(begun, READ_WRITE, link)
            return
        log.info("no way to rank=%d of incarnation=%d", to.rank, to.incarnation)
        self._lost(to)

    def _writable(self, link: PeerLink) -> None:
        if link.socket.fileno() < 0:
            return  # it has ended in this very turn
        if link.connecting:
            code = link.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._end(link, OSError(code, os.strerror(code)))
                return
            link.connecting = False
        try:
            gone = link.write()
        except OSError as error:
            self._end(link, error)
            return
        if link.waiting != link.watched:
            link.watched = link.waiting
            self._selector.modify(link.socket, READ_WRITE if link.waiting else READ, link)
        for ticket in gone:
            self.peer.sent(ticket)

    # -------------------------------------------------------------------------------------------- receiving

    def _readable(self, link: PeerLink) -> None:
        if link.socket.fileno() < 0 or link.connecting:
            return
        try:
            for _ in range(READS):
                messages, more = link.read()
                for frames in messages:
                    self._message(link, frames)
                if link.met:
                    self._place(link)
                if not more:
                    break
            if link.ours and link.ready and not link.said:
                self._say_meet(link)
            if link.waiting:
                self._writable(link)
        except (OSError, ProtocolError) as error:
            self._end(link, error)

    def _place(self, link: PeerLink) -> None:
        """A long frame goes straight into the memory of whoever waits for it, where nobody else's message can meet it.

        That is: pieces of collectives, and what was granted. A message to a receive of any source is not among them.
        """
        found = link.long_frame()
        if found is None or len(found[0]) != 2 or link.to is None:
            return
        frames, octets = found
        message = codec.decode(frames, self._run_id)
        if isinstance(message, Data) or (isinstance(message, Tell) and message.sequence > 0):
            memory = self.peer.place(message, link.to, octets)
            if memory is not None:
                link.move(memory)

    def _move_away(self) -> None:
        """A request has failed: its memory is the user's again."""
        for link in self._all:
            link.move_away()

    def _message(self, link: PeerLink, frames: Frames) -> None:
        message = codec.decode(frames, self._run_id)
        if link.met:
            assert link.to is not None
            self.peer.receive(message, link.to)
        elif isinstance(message, Meet):
            self._meet(link, message)
        else:
            raise RemoteProtocolError(f"{message.kind.name} before MEET")

    # ---------------------------------------------------------------------------------------------- meeting

    def _say_meet(self, link: PeerLink) -> None:
        assert link.to is not None
        link.said = True
        link.put(codec.encode(Meet(*self.peer.me, *link.to, self._token), self._run_id))

    def _meet(self, link: PeerLink, meet: Meet) -> None:
        me, who = self.peer.me, Identity(meet.rank, meet.incarnation)
        if not hmac.compare_digest(meet.token, self._token):
            raise RemoteProtocolError("MEET with a wrong token")
        if (meet.to_rank, meet.to_incarnation) != me or who == me or (link.to is not None and link.to != who):
            raise RemoteProtocolError(f"MEET of {who} for {meet.to_rank, meet.to_incarnation}; this is {me}")
        if not link.ours:
            if who in self.peer.gone:
                raise RemoteProtocolError(f"{who} is lost")
            del self._strangers[link]
            link.to = who
            self._links.setdefault(who, link)
            self._say_meet(link)
        link.trust()
        if self._links.get(who) is link:
            self._again.pop(who, None)
            for effect in self._waiting.pop(who, ()):
                link.put(codec.encode(effect.message, self._run_id), effect.ticket)

    def _accepted(self, accepted: socket.socket) -> None:
        if len(self._strangers) >= STRANGERS_MAX:
            self._make_room()
        link = PeerLink(accepted, None)
        self._all[link] = self._strangers[link] = None
        self._selector.register(accepted, READ, link)
        self._writable(link)

    def _make_room(self) -> bool:
        oldest = next(iter(self._strangers), None)
        if oldest is not None:
            self._forget(oldest)
        return oldest is not None

    # ------------------------------------------------------------------------------------------------- ends

    def _end(self, link: PeerLink, error: Exception) -> None:
        """A connection is over."""
        self._forget(link)
        to = link.to
        if to is None:
            log.info("a stranger's connection ended error=%s", error)
        elif link.connecting:  # nobody is there; by another way perhaps
            log.debug("no connection to=%s error=%s", to, error)
            self._ways[to].pop(0)
            self._open(to)
        else:
            log.info("the connection with rank=%d ended error=%s", to.rank, error)
            self._lost(to)

    def _forget(self, link: PeerLink) -> None:
        self._all.pop(link, None)
        self._strangers.pop(link, None)
        if link.socket.fileno() >= 0:
            self._selector.unregister(link.socket)
            link.socket.close()
        if link.to is not None and self._links.get(link.to) is link:
            del self._links[link.to]

    def _lost(self, to: Identity) -> None:
        for effect in self._waiting.pop(to, ()):
            if effect.ticket is not None:
                self.peer.sent(effect.ticket)
        self._gone(to)
