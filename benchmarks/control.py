"""Do 100 MB answers that go by way of the coordinator hold up what else it does?

Three servers hold arrays of 100 MB, and three clients in processes of their own fetch them, one after the other, as
fast as they can. Meanwhile one more process makes small calls of a fourth server and watches the coordinator:

    heartbeat       the round trip of a heartbeat of one more member, over a connection of its own, by libzmq
    direct          ``Client.call`` of a value of 100 octets, straight from the fourth server
    relay           the same call by way of the coordinator
    lost            members that the coordinator declared lost in all of the run; every one of them is alive

under three loads: none, the arrays fetched directly, the arrays fetched by relay. The machine's processors are busy
under both of the latter, so the second says what a busy machine costs by itself, and the ratio is the third against it.

Expected order of magnitude, written down before the first run: beside relayed arrays a heartbeat waits for the parts
that are on their way through the coordinator, a few MB: under 50 ms, and under a second in any case, which is the
interval between two heartbeats; 0 members lost; a direct call as beside direct fetches.

    python benchmarks/control.py [--rounds 6] [--seconds 3] [--json FILE] [--plot FILE] [--quick]

``floor.py`` says which bursts are dropped.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from coordinator import PROBES, Probe
from library import Call, open_cluster
from measuring import SEED, Child, Watch, add_rounds, await_quiet, key_of, say
from report import document, finish

MEGABYTES = 100
FETCHERS = 3
TIMEOUT = 60.0  # seconds of one fetch
LOADS = ("none", "direct", "relay")
AGAINST = "direct"
FIGURES = ("heartbeat", "direct", "relay")


# ----------------------------------------------------------------------------------- a client's process


def be_fetcher(path: str, rank: int) -> None:
    """At a line with the name of a route: fetches until the next line, and says how often, and for how long."""
    clients = {route: Call(path, rank, timeout=TIMEOUT, route=route) for route in ("direct", "relay")}
    say(ready=True)
    while route := sys.stdin.readline().strip():
        done = threading.Event()
        waiting = threading.Thread(target=lambda done=done: (sys.stdin.readline(), done.set()), daemon=True)
        waiting.start()
        count, began = 0, time.monotonic()
        while not done.is_set():
            assert clients[route].client.call(rank, "fetch", MEGABYTES).nbytes == MEGABYTES * 1_000_000
            count += 1
        say(fetches=count, seconds=time.monotonic() - began)
        waiting.join()
    for client in clients.values():
        client.close()


# ----------------------------------------------------------------------------------- the measuring


def sample(ask: dict[str, Callable[[], float]], seconds: float) -> dict[str, list[float]]:
    """Each in turn, for that long; microseconds."""
    found: dict[str, list[float]] = {name: [] for name in ask}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, one in ask.items():
            found[name].append(one())
        time.sleep(PROBES)
    return found


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter_ns()
    assert call() is not None
    return (time.perf_counter_ns() - began) / 1e3


def under(load: str, fetchers: list[Child], ask: dict[str, Callable[[], float]], seconds: float) -> dict[str, Any]:
    """One burst: the samples, and what the fetchers got meanwhile."""
    watch = Watch()
    if load == "none":
        return {"samples": sample(ask, seconds), "rate": 0.0, "others": watch.others()}
    for fetcher in fetchers:
        fetcher.tell(load)
    samples = sample(ask, seconds)
    for fetcher in fetchers:
        fetcher.tell("enough")
    said = [fetcher.line() for fetcher in fetchers]
    rate = sum(one["fetches"] * MEGABYTES / 1e3 / one["seconds"] for one in said)
    return {"samples": samples, "rate": rate, "others": watch.others()}


def run(rounds: int, seconds: float, disturbed: float) -> tuple[dict[str, Any], dict[str, int]]:
    """The bursts that were kept, by load and round; and how the coordinator was at the end."""
    with ExitStack() as stack:
        probes: list[Probe] = []
        kinds = ["arrays tcp"] * FETCHERS + ["lookup tcp"]
        cluster = open_cluster(stack, *kinds, join=lambda where: probes.append(Probe(where, len(kinds))))
        (probe,) = probes
        stack.callback(probe.close)
        probe.run(0.1)
        fetchers = [
            stack.enter_context(Child(__file__, "--fetch", cluster.path, str(rank), grace=5.0))
            for rank in range(FETCHERS)
        ]
        ask: dict[str, Callable[[], float]] = {"heartbeat": probe.beat}
        for route in ("direct", "relay"):
            client = Call(cluster.path, FETCHERS, route=route)
            stack.callback(client.close)
            ask[route] = lambda client=client: timed(lambda: client.call(key_of(42)))
            ask[route]()
        kept: dict[str, Any] = {load: {} for load in LOADS}
        draw = random.Random(SEED)
        for number in range(rounds):
            for load in draw.sample(LOADS, len(LOADS)):
                await_quiet(disturbed)
                one = under(load, fetchers, ask, seconds)
                if one["others"] <= disturbed:
                    kept[load][number] = one
        return kept, cluster.state()


def summarise(kept: dict[str, Any], rounds: int, state: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Figures of each load; ratios are of the medians within one round, against the direct fetches."""
    rows: dict[str, dict[str, Any]] = {}
    for load, bursts in kept.items():
        row: dict[str, Any] = {"bursts": len(bursts), "rounds": rounds, "lost": state["lost"]}
        if bursts:
            row["gigabytes_s"] = statistics.median(one["rate"] for one in bursts.values())
        for name in FIGURES:
            times = sorted(time / 1e3 for one in bursts.values() for time in one["samples"][name])
            both = bursts.keys() & kept[AGAINST].keys()
            ratios = [middle(bursts[number], name) / middle(kept[AGAINST][number], name) for number in both]
            if times:
                row[f"{name}_p50_ms"], row[f"{name}_max_ms"] = times[len(times) // 2], times[-1]
                row[f"{name}_p99_ms"] = times[len(times) * 99 // 100]
            if ratios:
                row[f"{name}_ratio"] = statistics.median(ratios)
        rows[load] = row
    return rows


def middle(one: dict[str, Any], name: str) -> float:
    return statistics.median(one["samples"][name])


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    heads = [f"{name}, p50 / p99 / most, ms" for name in ("heartbeat", "direct call", "relayed call")]
    print("\n| 100 MB answers | bursts kept | GB/s | " + " | ".join(heads) + " | lost |\n|---|" + "---:|" * 6)
    for load, row in rows.items():
        cells = [load, f"{row['bursts']} of {row['rounds']}", f"{row.get('gigabytes_s', 0.0):.2f}"]
        for name in FIGURES:
            figures = [row.get(f"{name}_{which}_ms") for which in ("p50", "p99", "max")]
            cells.append(" / ".join("" if figure is None else f"{figure:.2f}" for figure in figures))
        print("| " + " | ".join([*cells, str(row["lost"])]) + " |", flush=True)


def draw_plot(figure: Any, kept: dict[str, Any]) -> None:
    """How many were over after so many milliseconds, one panel a figure."""
    panels = figure.subplots(1, len(FIGURES), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, FIGURES, strict=True):
        for load, bursts in kept.items():
            times = sorted(time / 1e3 for one in bursts.values() for time in one["samples"][name])
            if times:
                axes.plot(times, [100 * (i + 1) / len(times) for i in range(len(times))], label=load)
        axes.set(title=name, xscale="log", xlabel="ms", ylim=(0, 100))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("% are over")
    panels[0].legend(title="100 MB answers", fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 6)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one burst")
    parser.add_argument("--fetch", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fetch:
        return be_fetcher(options.fetch[0], int(options.fetch[1]))
    rounds, seconds = (2, 1.5) if options.quick else (options.rounds, options.seconds)
    kept, state = run(rounds, seconds, options.disturbed)
    rows = summarise(kept, rounds, state)
    print_table(rows)
    done = document("control", rows=rows, state=state, disturbed=options.disturbed)
    return finish(options, done, lambda figure: draw_plot(figure, kept))


if __name__ == "__main__":
    main()
