"""What does asyncio cost? 64 calls in flight by 64 tasks, against the same number in flight without it.

The asyncio client, on asyncio's own loop and on uvloop where it is installed, against the blocking hand-written pyzmq
loop of ``throughput.py``; and what one would write with ``zmq.asyncio``, for comparison.

Expected order of magnitude, written down before the first run: the blocking loop 67,000 calls/s, ``zmq.asyncio`` 0.4 of
that; a trial of our lane as an ``asyncio.Protocol`` 2.2 times that, without a deadline for each call.

    python benchmarks/aio.py [--rounds 12] [--json FILE] [--plot FILE] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import floor
import msgpack
import zmq.asyncio
from library import open_cluster
from measuring import Child, add_rounds
from rates import Rate, measure, print_rates
from report import document, finish, skip
from throughput import PIPELINE, WINDOW, keys_of, pipelined

Ask = Callable[[str], Awaitable[Any]]


async def ask_all(ask: Ask, count: int) -> None:
    """As many tasks as calls are to be in flight, each with one of them."""
    keys = iter(keys_of(count))

    async def one_after_the_other(keys: Iterator[str]) -> None:
        for key in keys:
            assert await ask(key) is not None

    await asyncio.gather(*(one_after_the_other(keys) for _ in range(WINDOW)))


class ZmqAsyncio:
    """What one would write: a DEALER, a task that receives, a future for each call."""

    def __init__(self, port: int) -> None:
        self.context = zmq.asyncio.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.waiting: dict[bytes, asyncio.Future[Any]] = {}
        self.last = 0
        self.receiving = asyncio.get_running_loop().create_task(self.receive())

    async def receive(self) -> None:
        while True:
            request_id, body = await self.socket.recv_multipart()
            self.waiting.pop(request_id).set_result(msgpack.unpackb(body))

    async def ask(self, key: str) -> Any:
        self.last += 1
        request_id = floor.LENGTH.pack(self.last)
        future = self.waiting[request_id] = asyncio.get_running_loop().create_future()
        await self.socket.send_multipart([request_id, msgpack.packb(["get", [key]])])
        return await future

    async def close(self) -> None:
        self.receiving.cancel()
        self.context.destroy(linger=0)


def on_loop(stack: ExitStack, loop: Any, connect: Callable[[], Awaitable[tuple[Ask, Any]]]) -> Callable[[int], None]:
    """A connection that stays open on a loop of its own, which turns while a burst runs."""
    stack.callback(loop.close)
    ask, close = loop.run_until_complete(connect())
    stack.callback(lambda: loop.run_until_complete(close()))
    return lambda count: loop.run_until_complete(ask_all(ask, count))


def open_all(stack: ExitStack, skipped: dict[str, str], count: int) -> dict[str, Rate]:
    cluster = open_cluster(stack, "lookup tcp")
    port = stack.enter_context(Child(floor.__file__, "--serve", floor.BASELINE)).hello["port"]
    dealer = floor.Dealer(port)
    stack.callback(dealer.close)
    found = {PIPELINE: Rate(pipelined(dealer, WINDOW), count, PIPELINE)}

    async def by_hand() -> tuple[Ask, Any]:
        asking = ZmqAsyncio(port)
        return asking.ask, asking.close

    found["zmq.asyncio"] = Rate(on_loop(stack, asyncio.new_event_loop(), by_hand), count // 4, PIPELINE)
    if importlib.util.find_spec("spark_partition_server.aio") is None:
        skip(skipped, "aio", "this version has no spark_partition_server.aio")
        return found
    aio = importlib.import_module("spark_partition_server.aio")

    async def ours() -> tuple[Ask, Any]:
        client = await aio.connect(cluster.path)
        return lambda key: client.call(0, "get", key), client.aclose

    found["aio"] = Rate(on_loop(stack, asyncio.new_event_loop(), ours), count, PIPELINE)
    try:
        import uvloop
    except ImportError:
        skip(skipped, "aio, uvloop", "uvloop is not installed (the extra `bench`)")
    else:
        found["aio, uvloop"] = Rate(on_loop(stack, uvloop.new_event_loop(), ours), count, PIPELINE)
    return found


def draw(figure: Any, found: dict[str, dict[str, Any]]) -> None:
    axes = figure.subplots()
    rows = [(name, row["rates"]) for name, row in found.items() if "rates" in row]
    axes.boxplot([rates for _, rates in rows], orientation="horizontal")
    axes.set_yticklabels([name for name, _ in rows])
    axes.set(xlabel=f"calls/s, {WINDOW} in flight", xlim=(0, None))
    axes.grid(alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 12)
    parser.add_argument("--count", type=int, default=12_000, help="calls of one burst")
    options = parser.parse_args()
    rounds, count = (3, 4_000) if options.quick else (options.rounds, options.count)
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        found = measure(open_all(stack, skipped, count), rounds, options.disturbed)
    print_rates(f"calls a second, {WINDOW} in flight", found)
    done = document("aio", rows=found, skipped=skipped, disturbed=options.disturbed)
    finish(options, done, lambda figure: draw(figure, found))


if __name__ == "__main__":
    main()
