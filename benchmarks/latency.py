"""What does a call of a partition server take, next to what one would write by hand, and next to what others offer?

One synchronous client in a process of its own, a request of about 50 octets, a reply of about 100. Every variant looks
the same keys up in a dict of 10,000 entries in another process:

    raw_reqrep              pyzmq REQ to REP, fixed octets, nothing looked up
    msgpack_dealer_router   a hand-written loop: pyzmq DEALER to ROUTER, msgpack, a dict of handlers; the baseline
    plain_socket            a TCP socket, a length before each message, msgpack, a dict of handlers: the floor
    client.call tcp         ``Client.call`` of a method of a ``QueryServer``, with all its checks and its deadline
    client.call same host   the same over the lane that client and server choose by themselves on one host
    client.call busy        the same, while another thread of the server's process computes in pure Python
    dealer_to_listener      (--all) a hand-written pyzmq DEALER that calls the ``QueryServer``
    redis ...               redis-py (with hiredis where it is installed) asks a redis-server for the same keys
    flask, flight, grpc,    what is installed of the alternatives (``peers.py``); --alone leaves them out
    ray, dask, spark

The coordinator runs in a process of its own, as on a driver (``library.py``). "client on CPU 0, servers on CPU 1" is
the placement that is closest to two hosts; of the alternatives only Redis is measured there, too.

Expected order of magnitude, written down before the first run: client.call 40 us where the scheduler places the
processes (0.2 of the baseline; a trial without envelope, deadline and checks took 0.14) and 130 us across two cores
(0.8; the trial 0.65). It must stay within 0.35 and 0.85 of the baseline.

    python benchmarks/latency.py [--all] [--alone] [--free | --pin] [--rounds 12] [--json FILE] [--plot FILE] [--quick]

``floor.py`` says how the bursts are taken and which are dropped.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

import floor
import peers
import zmq
from library import Call, open_cluster
from measuring import APART, FREE, Regime, Variant, add_arguments, key_of, measure_regimes, placed

from spark_partition_server import connect
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Kind
from spark_partition_server.wire.payload import decode_value, encode_value

REMAINING_MS = 10_000
BUSY_CALLS = 100  # a burst: each may take milliseconds


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


def open_library(regime: Regime, everything: bool, stack: ExitStack) -> dict[str, Variant]:
    cluster = open_cluster(stack, "lookup tcp", "lookup", "busy", cpu=regime.server_cpu)
    path, pids = cluster.path, cluster.pids
    with placed(regime.client_cpu):
        found = {
            "client.call tcp": Variant(Call(path, 0), pids[0]),
            "client.call same host": Variant(Call(path, 1), pids[1]),
        }
        if regime is FREE:
            found["client.call busy"] = Variant(Call(path, 2), pids[2], BUSY_CALLS)
        if everything:
            found["dealer_to_listener"] = Variant(ProtocolDealer(path, 0), pids[0])
    for variant in found.values():
        stack.callback(variant.caller.close)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, 12)
    parser.add_argument("--all", action="store_true", help="also a libzmq socket that calls our server")
    parser.add_argument("--alone", action="store_true", help="without the alternatives")
    options = parser.parse_args()
    skipped: dict[str, str] = {}

    def open_all(regime: Regime, stack: ExitStack) -> dict[str, Variant]:
        if regime is APART:
            variants = {floor.BASELINE: floor.open_variant(floor.BASELINE, regime, stack)}
        else:
            variants = floor.open_all(regime, stack) | open_library(regime, options.all, stack)
        if not options.alone:
            variants |= peers.open_all(regime, skipped, stack)
        for name, variant in variants.items():
            expected = floor.value_of(0).encode() if name == "raw_reqrep" else floor.value_of(42)
            found = variant.caller.call(key_of(42))
            assert found in (expected, expected.encode() if isinstance(expected, str) else expected), name
        return variants

    measure_regimes(options, "latency", floor.BASELINE, open_all, not options.alone, skipped=skipped)


if __name__ == "__main__":
    main()
