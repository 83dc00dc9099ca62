"""What do collectives cost among processes of one host, beside torch's gloo, Open MPI and hand-written ZeroMQ?

Groups of 2 and of 4 processes, one group for each library, each asked in turn for a burst of the same calls:

    ours       Comm, by its default: Unix sockets, and shared memory for what is large
    gloo       torch.distributed over tcp, one thread
    openmpi    mpi4py, by its default: shared memory, waiting by spinning
    star       a DEALER of pyzmq for each rank to a ROUTER at rank 0, msgpack
    zmq tcp    two PAIR sockets of pyzmq, no copies: 16 MiB there and back

Each is measured where it is installed (torch, mpi4py with mpiexec). On as many processors as ranks or fewer, four ranks
tell how the libraries bear being more than the processors, not how they scale.

Expected order of magnitude, written down before the first run: barrier 50 us with two ranks and 150 us with four, which
is two and six wake-ups of a process, against 1 us of Open MPI, which never sleeps; allreduce of 64 MiB 30 ms with two
ranks, which is memory's speed.

    python benchmarks/collectives.py [--rounds 10] [--sizes 2 4] [--only ours gloo] [--no-spark]

At the end the barrier among 4 ranks on ``local-cluster``, against Spark's own ``BarrierTaskContext.barrier()``.
The time of a burst is that of the rank that took longest, divided by the calls. Bursts are compared within the round.
One during which processes that do not belong to the benchmark used more than 15 % of a core is dropped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import barriers
from measuring import SEED, Watch, add_rounds, await_quiet
from peers import free_port
from report import document, finish, machine, skip

from spark_partition_server import Coordinator

KIB, MIB = 1 << 10, 1 << 20
CASES = [
    ("barrier", 0),
    ("allreduce_float", 8),
    *(("allreduce", octets) for octets in (4 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB)),
    *((name, octets) for name in ("bcast", "allgather", "alltoall") for octets in (4 * KIB, MIB)),
    ("sendrecv", 16 * MIB),
]
PAIR_ONLY = "sendrecv"
BURST = 0.03  # seconds that a burst should take
MOST_CALLS = 1000
START, ANSWER = 60.0, 60.0  # seconds a group may take to meet, and to answer
GRACE = 5.0  # seconds its processes have to end once the driver has hung up
# More ranks than processors, and as root where the benchmark is.
OPEN_MPI = {"OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
OPEN_MPI |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
AGAINST = ("gloo", "openmpi", "star", "zmq tcp")
NAMES = ("ours", *AGAINST)
Case = tuple[str, int]


def lacking(library: str, size: int) -> str:
    """Why it cannot be measured here; empty: it can."""
    if library == "ours" and importlib.util.find_spec("spark_partition_server.peer_server") is None:
        return "the library has no communicator yet"
    if library == "gloo" and importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if library == "openmpi" and importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is not installed"
    if library == "openmpi" and shutil.which("mpiexec") is None:
        return "mpiexec is not on the path"
    return "" if library != "zmq tcp" or size == 2 else "between two ranks only"


class Group:
    """The ranks of one library, each a process; ends with the ``with`` block.

    Raises:
        TimeoutError: they have not met, or not answered, in time.
        ConnectionError: one has ended; its own output says why.
    """

    def __init__(self, library: str, size: int) -> None:
        self.library, self.size = library, size
        self.stack = ExitStack()
        self.calls: dict[Case, int] = {}

    def __enter__(self) -> Group:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = str(Path(folder) / "driver")
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(path)
            listening.listen(self.size)
            listening.settimeout(START)
            self.start(path, stack)
            found = {}
            for _ in range(self.size):
                connection = stack.enter_context(listening.accept()[0])
                connection.settimeout(ANSWER)
                lines = stack.enter_context(connection.makefile("r"))
                found[json.loads(lines.readline())["rank"]] = connection, lines
            self.ranks = [found[rank] for rank in range(self.size)]
            self.stack = stack.pop_all()
        return self

    def start(self, path: str, stack: ExitStack) -> None:
        command = [sys.executable, str(Path(__file__).with_name("ranks.py")), "--library", self.library]
        command += ["--size", str(self.size), "--port", str(free_port()), "--driver", path]
        if self.library == "ours":
            coordinator = Coordinator(self.size, False)
            coordinator.start()
            stack.callback(coordinator.shutdown)
            meet = {"url": coordinator.get_url(), "run": coordinator.run_id.hex(), "token": coordinator.token.hex()}
            command += ["--meet", json.dumps(meet)]
        if self.library == "openmpi":
            commands = [["mpiexec", "--bind-to", "none", "-n", str(self.size), *command]]
        else:
            commands = [[*command, "--rank", str(rank)] for rank in range(self.size)]
        for one in commands:
            process = subprocess.Popen(one, stdin=subprocess.DEVNULL, env=os.environ | OPEN_MPI)
            stack.callback(end, process)

    def __exit__(self, *exc_info: object) -> None:
        self.stack.close()  # hangs up on all of them, then waits for each

    def ask(self, case: Case, calls: int) -> list[dict[str, Any]]:
        asked = json.dumps({"operation": case[0], "octets": case[1], "calls": calls}).encode() + b"\n"
        for connection, _ in self.ranks:
            connection.sendall(asked)
        answers = [lines.readline() for _, lines in self.ranks]
        if not all(answers):
            raise ConnectionError(f"a rank of {self.library} has ended")
        return [json.loads(answer) for answer in answers]

    def try_out(self, case: Case) -> None:
        """Check the result, and find out how many calls make a burst."""
        if "unsupported" in self.ask(case, 0)[0]:
            return
        seconds = self.measure(case, 2)
        self.calls[case] = min(max(int(BURST / seconds), 2), MOST_CALLS)

    def measure(self, case: Case, calls: int) -> float:
        """The seconds of one call; of sendrecv, of one way."""
        seconds: float = max(answer["seconds"] for answer in self.ask(case, calls))
        return seconds / 2 if case[0] == PAIR_ONLY else seconds


def end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Row:
    """One library's bursts of one case.

    Attributes:
        kept: the seconds of a call, by round.
        rounds: that were run.
    """

    rounds: int
    kept: dict[int, float] = field(default_factory=dict)

    def figures(self, octets: int, others: dict[str, Row]) -> dict[str, Any]:
        """As JSON; ratios are medians of the ratios within a round, below 1 where this one is faster."""
        found: dict[str, Any] = {"bursts": len(self.kept), "rounds": self.rounds}
        if not self.kept:
            return found
        found["p50_us"] = 1e6 * statistics.median(self.kept.values())
        found["mb_per_s"] = octets / found["p50_us"]
        for name, other in others.items():
            both = self.kept.keys() & other.kept.keys()
            if both and other is not self:
                found[f"ratio {name}"] = statistics.median(self.kept[one] / other.kept[one] for one in both)
        return found


def measure_size(size: int, options: argparse.Namespace, skipped: dict[str, str]) -> dict[str, dict[str, Any]]:
    """All cases among so many ranks: case -> library -> figures."""
    rounds = 2 if options.quick else options.rounds
    draw = random.Random(SEED)
    with ExitStack() as stack:
        groups = []
        for library in options.only:
            if why := lacking(library, size):
                skip(skipped, f"{library}, {size} ranks", why)
                continue
            try:
                groups.append(stack.enter_context(Group(library, size)))
            except OSError as error:  # that of a rank is on the terminal
                skip(skipped, f"{library}, {size} ranks", f"its ranks have not met: {error!r}")
        cases = [case for case in CASES if size == 2 or case[0] != PAIR_ONLY]
        rows: dict[Case, dict[str, Row]] = {case: {} for case in cases}
        for group in groups:
            for case in cases:
                group.try_out(case)
            for case in group.calls:
                rows[case][group.library] = Row(rounds)
        for number in range(rounds):
            for case in draw.sample(cases, len(cases)):
                for group in draw.sample(groups, len(groups)):
                    if case in group.calls:
                        measure_one(group, case, number, rows[case][group.library], options.disturbed)
    return {
        title(case): {library: row.figures(case[1], rows[case]) for library, row in rows[case].items()}
        for case in cases
    }


def measure_one(group: Group, case: Case, number: int, row: Row, disturbed: float) -> None:
    await_quiet(disturbed)
    watch = Watch()
    seconds = group.measure(case, group.calls[case])
    if watch.others() <= disturbed:
        row.kept[number] = seconds


def title(case: Case) -> str:
    name, octets = case
    if octets <= 8:
        return {"barrier": "barrier", "allreduce_float": "allreduce, a float"}[name]
    return f"{name}, {octets // MIB} MiB" if octets >= MIB else f"{name}, {octets // KIB} KiB"


def print_size(size: int, found: dict[str, dict[str, Any]]) -> None:
    print(f"\n{size} ranks on one host\n")
    against = [name for name in AGAINST if any(name in row for row in found.values())]
    heads = "".join(f" time / {name} |" for name in against)
    print(f"| operation | library | bursts kept | p50 us | MB/s |{heads}")
    print("|---|---|---:|---:|---:|" + "---:|" * len(against))
    for case, libraries in found.items():
        for library, row in libraries.items():
            kept = f"{row['bursts']} of {row['rounds']}"
            if not row["bursts"]:
                print(f"| {case} | {library} | {kept} | | |" + " |" * len(against))
                continue
            speed = f"{row['mb_per_s']:,.0f}" if row["mb_per_s"] >= 10 else ""
            ratios = [f"{row[key]:.2f}" if (key := f"ratio {name}") in row else "" for name in against]
            print(f"| {case} | {library} | {kept} | {row['p50_us']:,.1f} | {speed} | " + " | ".join(ratios) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4], help="of the groups; default 2 4")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="LIBRARY", help=", ".join(NAMES))
    parser.add_argument("--no-spark", action="store_true", help="without the barrier on local-cluster")
    options = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    skipped: dict[str, str] = {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for size in options.sizes:
        found[f"{size} ranks"] = measure_size(size, options, skipped)
        print_size(size, found[f"{size} ranks"])
    spark = {} if options.no_spark else barriers.measure(options.quick, skipped)
    done = document("collectives", disturbed=options.disturbed, groups=found, spark=spark, skipped=skipped)
    finish(options, done, lambda figure: draw_allreduce(figure, found))


def draw_allreduce(figure: Any, found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Time against size, a panel for each number of ranks."""
    sizes = {title(case): case[1] for case in CASES if case[0] == "allreduce"}
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (name, cases) in zip(panels, found.items(), strict=True):
        for library in NAMES:
            rows = {octets: cases[case].get(library, {}) for case, octets in sizes.items()}
            points = [(octets, row["p50_us"]) for octets, row in rows.items() if "p50_us" in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=library)
        axes.set(title=f"Allreduce, {name}", xscale="log", yscale="log", xlabel="octets")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("us")
    panels[0].legend(fontsize=7)


if __name__ == "__main__":
    main()
