"""What a schedule yields, and what it gets for it.

A *schedule* is a generator that runs on every rank of a group, with that rank's number and the group's size. It
yields steps; a step is over when all that it receives has come and all that it sends has left, and the generator then
gets what was received, in the order of ``receives``. What it returns is the collective's result on this rank. It does
its arithmetic itself, by callables it was given. Because it does nothing else, a blocking call, a request and a
simulated world drive the same code.

Rules that every schedule keeps, and that the tests hold it to:

* Each message that one rank sends is received by the other, and those from one rank to another in the order in which
  they were sent; so pieces need no numbers.
* It never needs room: it ends when no message leaves before its receiver waits for it.
* Memory that is sent is not written to before the step is over.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias

from ...wire.fields import Frame

__all__ = ["Parcel", "Schedule", "Step", "among", "exchange", "receive", "send"]

Parcel: TypeAlias = "tuple[Frame, ...]"  # the frames of one message


class Step(NamedTuple):
    """Send and receive, all at once.

    Attributes:
        sends: ``(rank, frames)`` each.
        receives: ``(rank, memory)`` each; the message must have as many octets as the memory, and is found in it.
            Without a memory (None) the message's frames are handed over as they came.
    """

    sends: tuple[tuple[int, Parcel], ...] = ()
    receives: tuple[tuple[int, memoryview | None], ...] = ()


Schedule: TypeAlias = "Generator[Step, list[Any], Any]"


def send(to: int, parcel: Parcel) -> Step:
    """One message to one rank."""
    return Step(((to, parcel),))


def receive(source: int, into: memoryview | None = None) -> Step:
    """One message from one rank."""
    return Step((), ((source, into),))


def exchange(to: int, parcel: Parcel, source: int, into: memoryview | None = None) -> Step:
    """One message to a rank and one from a rank, which may be the same."""
    return Step(((to, parcel),), ((source, into),))


def among(ranks: Sequence[int], schedule: Schedule) -> Schedule:
    """A schedule written for a group of its own, run among some ranks of a larger one: its rank ``i`` is ``ranks[i]``.

    So one algorithm is made of others: reduce on each host, then among one rank of each host.
    """
    got: list[Any] | None = None
    while True:
        try:
            step = schedule.send(got) if got is not None else next(schedule)
        except StopIteration as over:
            return over.value
        got = yield Step(
            tuple((ranks[to], parcel) for to, parcel in step.sends),
            tuple((ranks[source], into) for source, into in step.receives),
        )
