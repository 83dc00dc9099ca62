"""The calls under way on one connection: which answer belongs to whom, and what has waited too long.

Used by the faces that have many calls in flight (``aio``, ``Client.submit``). It is on the hot path of every such call:
a dict entry on the way out, one lookup on the way back. Deadlines are kept by their earliest only. Nearly every call is
answered long before its own, so a heap of them would be bookkeeping for nothing; when the earliest has come, all calls
under way are looked at, and there is a bounded number of those.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

__all__ = ["Inflight"]

Token = TypeVar("Token")


class Inflight(Generic[Token]):
    """Every call that is begun ends once: in ``receive``, ``cancel``, ``expired`` or ``lost``, which return its token.

    Args:
        calls_max: calls under way at one time; one more is refused.
        bytes_max: octets of their requests together; a request that goes over it is refused, unless it is alone.

    Attributes:
        bytes: octets of the requests under way.
        deadline: no call under way ends earlier; ``inf`` for never. To be asked for ``expired`` then. It may be earlier
            than need be, as calls that are over are not taken out of it.
    """

    __slots__ = ("_bytes_max", "_calls", "_calls_max", "bytes", "deadline")

    def __init__(self, calls_max: int, bytes_max: int) -> None:
        self._calls: dict[int, tuple[Token, float, int]] = {}
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self.bytes = 0
        self.deadline = math.inf

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, call_id: int, token: Token, deadline: float, octets: int = 0) -> bool:
        """Notes a call. Returns False when there is no room for it: then nothing has changed.

        Args:
            call_id: never used before on this connection.
            token: whatever its owner knows the call by.
            deadline: when it expires; ``inf`` for never.
            octets: of its request.
        """
        calls = self._calls
        assert call_id not in calls, f"call {call_id} is under way"
        if calls and (len(calls) >= self._calls_max or self.bytes + octets > self._bytes_max):
            return False
        calls[call_id] = (token, deadline, octets)
        self.bytes += octets
        if deadline < self.deadline:  # noqa: PLR1730 - min() is a call, and this is the hot path
            self.deadline = deadline
        return True

    def receive(self, call_id: int) -> Token | None:
        """The call that an answer belongs to, which is over with it. None: it waits no longer (PROTOCOL.md, 8.31)."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return None
        self.bytes -= call[2]
        return call[0]

    cancel = receive  # nobody waits for the answer any more: the same, seen from the other side

    def find(self, call_id: int) -> Token | None:
        """The call that a message belongs to which does not end it: items of a stream, credit. None: it is over."""
        call = self._calls.get(call_id)
        return None if call is None else call[0]

    def tokens(self) -> list[Token]:
        """The calls under way, earliest begun first."""
        return [token for token, _, _ in self._calls.values()]

    def extend(self, call_id: int, deadline: float) -> None:
        """Gives a call that is under way, a stream say, another deadline."""
        token, _, octets = self._calls[call_id]
        self._calls[call_id] = (token, deadline, octets)
        self.deadline = min(self.deadline, deadline)

    def expired(self, now: float) -> list[Token]:
        """The calls whose deadline has come, earliest begun first; they are over."""
        if now < self.deadline:
            return []
        late = [call_id for call_id, (_, deadline, _) in self._calls.items() if deadline <= now]
        tokens = [self._end(call_id) for call_id in late]
        self.deadline = min((deadline for _, deadline, _ in self._calls.values()), default=math.inf)
        return tokens

    def lost(self) -> list[Token]:
        """The connection has ended: every call under way, earliest begun first; they are over."""
        tokens = self.tokens()
        self._calls.clear()
        self.bytes = 0
        self.deadline = math.inf
        return tokens

    def check(self) -> None:
        """Asserts what always holds."""
        calls = self._calls.values()
        assert len(calls) <= max(self._calls_max, 1)
        assert self.bytes == sum(octets for _, _, octets in calls)
        assert self.bytes <= self._bytes_max or len(calls) == 1
        assert all(self.deadline <= deadline for _, deadline, _ in calls)

    def _end(self, call_id: int) -> Token:
        token, _, octets = self._calls.pop(call_id)
        self.bytes -= octets
        return token
