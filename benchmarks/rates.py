"""Bursts of operations whose rate is measured: operations a second, of variants that take turns within each round.

As in ``measuring.py``, a burst during which processes of others used too much is dropped, and ratios are of the rates
within one round.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from measuring import SEED, Watch, await_quiet


@dataclass
class Rate:
    """One variant.

    Attributes:
        run: performs that many operations; returns the seconds they took, or None: the whole call was that.
        count: operations of one burst.
        baseline: the variant it is compared with.
        unit: what is counted, a second.
    """

    run: Callable[[int], float | None]
    count: int
    baseline: str
    unit: str = "calls/s"
    kept: dict[int, float] = field(default_factory=dict)  # rate by round
    others: list[float] = field(default_factory=list)

    def burst(self) -> float:
        """The rate of one burst, after a short one that is not counted: the caches belong to others."""
        self.run(max(self.count // 20, 1))
        began = time.perf_counter()
        took = self.run(self.count)
        return self.count / (time.perf_counter() - began if took is None else took)


def measure(variants: dict[str, Rate], rounds: int, disturbed: float) -> dict[str, dict[str, Any]]:
    """Every variant once a round, in random order; the figures of each."""
    draw = random.Random(SEED)
    for number in range(rounds):
        for name in draw.sample(list(variants), len(variants)):
            variant = variants[name]
            await_quiet(disturbed)
            watch = Watch()
            rate = variant.burst()
            others = watch.others()
            variant.others.append(others)
            if others <= disturbed:
                variant.kept[number] = rate
    return {name: summarise(variants, name, rounds) for name in variants}


def summarise(variants: dict[str, Rate], name: str, rounds: int) -> dict[str, Any]:
    variant = variants[name]
    kept, base = variant.kept, variants[variant.baseline].kept
    found: dict[str, Any] = {"bursts": len(kept), "rounds": rounds, "unit": variant.unit, "baseline": variant.baseline}
    ratios = sorted(kept[number] / base[number] for number in kept.keys() & base.keys())
    if ratios:
        found["rate"] = statistics.median(kept.values())
        found["rates"] = list(kept.values())
        found["ratio"] = statistics.median(ratios)
        found["ratio_p10"], found["ratio_p90"] = ratios[len(ratios) // 10], ratios[len(ratios) * 9 // 10]
        found["others"] = statistics.median(variant.others)
    return found


def print_rates(title: str, found: dict[str, dict[str, Any]]) -> None:
    print(f"\n{title}\n\n| variant | bursts kept | rate (min..max) | against (p10..p90) |\n|---|---:|---:|---|")
    for name, row in found.items():
        kept = f"{row['bursts']} of {row['rounds']}"
        if "rate" not in row:
            print(f"| {name} | {kept} | | |")
            continue
        rate = f"{row['rate']:,.0f} {row['unit']} ({min(row['rates']):,.0f}..{max(row['rates']):,.0f})"
        ratio = f"**{row['ratio']:.2f}** ({row['ratio_p10']:.2f}..{row['ratio_p90']:.2f}) x {row['baseline']}"
        print(f"| {name} | {kept} | {rate} | {ratio if name != row['baseline'] else '1'} |", flush=True)
