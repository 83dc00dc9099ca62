"""``Comm``: mpi4py's communicator, between the partitions of a Spark RDD."""

from __future__ import annotations

from .core.peers.agreement import Value
from .core.status import UNDEFINED
from .peers.messages import Messages
from .peers.vectors import Vectors

__all__ = ["Comm"]


class Comm(Messages, Vectors):
    """The ranks of a group, who send each other messages and compute together: mpi4py's ``Comm``.

    Made by ``run``, by a ``PeerServer``, and by ``Dup``, ``Split`` and ``Shrink`` of another. Methods in lower case
    take any object that can be sent, those with a capital take buffers. One thread of a rank at a time may use its
    communicators, and nothing goes on outside their calls.

    Every operation ends within the timeout of its run: in a result, or in an error that names the ranks that never
    came. When a rank is lost, whatever is under way raises ``RankLost`` on all others; ``Shrink`` then makes a
    communicator of those that are left.
    """

    def __repr__(self) -> str:
        return f"<Comm: rank {self.rank} of {self.size}>"

    @property
    def rank(self) -> int:
        """This rank's number in the group, from 0."""
        return self._context.rank

    @property
    def size(self) -> int:
        """How many ranks the group has."""
        return self._context.size

    def Get_rank(self) -> int:
        """This rank's number in the group, from 0."""
        return self._context.rank

    def Get_size(self) -> int:
        """How many ranks the group has."""
        return self._context.size

    # ------------------------------------------------------------------------------------- communicators

    def Split(self, color: int = 0, key: int = 0) -> Comm | None:
        """One communicator for each color; its ranks are in the order of ``key``. ``MPI.UNDEFINED``: none, and None."""
        return self._split(None if color == UNDEFINED else color, key, "Split()")

    def Dup(self) -> Comm:
        """A communicator of the same ranks, whose messages meet no others."""
        made = self._split(0, 0, "Dup()")
        assert made is not None
        return made

    Clone = Dup

    def Free(self) -> None:
        """It is no longer needed."""
        door = self._rank.door
        with door.lock:
            door.peer.close(self._context)
            door.perform()

    def _split(self, color: int | None, key: int, doing: str) -> Comm | None:
        one = self._rank
        with one.door.lock:
            operation = one.peer.split(self._context, color, key, one.deadline(), doing)
            self._ended(operation)
            made = one.peer.opened(self._context, operation)
            one.door.perform()
        return None if made is None else type(self)(one, made)

    # -------------------------------------------------------------------------------------------- failures

    def Revoke(self) -> None:
        """Ends every operation on it, on all ranks, with ``CommRevoked``; only ``Shrink`` and ``Agree`` work then."""
        door = self._rank.door
        with door.lock:
            door.peer.revoke(self._context)
            door.perform()

    def Is_revoked(self) -> bool:
        """Whether it was revoked, or broken by a loss or a mistake."""
        self._rank.door.turn(0.0)
        return self._context.verdict is not None

    def Shrink(self) -> Comm:
        """A communicator of the ranks that are left; all of those call it.

        Raises:
            CommTimeout: one of them did not, within the timeout.
        """
        one = self._rank
        with one.door.lock:
            operation = one.peer.agree(self._context, 1, one.deadline(), "Shrink()")
            self._ended(operation)
            made = one.peer.shrunk(self._context, operation)
            one.door.perform()
        return type(self)(one, made)

    def Agree(self, flag: int) -> int:
        """The bitwise and of the flags of all living ranks, the same on all of them, whoever is lost meanwhile."""
        one = self._rank
        with one.door.lock:
            value: Value = self._ended(one.peer.agree(self._context, flag, one.deadline()))
        return value.flag - (1 << 64) if value.flag >> 63 else value.flag
