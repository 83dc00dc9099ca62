"""What is known of a message that was received: mpi4py's ``Status``."""

from __future__ import annotations

from typing import Any, Final

from .datatypes import BYTE, Datatype

__all__ = ["ANY_SOURCE", "ANY_TAG", "SUCCESS", "UNDEFINED", "Status"]

# The values are Open MPI's, so that numbers in logs of both mean the same.
ANY_SOURCE: Final = -1
ANY_TAG: Final = -1
UNDEFINED: Final = -32766
SUCCESS: Final = 0


class Status:
    """Of one message: from whom, with which tag, how long.

    Attributes:
        source: rank of the sender.
        tag: of the message.
        error: ``SUCCESS``, or one of the ``ERR_`` numbers.
        count: octets of the message; of a Python object those of its encoding.
        cancelled: whether the receive was taken back.
    """

    __slots__ = ("cancelled", "count", "error", "source", "tag")
    __hash__ = None  # type: ignore[assignment]  # it changes

    def __init__(self, status: Status | None = None) -> None:
        self.source: int = ANY_SOURCE
        self.tag: int = ANY_TAG
        self.error: int = SUCCESS
        self.count: int = 0
        self.cancelled: bool = False
        if status is not None:
            self.source, self.tag, self.error, self.count, self.cancelled = status._key()

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Status) else NotImplemented

    def __repr__(self) -> str:
        cancelled = ", cancelled" if self.cancelled else ""
        return f"<Status source={self.source} tag={self.tag} count={self.count} error={self.error}{cancelled}>"

    def _key(self) -> tuple[Any, ...]:
        return self.source, self.tag, self.error, self.count, self.cancelled

    def Get_source(self) -> int:
        """Rank of the sender."""
        return self.source

    def Set_source(self, source: int) -> None:
        """Sets ``source``."""
        self.source = source

    def Get_tag(self) -> int:
        """Tag of the message."""
        return self.tag

    def Set_tag(self, tag: int) -> None:
        """Sets ``tag``."""
        self.tag = tag

    def Get_error(self) -> int:
        """``SUCCESS``, or one of the ``ERR_`` numbers."""
        return self.error

    def Set_error(self, error: int) -> None:
        """Sets ``error``."""
        self.error = error

    def Get_count(self, datatype: Datatype = BYTE) -> int:
        """How many items of a type the message holds; ``UNDEFINED``: not a whole number of them."""
        count = datatype.items_in(self.count)
        return UNDEFINED if count is None else count

    def Get_elements(self, datatype: Datatype) -> int:
        """The same as ``Get_count``: every type of ``MPI``'s own is one element, a pair too."""
        return self.Get_count(datatype)

    def Set_elements(self, datatype: Datatype, count: int) -> None:
        """Sets ``count`` to the octets of so many items."""
        self.count = datatype.size * count

    def Is_cancelled(self) -> bool:
        """Whether the receive was taken back."""
        return self.cancelled

    def Set_cancelled(self, flag: bool) -> None:
        """Sets ``cancelled``."""
        self.cancelled = bool(flag)
