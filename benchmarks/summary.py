"""Holds the figures of the last run against the bars: one line for each, "holds" or not.

    python benchmarks/summary.py FOLDER      the folder that ``run.py --out`` filled

A bar is met by the median over the rounds. "not measured" means that the benchmark was not run, that all its bursts
were disturbed, or that it skipped the variant: its own output says why. The last column tells how many bursts were kept
of how many, and from where to where the ratios of nine rounds of ten went.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FREE = "free placement"
PINNED = "client on CPU 0, servers on CPU 1"
TCP, HOST = "client.call tcp", "client.call same host"

Found = tuple[float, str]  # what was measured, and how sure it is


@dataclass(frozen=True)
class Bar:
    """One line.

    Attributes:
        figure: what is held against the bar.
        benchmark: whose JSON document has it.
        where: the keys that lead to the row.
        field: of the row.
        most: the bar, if less is better.
        least: the bar, if more is better.
        against: a row beside it whose field it is divided by.
        unit: of what was measured.
    """

    figure: str
    benchmark: str
    where: tuple[str, ...]
    field: str = "ratio"
    most: float | None = None
    least: float | None = None
    against: str | None = None
    unit: str = "x"

    def find(self, documents: dict[str, Any]) -> Found | None:
        """None: not measured."""
        rows: Any = documents.get(self.benchmark, {})
        for key in self.where[:-1]:
            rows = rows.get(key, {})
        row = rows.get(self.where[-1], {})
        value = row.get(self.field)
        if value is None:
            return None
        if self.against is not None:
            other = rows.get(self.against, {}).get(self.field)
            return None if other is None else (value / other, kept(row))
        return value, kept(row) + spread(row, self.field)

    def holds(self, value: float) -> bool:
        """Whether the bar is met."""
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    @property
    def text(self) -> str:
        if self.most is None and self.least is None:
            return "reported"
        return f"<= {self.most:g} {self.unit}" if self.most is not None else f">= {self.least:g} {self.unit}"


def kept(row: dict[str, Any]) -> str:
    if "rounds" not in row:
        return ""
    return f"{row.get('bursts', row.get('kept'))} of {row['rounds']} bursts"


def spread(row: dict[str, Any], field: str) -> str:
    return f", {row['ratio_p10']:.2f}..{row['ratio_p90']:.2f}" if field == "ratio" and "ratio_p10" in row else ""


def arrays(kind: str, least: Iterable[float]) -> list[Bar]:
    lane = kind.partition(" ")[2]
    return [
        Bar(f"array, {megabytes} MB, {lane}{read}", "arrays", ("rows", f"{kind}, {megabytes} MB{read}"), least=bar)
        for megabytes, bar in zip((1, 16, 100), least, strict=True)
        for read in ("", ", read")
    ]


def collectives(size: int) -> list[Bar]:
    """Ratios of times within the rounds, where less is better."""
    where = ("groups", f"{size} ranks")
    bars = [
        Bar(f"{case}, {size} ranks / gloo", "collectives", (*where, case, "ours"), "ratio gloo", 0.9)
        for case in ("barrier", "allreduce, 4 KiB", "allreduce, 1 MiB", "allreduce, 64 MiB")
    ]
    case = "allreduce, 64 MiB"
    return [*bars, Bar(f"{case}, {size} ranks / Open MPI", "collectives", (*where, case, "ours"), "ratio openmpi", 1.3)]


LARGEST = ("sizes", "10000")

BARS = [
    Bar("client.call p50, tcp, free placement", "latency", ("regimes", FREE, TCP), most=0.35),
    Bar("client.call p50, tcp, different cores", "latency", ("regimes", PINNED, TCP), most=0.85),
    Bar("the same on one host's lane / tcp, free", "latency", ("regimes", FREE, HOST), "p50_us", 1.0, against=TCP),
    Bar("the same on one host's lane / tcp, cores", "latency", ("regimes", PINNED, HOST), "p50_us", 1.0, against=TCP),
    Bar("tcp p50 / Redis GET, free", "latency", ("regimes", FREE, TCP), "p50_us", 1.0, against="redis GET tcp"),
    Bar("tcp p50 / Redis GET, cores", "latency", ("regimes", PINNED, TCP), "p50_us", 1.0, against="redis GET tcp"),
    Bar("submit, 64 in flight", "throughput", ("rows", "client.submit, 64 in flight"), least=1.5),
    Bar("call_many, 256 keys", "batch", ("rows", "client.call_many, 256 keys"), least=4.0),
    Bar("aio, 64 in flight", "aio", ("rows", "aio"), least=1.2),
    Bar("aio on uvloop, 64 in flight", "aio", ("rows", "aio, uvloop")),
    Bar("8 processes", "throughput", ("rows", "client.call, 8 processes"), least=1.7),
    Bar("8 threads on one client", "throughput", ("rows", "client.call, 8 threads"), least=1.0),
    *arrays("client.call tcp", (1.0, 1.1, 1.5)),
    *arrays("client.call same host", (1.5, 2.0, 2.5)),
    Bar("relay p50 / two REQ/REP hops", "relay", ("regimes", FREE, "client.call, relay"), most=1.5),
    Bar("members lost beside 100 MB relayed answers", "control", ("rows", "relay"), "lost", 0, unit="members"),
    Bar("a heartbeat beside them, p99", "control", ("rows", "relay"), "heartbeat_p99_ms", 1000, unit="ms"),
    Bar("a direct call beside them / beside direct ones", "control", ("rows", "relay"), "direct_ratio"),
    Bar("p50 beside a busy thread", "latency", ("regimes", FREE, "client.call busy"), "p50_us", 600, unit="us"),
    Bar("goodput at twice the capacity", "overload", ("rows", "client.submit"), "share", least=0.8, unit="of the peak"),
    Bar("10,000 members registered", "coordinator", LARGEST, "registered_s", 5.0, unit="s"),
    Bar("10,000 members, a heartbeat a second", "coordinator", LARGEST, "cores", 0.6, unit="cores"),
    Bar("10,000 members, lost though alive", "coordinator", LARGEST, "lost", 0, unit="members"),
    Bar("Spark's barrier / ours, local-cluster", "collectives", ("spark", "barrier"), "times", least=1000),
    *collectives(2),
    *collectives(4),
    Bar(
        "sendrecv, 16 MiB / raw zmq tcp", "collectives", ("groups", "2 ranks", "sendrecv, 16 MiB", "ours"),
        "ratio zmq tcp", 0.67,
    ),
    Bar(
        "allreduce, a float, 4 ranks / a star", "collectives", ("groups", "4 ranks", "allreduce, a float", "ours"),
        "ratio star", 3.0,
    ),
    Bar("a first start, more than a bare job", "startup", ("found", "first start", "extra"), "median", 0.5, unit="s"),
]


def table(documents: dict[str, Any]) -> tuple[list[str], bool]:
    """The lines, and whether every bar that was measured is met."""
    lines = ["| figure | bar | measured | holds | |", "|---|---|---:|---|---|"]
    all_hold = True
    for bar in BARS:
        found = bar.find(documents)
        if found is None:
            lines.append(f"| {bar.figure} | {bar.text} | | not measured | |")
            continue
        value, sure = found
        holds = bar.holds(value)
        all_hold = all_hold and holds
        verdict = "" if bar.text == "reported" else "yes" if holds else "**no**"
        measured = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
        lines.append(f"| {bar.figure} | {bar.text} | {measured} {bar.unit} | {verdict} | {sure} |")
    return lines, all_hold


def read(folder: Path) -> dict[str, Any]:
    """The documents of a folder by name; lists become tables that the bars can look into."""
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if "coordinator" in documents:
        sizes = documents["coordinator"]["sizes"]
        documents["coordinator"]["sizes"] = {str(row["members"]): row for row in sizes}
    return documents


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strict", action="store_true", help="fail where a bar is not met")
    options = parser.parse_args()
    documents = read(options.folder)
    for document in list(documents.values())[:1]:
        machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
        print(f"{machine}\ncommit {document['commit']}, {document['when']}\n")
    lines, all_hold = table(documents)
    print("\n".join(lines))
    return int(options.strict and not all_hold)


if __name__ == "__main__":
    sys.exit(main())
