"""What does a call of a partition server take, next to what one would write by hand?

One synchronous client in a process of its own, a request of about 50 octets, a reply of about 100, the direct route
over TCP on 127.0.0.1. Every variant looks the same keys up in a dict of 10,000 entries in another process:

    raw_reqrep              pyzmq REQ to REP, fixed octets, nothing looked up
    msgpack_dealer_router   a hand-written loop: pyzmq DEALER to ROUTER, msgpack, a dict of handlers; the baseline
    plain_socket            a TCP socket, a length before each message, msgpack, a dict of handlers: the floor
    client.call             ``Client.call`` of a method of a ``QueryServer``, with all its checks and its deadline
    client_to_router        (--all) the same ``Client.call`` of a server that answers from a libzmq ROUTER
    dealer_to_listener      (--all) a hand-written pyzmq DEALER that calls the ``QueryServer``

The coordinator runs in a third process, as on a driver. The process that serves has what the Python worker of a Spark
executor has: the main thread serves, one more keeps the session with the coordinator.

Expected order of magnitude, written down before the first run: client.call 40 us where the scheduler places the
processes (0.2 of the baseline; a trial without envelope, deadline and checks took 0.14) and 130 us across two cores
(0.8; the trial 0.65). It must stay within 0.5 and 0.9 of the baseline.

    python benchmarks/latency.py [--all] [--free | --pin] [--rounds 40] [--calls 300] [--json FILE]

``floor.py`` says how the bursts are taken and which are dropped.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from typing import Any

import floor
import zmq
from measuring import Child, Regime, Variant, add_arguments, key_of, measure_regimes, pin, placed, say

from spark_partition_server import Coordinator, QueryServer, connect, method
from spark_partition_server.connection_file import Connection, remove, write
from spark_partition_server.net.clock import monotonic
from spark_partition_server.net.connection import Caller
from spark_partition_server.query_server import answering_of
from spark_partition_server.spark.task import Identity
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Kind
from spark_partition_server.wire.payload import decode_value, encode_value

SERVE_TIMEOUT = 30.0
REMAINING_MS = 10_000


# ----------------------------------------------------------------------------------- the processes of the library


class Lookup(QueryServer):
    """The server of ``client.call``: what a user writes."""

    def init_partition(self, rows: Any) -> None:
        self.values = dict(rows)

    @method
    def get(self, key: str) -> Any:
        return self.values.get(key)


class RouterLookup(Lookup):
    """The same methods and the same answers, from a libzmq ROUTER in place of the library's listener."""

    def _launch_server(self) -> None:
        self.init_partition(self.itr)
        answering, caller = answering_of(self), Caller()
        router = zmq.Context().socket(zmq.ROUTER)
        self.port = router.bind_to_random_port("tcp://127.0.0.1")
        self._register()
        while True:  # ended by a signal
            sender, *frames = router.recv_multipart()
            answer = answering.answer(frames, monotonic(), caller)
            answering.work()
            if answer is not None:
                router.send_multipart([sender, *answer])

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        pass


PARTITIONS: list[type[Lookup]] = [Lookup, RouterLookup]


def run_coordinator(partitions: int) -> None:
    """Until stdin is closed. Says first where it is, then that every partition is served."""
    coordinator = Coordinator(partitions, verbose=False)
    coordinator.start()
    url = coordinator.get_url()
    assert url is not None
    path = write(Connection(url, coordinator.run_id))
    try:
        say(url=url, token=coordinator.token.hex(), run=coordinator.run_id.hex(), path=str(path))
        coordinator.wait(lambda: bool(coordinator.full_cluster), SERVE_TIMEOUT)
        say(complete=coordinator.full_cluster)
        sys.stdin.read()
        coordinator.shutdown_hosts()
        coordinator.wait(lambda: not coordinator.hosts, 1.0)
    finally:
        coordinator.shutdown()
        remove(path)


def run_server(rank: int, where: dict[str, str]) -> None:
    """One partition, called as Spark calls it; says that the process is there, and serves until it is told to stop."""
    server = PARTITIONS[rank]()
    server.set_coordinator_url(where["url"])
    server.set_token(bytes.fromhex(where["token"]))
    server.set_run(bytes.fromhex(where["run"]), None)
    say(rank=rank)
    list(server(rank, iter(floor.make_table().items()), Identity(rank, 0, rank + 1)))


# ----------------------------------------------------------------------------------- the clients


class Call:
    """``Client.call``, as anybody uses it."""

    def __init__(self, path: str, rank: int) -> None:
        self.client = connect(path)
        self.rank = rank

    def call(self, key: str) -> Any:
        return self.client.call(self.rank, "get", key)

    def close(self) -> None:
        self.client.close()


class ProtocolDealer:
    """The least that speaks the protocol with pyzmq."""

    def __init__(self, path: str, rank: int) -> None:
        with connect(path) as client:
            self.member = client._routes.calls.members[rank]
            run_id = client._run_id
        self.request, self.reply = codec.preamble(Kind.REQUEST, run_id), codec.preamble(Kind.REPLY, run_id)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(self.member.endpoint)
        self.last = 0

    def call(self, key: str) -> Any:
        self.last += 1
        fields = (self.last, "get", REMAINING_MS, self.member.rank, self.member.incarnation)
        self.socket.send_multipart(codec.request_frames(self.request, fields, encode_value(((key,), {}))))
        while True:
            frames = self.socket.recv_multipart()
            if codec.read_reply(frames, self.reply) == self.last:
                return decode_value(frames[2:])

    def close(self) -> None:
        self.context.destroy(linger=0)


# ----------------------------------------------------------------------------------- all together


def open_library(regime: Regime, everything: bool, stack: ExitStack) -> dict[str, Variant]:
    """Starts coordinator and servers; they end with the stack, the servers because the coordinator tells them to."""
    ranks = range(2 if everything else 1)
    coordinator = Child(__file__, "--coordinate", str(len(ranks)), grace=5.0)
    servers = []
    for rank in ranks:
        arguments = ("--partition", str(rank), "--where", json.dumps(coordinator.hello))
        server = Child(__file__, *arguments, cpu=regime.server_cpu, grace=0.0 if rank else 5.0)
        servers.append(stack.enter_context(server))
    stack.enter_context(coordinator)
    assert coordinator.line() == {"complete": True}
    path, pids = coordinator.hello["path"], [server.pid for server in servers]
    with placed(regime.client_cpu):
        found = {"client.call": Variant(Call(path, 0), pids[0])}
        if everything:
            found["client_to_router"] = Variant(Call(path, 1), pids[1])
            found["dealer_to_listener"] = Variant(ProtocolDealer(path, 0), pids[0])
    for variant in found.values():
        stack.callback(variant.caller.close)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--all", action="store_true", help="also each side of ours against a libzmq socket")
    parser.add_argument("--coordinate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--partition", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--where", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.coordinate is not None:
        run_coordinator(options.coordinate)
        return
    if options.partition is not None:
        pin(options.cpu)
        run_server(options.partition, options.where)
        return

    def open_all(regime: Regime, stack: ExitStack) -> dict[str, Variant]:
        variants = floor.open_all(regime, stack) | open_library(regime, options.all, stack)
        for name, variant in variants.items():
            expected = floor.value_of(0).encode() if name == "raw_reqrep" else floor.value_of(42)
            assert variant.caller.call(key_of(42)) == expected, name
        return variants

    measure_regimes(options, floor.BASELINE, open_all)


if __name__ == "__main__":
    main()
