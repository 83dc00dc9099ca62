"""How many keys a second, when a client has all the keys it wants at once?

``client.call_many("get", [(0, key), ...])`` with 256 keys of one server, which travel in one message, against the
hand-written pyzmq loop of ``throughput.py`` that asks for them one by one with 64 requests in flight; and, for the
plot, with 1 to 4,096 keys. By hand one can batch as well: ``pyzmq, one message`` is the same DEALER asking a ROUTER
that takes 256 requests in one message, for comparison; it has no bar.

Expected order of magnitude, written down before the first run: the loop 67,000 keys/s, 256 requests in one hand-written
message 227,000; so call_many 270,000, four times the loop.

    python benchmarks/batch.py [--rounds 12] [--json FILE] [--plot FILE] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import floor
import msgpack
from library import Call, open_cluster
from measuring import Child, add_rounds
from rates import Rate, measure, print_rates
from report import document, finish, skip
from throughput import PIPELINE, WINDOW, keys_of, pipelined

from spark_partition_server import Client

BATCH = 256
SIZES = (1, 4, 16, 64, 256, 1024, 4096)


def batched(client: Any, size: int) -> Callable[[int], None]:
    def run(count: int) -> None:
        for first in range(0, count, size):
            keys = keys_of(min(size, count - first))
            values = client.call_many("get", [(0, key) for key in keys])
            assert len(values) == len(keys)
            assert values[-1] is not None

    return run


def batched_by_hand(dealer: floor.Dealer, size: int) -> Callable[[int], None]:
    def run(count: int) -> None:
        for first in range(0, count, size):
            keys = keys_of(min(size, count - first))
            dealer.last += 1
            request = [["get", [key]] for key in keys]
            dealer.socket.send_multipart([floor.LENGTH.pack(dealer.last), msgpack.packb(request)])
            values = msgpack.unpackb(dealer.socket.recv_multipart()[1])
            assert len(values) == len(keys)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 12)
    parser.add_argument("--count", type=int, default=16_384, help="keys of one burst")
    options = parser.parse_args()
    rounds, count = (3, 8_192) if options.quick else (options.rounds, options.count)
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        cluster = open_cluster(stack, "lookup tcp")
        ports = [
            stack.enter_context(Child(floor.__file__, "--serve", kind)).hello["port"]
            for kind in (floor.BASELINE, floor.BATCHES)
        ]
        dealers = [floor.Dealer(port) for port in ports]
        for dealer in dealers:
            stack.callback(dealer.close)
        client = Call(cluster.path)
        stack.callback(client.close)
        variants = {
            PIPELINE: Rate(pipelined(dealers[0], WINDOW), count, PIPELINE, "keys/s"),
            f"pyzmq, {BATCH} in one message": Rate(batched_by_hand(dealers[1], BATCH), count, PIPELINE, "keys/s"),
        }
        sizes = {}
        if hasattr(Client, "call_many"):
            run = batched(client.client, BATCH)
            variants[f"client.call_many, {BATCH} keys"] = Rate(run, count, PIPELINE, "keys/s")
            for size in SIZES:
                name = f"client.call_many {size}"
                some = max(min(count, 500 * size), size)
                sizes[name] = Rate(batched(client.client, size), some, name, "keys/s")
        else:
            skip(skipped, f"client.call_many, {BATCH} keys", "this version has no Client.call_many")
        found = measure(variants, rounds, options.disturbed)
        print_rates("keys a second", found)
        sweep = measure(sizes, max(rounds // 3, 2), options.disturbed)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        points = [(size, sweep.get(f"client.call_many {size}", {}).get("rate")) for size in SIZES]
        points = [(size, rate) for size, rate in points if rate]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label="client.call_many")
        if "rate" in found[PIPELINE]:
            axes.axhline(found[PIPELINE]["rate"], color="gray", linestyle="--", label=PIPELINE)
        axes.set(xscale="log", yscale="log", xlabel="keys of one call_many", ylabel="keys/s")
        axes.grid(alpha=0.3)
        axes.legend()

    finish(options, document("batch", rows=found, sizes=sweep, skipped=skipped, disturbed=options.disturbed), draw)


if __name__ == "__main__":
    main()
