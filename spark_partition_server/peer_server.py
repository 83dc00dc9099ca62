"""``PeerServer``: a function of a communicator on every partition at once."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
from collections.abc import Sequence
from typing import Any

from .comm import Comm
from .core.peers.links import Identity
from .core.peers.peer import Peer, first_context
from .errors import ClusterClosed, CommError, CommRevoked, CommTimeout, CoordinatorLost, ProtocolError, RankLost
from .net.clock import monotonic
from .net.endpoints import bind_local, bind_tcp, tcp_endpoint
from .net.lane import Lane
from .net.peer_door import PeerDoor
from .options import ServerOptions
from .partition_server import PartitionServer
from .peers.rank import TIMEOUT, Rank
from .wire import codec
from .wire.messages import Lookup, Member, Refuse, View

__all__ = ["PeerServer"]

log = logging.getLogger("spark_partition_server.server")

LOOK_EVERY = 0.01  # seconds between two looks at who is there, at first; then longer
LOOK_SELDOM = 0.25
NUMBERS = 1 << 39  # of first communicators


class PeerServer(PartitionServer):
    """Runs ``run(comm)`` on every partition at once, as soon as all of them are there. Override it.

    What the ranks have computed becomes the result RDD by ``_build_result``; the server of a partition leaves when all
    ranks have returned from ``run``.

    Args:
        port, config, options: as in ``PartitionServer``.
        timeout: seconds that an operation of a communicator may take; None: 600.

    Example::

        class Total(PeerServer):
            def run(self, comm):
                self.total = comm.allreduce(sum(self.itr))

            def _build_result(self):
                return [self.total]
    """

    def __init__(
        self,
        port: int | None = None,
        config: dict[str, Any] | None = None,
        options: ServerOptions | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        super().__init__(port, config, options)
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        self.timeout = timeout

    def run(self, comm: Comm) -> None:
        """What this rank does. Override; ``self.itr`` is the partition's iterator."""
        raise NotImplementedError(f"{type(self).__qualname__} must implement run(comm)")

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        """Ends the run: whatever is under way on this rank, or begins, raises ``CommRevoked``."""
        self._stopping.set()
        door = self._door
        if door is not None:
            door.hand(lambda: _revoke_all(door))

    # ------------------------------------------------------------------------------------------ the life

    def _launch_server(self) -> None:
        self._stopping = threading.Event()
        self._door: PeerDoor | None = None
        listening = [bind_tcp(self._bind_host(), self._ports())]
        try:
            self.port = listening[0].getsockname()[1]
            local = bind_local() if self.options.local else None
            if local is not None:
                listening.append(local[0])
            self._local_lane = "" if local is None else local[1]
            self._register()
            watch = _Watch(self._life.coordinator_url, self._life.run_id)
            try:
                members = self._await_members(watch)
                self._run_among(members, listening, watch)
            finally:
                watch.close()
        finally:
            for one in listening:
                one.close()

    def _run_among(self, members: dict[int, Member], listening: Sequence[socket.socket], watch: _Watch) -> None:
        life = self._life
        group = [Identity(rank, members[rank].incarnation) for rank in sorted(members)]
        watch.group = group
        peer = Peer(Identity(life.who.rank, life.who.incarnation), len(group))
        # The same on all ranks that see the same group, and greater for a later one: each has a greater incarnation.
        number = first_context(1 + sum(one.incarnation for one in group) % NUMBERS)
        world, leaving = peer.open(number, group), peer.open(number + 1, group)
        door = self._door = PeerDoor(peer, life.run_id, life.token, listening, members, watch.lost)
        try:
            self._run_to_end(Comm(Rank(door, self.timeout), world))
            with contextlib.suppress(CommError):  # what the others end in is theirs to tell
                _leave(Comm(Rank(door, math.inf), leaving), door)
        finally:
            self._door = None
            door.close()

    def _run_to_end(self, comm: Comm) -> None:
        """Runs the user's function; if it fails, the others are told."""
        assert self._door is not None
        try:
            self.run(comm)
        except CommRevoked:
            _revoke_all(self._door)
            if not self._stopping.is_set():
                raise
            log.info("stopped partition=%d before run() had returned", self._life.who.rank)
        except BaseException:
            _revoke_all(self._door)
            raise

    def _await_members(self, watch: _Watch) -> dict[int, Member]:
        """Who serves which rank, once all are there."""
        rank, timeout = self._life.who.rank, TIMEOUT if self.timeout is None else self.timeout
        deadline, pause = monotonic() + timeout, LOOK_EVERY
        while True:
            view = watch.view(deadline)
            members = {member.rank: member for member in codec.members_of(view)}
            missing = tuple(sorted(set(range(view.size)) - set(members)))
            self._check_view(view, missing)
            if not missing:
                return members
            if monotonic() + pause >= deadline:
                raise CommTimeout(f"rank {rank} waited {timeout:g} s for ranks {missing}, which nobody serves", missing)
            if self._stopping.wait(pause):
                raise ClusterClosed(f"partition {rank} ends: the cluster stops")
            pause = min(pause * 1.5, LOOK_SELDOM)

    def _check_view(self, view: View, missing: tuple[int, ...]) -> None:
        """Raises where a view is not one to begin with, or to wait on with."""

    def _endpoint(self) -> str:
        assert self.port is not None
        return tcp_endpoint(self.host, self.port)

    def _local_endpoint(self) -> str:
        return self._local_lane


