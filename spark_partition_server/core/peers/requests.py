"""What a caller waits for: one operation of one communicator, until its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import CommError
from ...wire.fields import Frame
from .links import Outgoing
from .matching import ANY, Held, Posted

if TYPE_CHECKING:
    from .contexts import Context

__all__ = ["Finished", "Request"]


class Finished(NamedTuple):
    """Effect: a request has ended; whoever waits for it may go on."""

    request: Request


class Request:
    """One operation under way.

    Attributes:
        doing: the call, for people: ``recv(source=1, tag=7)``.
        deadline: the instant of its end, at the latest.
        done: it has ended, and the attributes below have their values.
        error: what it raises; None: it succeeded.
        value: of a receive the payload's frames, or the memory they were put into; of a collective its result.
        source, tag, octets, signature: of the message that a receive met.
        cancelled: it was taken back before it met a message.
        sequence: of a collective its number, else 0.
        peer: of a send or a receive the other rank, ``ANY`` for any.
    """

    __slots__ = (
        *("cancelled", "context", "deadline", "doing", "done", "error", "octets", "out", "peer", "posted"),
        *("running", "sequence", "signature", "source", "tag", "value"),
    )

    def __init__(self, context: Context, doing: str, deadline: float, peer: int = ANY) -> None:
        self.context = context
        self.doing = doing
        self.deadline = deadline
        self.peer = peer
        self.done = False
        self.cancelled = False
        self.error: BaseException | None = None
        self.value: Any = None
        self.source = self.tag = ANY
        self.octets = self.sequence = 0
        self.signature = ""
        self.posted: Posted | None = None
        self.out: Outgoing | None = None
        self.running: Any = None

    def result(self) -> Any:
        """The value, of a request that is done.

        Raises:
            CommError: the error it ended in. A collective can also end in what the user's reduction raised.
        """
        assert self.done
        if self.error is not None:
            raise self.error
        return self.value

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        """The end, once; the first one counts."""
        if not self.done:
            self.done = True
            self.value = value
            self.error = error
            self.posted = self.out = self.running = None
            self.context.ended(self)

    # --------------------------------------------------------------- as the owner of a receive or of a message

    def arrived(self, posted: Posted, held: Held, payload: tuple[Frame, ...]) -> None:
        """A receive has its message."""
        self.source, self.tag, self.octets, self.signature = held.source, held.tag, held.octets, held.signature
        if posted.signature is not None and posted.signature != held.signature:
            made = held.signature or "an object"
            self.end(
                error=CommError(
                    f"{self.doing}: the message from rank {held.source} is {made}, not "
                    f"{posted.signature or 'an object'}; both sides must use the same kind of call"
                )
            )
        elif posted.into is None:
            self.end(payload)
        elif held.octets > len(posted.into):
            self.end(
                error=CommError(
                    f"{self.doing}: the message from rank {held.source} has {held.octets} octets, the "
                    f"buffer {len(posted.into)}; it was dropped, make the buffer larger"
                )
            )
        else:
            put(payload, posted.into)
            self.end(posted.into)

    def departed(self, out: Outgoing) -> None:
        """A message counts as sent."""
        self.end()


def put(payload: tuple[Frame, ...], into: memoryview) -> None:
    """Copies a payload to the beginning of a memory that has room, unless the door has put it there already."""
    at = 0
    for frame in payload:
        if frame is not into:
            into[at : at + len(frame)] = frame
        at += len(frame)
