"""The errors of communicators: what ends an operation between ranks, and on which rank the cause lies."""

from __future__ import annotations

from collections.abc import Iterable

from .base import SparkPartitionServerError

__all__ = [
    "CollectiveMismatch",
    "CollectiveTimeout",
    "CommError",
    "CommRevoked",
    "CommTimeout",
    "RankFailed",
    "RankLost",
    "ranked",
]

NAMED = 10  # ranks that a text names


def ranked(ranks: Iterable[int]) -> str:
    """Ranks for a text: ``rank 3``, ``ranks 0, 2 and 5``, ``ranks 0, 1, ... (17 in all)``."""
    numbers = [str(rank) for rank in sorted(ranks)]
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    if len(numbers) > NAMED:
        return f"ranks {', '.join(numbers[:NAMED])}, ... ({len(numbers)} in all)"
    return f"ranks {', '.join(numbers[:-1])} and {numbers[-1]}" if numbers else "no rank"


class CommError(SparkPartitionServerError):
    """An operation of a communicator failed. Raised itself where a message does not fit the receive it met.

    ``MPI.Exception`` is this class; its methods have mpi4py's names.

    Attributes:
        error_class: one of ``MPI``'s ``ERR_`` numbers.
    """

    error_class: int = 16  # MPI.ERR_OTHER

    @property
    def error_code(self) -> int:
        """The same as ``error_class``."""
        return self.error_class

    @property
    def error_string(self) -> str:
        """What happened, for people."""
        return str(self)

    def Get_error_class(self) -> int:
        """One of ``MPI``'s ``ERR_`` numbers."""
        return self.error_class

    def Get_error_code(self) -> int:
        """The same as ``Get_error_class``."""
        return self.error_code

    def Get_error_string(self) -> str:
        """What happened, for people."""
        return self.error_string


class CommRevoked(CommError):
    """The communicator was revoked; nothing but ``Shrink``, ``Agree`` and the questions about it works any more.

    Attributes:
        rank: the rank, of this communicator, that revoked it.
    """

    error_class = 77  # MPI.ERR_REVOKED

    def __init__(self, text: str, rank: int) -> None:
        super().__init__(text)
        self.rank = rank


class RankLost(CommRevoked):
    """Ranks of the communicator were lost, which revokes it: survivors go on with ``Shrink`` or ``next_comm``.

    Attributes:
        ranks: the ranks that were lost, of this communicator, in order.
        rank: the first of them.
    """

    error_class = 75  # MPI.ERR_PROC_FAILED

    def __init__(self, text: str, ranks: tuple[int, ...]) -> None:
        super().__init__(text, ranks[0])
        self.ranks = ranks


class CollectiveMismatch(CommError):
    """Two ranks called different collectives, or the same with other arguments, at the same place in their order.

    Attributes:
        sequence: the place: the number of the collective, counted from 1 on this communicator.
        ranks: the two ranks.
        signatures: what each of them called, in the same order.
    """

    def __init__(self, text: str, sequence: int, ranks: tuple[int, int], signatures: tuple[str, str]) -> None:
        super().__init__(text)
        self.sequence = sequence
        self.ranks = ranks
        self.signatures = signatures


class CommTimeout(CommError, TimeoutError):
    """An operation did not end by its deadline.

    Attributes:
        missing: the ranks that it waited for and that never came, as far as could be told.
    """

    def __init__(self, text: str, missing: tuple[int, ...]) -> None:
        super().__init__(text)
        self.missing = missing


class CollectiveTimeout(CommTimeout):
    """A collective did not end by the deadline of one of its ranks; raised on all of them.

    Attributes:
        sequence: the number of the collective, counted from 1 on this communicator.
        missing: the ranks that never called it.
    """

    def __init__(self, text: str, missing: tuple[int, ...], sequence: int) -> None:
        super().__init__(text, missing)
        self.sequence = sequence


class RankFailed(CommError):
    """The function that ``run`` was given raised on a rank.

    Attributes:
        rank: where.
        remote_type: the exception's class.
        remote_message: its text.
        remote_traceback: the formatted traceback, as text.
    """

    def __init__(self, rank: int, remote_type: str, remote_message: str, remote_traceback: str = "") -> None:
        super().__init__(rank, remote_type, remote_message, remote_traceback)
        self.rank = rank
        self.remote_type = remote_type
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        head = f"the function raised on rank {self.rank}: {self.remote_type}: {self.remote_message}"
        return f"{head}\n\n{self.remote_traceback.rstrip()}" if self.remote_traceback else head
