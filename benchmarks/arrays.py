"""How fast does an array of float32 get from a server to a client on the same machine?

``client.call(0, "fetch", megabytes)`` of an array that the server holds, over TCP and over the lane that client and
server choose by themselves on one host, against hand-written pyzmq: a DEALER asks a ROUTER over TCP, which sends the
array with ``copy=False``, and the client looks at the received frame as an array, which copies nothing either. Each
with and without reading the array once (``sum``): what is only mapped has not arrived yet. A megabyte is 1e6 octets.

Expected order of magnitude, written down before the first run: pyzmq 0.46, 7.9 and 75 ms for 1, 16 and 100 MB; a plain
TCP socket that receives into the array 0.4, 7 and 44 ms; memory that both share 0.3, 3 and 23 ms.

    python benchmarks/arrays.py [--rounds 8] [--json FILE] [--plot FILE] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgpack
import numpy
import zmq
from library import MEGABYTES, Call, make_arrays, open_cluster
from measuring import Child, add_rounds, say
from rates import Rate, measure, print_rates
from report import document, finish

FETCHES = {1: 60, 16: 12, 100: 4}  # of one burst


def serve_by_hand() -> None:
    arrays = make_arrays()
    router = zmq.Context().socket(zmq.ROUTER)
    say(port=router.bind_to_random_port("tcp://127.0.0.1"))
    while True:
        sender, body = router.recv_multipart()
        router.send(sender, zmq.SNDMORE)
        router.send(arrays[msgpack.unpackb(body)], copy=False)


class ByHand:
    def __init__(self, port: int) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def fetch(self, megabytes: int) -> Any:
        self.socket.send(msgpack.packb(megabytes))
        return numpy.frombuffer(self.socket.recv(copy=False).buffer, numpy.float32)

    def close(self) -> None:
        self.context.destroy(linger=0)


def fetching(fetch: Callable[[int], Any], megabytes: int, touch: bool) -> Callable[[int], None]:
    expected = megabytes * 250_000

    def run(count: int) -> None:
        for _ in range(count):
            array = fetch(megabytes)
            assert array.shape == (expected,)
            assert array[-1] == expected - 1
            if touch:
                array.sum()

    return run


def open_all(stack: ExitStack) -> dict[str, Callable[[int], Any]]:
    cluster = open_cluster(stack, "arrays tcp", "arrays")
    by_hand = ByHand(stack.enter_context(Child(__file__, "--serve")).hello["port"])
    stack.callback(by_hand.close)
    fetches = {"pyzmq tcp": by_hand.fetch}
    for rank, name in enumerate(("client.call tcp", "client.call same host")):
        client = Call(cluster.path, timeout=60.0)
        stack.callback(client.close)
        fetches[name] = lambda megabytes, client=client.client, rank=rank: client.call(rank, "fetch", megabytes)
    return fetches


def name_of(kind: str, megabytes: int, touch: bool) -> str:
    return f"{kind}, {megabytes} MB" + ", read" * touch


def draw(figure: Any, found: dict[str, dict[str, Any]], kinds: list[str]) -> None:
    axes = figure.subplots()
    for kind in kinds:
        for touch, style in ((False, "-"), (True, ":")):
            rows = [(size, found.get(name_of(kind, size, touch), {})) for size in MEGABYTES]
            points = [(size, row["rate"] * size / 1e3) for size, row in rows if "rate" in row]
            if points:
                axes.plot(*zip(*points, strict=True), style, marker="o", label=kind + ", read" * touch)
    axes.set(xscale="log", xlabel="MB", ylabel="GB/s", ylim=(0, None), xticks=MEGABYTES)
    axes.set_xticklabels([str(size) for size in MEGABYTES])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 8)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve_by_hand()
    rounds = 3 if options.quick else options.rounds
    with ExitStack() as stack:
        fetches = open_all(stack)
        variants = {}
        for megabytes in MEGABYTES[: 2 if options.quick else None]:
            for touch in (False, True):
                baseline = name_of("pyzmq tcp", megabytes, touch)
                for kind, fetch in fetches.items():
                    run = fetching(fetch, megabytes, touch)
                    name = name_of(kind, megabytes, touch)
                    variants[name] = Rate(run, FETCHES[megabytes], baseline, "fetches/s")
        found = measure(variants, rounds, options.disturbed)
    for row, name in ((found[name], name) for name in found):
        row["gigabytes_s"] = row.get("rate", 0.0) * int(name.split(", ")[1].split()[0]) / 1e3
    print_rates("arrays fetched a second", found)
    done = document("arrays", rows=found, disturbed=options.disturbed)
    return finish(options, done, lambda figure: draw(figure, found, list(fetches)))


if __name__ == "__main__":
    main()
