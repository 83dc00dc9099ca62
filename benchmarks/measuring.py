"""What the benchmarks share: processes, quiet, bursts and tables.

Bursts of calls of several variants are taken in turn, in random order, within many short rounds, and compared within
the round: on a shared machine the speed drifts by more than the variants differ. A burst during which processes that
do not belong to the benchmark used more than 15 % of a core is dropped, and the table says how many were kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from report import document, finish, machine, report_arguments

WARM_UP = 20  # calls at the beginning of a burst that are not timed: the caches belong to the variant before
DISTURBED = 0.15  # of one core, used by processes of others
SEED = 1
QUIET_SAMPLE = 0.05  # seconds
QUIET_PATIENCE = 2.0  # seconds; then the burst is run all the same, and very likely dropped
QUIET_TOTAL = 60.0  # seconds of one process; then nothing is waited for any more, so that a benchmark has an end


class Caller(Protocol):
    """A warm connection: ``call`` asks for the value of a key and waits for it."""

    def call(self, key: str) -> Any: ...
    def close(self) -> None: ...


# ----------------------------------------------------------------------------------- the processes


class Child:
    """A server in a process of its own; what it says first, one line of JSON, is ``hello``.

    Args:
        script: the benchmark that knows how to be this server.
        arguments: what it needs to know.
        cpu: to be pinned to, before it starts a thread; None: the scheduler decides.
        grace: seconds it has to end by itself once its stdin is closed.
    """

    def __init__(self, script: str, *arguments: str, cpu: int | None = None, grace: float = 0.0) -> None:
        self.grace = grace
        command = [sys.executable, script, *arguments, *([] if cpu is None else ["--cpu", str(cpu)])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.hello = self.line()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(self.grace)
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def pin(cpu: int | None) -> None:
    """This thread and all that it starts from now on."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


@contextmanager
def placed(cpu: int | None) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    pin(cpu)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ----------------------------------------------------------------------------------- the measuring


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, in ns; the clock id is made as clock_getcpuclockid(3) makes it."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def all_cpu_ns() -> dict[int, int]:
    found = {}
    for pid in all_pids():
        with suppress(OSError):
            found[pid] = cpu_ns(pid)
    return found


def all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def own_pids() -> set[int]:
    """This process and all that it has started, directly or not, and that have not been orphaned."""
    parents = {}
    for pid in all_pids():
        with suppress(OSError):
            # the command's name, in brackets, may hold anything; the state and the parent follow it
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    own: set[int] = set()
    more = {os.getpid()}
    while more:
        own |= more
        more = {pid for pid, parent in parents.items() if parent in more}
    return own


class Watch:
    """How much of one core the processes of others use, as far as this machine shows them."""

    def __init__(self) -> None:
        self.own = own_pids()
        self.began, self.used = time.perf_counter_ns(), all_cpu_ns()

    def others(self) -> float:
        """Since this watch began. A process that has ended meanwhile leaves no trace and counts as a whole core."""
        now, elapsed = all_cpu_ns(), time.perf_counter_ns() - self.began
        self.own |= own_pids()
        if self.used.keys() - now.keys() - self.own:
            return 1.0
        return sum(used - self.used.get(pid, 0) for pid, used in now.items() if pid not in self.own) / elapsed


@dataclass
class Quiet:
    """Waits until others leave the processors alone, for a bounded time.

    Attributes:
        left: seconds that may still be waited, all waits together.
    """

    left: float = QUIET_TOTAL

    def wait(self, disturbed: float) -> None:
        began = time.monotonic()
        patience = min(QUIET_PATIENCE, self.left)
        while time.monotonic() - began < patience:
            watch = Watch()
            time.sleep(QUIET_SAMPLE)
            if watch.others() <= disturbed:
                break
        self.left -= max(time.monotonic() - began - QUIET_SAMPLE, 0.0)  # the first look belongs to the measuring


QUIET = Quiet()  # of this process


def await_quiet(disturbed: float = DISTURBED) -> None:
    QUIET.wait(disturbed)


@dataclass
class Burst:
    """Calls one after the other: their times, and the CPU time of a call on either side, in us."""

    times: list[float]
    client_cpu: float
    server_cpu: float
    others: float

    @property
    def p50(self) -> float:
        return statistics.median(self.times)


def burst(caller: Caller, server: int | None, keys: Sequence[str]) -> Burst:
    call, clock, times = caller.call, time.perf_counter_ns, []
    watch = Watch()
    for key in keys[:WARM_UP]:
        call(key)
    client_before, server_before = time.process_time_ns(), cpu_ns(server) if server else 0
    for key in keys:
        began = clock()
        call(key)
        times.append((clock() - began) / 1e3)
    client_cpu, server_cpu = time.process_time_ns() - client_before, (cpu_ns(server) if server else 0) - server_before
    calls = 1e3 * len(keys)
    return Burst(times, client_cpu / calls, server_cpu / calls, watch.others())


@dataclass
class Variant:
    caller: Caller
    server: int | None  # its process; None: its CPU time is not known
    calls: int | None = None  # a burst has no more of them, where one takes long
    kept: dict[int, Burst] = field(default_factory=dict)  # by round


