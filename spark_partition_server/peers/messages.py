"""Messages from rank to rank: objects in lower case, buffers with a capital."""

from __future__ import annotations

from typing import Any

from ..core.buffers import read_buffer
from ..core.peers.contexts import Context
from ..core.peers.matching import Held
from ..core.status import ANY_SOURCE, ANY_TAG, Status
from ..errors import CommTimeout
from ..net.clock import monotonic
from ..wire.peering import TAG_MAX
from .rank import Basis, Rank, unpacked
from .requests import Request, fill, nothing

__all__ = ["Message", "Messages"]

AN_OBJECT = ""  # the signature of a message that is no buffer
NOBODY = -2  # MPI.PROC_NULL


class Messages(Basis):
    """Point to point."""

    # ---------------------------------------------------------------------------------------------- objects

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Sends an object; returns once it may be changed again."""
        self.isend(obj, dest, tag).wait()

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Sends an object; returns once a receive has met it."""
        self.issend(obj, dest, tag).wait()

    def bsend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Sends a copy of an object; returns at once."""
        self.ibsend(obj, dest, tag).wait()

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Begins to send an object."""
        return self._send(self._rank.pack(obj), dest, tag, AN_OBJECT, f"send(dest={dest}, tag={tag})")

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Begins to send an object; the request is done once a receive has met it."""
        doing = f"ssend(dest={dest}, tag={tag})"
        return self._send(self._rank.pack(obj), dest, tag, AN_OBJECT, doing, synchronous=True)

    def ibsend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Sends a copy of an object."""
        doing = f"bsend(dest={dest}, tag={tag})"
        return self._send(self._rank.pack(obj), dest, tag, AN_OBJECT, doing, buffered=True)

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Receives an object. ``buf`` is taken for mpi4py's sake, and of no use here."""
        return self.irecv(buf, source, tag).wait(status)

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Begins to receive an object, which the request's ``wait`` returns."""
        self._check(source, tag, receiving=True)
        one = self._rank
        with one.door.lock:
            made = one.peer.recv(self._context, source, tag, one.deadline(), signature=AN_OBJECT)
            one.door.perform()
        return Request(one.door, made, _object)

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> Any:
        """Sends an object and receives one, at the same time."""
        receiving = self.irecv(recvbuf, source, recvtag)
        sending = self.isend(sendobj, dest, sendtag)
        got = receiving.wait(status)
        sending.wait()
        return got

    # ---------------------------------------------------------------------------------------------- buffers

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Sends a buffer; returns once it may be changed again."""
        self.Isend(buf, dest, tag).wait()

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Sends a buffer; returns once a receive has met it."""
        self.Issend(buf, dest, tag).wait()

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """Begins to send a buffer."""
        found = read_buffer(buf)
        return self._send((found.octets,), dest, tag, found.dtype, f"Send(dest={dest}, tag={tag})")

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """Begins to send a buffer; the request is done once a receive has met it."""
        found = read_buffer(buf)
        doing = f"Ssend(dest={dest}, tag={tag})"
        return self._send((found.octets,), dest, tag, found.dtype, doing, synchronous=True)

    def Recv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> None:
        """Receives into a buffer, which may be larger than the message."""
        self.Irecv(buf, source, tag).wait(status)

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Begins to receive into a buffer."""
        self._check(source, tag, receiving=True)
        one, found = self._rank, read_buffer(buf, writable=True)
        doing = f"Recv(source={source}, tag={tag})"
        with one.door.lock:
            made = one.peer.recv(
                self._context, source, tag, one.deadline(), into=found.octets, signature=found.dtype, doing=doing
            )
            one.door.perform()
        return Request(one.door, made, nothing)

    def Sendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Sends a buffer and receives into another, at the same time."""
        receiving = self.Irecv(recvbuf, source, recvtag)
        sending = self.Isend(sendbuf, dest, sendtag)
        receiving.wait(status)
        sending.wait()

    # ------------------------------------------------------------------------------------------- envelopes

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Whether a message is there that ``recv`` would receive now."""
        self._check(source, tag, receiving=True)
        self._rank.door.turn(0.0)
        held = self._rank.peer.probe(self._context, source, tag)
        if held is not None:
            fill(status, held.source, held.tag, held.octets)
        return held is not None

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Waits until a message is there that ``recv`` would receive. Returns True.

        Raises:
            CommTimeout: none came within the timeout.
        """
        self._check(source, tag, receiving=True)
        one, context, deadline = self._rank, self._context, self._rank.deadline()
        one.door.turn(0.0)
        while (found := one.peer.probe(context, source, tag)) is None:
            left = deadline - monotonic()
            if left <= 0:
                others = tuple(other for other in range(context.size) if other != context.rank)
                missing = others if source == ANY_SOURCE else (source,)
                raise CommTimeout(f"probe(source={source}, tag={tag}) of {context.where}: no message came", missing)
            one.door.turn(left)
        fill(status, found.source, found.tag, found.octets)
        return True

    Iprobe = iprobe
    Probe = probe

    def improbe(
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
    ) -> Message | None:
        """A message that is there, for nobody else to receive; None: there is none."""
        self._check(source, tag, receiving=True)
        self._rank.door.turn(0.0)
        held = self._rank.peer.claim(self._context, source, tag)
        if held is None:
            return None
        fill(status, held.source, held.tag, held.octets)
        return Message(self._rank, self._context, held)

    def mprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message:
        """Waits for a message, which nobody else can receive then. Raises as ``probe`` does."""
        self.probe(source, tag)
        found = self.improbe(source, tag, status)
        assert found is not None, "another thread has received it"
        return found

    Improbe = improbe
    Mprobe = mprobe

    # --------------------------------------------------------------------------------------------- helpers

    def _send(
        self,
        payload: Any,
        dest: int,
        tag: int,
        signature: str,
        doing: str,
        *,
        synchronous: bool = False,
        buffered: bool = False,
    ) -> Request:
        self._check(dest, tag, receiving=False)
        one = self._rank
        with one.door.lock:
            made = one.peer.send(
                self._context,
                dest,
                tag,
                payload,
                one.deadline(),
                signature=signature,
                synchronous=synchronous,
                buffered=buffered,
                doing=doing,
            )
            one.door.perform()
        return Request(one.door, made, nothing)

    def _check(self, other: int, tag: int, *, receiving: bool) -> None:
        """Raises where the arguments are none of a message."""
        size = self._context.size
        if not (0 <= other < size or other == NOBODY or (receiving and other == ANY_SOURCE)):
            raise ValueError(f"{other} is no rank of a communicator of {size} ranks")
        if not (0 <= tag <= TAG_MAX or (receiving and tag == ANY_TAG)):
            raise ValueError(f"a tag is within 0..{TAG_MAX}, not {tag}")