class _Watch:
    """What the coordinator says of the members.

    Attributes:
        group: those that are watched.
    """

    def __init__(self, coordinator: str, run_id: bytes) -> None:
        self.group: list[Identity] = []
        self._coordinator = coordinator
        self._run_id = run_id
        self._lane: Lane | None = None
        self._asked = False

    def view(self, deadline: float) -> View:
        """The view now.

        Raises:
            ClusterClosed: the cluster is over.
            CoordinatorLost: no answer by the deadline.
        """
        try:
            if self._lane is None:
                self._lane = Lane(self._coordinator, deadline, codec.VIEW_BYTES_MAX)
            self._lane.send(codec.encode(Lookup(0), self._run_id), deadline)
            message = codec.decode(self._lane.receive(deadline)[0], self._run_id)
        except OSError as error:
            raise CoordinatorLost(f"the coordinator at {self._coordinator} does not answer: {error}") from error
        if isinstance(message, Refuse):
            raise ClusterClosed(f"the coordinator says: {message.text}")
        assert isinstance(message, View)
        return message

    def lost(self) -> Sequence[Identity]:
        """Who is no member any more, by the answer to the last question; and asks again. Waits for nothing."""
        if self._lane is None:
            return ()
        lost: list[Identity] = []
        try:
            for frames in self._lane.take() if self._asked else ():
                self._asked = False
                message = codec.decode(frames, self._run_id)
                if isinstance(message, View):
                    there = {Identity(one.rank, one.incarnation) for one in codec.members_of(message)}
                    lost = [one for one in self.group if one not in there]
            if not self._asked:
                self._asked = not self._lane.offer(codec.encode(Lookup(0), self._run_id))
        except (OSError, ProtocolError) as error:  # whoever looks for the coordinator itself will say so
            log.debug("the view is not known any more error=%s", error)
            self.close()
        return lost

    def close(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None


def _leave(comm: Comm, door: PeerDoor) -> None:
    """Waits until all that are left have come here: who is needed answers them until then."""
    while True:
        try:
            door.leave(comm._context, comm.ibarrier()._operation)
            if comm._context.verdict is None:
                return
            raise comm._context.error()
        except RankLost:
            comm = comm.Shrink()


def _revoke_all(door: PeerDoor) -> None:
    with door.lock:
        for context in list(door.peer.contexts.values()):
            door.peer.revoke(context)
        door.perform()
