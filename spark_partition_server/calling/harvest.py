"""Batches of runs as every face of a client makes them and reads their answers. Waits for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import CallError, InvalidArguments, MethodNotFound, NotReady
from ..wire.codes import Code
from .answers import never_sent
from .batches import PROBE, RUNS_MAX, Encode, Group, Sizes, packed
from .parcels import Parcel
from .requests import Requests

__all__ = ["STATUS", "first_error", "not_ready", "out_of_time", "planned", "sorted_in", "split"]

STATUS = "sps.status"  # every server answers it, whatever it has to do


def planned(groups: dict[int, Group], size: int, method: str, sizes: Sizes, requests: Requests) -> list[Parcel]:
    """The messages of a ``call_many``, all of them encoded.

    Args:
        size: partitions of the cluster.
        sizes: how many runs fit the answer to a batch, as far as that is known.

    Raises:
        InvalidArguments: one of the partitions is not there.
        TypeError, MessageTooLarge: an argument cannot be sent.
    """
    for rank, group in groups.items():
        if not 0 <= rank < size:
            text = f"there is no such partition; the cluster has {size}; this was calls[{group.places[0]}]"
            raise InvalidArguments(text, rank=rank, method=method)
    known = sizes.of(method)
    parcels = []
    for rank, group in groups.items():
        for payload, runs, places in packed(group, requests.encode, known or PROBE, known or RUNS_MAX):
            requests.check_size(payload, rank, method)
            parcels.append(Parcel(rank, payload, places, runs))
    return parcels


def split(parcel: Parcel, indexes: Sequence[int] | None, most: int, encode: Encode) -> list[Parcel]:
    """The runs of a batch in smaller ones.

    Args:
        indexes: those that are wanted; None: all.
        most: runs of one batch.
    """
    runs = parcel.runs or []
    wanted = range(len(runs)) if indexes is None else indexes
    group = Group()
    group.runs, group.places = [runs[index] for index in wanted], [parcel.places[index] for index in wanted]
    return [Parcel(parcel.rank, payload, places, some) for payload, some, places in packed(group, encode, most, most)]


def sorted_in(
    parcel: Parcel, results: list[Any], errors: dict[int, CallError], out: list[Any], idempotent: bool
) -> tuple[list[int], bool]:
    """Puts what a batch has returned where it belongs.

    Returns:
        the indexes of the runs to be made again, as the answer had no room for their results, and whether some have
        failed.
    """
    assert parcel.runs is not None
    for place, result in zip(parcel.places, results, strict=True):
        out[place] = result
    again = []
    failed = False
    for index, error in errors.items():
        if idempotent and len(parcel.runs) > 1 and error.code == Code.REPLY_TOO_LARGE:
            again.append(index)
            continue
        place = parcel.places[index]
        error.add(f"this was calls[{place}]")
        out[place] = error
        failed = True
    return again, failed


def first_error(out: list[Any], failed: bool) -> list[Any]:
    """The answers, or, where some have ``failed``, the first error among them, raised."""
    if failed:
        raise next(one for one in out if isinstance(one, Exception))
    return out


def out_of_time(groups: dict[int, Group], count: int, method: str, timeout: float) -> list[Any]:
    """The errors of a ``call_many`` whose time was over before it was known how many partitions there are."""
    out: list[Any] = [None] * count
    for rank, group in groups.items():
        for place in group.places:
            out[place] = never_sent(rank, method, timeout)
    return out


def not_ready(found: list[Any], timeout: float) -> None:
    """Raises ``NotReady`` unless all partitions have answered. A server that takes no calls is there all the same."""
    errors = {
        rank: one
        for rank, one in enumerate(found)
        if isinstance(one, Exception) and not isinstance(one, MethodNotFound)
    }
    if errors:
        ready = [rank for rank in range(len(found)) if rank not in errors]
        raise NotReady(ready, errors, timeout) from next(iter(errors.values()))
