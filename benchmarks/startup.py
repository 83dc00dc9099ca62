"""What does it cost to turn partitions into servers, beyond what Spark asks for any job?

On one warm SparkContext, ``local[2]``, 2 partitions: from ``Cluster.start()`` until every partition has answered a
first call, against a bare job of as many tasks (``rdd.mapPartitions(...).count()``), and the time of ``stop()``. Each
round has Python workers of its own, warmed by bare jobs, and times in turn

    bare job, first start, stop, bare job, later start, stop

The first start imports the library in the workers, the later one finds it there. The parts come from times that a
``QueryServer`` and a ``Cluster`` of this file note at their own steps; the last task to get there counts.

Expected order of magnitude, written down before the first run: a bare job 30 to 50 ms; a later start 50 to 100 ms more
(questions to the JVM over py4j 10 to 20 ms, ZeroMQ's handshake 5 ms, the first call 2 ms); a first start 100 to 200 ms
more again for the imports; ``stop()`` 50 ms. The first start must not take more than 0.5 s longer than the bare job.

    python benchmarks/startup.py [--rounds 10] [--partitions 2] [--json FILE] [--plot FILE] [--quick]

A measurement during which processes that do not belong to the benchmark used more than 15 % of a core is dropped, as
in ``floor.py``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from measuring import DISTURBED, Watch, await_quiet
from report import document, finish, report_arguments

os.environ["PYSPARK_PYTHON"] = sys.executable  # before Spark starts its JVM
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"

from spark_partition_server import Cluster, QueryServer, method
from spark_partition_server import cluster as cluster_module

BAR = 0.5  # seconds that a start may take longer than a bare job

PARTS = {
    "pickle": "count the partitions, pickle the server",
    "slots": "ask Spark for its slots",
    "coordinator": "bind the coordinator, write the connection file",
    "submit": "from the job's thread to the server's call: submit, schedule, unpickle, import",
    "import": "of this, the import of the library in a new worker (timed in a job of its own)",
    "bind": "bind the server's port",
    "partition": "init_partition (here: next to nothing), make the listener",
    "register": "ZeroMQ's connection, HELLO, WELCOME, start() returns",
    "call": "the first call of every partition: a client, LOOKUP, connections",
}
STOP_PARTS = {
    "leave": "SHUTDOWN until the last GOODBYE",
    "job": "the Spark job's end",
    "close": "coordinator, clients, connection file",
}


class Stamped(QueryServer):
    """Notes when it got where, in ns since the epoch: driver and workers are on one machine."""

    def __call__(self, ind: int, itr: Iterable[Any], who: Any = None) -> Any:
        self.stamps = {"called": time.time_ns()}
        return super().__call__(ind, itr, who)

    def init_partition(self, rows: Iterable[Any]) -> None:
        self.stamps["bound"] = time.time_ns()
        self.rows = list(rows)

    def _register(self) -> None:
        self.stamps["registering"] = time.time_ns()
        super()._register()
        self.stamps["registered"] = time.time_ns()

    @method
    def read_stamps(self) -> dict[str, int]:
        return self.stamps


class StampedCluster(Cluster):
    """Notes when it got where."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stamps: dict[str, int] = {}

    def note(self, name: str) -> None:
        self.stamps[name] = time.time_ns()

    def start(self, *args: Any, **kwargs: Any) -> None:
        await_slots = cluster_module.await_slots

        def stamped(*arguments: Any) -> None:
            self.note("slots")
            await_slots(*arguments)
            self.note("slots known")

        cluster_module.await_slots = stamped
        try:
            super().start(*args, **kwargs)
        finally:
            cluster_module.await_slots = await_slots

    def _launch(self, *args: Any) -> None:
        super()._launch(*args)
        self.note("launched")

    def _act(self, *args: Any) -> Any:
        self.note("submitting")
        return super()._act(*args)

    def _end_job(self, coordinator: Any, *args: Any) -> None:
        self.note("stopping")

        wait = coordinator.wait

        def waiting(predicate: Callable[[], bool], timeout: float) -> bool:
            waited: bool = wait(predicate, timeout)
            self.note("left")
            return waited

        coordinator.wait = waiting
        super()._end_job(coordinator, *args)
        self.note("job ended")


def seconds(began: int, ended: int) -> float:
    return (ended - began) / 1e9


