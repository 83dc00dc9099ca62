"""New communicators of old ones: who is in them, and what their number is."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .everywhere import allgather_bruck
from .steps import Schedule

__all__ = ["Split", "split"]

ENTRY = struct.Struct("!?qqQ")  # it wants none; colour, key, the first number that the rank has not used


class Split(NamedTuple):
    """What came of it.

    Attributes:
        number: of our new communicator.
        ranks: its members, ranks of the old one, in the order of their new ranks; empty: we are in none.
        beyond: a number greater than those of all that were made.
    """

    number: int
    ranks: tuple[int, ...]
    beyond: int


def split(rank: int, size: int, color: int | None, key: int, unused: int) -> Schedule:
    """One communicator for each color; a rank without a color (None) is in none. ``Dup`` is one color and no key.

    The numbers are the next that no rank has used, in the order of the colors; each rank must use none of them for
    anything else.

    Args:
        key: orders the ranks of one color; equal ones keep their order.
        unused: the first number that this rank has not used.
    """
    mine = ENTRY.pack(color is None, color or 0, key, unused)
    parcels = yield from allgather_bruck(rank, size, (mine,))
    entries = [ENTRY.unpack(b"".join(parcel)) for parcel in parcels]
    first = max(entry[3] for entry in entries)
    colors = sorted({entry[1] for entry in entries if not entry[0]})
    beyond = first + len(colors)
    if color is None:
        return Split(0, (), beyond)
    members = [other for other in range(size) if not entries[other][0] and entries[other][1] == color]
    members.sort(key=lambda other: entries[other][2])
    return Split(first + colors.index(color), tuple(members), beyond)
