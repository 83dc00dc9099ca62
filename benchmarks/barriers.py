"""The barrier among the partitions of an RDD: Spark's own, and the library's. Part of ``collectives.py``.

Each figure is the time of one barrier within a job that makes many, as the rank saw it that took longest.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from report import skip

RANKS = 4
MASTER = "local-cluster[2,2,1024]"  # two executors, two slots each
SPARK_CALLS, OUR_CALLS, WARM_UP = 5, 2000, 50


def measure(quick: bool, skipped: dict[str, str]) -> dict[str, Any]:
    """Jobs in turn; prints a table and returns its figures, in us, and how many times as fast ours is."""
    try:
        from spark_partition_server import run
    except ImportError:
        skip(skipped, "ours on local-cluster", "the library has no communicator yet")
        return {}
    if find_spec("pyspark") is None or (which("java") is None and "JAVA_HOME" not in os.environ):
        skip(skipped, "barrier on local-cluster", "no Spark or no Java")
        return {}
    found: dict[str, list[float]] = {"BarrierTaskContext.barrier": [], "comm.barrier": []}
    with tempfile.TemporaryDirectory() as folder, start_spark(folder) as sc:
        rows = sc.parallelize(range(RANKS), RANKS)
        rows.count()
        for _ in range(1 if quick else 3):
            found["BarrierTaskContext.barrier"].append(max(rows.barrier().mapPartitions(spark_barriers).collect()))
            found["comm.barrier"].append(max(run(sc, rows, our_barriers, timeout=60.0)))
    medians = {name: 1e6 * statistics.median(seconds) for name, seconds in found.items()}
    spark, ours = medians.values()
    print(f"\nBarrier among {RANKS} ranks on {MASTER}\n\n| | us |\n|---|---:|")
    for name, median in medians.items():
        print(f"| {name} | {median:,.0f} |")
    print(f"| times as fast | **{spark / ours:,.0f}** |")
    return {"barrier": {**medians, "times": spark / ours}}


def start_spark(folder: str) -> Any:
    import pyspark

    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["SPARK_HOME"] = os.path.dirname(pyspark.__file__)  # local-cluster starts its executors from there
    os.environ["SPARK_WORKER_DIR"] = folder
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf = pyspark.SparkConf().setMaster(MASTER).setAppName("barriers").set("spark.local.dir", folder)
    for key in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
        conf.set(key, "false")
    conf.set("spark.log.level", "OFF").set("spark.executor.memory", "512m")
    # The first job waits for all slots: Spark looks for those of a barrier stage every 15 s only.
    conf.set("spark.cores.max", str(RANKS)).set("spark.scheduler.minRegisteredResourcesRatio", "1")
    # The executors import what runs there.
    return pyspark.SparkContext(conf=conf, pyFiles=[__file__, str(Path(__file__).with_name("report.py"))])


def spark_barriers(rows: Iterator[Any]) -> Iterator[float]:
    from pyspark import BarrierTaskContext

    context = BarrierTaskContext.get()
    context.barrier()
    began = time.perf_counter()
    for _ in range(SPARK_CALLS):
        context.barrier()
    yield (time.perf_counter() - began) / SPARK_CALLS


def our_barriers(comm: Any, rows: Iterator[Any]) -> float:
    for _ in range(WARM_UP):
        comm.barrier()
    began = time.perf_counter()
    for _ in range(OUR_CALLS):
        comm.barrier()
    return (time.perf_counter() - began) / OUR_CALLS
