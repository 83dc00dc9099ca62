"""What is left of a server's work when twice as much is asked of it as it can do?

A method takes a millisecond, one call at a time. First as many calls as get answers, 16 in flight: the peak. Then calls
at twice that rate, whether or not there are answers, each worth an answer within 250 ms and no more. What counts is the
goodput: answers a second that came in time. A server that queues without a bound answers each call a little later than
the one before, and after 250 ms none in time, although it is as busy as ever: the hand-written ROUTER shows that.

Expected order of magnitude, written down before the first run: the hand-written one 25 % of its peak over two seconds,
and less the longer it lasts; ours must keep 80 %.

    python benchmarks/overload.py [--rounds 5] [--json FILE] [--plot FILE] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter, deque
from contextlib import ExitStack, suppress
from typing import Any

import floor
import msgpack
import zmq
from library import HANDLER_SECONDS, Call, open_cluster
from measuring import Child, Watch, add_rounds, await_quiet, say
from report import document, finish, skip
from throughput import keys_of

from spark_partition_server import Client

IN_TIME = 0.25  # seconds an answer is worth waiting for
PEAK_WINDOW = 16
TICK = 0.005  # seconds between two handfuls of calls


def serve_by_hand() -> None:
    table = floor.make_table()
    router = zmq.Context().socket(zmq.ROUTER)
    say(port=router.bind_to_random_port("tcp://127.0.0.1"))
    while True:
        sender, request_id, body = router.recv_multipart()
        time.sleep(HANDLER_SECONDS)
        router.send_multipart([sender, request_id, msgpack.packb(table[msgpack.unpackb(body)])])


class ByHand:
    """Counts what comes back in time."""

    def __init__(self, port: int) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.sndhwm = self.socket.rcvhwm = 0
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.sent: dict[bytes, float] = {}
        self.last = 0
        self.outcomes: Counter[str] = Counter()

    def ask(self, key: str) -> None:
        self.last += 1
        request_id = floor.LENGTH.pack(self.last)
        self.sent[request_id] = time.monotonic()
        self.socket.send_multipart([request_id, msgpack.packb(key)])

    def take(self, seconds: float) -> None:
        """Answers that are here, or come within that time."""
        if not self.socket.poll(seconds * 1e3):
            return
        with suppress(zmq.Again):
            while True:
                request_id, _ = self.socket.recv_multipart(zmq.NOBLOCK)
                in_time = time.monotonic() - self.sent.pop(request_id) <= IN_TIME
                self.outcomes["in time" if in_time else "late"] += 1

    def settle(self) -> None:
        while self.sent:
            self.take(1.0)


class Submitting:
    """The same of ``client.submit``; a call that got no answer in time ends by itself, with an error."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.sent: deque[Any] = deque()
        self.outcomes: Counter[str] = Counter()

    def ask(self, key: str) -> None:
        self.sent.append(self.client.submit(0, "slow", key, timeout=IN_TIME))

    def take(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.sent and (self.sent[0].done() or time.monotonic() < until):
            with suppress(TimeoutError):
                self.count(self.sent[0].exception(max(until - time.monotonic(), 0.0)))
                self.sent.popleft()

    def count(self, error: BaseException | None) -> None:
        self.outcomes["in time" if error is None else type(error).__name__] += 1

    def settle(self) -> None:
        while self.sent:
            self.take(1.0)


def peak(asking: Any, seconds: float) -> float:
    """Answers a second with some calls in flight."""
    asking.outcomes.clear()
    keys = iter(keys_of(100_000))
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        while len(asking.sent) < PEAK_WINDOW:
            asking.ask(next(keys))
        asking.take(0.001)
    answered = asking.outcomes["in time"]
    asking.settle()
    return float(answered / (now - began))


def offer(asking: Any, rate: float, seconds: float) -> tuple[float, dict[str, int]]:
    """Goodput, and how the calls ended, when calls are made at that rate."""
    asking.outcomes.clear()
    keys = iter(keys_of(1_000_000))
    began, asked = time.monotonic(), 0
    while (now := time.monotonic()) < began + seconds:
        while asked < (now - began) * rate:
            asking.ask(next(keys))
            asked += 1
        asking.take(TICK)
    asking.settle()
    return asking.outcomes["in time"] / seconds, dict(asking.outcomes)


def one_round(asking: Any, seconds: float, disturbed: float) -> dict[str, Any]:
    await_quiet(disturbed)
    watch = Watch()
    best = peak(asking, seconds / 2)
    good, outcomes = offer(asking, 2 * best, seconds)
    return {"peak": best, "goodput": good, "share": good / best, "outcomes": outcomes, "others": watch.others()}


def open_all(stack: ExitStack, skipped: dict[str, str]) -> dict[str, Any]:
    by_hand = ByHand(stack.enter_context(Child(__file__, "--serve")).hello["port"])
    stack.callback(by_hand.context.destroy, linger=0)
    found: dict[str, Any] = {"pyzmq": by_hand}
    if not hasattr(Client, "submit"):
        skip(skipped, "client.submit", "this version has no Client.submit")
        return found
    call = Call(open_cluster(stack, "slow").path)
    stack.callback(call.close)
    return found | {"client.submit": Submitting(call.client)}


def summarise(rounds: list[dict[str, Any]], disturbed: float) -> dict[str, Any]:
    kept = [one for one in rounds if one["others"] <= disturbed]
    found: dict[str, Any] = {"kept": len(kept), "rounds": len(rounds)}
    if kept:
        found |= {key: statistics.median(one[key] for one in kept) for key in ("peak", "goodput", "share")}
        total = sum((Counter(one["outcomes"]) for one in kept), Counter[str]())
        found["outcomes"] = {name: count / total.total() for name, count in total.most_common()}
    return found


def print_table(found: dict[str, dict[str, Any]]) -> None:
    print("\n| server | rounds kept | peak, calls/s | goodput at twice that | share | how the calls ended |")
    print("|---|---:|---:|---:|---:|---|")
    for name, row in found.items():
        if "share" not in row:
            print(f"| {name} | 0 of {row['rounds']} | | | | |")
            continue
        ends = ", ".join(f"{text} {share:.0%}" for text, share in row["outcomes"].items())
        figures = f"{row['peak']:,.0f} | {row['goodput']:,.0f} | **{row['share']:.0%}** | {ends}"
        print(f"| {name} | {row['kept']} of {row['rounds']} | {figures} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of overload, in one round")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve_by_hand()
    rounds, seconds = (2, 1.5) if options.quick else (options.rounds, options.seconds)
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        variants = open_all(stack, skipped)
        taken: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, asking in variants.items():
                taken[name].append(one_round(asking, seconds, options.disturbed))
    found = {name: summarise(rows, options.disturbed) for name, rows in taken.items()}
    print_table(found)
    done = document("overload", rows=found, skipped=skipped, disturbed=options.disturbed)
    return finish(options, done, lambda figure: draw(figure, found))


def draw(figure: Any, found: dict[str, dict[str, Any]]) -> None:
    axes = figure.subplots()
    rows = [(name, row) for name, row in found.items() if "share" in row]
    places = range(len(rows))
    axes.bar([place - 0.2 for place in places], [row["peak"] for _, row in rows], 0.4, label="peak")
    axes.bar([place + 0.2 for place in places], [row["goodput"] for _, row in rows], 0.4, label="at twice the peak")
    axes.set_xticks(list(places), [name for name, _ in rows])
    axes.set_ylabel(f"answers within {IN_TIME * 1e3:.0f} ms, a second")
    axes.legend()


if __name__ == "__main__":
    main()
