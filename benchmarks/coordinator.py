"""How large may a cluster be before its coordinator is the trouble?

The real ``Coordinator`` in a process of its own, as on a driver, and 1,000 / 5,000 / 10,000 simulated members: each has
a ZeroMQ DEALER and a TCP connection of its own, says HELLO, and sends a heartbeat a second, which is echoed. They live
in 8 processes (one libzmq context each), on the same machine, and send about one message at a time: each member has its
own moment within the second. Arriving in bursts, messages cost the coordinator half as much, which would flatter it.

What is measured, for each size:

    registered      seconds from the word "go" until the coordinator has every member: all connect at once and say
                    HELLO; the members' processes need the same processors for that
    cores           CPU time of the coordinator's process a second, once all are there, by thread
    lost            members that the coordinator declared lost, all of which are alive; and refusals that members got
    echo            the round trip of a heartbeat, 100 times a second, by one more member
    lookup          LOOKUP until the VIEW of all members has arrived, as every new client does it
    resident memory, open descriptors, and the limit of descriptors before and after

Expected order of magnitude, written down before the first run: a hand-written loop that neither checks nor echoes takes
0.43 core for 10,000 members, so 0.55 core; registered in 2 to 3 s; 28 KiB a member.

    python benchmarks/coordinator.py [--members 1000 5000 10000] [--seconds 10] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import select
import statistics
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgpack
import zmq
from measuring import DISTURBED, Child, Watch, await_quiet, say
from report import document, finish, report_arguments

from spark_partition_server import Coordinator
from spark_partition_server.net.control import raise_descriptor_limit, set_member_options
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Hello, Kind, Lookup

DRIVERS = 8  # processes
INTERVAL = 1.0  # seconds between two heartbeats of a member
SETTLE = 2.0  # seconds between the last registration and the measurement
PROBES = 0.01  # seconds between two echoes asked for


# ----------------------------------------------------------------------------------- the coordinator's process


class Losses(logging.Handler):
    """Counts the members that the coordinator says it has lost."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += str(record.msg).startswith("lost")


def run_coordinator(members: int) -> None:
    """Says where it is, when it is complete, and on every line of stdin how it is."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    losses = Losses()
    logging.getLogger("spark_partition_server.coordinator").addHandler(losses)
    coordinator = Coordinator(members, verbose=False)
    coordinator.start()
    try:
        say(url=coordinator.get_url(), token=coordinator.token.hex(), run=coordinator.run_id.hex())
        coordinator.wait(lambda: bool(coordinator.full_cluster), 120.0)
        say(complete=bool(coordinator.full_cluster), registered=len(coordinator.hosts), at=time.monotonic())
        while sys.stdin.readline():
            say(
                registered=len(coordinator.hosts),
                lost=losses.count,
                limit_before=before,
                limit_after=resource.getrlimit(resource.RLIMIT_NOFILE),
            )
    finally:
        coordinator.shutdown()


# ----------------------------------------------------------------------------------- the members' processes


class Member:
    """One simulated member: a DEALER with the options of a real one."""

    def __init__(self, context: zmq.Context[Any], where: dict[str, Any], rank: int) -> None:
        run_id = bytes.fromhex(where["run"])
        self.rank, self.sequence, self.refused, self.welcome = rank, 0, 0, False
        self.opening = codec.preamble(Kind.HEARTBEAT, run_id)
        self.kinds = {codec.preamble(kind, run_id): kind for kind in Kind}
        token = bytes.fromhex(where["token"])
        hello = Hello(rank, 1, 0, "127.0.0.1", 1024 + rank % 60_000, "", token, codec.VERSION, codec.VERSION)
        self.hello = codec.encode(hello, run_id)
        self.url = where["url"]
        self.socket = context.socket(zmq.DEALER)
        set_member_options(self.socket, ipv6=False)
        self.socket.linger = 0

    def connect(self) -> None:
        self.socket.connect(self.url)
        self.join()

    def join(self) -> None:
        self.socket.send_multipart(self.hello)

    def drain(self) -> None:
        """Takes what has come meanwhile: the echo of the heartbeat before."""
        with suppress(zmq.Again):
            while True:
                kind = self.kinds.get(self.socket.recv_multipart(zmq.NOBLOCK)[0])
                self.welcome = self.welcome or kind is Kind.WELCOME
                self.refused += kind not in (Kind.WELCOME, Kind.HEARTBEAT)

    def beat(self) -> None:
        self.sequence += 1
        self.socket.send_multipart([self.opening, msgpack.packb((self.rank, 1, self.sequence))])


def run_members(first: int, count: int, where: dict[str, Any]) -> None:
    """``count`` members from ``first`` on: join at the first line of stdin, beat until it is closed."""
    raise_descriptor_limit(count)
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, count + 10)
    members = [Member(context, where, rank) for rank in range(first, first + count)]
    say(ready=count)
    sys.stdin.readline()
    for member in members:
        member.connect()
    draw = random.Random(first)
    began = time.monotonic() + draw.random() * INTERVAL / count
    turn = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        due = began + turn * INTERVAL / count
        time.sleep(max(due - time.monotonic(), 0.0))
        member = members[turn % count]
        member.drain()
        if member.welcome:
            member.beat()
        else:
            member.join()
        turn += 1
    elapsed = time.monotonic() - began
    sent = sum(member.sequence for member in members)
    refused = sum(member.refused for member in members)
    say(sent_per_s=sent / elapsed, refused=refused, behind_s=elapsed - turn * INTERVAL / count)
    context.destroy(linger=0)


# ----------------------------------------------------------------------------------- the measuring


def thread_seconds(pid: int) -> dict[str, float]:
    """CPU time by thread: libzmq's have names, the others are Python's."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {"python": 0.0, "libzmq": 0.0}
    for path in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (path / "stat").read_text().partition("(")[2].rpartition(")")
        user, system = rest.split()[11:13]
        found["libzmq" if name.startswith("ZMQ") else "python"] += (int(user) + int(system)) / tick
    return found


def memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Probe:
    """One more member, which waits for the echo of each heartbeat; it looks up the view as a client does, too."""

    def __init__(self, where: dict[str, Any], rank: int) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.member = Member(self.context, where, rank)
        self.member.connect()
        self.lookup = codec.encode(Lookup(0), bytes.fromhex(where["run"]))

    def ask(self, send: Any) -> float:
        """Microseconds until the answer."""
        began = time.perf_counter_ns()
        send()
        assert self.member.socket.poll(30_000), "the coordinator does not answer"
        self.member.socket.recv_multipart()
        return (time.perf_counter_ns() - began) / 1e3

    def run(self, seconds: float) -> tuple[list[float], list[float]]:
        """Echoes and lookups, a lookup a second."""
        self.member.drain()
        echoes, lookups = [], []
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            echoes.append(self.ask(self.member.beat))
            if len(echoes) % round(1 / PROBES) == 50:
                lookups.append(self.ask(lambda: self.member.socket.send_multipart(self.lookup)))
            time.sleep(PROBES)
        return echoes, lookups

    def close(self) -> None:
        self.context.destroy(linger=0)


def measure(members: int, seconds: float, disturbed: float) -> dict[str, Any]:
    """One size."""
    await_quiet(disturbed)
    with ExitStack() as stack:
        coordinator = stack.enter_context(Child(__file__, "--coordinate", str(members), grace=5.0))
        where = coordinator.hello
        drivers = []
        first = 0
        for number in range(DRIVERS):
            count = (members - 1 - first) // (DRIVERS - number)
            arguments = ("--drive", str(first), str(count), "--where", json.dumps(where))
            drivers.append(stack.enter_context(Child(__file__, *arguments, grace=10.0)))
            first += count
        watch = Watch()
        cpu_before = thread_seconds(coordinator.pid)
        went = time.monotonic()
        for driver in drivers:
            driver.tell("go")
        probe = Probe(where, members - 1)
        stack.callback(probe.close)
        complete = coordinator.line()
        registering = {name: used - cpu_before[name] for name, used in thread_seconds(coordinator.pid).items()}
        probe.run(SETTLE)
        began, cpu_before = time.monotonic(), thread_seconds(coordinator.pid)
        echoes, lookups = probe.run(seconds)
        elapsed, cpu = time.monotonic() - began, thread_seconds(coordinator.pid)
        coordinator.tell("report")
        state = coordinator.line()
        used = {name: (cpu[name] - cpu_before[name]) / elapsed for name in cpu}
        found = {
            "members": members,
            "registered": complete["registered"],
            "registered_s": complete["at"] - went,
            "registering_cpu_s": sum(registering.values()),
            "cores": sum(used.values()),
            "cores_by_thread": used,
            "still_registered": state["registered"],
            "lost": state["lost"],
            "echo_p50_us": statistics.median(echoes),
            "echo_p99_us": sorted(echoes)[len(echoes) * 99 // 100],
            "lookup_p50_us": statistics.median(lookups) if lookups else float("nan"),
            "memory_mib": memory_mib(coordinator.pid),
            "descriptors": len(list(Path(f"/proc/{coordinator.pid}/fd").iterdir())),
            "limit_before": state["limit_before"],
            "limit_after": state["limit_after"],
            "others_cores": watch.others(),
        }
        for driver in drivers:
            driver.tell("stop")
        said = [driver.line() for driver in drivers]
        found["refused"] = sum(one["refused"] for one in said)
        found["sent_per_s"] = sum(one["sent_per_s"] for one in said)
        found["behind_s"] = max(one["behind_s"] for one in said)
    return found


def print_table(found: list[dict[str, Any]]) -> None:
    heads = ["members", "registered, s (CPU s)", "cores (python + libzmq)", "heartbeats/s", "lost / refused"]
    heads += ["echo p50 / p99, us", "lookup, ms", "memory, MiB", "descriptors (limit)", "others, cores"]
    print("\n| " + " | ".join(heads) + " |\n|" + "---:|" * len(heads))
    for row in found:
        threads = row["cores_by_thread"]
        cells = [
            f"{row['members']:,}",
            f"**{row['registered_s']:.2f}** ({row['registering_cpu_s']:.2f})",
            f"**{row['cores']:.2f}** ({threads['python']:.2f} + {threads['libzmq']:.2f})",
            f"{row['sent_per_s']:,.0f}",
            f"{row['lost']} / {row['refused']}",
            f"{row['echo_p50_us']:.0f} / {row['echo_p99_us']:,.0f}",
            f"{row['lookup_p50_us'] / 1e3:.1f}",
            f"{row['memory_mib']:.0f}",
            f"{row['descriptors']:,} ({row['limit_after'][0]:,})",
            f"{row['others_cores']:.2f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[1_000, 5_000, 10_000])
    parser.add_argument("--seconds", type=float, default=10.0, help="of heartbeats, for each size")
    text = "share of a core that processes of others may use when it begins; it waits a little for that"
    parser.add_argument("--disturbed", type=float, default=DISTURBED, help=f"{text}; default {DISTURBED}")
    report_arguments(parser)
    parser.add_argument("--coordinate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--drive", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--where", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.coordinate is not None:
        return run_coordinator(options.coordinate)
    if options.drive is not None:
        return run_members(*options.drive, options.where)
    sizes = options.members[:1] if options.quick else options.members
    found = [measure(members, 3.0 if options.quick else options.seconds, options.disturbed) for members in sizes]
    print_table(found)
    finish(options, document("coordinator", sizes=found), lambda figure: draw(figure, found))


def draw(figure: Any, found: list[dict[str, Any]]) -> None:
    left, right = figure.subplots(1, 2)
    members = [row["members"] for row in found]
    left.plot(members, [row["registered_s"] for row in found], marker="o")
    left.set(xlabel="members", ylabel="s until all are registered", ylim=(0, None))
    for kind in ("libzmq", "python"):
        right.plot(members, [row["cores_by_thread"][kind] for row in found], marker="o", label=kind)
    right.plot(members, [row["cores"] for row in found], marker="o", label="together")
    right.set(xlabel="members, a heartbeat a second each", ylabel="cores", ylim=(0, None))
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
