"""What does a call cost by way of the coordinator, when servers cannot be reached?

``client.call`` with ``route="relay"``: client, coordinator, server and back, four messages, by the relay's door;
against two hand-written hops, the least that has a process in between: a pyzmq REQ asks a REP in a second process,
which asks a REP in a third one and hands its answer back. Fixed octets, no codec, no lookup of who serves what.

Expected order of magnitude, written down before the first run: two hops 280 us, twice raw REQ/REP; relay 350 us.

    python benchmarks/relay.py [--rounds 25] [--json FILE] [--plot FILE] [--quick]

``floor.py`` says how the bursts are taken and which are dropped.
"""

from __future__ import annotations

import argparse
import inspect
from contextlib import ExitStack

import floor
import zmq
from library import Call, open_cluster
from measuring import Child, Regime, Variant, add_arguments, key_of, measure_regimes, say
from report import skip

from spark_partition_server import connect

HOPS = "two REQ/REP hops"


def serve_proxy(port: int) -> None:
    context = zmq.Context()
    asked, asking = context.socket(zmq.REP), context.socket(zmq.REQ)
    asking.connect(f"tcp://127.0.0.1:{port}")
    say(port=asked.bind_to_random_port("tcp://127.0.0.1"))
    while True:
        asking.send(asked.recv())
        asked.send(asking.recv())


def open_hops(stack: ExitStack) -> Variant:
    server = stack.enter_context(Child(floor.__file__, "--serve", "raw_reqrep"))
    proxy = stack.enter_context(Child(__file__, "--proxy", str(server.hello["port"])))
    caller = floor.ReqRep(proxy.hello["port"])
    stack.callback(caller.close)
    return Variant(caller, server.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, 25)
    parser.add_argument("--proxy", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.proxy is not None:
        return serve_proxy(options.proxy)
    options.free = True  # three processes have no placement on two processors that says more
    skipped: dict[str, str] = {}

    def open_all(regime: Regime, stack: ExitStack) -> dict[str, Variant]:
        variants = {
            HOPS: open_hops(stack),
            floor.BASELINE: floor.open_variant(floor.BASELINE, regime, stack),
        }
        if "route" in inspect.signature(connect).parameters:
            cluster = open_cluster(stack, "lookup tcp")
            for route in ("relay", "direct"):
                call = Call(cluster.path, route=route)
                stack.callback(call.close)
                assert call.call(key_of(42)) == floor.value_of(42)
                variants[f"client.call, {route}"] = Variant(call, cluster.pids[0])
        else:
            skip(skipped, "client.call, relay", "this version has no relay")
        return variants

    return measure_regimes(options, "relay", HOPS, open_all, skipped=skipped)


if __name__ == "__main__":
    main()
