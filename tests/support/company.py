"""Ranks in processes of their own, with real sockets between them and a coordinator in the test's process."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from spark_partition_server.coordinator import Coordinator
from spark_partition_server.options import ServerOptions
from spark_partition_server.peer_run import Outcome, Program
from spark_partition_server.spark.shipping import unpacked
from spark_partition_server.spark.task import Identity

from .joining import coordinating
from .remote import Remote

__all__ = ["Company", "company", "performed"]

TIMEOUT = 20.0  # seconds of an operation, which no working program needs


def one_rank(
    url: str, token: bytes, run_id: bytes, rank: int, program: Callable[..., Any], timeout: float, local: bool
) -> Outcome | None:
    """The whole life of a rank; its partition holds its number."""
    server = Program(program, timeout, ServerOptions(local=local))
    server.set_coordinator_url(url)
    server.set_token(token)
    server.set_run(run_id, None)
    outcomes = list(server(rank, iter([rank]), Identity(rank, 0, rank + 1)))
    return outcomes[0] if outcomes else None


class Company:
    """Ranks under way.

    Attributes:
        coordinator: theirs.
    """

    def __init__(
        self, coordinator: Coordinator, size: int, program: Callable[..., Any], timeout: float, local: bool
    ) -> None:
        self.coordinator = coordinator
        common = (coordinator.get_url(), coordinator.token, coordinator.run_id)
        self.ranks = [Remote(one_rank, *common, rank, program, timeout, local) for rank in range(size)]

    def signal(self, rank: int, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the process of a rank."""
        self.ranks[rank].process.send_signal(number)

    def outcome(self, rank: int, timeout: float = 60.0) -> Outcome:
        """What became of a rank."""
        outcome: Outcome = self.ranks[rank].get(timeout)
        return outcome

    def value(self, rank: int) -> Any:
        """What the program returned on a rank; fails with its traceback where it raised."""
        outcome = self.outcome(rank)
        assert outcome.failure is None, str(outcome.failure)
        return unpacked(outcome.value)


@contextlib.contextmanager
def company(
    size: int, program: Callable[..., Any], timeout: float = TIMEOUT, *, local: bool = True, **options: Any
) -> Iterator[Company]:
    """``program(comm, rows)`` on so many ranks. ``local``: they may use the lane of one host."""
    with coordinating(size, **options) as coordinator:
        made = Company(coordinator, size, program, timeout, local)
        try:
            yield made
        finally:
            for rank in made.ranks:
                rank.process.kill()
                with contextlib.suppress(AssertionError):
                    rank.end()


def performed(size: int, program: Callable[..., Any], timeout: float = TIMEOUT, *, local: bool = True) -> list[Any]:
    """What a program returned on each of so many ranks."""
    with company(size, program, timeout, local=local) as made:
        return [made.value(rank) for rank in range(size)]
