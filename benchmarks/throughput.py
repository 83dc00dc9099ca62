"""How many calls a second, when more than one is under way?

A server in a process of its own looks keys up in a dict of 10,000 entries; requests of about 50 octets, replies of
about 100. Clients and server share the machine's processors, so these are figures of the whole machine, and only the
ratios mean something elsewhere. Each of ours has a hand-written pyzmq opposite, against a hand-written ROUTER with
msgpack:

    client.submit        futures, 64 in flight, one thread      one DEALER, 64 in flight, blocking, no futures
    8 processes          8 x ``client.call``                    8 x one DEALER, one request in flight each
    8 threads            8 x ``client.call`` on one Client      8 x one DEALER, one shared context

and ``client.submit`` and the hand-written loop with 1 to 256 in flight, for the plot.

Expected order of magnitude, written down before the first run: the hand-written loop 67,000 calls/s with 64 in flight;
a trial of our lane had 2.9 times that, without futures, which cost 5 us each; 8 processes 19,000 and 2.6 times that.

    python benchmarks/throughput.py [--rounds 12] [--json FILE] [--plot FILE] [--quick]

``rates.py`` says how the bursts are taken and which are dropped.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import floor
import zmq
from library import Call, open_cluster
from measuring import ENTRIES, Child, add_rounds, key_of, say
from rates import Rate, measure, print_rates
from report import document, finish, skip

from spark_partition_server import Client

WINDOW = 64
WINDOWS = (1, 4, 16, 64, 256)
CLIENTS = 8
PIPELINE = "pyzmq, 64 in flight"


def keys_of(count: int) -> list[str]:
    return [key_of(number * 7919 % ENTRIES) for number in range(count)]


# ----------------------------------------------------------------------------------- one thread, many in flight


def pipelined(dealer: floor.Dealer, window: int) -> Callable[[int], None]:
    def run(count: int) -> None:
        assert dealer.pipeline(keys_of(count), window) == count

    return run


def submitted(client: Any, window: int) -> Callable[[int], None]:
    def run(count: int) -> None:
        submit, pending = client.submit, deque()
        for key in keys_of(count):
            if len(pending) == window:
                assert pending.popleft().result() is not None
            pending.append(submit(0, "get", key))
        for future in pending:
            assert future.result() is not None

    return run


# ----------------------------------------------------------------------------------- many clients


def in_threads(callers: list[Any]) -> Callable[[int], float]:
    """Each caller in a thread of its own, all starting at once; seconds from the first to the last."""

    def run(count: int) -> float:
        each = max(count // len(callers), 1)
        start = threading.Barrier(len(callers))
        times: list[tuple[float, float]] = []

        def calls(caller: Any) -> None:
            keys = keys_of(each)
            caller.call(keys[0])  # a thread makes its connection at its first call
            start.wait()
            began = time.perf_counter()
            for key in keys:
                caller.call(key)
            times.append((began, time.perf_counter()))

        threads = [threading.Thread(target=calls, args=(caller,)) for caller in callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(ended for _, ended in times) - min(began for began, _ in times)

    return run


def in_processes(children: list[Child]) -> Callable[[int], float]:
    def run(count: int) -> float:
        each = max(count // len(children), 1)
        for child in children:
            child.tell(str(each))
        times = [child.line() for child in children]
        return float(max(one["ended"] for one in times) - min(one["began"] for one in times))

    return run


def be_client(kind: str, where: str) -> None:
    """A client's process: as many calls as each line of stdin says."""
    caller: Any = Call(where) if kind == "library" else floor.Dealer(int(where))
    say(ready=True)
    for line in sys.stdin:
        keys = keys_of(int(line))
        began = time.monotonic()
        for key in keys:
            caller.call(key)
        say(began=began, ended=time.monotonic())
    caller.close()


# ----------------------------------------------------------------------------------- all together


def open_all(stack: ExitStack, skipped: dict[str, str], count: int) -> tuple[dict[str, Rate], dict[str, Rate]]:
    """The variants that are compared, and those of the plot."""
    cluster = open_cluster(stack, "lookup tcp")
    server = stack.enter_context(Child(floor.__file__, "--serve", floor.BASELINE))
    port = server.hello["port"]
    client = Call(cluster.path)
    stack.callback(client.close)
    context: zmq.Context[Any] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    dealers = [floor.Dealer(port, context) for _ in range(CLIENTS)]
    found = {PIPELINE: Rate(pipelined(dealers[0], WINDOW), count, PIPELINE)}
    sweep = {}
    for window in WINDOWS:
        name = f"pyzmq {window}"
        sweep[name] = Rate(pipelined(dealers[0], window), min(count, 400 * window), name)
    if hasattr(Client, "submit"):
        found["client.submit, 64 in flight"] = Rate(submitted(client.client, WINDOW), count, PIPELINE)
        for window in WINDOWS:
            run = submitted(client.client, window)
            sweep[f"client.submit {window}"] = Rate(run, min(count, 400 * window), f"pyzmq {window}")
    else:
        skip(skipped, "client.submit, 64 in flight", "this version has no Client.submit")
    threads = f"pyzmq, {CLIENTS} threads"
    found[threads] = Rate(in_threads(dealers), count // 4, threads)
    found[f"client.call, {CLIENTS} threads"] = Rate(in_threads([client] * CLIENTS), count // 4, threads)
    processes = f"pyzmq, {CLIENTS} processes"
    for name, kind, where in ((processes, "pyzmq", str(port)), ("library", "library", cluster.path)):
        children = [stack.enter_context(Child(__file__, "--client", kind, where, grace=2.0)) for _ in range(CLIENTS)]
        title = name if kind == "pyzmq" else f"client.call, {CLIENTS} processes"
        found[title] = Rate(in_processes(children), count // 2, processes)
    return found, sweep


def draw(figure: Any, sweep: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for kind in ("client.submit", "pyzmq"):
        points = [(window, sweep.get(f"{kind} {window}", {}).get("rate")) for window in WINDOWS]
        points = [(window, rate) for window, rate in points if rate]
        if points:
            left.plot(*zip(*points, strict=True), marker="o", label=kind)
    left.set(xscale="log", xlabel="calls in flight", ylabel="calls/s", ylim=(0, None), xticks=WINDOWS)
    left.set_xticklabels([str(window) for window in WINDOWS])
    left.grid(alpha=0.3)
    left.legend()
    rows = [(name, row) for name, row in found.items() if "rate" in row]
    right.barh([name for name, _ in rows], [row["rate"] for _, row in rows])
    right.invert_yaxis()
    right.set_xlabel("calls/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 12)
    parser.add_argument("--count", type=int, default=16_000, help="calls of one burst, fewer where they are slower")
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        return be_client(*options.client)
    rounds, count = (3, 4_000) if options.quick else (options.rounds, options.count)
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        variants, windows = open_all(stack, skipped, count)
        found = measure(variants, rounds, options.disturbed)
        print_rates("calls a second", found)
        sweep = measure(windows, max(rounds // 3, 2), options.disturbed)
        print_rates("by calls in flight", sweep)
    done = document("throughput", rows=found, windows=sweep, skipped=skipped, disturbed=options.disturbed)
    return finish(options, done, lambda figure: draw(figure, sweep, found))


if __name__ == "__main__":
    main()