def timed(action: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What the action reports, and whether it was disturbed."""
    await_quiet()
    watch = Watch()
    found = action()
    return {**found, "others": watch.others()}


def bare_job(rdd: Any) -> dict[str, float]:
    began = time.time_ns()
    assert rdd.mapPartitions(list).count() == rdd.getNumPartitions()
    return {"total": seconds(began, time.time_ns())}


def start(cluster: StampedCluster) -> dict[str, float]:
    began = time.time_ns()
    cluster.start()
    started = time.time_ns()
    servers = cluster.client().call_all("read_stamps")
    called = time.time_ns()
    on_driver = cluster.stamps

    def last(name: str) -> int:
        return max(stamps[name] for stamps in servers)

    return {
        "pickle": seconds(began, on_driver["slots"]),
        "slots": seconds(on_driver["slots"], on_driver["slots known"]),
        "coordinator": seconds(on_driver["slots known"], on_driver["submitting"]),
        "submit": seconds(on_driver["submitting"], last("called")),
        "bind": seconds(last("called"), last("bound")),
        "partition": seconds(last("bound"), last("registering")),
        "register": seconds(last("registering"), max(last("registered"), started)),
        "call": seconds(max(last("registered"), started), called),
        "total": seconds(began, called),
    }


def stop(cluster: StampedCluster) -> dict[str, float]:
    began = time.time_ns()
    cluster.stop()
    ended, stamps = time.time_ns(), cluster.stamps
    return {
        "leave": seconds(began, stamps["left"]),
        "job": seconds(stamps["left"], stamps["job ended"]),
        "close": seconds(stamps["job ended"], ended),
        "total": seconds(began, ended),
    }


def import_seconds(rows: Iterable[Any]) -> list[float]:
    """In a task."""
    began = time.perf_counter()
    import spark_partition_server.query_server
    import spark_partition_server.spark.shipping  # noqa: F401

    return [time.perf_counter() - began]


def with_new_workers(sc: Any, name: str, partitions: int) -> Any:
    """An RDD whose jobs run in warm Python workers that nobody else has used: there are some for every environment."""
    sc.environment["STARTUP_BENCHMARK"] = name
    rdd = sc.parallelize(range(partitions), partitions)
    for _ in range(3):
        bare_job(rdd)
    return rdd


def run_round(sc: Any, number: int, partitions: int) -> dict[str, dict[str, float]]:
    rdd = with_new_workers(sc, f"{number} import", partitions)
    imported = timed(lambda: {"import": max(rdd.mapPartitions(import_seconds).collect())})
    rdd = with_new_workers(sc, f"{number} start", partitions)
    found = {}
    for name in ("first", "later"):
        cluster = StampedCluster(sc, rdd, Stamped(), verbose=False)
        found[f"bare before {name}"] = timed(lambda: bare_job(rdd))
        found[f"{name} start"] = timed(lambda cluster=cluster: start(cluster))
        found[f"{name} stop"] = timed(lambda cluster=cluster: stop(cluster))
    found["first start"]["import"] = imported["import"]
    return found


def summarise(rounds: list[dict[str, dict[str, float]]], disturbed: float) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in rounds[0]:
        clean = [one[name] for one in rounds if one[name]["others"] <= disturbed]
        found[name] = {"kept": len(clean), "rounds": len(rounds)}
        for part in {part for one in clean for part in one} - {"others"}:
            values = [one[part] for one in clean if part in one]
            if values:
                found[name][part] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    for name in ("first", "later"):
        bare, started = f"bare before {name}", f"{name} start"
        both = [one for one in rounds if max(one[bare]["others"], one[started]["others"]) <= disturbed]
        if both:
            extra = [one[started]["total"] - one[bare]["total"] for one in both]
            found[started]["extra"] = {"median": statistics.median(extra), "min": min(extra), "max": max(extra)}
    return found


def cell(row: dict[str, Any], part: str) -> str:
    if part not in row:
        return ""
    return "{median:.0f} ({min:.0f}..{max:.0f})".format(**{key: value * 1e3 for key, value in row[part].items()})


def print_tables(found: dict[str, dict[str, Any]]) -> None:
    print("\nms: median (min..max)\n\n|  | kept | total | more than the bare job |\n|---|---:|---:|---:|")
    for name, row in found.items():
        print(f"| {name} | {row['kept']} of {row['rounds']} | {cell(row, 'total')} | {cell(row, 'extra')} |")
    for kind, parts in (("start", PARTS), ("stop", STOP_PARTS)):
        print(f"\n| part of {kind}(), ms | first | later |\n|---|---:|---:|")
        for part, text in parts.items():
            print(f"| {text} | {cell(found[f'first {kind}'], part)} | {cell(found[f'later {kind}'], part)} |")
    extra = found["first start"].get("extra")
    if extra:
        verdict = "within" if extra["median"] <= BAR else "OVER"
        print(f"\nA first start takes {extra['median']:.3f} s more than a bare job, {verdict} the bar of {BAR:g} s.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=2)
    text = "share of a core that processes of others may use during a measurement that is kept"
    parser.add_argument("--disturbed", type=float, default=DISTURBED, help=f"{text}; default {DISTURBED}")
    report_arguments(parser)
    options = parser.parse_args()
    import pyspark

    conf = pyspark.SparkConf().setMaster(f"local[{options.partitions}]").setAppName("startup")
    for key in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
        conf.set(key, "false")
    sc = pyspark.SparkContext(conf=conf)
    sc.setLogLevel("ERROR")
    try:
        run_round(sc, 0, options.partitions)  # the JVM compiles what it will need
        numbers = range(1, (2 if options.quick else options.rounds) + 1)
        rounds = [run_round(sc, number, options.partitions) for number in numbers]
    finally:
        sc.stop()
    found = summarise(rounds, options.disturbed)
    machine = f"Python {platform.python_version()}, pyspark {pyspark.__version__}, {os.cpu_count()} CPUs"
    print(f"{machine}, master local[{options.partitions}], {options.partitions} partitions")
    print_tables(found)
    done = document("startup", pyspark=pyspark.__version__, found=found, disturbed=options.disturbed)
    finish(options, done, lambda figure: draw(figure, found))


def draw(figure: Any, found: dict[str, dict[str, Any]]) -> None:
    """Where the time of a start goes."""
    axes = figure.subplots()
    for name in ("first", "later"):
        row, left = found[f"{name} start"], 0.0
        for number, part in enumerate(PARTS):
            if part in row and part != "import":  # which is within another part
                width = row[part]["median"] * 1e3
                axes.barh(name, width, left=left, color=f"C{number}", label=part if name == "first" else None)
                left += width
    axes.set_xlabel("ms")
    axes.legend(fontsize=8)


if __name__ == "__main__":
    main()
