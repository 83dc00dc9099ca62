"""Sort more than one rank holds: every word of the standard library's modules with its place, by a sample sort.

    python distributed_sort.py

Each rank sorts its own rows; from samples of all of them the ranks agree on the borders of as many ranges as there are
ranks; one `alltoall` sends every row to the rank of its range, which merges what it gets. The result is an index, its
parts in the order of the ranks.
"""

from __future__ import annotations

import heapq
import re
import sysconfig
import time
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

SAMPLES = 64  # of each rank for each border; the more, the more alike are the ranges

Row = tuple[str, str, int]  # a word, its module, its line


def algorithm(comm: Any, rows: Iterator[Row]) -> dict[str, Any]:
    """Sort the rows of all ranks.

    Returns:
        The rows of this rank's range, and the seconds that sorting, exchanging and merging took.
    """
    unsorted = list(rows)
    comm.barrier()  # the reading is over, and not part of the times
    clock = [time.perf_counter()]
    mine = sorted(unsorted)
    clock.append(time.perf_counter())
    samples = mine[:: max(len(mine) // (SAMPLES * comm.size), 1)]
    samples = sorted(chain.from_iterable(comm.allgather(samples)))
    borders = [samples[len(samples) * rank // comm.size] for rank in range(1, comm.size)]
    ends = [0, *(bisect_left(mine, border) for border in borders), len(mine)]
    pieces = comm.alltoall([mine[begin:end] for begin, end in pairwise(ends)])
    clock.append(time.perf_counter())
    merged = list(heapq.merge(*pieces))
    clock.append(time.perf_counter())
    return {"rows": merged, "seconds": [after - before for before, after in pairwise(clock)]}


def read(part: int, parts: int) -> Iterator[Row]:
    """The words of one of `parts` parts of the modules, of three letters or more."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[part::parts]:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            for word in re.findall(r"[^\W\d_]{3,}", line):
                yield word.lower(), path.stem, number


def report(results: list[dict[str, Any]]) -> None:
    """Print who has what, and hold it against what Python's `sorted` makes of all rows in one process."""
    print("rank     words  from            to               sort, s  exchange, s  merge, s")
    for rank, result in enumerate(results):
        rows, (sort, exchange, merge) = result["rows"], result["seconds"]
        ends = f"{rows[0][0]:15.15} {rows[-1][0]:15.15}" if rows else " " * 31
        print(f"{rank:4} {len(rows):9,}  {ends} {sort:8.2f}  {exchange:11.2f}  {merge:8.2f}")
    index = [row for result in results for row in result["rows"]]
    reference = sorted(read(0, 1))
    print(f"{len(index):,} words of {len({row[1] for row in index})} modules on {len(results)} ranks")
    assert index == reference
    print("They are what `sorted` makes of them in one process. The check holds.")


def main() -> None:
    from peers_on_spark import RANKS, plot, run_ranks, start_spark

    with start_spark("a distributed sort") as sc:
        runs = {ranks: run_ranks(sc, algorithm, read, ranks) for ranks in range(1, RANKS + 1)}
    report(runs[RANKS])
    seconds = {ranks: max(sum(result["seconds"]) for result in results) for ranks, results in runs.items()}
    print("seconds by ranks: " + ", ".join(f"{ranks}: {second:.2f}" for ranks, second in seconds.items()))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(list(seconds), list(seconds.values()), marker="o", label="measured")
        axes.plot(list(seconds), [seconds[1] / ranks for ranks in seconds], ls=":", label="in proportion to the ranks")
        axes.set(title="a distributed sort", xlabel="ranks", ylabel="seconds", xticks=list(seconds), ylim=(0, None))
        axes.legend()

    plot("distributed_sort", draw)


if __name__ == "__main__":
    main()
