"""A client's rules: who serves which partition, and what to do when a call fails.

A call that certainly did not happen (*definite*) is tried again within its deadline, after another look at the view. A
call that may have happened is tried again only if its method is declared idempotent.
"""

from __future__ import annotations

from typing import Any

from ..wire import codec
from ..wire.codes import CODES, Code
from ..wire.messages import Member, View

__all__ = ["Calls"]

FIRST_PAUSE = 0.02  # seconds; a server that Spark starts again takes 0.3 to 0.5 s
LONGEST_PAUSE = 0.5
MARGIN = 0.005  # a try with less time than this cannot end in a reply


class Calls:
    """The view a client acts on, and its decisions.

    Attributes:
        view_number: of the view adopted last; 0: none yet.
        size: partitions of the cluster.
        members: by rank.
        idempotent: methods that may run twice.
        message_bytes_max: the largest request that the servers take; 0: the view does not say.
        partitioner: where keys live, as the view tells it; None: it does not.
        relay_port: the coordinator's port for relayed calls; 0: it has none.
    """

    __slots__ = ("idempotent", "members", "message_bytes_max", "partitioner", "relay_port", "size", "view_number")

    def __init__(self) -> None:
        self.view_number = 0
        self.size = 0
        self.members: dict[int, Member] = {}
        self.idempotent: frozenset[str] = frozenset()
        self.message_bytes_max = 0
        self.partitioner: Any = None
        self.relay_port = 0

    def adopt(self, view: View) -> bool:
        """Takes a view over, unless a later one is known. Returns whether it did.

        Raises:
            RemoteProtocolError: the view is malformed; nothing changes.
        """
        members = codec.members_of(view)
        if view.number < self.view_number:
            return False
        names = view.meta.get("idempotent")
        self.view_number = view.number
        self.size = view.size
        # an unchanged member stays the same object: connections are compared by identity on the hot path
        old = self.members
        self.members = {new.rank: old[new.rank] if old.get(new.rank) == new else new for new in members}
        if self.partitioner != view.meta.get("partitioner"):  # else the same object: clients keep what they made of it
            self.partitioner = view.meta.get("partitioner")
        limit = view.meta.get("message_bytes_max")
        self.message_bytes_max = limit if type(limit) is int and limit > 0 else 0
        port = view.meta.get("relay_port")
        self.relay_port = port if type(port) is int and 0 < port < 65536 else 0
        known = names if isinstance(names, list) else ()
        self.idempotent = frozenset(name for name in known if isinstance(name, str))
        return True

    def pause(
        self,
        method: str,
        definite: bool,
        attempt: int,
        now: float,
        deadline: float,
        jitter: float,
        hint: float = 0.0,
    ) -> float | None:
        """Seconds to wait before the next try of a call that failed, or None: tell the caller.

        Args:
            definite: the call certainly did not happen.
            attempt: tries so far, at least 1.
            jitter: a random number within 0..1, so that many clients do not come back at once.
            hint: seconds that the server wants to be left alone at least.
        """
        assert attempt >= 1
        assert 0 <= jitter <= 1
        if not definite and method not in self.idempotent:
            return None
        pause = min(FIRST_PAUSE * 2 ** min(attempt - 1, 10), LONGEST_PAUSE) * (0.5 + jitter / 2)
        pause = max(pause, hint * (1 + jitter / 2))
        return pause if now + pause + MARGIN < deadline else None

    @staticmethod
    def retryable(code: Code) -> bool:
        """Whether another look at the view and another try can help after a refusal with ``code``."""
        return CODES[code].retry
