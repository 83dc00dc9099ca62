"""Credit: how far a sender may go ahead of its receiver. Totals counted from the first, so that a repeat does no harm.

The receiver keeps a ``Window``: it says how much may have been sent in all, and says more as it takes things out. The
sender keeps an ``Allowance``: without room it does not make what it could not send.
"""

from __future__ import annotations

from ..errors import RemoteProtocolError
from ..wire.codes import Code

__all__ = ["Allowance", "Window"]


class Allowance:
    """A sender's side of one flow.

    Attributes:
        allowed: how much may have been sent in all.
        sent: how much has been.
    """

    __slots__ = ("allowed", "sent")

    def __init__(self, allowed: int = 0) -> None:
        self.allowed = allowed
        self.sent = 0

    @property
    def room(self) -> int:
        """How much may be sent now."""
        return self.allowed - self.sent

    def grant(self, total: int) -> bool:
        """The receiver's word; one that is not greater than the last is late and changes nothing. Returns whether
        there is room now where there was none."""
        was_empty = self.room == 0
        self.allowed = max(self.allowed, total)
        return was_empty and self.room > 0

    def spend(self, count: int) -> int:
        """``count`` leave now. Returns how many had left before."""
        assert 0 <= count <= self.room
        before = self.sent
        self.sent += count
        return before

    def check(self) -> None:
        """Asserts the invariant."""
        assert 0 <= self.sent <= self.allowed


class Window:
    """A receiver's side of one flow: at most ``size`` things are under way or wait to be taken.

    Attributes:
        size: at least 1.
        granted: how much the sender may have sent in all; the first word is ``size``.
        received: how much has come.
        taken: how much of that has been taken out.
    """

    __slots__ = ("granted", "received", "size", "taken")

    def __init__(self, size: int) -> None:
        assert size >= 1
        self.size = size
        self.granted = size
        self.received = 0
        self.taken = 0

    def receive(self, sequence: int, count: int) -> None:
        """``count`` things have come, the first of them the one with number ``sequence``.

        Raises:
            RemoteProtocolError: one is missing or has come twice, or more has been sent than was granted.
        """
        if sequence != self.received:
            raise RemoteProtocolError(f"item {sequence} came where {self.received} was due", Code.MALFORMED)
        if self.received + count > self.granted:
            text = f"{self.received + count} items have come, {self.granted} were allowed"
            raise RemoteProtocolError(text, Code.MALFORMED)
        self.received += count

    def take(self, count: int = 1) -> int | None:
        """``count`` of what has come are taken out. Returns the total to tell the sender once half of the window is
        free again; None: nothing is to be told yet."""
        assert 0 <= count <= self.received - self.taken
        self.taken += count
        if 2 * (self.granted - self.taken) > self.size:
            return None
        self.granted = self.taken + self.size
        return self.granted

    def check(self) -> None:
        """Asserts the invariant."""
        assert 0 <= self.taken <= self.received <= self.granted <= self.taken + self.size
