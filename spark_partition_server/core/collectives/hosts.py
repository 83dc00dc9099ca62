"""Allreduce in two storeys: on each host first, then among one rank of each, then on each host again.

What crosses the network is one host's sum instead of each rank's. On the hosts any schedules will do; a door whose
ranks share memory puts its own in their place, which need not send octets at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from . import choice
from .memory import Combine
from .steps import Schedule, among

__all__ = ["Storey", "allreduce", "gathered", "worth_it"]

# Made for a rank and a size on one host: a reduction to the host's rank 0, or what its rank 0 has to all of them.
Storey: TypeAlias = "Callable[[int, int], Schedule]"


def gathered(hosts: Sequence[str]) -> list[list[int]]:
    """The ranks of each host, in order, hosts in the order of their first ranks; ``hosts`` names that of each rank."""
    groups: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        groups.setdefault(host, []).append(rank)
    return list(groups.values())


def worth_it(groups: Sequence[Sequence[int]], octets: int, commutative: bool = True) -> bool:
    """Whether two storeys beat one: several hosts, of which one at least has several ranks, and octets to be saved.

    Ranks of a host need not be neighbours, so the order of operands is not kept.
    """
    several = any(len(group) > 1 for group in groups)
    return commutative and several and len(groups) > 1 and octets > choice.SHORT_OCTETS


def allreduce(
    rank: int,
    groups: Sequence[Sequence[int]],
    work: memoryview,
    item: int,
    combine: Combine,
    up: Storey | None = None,
    down: Storey | None = None,
) -> Schedule:
    """All numbers in one on every rank, into ``work``; the same to the last bit. Only where the order does not matter.

    Args:
        groups: as ``gathered`` makes them.
        up, down: the schedules on a host; None: those by messages.
    """

    def reduced(place: int, size: int) -> Schedule:
        return choice.reduce(place, size, 0, work, item, combine)

    def told(place: int, size: int) -> Schedule:
        return choice.bcast(place, size, 0, work)

    here = next(group for group in groups if rank in group)
    firsts = [group[0] for group in groups]
    place = here.index(rank)
    yield from among(here, (up or reduced)(place, len(here)))
    if place == 0:
        schedule = choice.allreduce(firsts.index(rank), len(firsts), work, item, combine)
        yield from among(firsts, schedule)
    yield from among(here, (down or told)(place, len(here)))