def run_rounds(variants: dict[str, Variant], rounds: int, keys: Sequence[str], disturbed: float = DISTURBED) -> None:
    """Every variant once a round, in random order."""
    draw = random.Random(SEED)
    for number in range(rounds):
        for name in draw.sample(list(variants), len(variants)):
            variant = variants[name]
            await_quiet(disturbed)
            one = burst(variant.caller, variant.server, keys[: variant.calls])
            if one.others <= disturbed:
                variant.kept[number] = one


def summarise(variants: dict[str, Variant], baseline: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Figures of every variant; ratios are of the medians within one round."""
    found = {}
    base = variants[baseline].kept
    for name, variant in variants.items():
        kept = variant.kept
        times = sorted(one for each in kept.values() for one in each.times)
        ratios = sorted(kept[number].p50 / base[number].p50 for number in kept.keys() & base.keys())
        if not ratios:
            found[name] = {"bursts": 0, "rounds": rounds}
            continue
        found[name] = {
            "bursts": len(kept),
            "rounds": rounds,
            "p50_us": times[len(times) // 2],
            "p99_us": times[len(times) * 99 // 100],
            "ratio": statistics.median(ratios),
            "ratio_p10": ratios[len(ratios) // 10],
            "ratio_p90": ratios[len(ratios) * 9 // 10],
            "client_cpu_us": statistics.median(each.client_cpu for each in kept.values()),
            "server_cpu_us": statistics.median(each.server_cpu for each in kept.values()),
        }
    return found


def print_table(title: str, found: dict[str, dict[str, Any]], baseline: str) -> None:
    print(f"\n{title}\n")
    print(f"| variant | bursts kept | p50 us | p99 us | p50 / {baseline} (p10..p90) | CPU us a call, client + server |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, row in found.items():
        if not row["bursts"]:
            print(f"| {name} | 0 of {row['rounds']} | | | | |")
            continue
        ratio = f"**{row['ratio']:.2f}** ({row['ratio_p10']:.2f}..{row['ratio_p90']:.2f})"
        cpu = f"{row['client_cpu_us']:.0f} + {row['server_cpu_us']:.0f}"
        kept = f"{row['bursts']} of {row['rounds']}"
        print(f"| {name} | {kept} | {row['p50_us']:.1f} | {row['p99_us']:.0f} | {ratio} | {cpu} |")


# ----------------------------------------------------------------------------------- the command line

ENTRIES = 10_000


def key_of(number: int) -> str:
    return f"customer-{number:014}"  # 23 characters


@dataclass(frozen=True)
class Regime:
    """Where the processes run; None: where the scheduler puts them."""

    title: str
    client_cpu: int | None
    server_cpu: int | None


FREE = Regime("free placement", None, None)
PINNED = Regime("client on CPU 0, servers on CPU 1", 0, 1)
APART = Regime("beside Ray, Dask and Spark, free placement", None, None)


def add_arguments(parser: argparse.ArgumentParser, rounds: int = 40) -> None:
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--free", action="store_true", help="only where the scheduler places the processes")
    only.add_argument("--pin", action="store_true", help="only with the client on CPU 0 and the servers on CPU 1")
    parser.add_argument("--calls", type=int, default=300, help="of one variant in one round")
    add_rounds(parser, rounds)
    parser.add_argument("--cpu", type=int, help=argparse.SUPPRESS)


def add_rounds(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument("--rounds", type=int, default=rounds)
    text = "share of a core that processes of others may use during a burst that is kept"
    parser.add_argument("--disturbed", type=float, default=DISTURBED, help=f"{text}; default {DISTURBED}")
    report_arguments(parser)


def measure_regimes(
    options: argparse.Namespace,
    name: str,
    baseline: str,
    open_all: Callable[[Regime, ExitStack], dict[str, Variant]],
    apart: bool = False,
    **more: Any,
) -> None:
    """Runs what the options ask for, prints a table for each regime, writes the file and draws the plot."""
    found: dict[str, Any] = {}
    samples: dict[str, dict[str, list[float]]] = {}
    draw = random.Random(SEED)
    keys = [key_of(draw.randrange(ENTRIES)) for _ in range(options.calls)]
    rounds = 5 if options.quick else options.rounds
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"{rounds} rounds of {options.calls} calls of each variant")
    for regime in [FREE] * (not options.pin) + [PINNED] * (not options.free) + [APART] * apart:
        with ExitStack() as stack:
            variants = open_all(regime, stack)
            with placed(regime.client_cpu):
                run_rounds(variants, rounds, keys, options.disturbed)
        found[regime.title] = summarise(variants, baseline, rounds)
        samples[regime.title] = {
            name: sorted(time for one in variant.kept.values() for time in one.times)
            for name, variant in variants.items()
        }
        print_table(regime.title, found[regime.title], baseline)
    done = document(name, calls=options.calls, disturbed=options.disturbed, regimes=found, **more)
    finish(options, done, lambda figure: draw_distributions(figure, samples))


def draw_distributions(figure: Any, samples: dict[str, dict[str, list[float]]]) -> None:
    """How many of the calls were over after so many microseconds, one panel a regime."""
    panels = figure.subplots(1, len(samples), sharey=True, squeeze=False)[0]
    for axes, (title, variants) in zip(panels, samples.items(), strict=True):
        for name, times in variants.items():
            if times:
                step = max(len(times) // 400, 1)
                axes.plot(times[::step], [100 * i / len(times) for i in range(0, len(times), step)], label=name)
        axes.set(title=title, xscale="log", xlabel="us", ylim=(0, 100))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("% of the calls are over")
    panels[0].legend(fontsize=7)
