"""How large may a cluster be before its coordinator is the trouble?

The real ``Coordinator`` in a process of its own, as on a driver, and 1,000 / 5,000 / 10,000 simulated members
(``members.py``): each has a connection of its own, says HELLO, and sends a heartbeat a second, which is echoed. They
live in 8 processes on the same machine and send about one message at a time: each member has its own moment within the
second. Arriving in bursts, messages cost the coordinator half as much, which would flatter it.

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
import resource
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
from library import Losses
from measuring import DISTURBED, Child, Watch, await_quiet, say
from members import hello_of, run_members
from report import document, finish, report_arguments

from spark_partition_server import Coordinator
from spark_partition_server.net.control import dealer
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Kind, Lookup

DRIVERS = 8  # processes
SETTLE = 2.0  # seconds between the last registration and the measurement
PROBES = 0.01  # seconds between two echoes asked for


# ----------------------------------------------------------------------------------- the coordinator's process


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
    """One more member, by libzmq as a real one: waits for the echo of each heartbeat, and looks up the view as well."""

    def __init__(self, where: dict[str, Any], rank: int) -> None:
        run_id = bytes.fromhex(where["run"])
        self.rank, self.sequence = rank, 0
        self.opening = codec.preamble(Kind.HEARTBEAT, run_id)
        self.lookup = codec.encode(Lookup(0), run_id)
        self.context, self.socket = dealer(where["url"])
        self.socket.send_multipart(hello_of(where, rank))

    def ask(self, frames: list[Any]) -> float:
        """Microseconds until the answer."""
        began = time.perf_counter_ns()
        self.socket.send_multipart(frames)
        assert self.socket.poll(30_000), "the coordinator does not answer"
        self.socket.recv_multipart()
        return (time.perf_counter_ns() - began) / 1e3

    def beat(self) -> float:
        self.sequence += 1
        return self.ask([self.opening, msgpack.packb((self.rank, 1, self.sequence))])

    def run(self, seconds: float) -> tuple[list[float], list[float]]:
        """Echoes and lookups, a lookup a second."""
        while self.socket.poll(0):  # the WELCOME
            self.socket.recv_multipart()
        echoes, lookups = [], []
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            echoes.append(self.beat())
            if len(echoes) % round(1 / PROBES) == 50:
                lookups.append(self.ask(self.lookup))
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
            "lost": max(state["lost"], members - state["registered"]),
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