class Message(Basis):
    """A message that ``mprobe`` or ``improbe`` has found; it is received once.

    Args:
        rank: who received it.
        context: of the communicator.
        held: the message.
    """

    def __init__(self, rank: Rank, context: Context, held: Held) -> None:
        super().__init__(rank, context)
        self._held: Held | None = held

    def recv(self, status: Status | None = None) -> Any:
        """Receives it, an object."""
        return self.irecv().wait(status)

    def irecv(self) -> Request:
        """Begins to receive it, an object."""
        return self._receive(None, AN_OBJECT, _object)

    def Recv(self, buf: Any, status: Status | None = None) -> None:
        """Receives it into a buffer."""
        self.Irecv(buf).wait(status)

    def Irecv(self, buf: Any) -> Request:
        """Begins to receive it into a buffer."""
        found = read_buffer(buf, writable=True)
        return self._receive(found.octets, found.dtype, nothing)

    def _receive(self, into: memoryview | None, signature: str, finish: Any) -> Request:
        one, held = self._rank, self._held
        if held is None:
            raise ValueError("the message has been received already")
        self._held = None
        with one.door.lock:
            made = one.peer.recv_claimed(self._context, held, one.deadline(), into=into, signature=signature)
            one.door.perform()
        return Request(one.door, made, finish)


def _object(frames: Any) -> Any:
    return unpacked(frames) if frames is not None else None
