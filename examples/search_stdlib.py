"""Search the documentation of the Python standard library on an ad hoc cluster; `make demo` runs this.

Spark reads the installed source files into an RDD of documents. Every partition of it becomes a search server with an
index of its own. A client in another process, without Spark, asks all of them and merges their best hits. At the end
Spark jobs ask the same question, to compare.
"""

from __future__ import annotations

import json
import math
import operator
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspark import RDD, SparkConf, SparkContext
from search_documents import Document, Index, Statistics, library_files, read_documents

from spark_partition_server import Cluster, QueryServer, method

HERE = Path(__file__).resolve().parent
PARTITIONS = 4
QUESTIONS = ["parse command line arguments", "temporary directory that is removed", "compress and decompress data"]
TIMED_QUESTION, CALLS, JOBS = QUESTIONS[0], 500, 20


class SearchServer(QueryServer):
    """Serves the documents of one partition to searches."""

    def __init__(self, whole: Statistics) -> None:
        super().__init__()
        self.whole = whole

    def init_partition(self, documents: Iterator[Document]) -> None:
        """Build the index; this runs on the executor, before the partition counts as serving."""
        self.index = Index(documents, self.whole)

    @method(idempotent=True)
    def search(self, query: str, k: int) -> list[list[Any]]:
        """The best `k` documents of this partition: [score, name, summary] each."""
        return self.index.search(query, k)


def main() -> None:
    with start_spark() as sc:
        # Mixed by `repartition`: the modules differ in size, and so would the partitions.
        documents = sc.parallelize(library_files(), 16).flatMap(read_documents).repartition(PARTITIONS).cache()
        # One job counts words over all partitions, so that the servers' scores can be compared with each other.
        whole = documents.mapPartitions(lambda part: [Statistics.of(part)]).reduce(Statistics.plus)
        print(f"{whole.documents:,} documents in {PARTITIONS} partitions; starting their servers", flush=True)
        with Cluster(sc, documents, SearchServer(whole)) as cluster:
            run_client(cluster.connection_file, *QUESTIONS)
            calls = json.loads(run_client(cluster.connection_file, TIMED_QUESTION, f"--repeat={CALLS}", capture=True))
        # Only now: while the servers run they hold every slot of this small Spark, and a job would wait for ever.
        jobs = time_jobs(documents, whole)
    print("\nThe servers and Spark have stopped.\n")
    print_table(calls, jobs)


def start_spark() -> SparkContext:
    """An embedded Spark with four slots, on the loopback interface and silent but for errors."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # the executors run this very Python
    conf = SparkConf().setMaster(f"local[{PARTITIONS}]").setAppName("search the standard library")
    conf.set("spark.ui.enabled", "false").set("spark.ui.showConsoleProgress", "false")
    conf.set("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={(HERE / 'log4j2.properties').as_uri()}")
    # The executors import the module that stands beside this file.
    return SparkContext(conf=conf, pyFiles=[str(HERE / "search_documents.py")])


def run_client(*arguments: str, capture: bool = False) -> str:
    """Run search_client.py, a process without Spark; what it prints is shown, or returned where `capture`."""
    command = [sys.executable, str(HERE / "search_client.py"), *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE if capture else None).stdout or ""


def time_jobs(documents: RDD[Document], whole: Statistics) -> list[float]:
    """How many seconds each of JOBS Spark jobs takes that search cached indexes, the same as the servers had."""
    indexes = documents.mapPartitions(lambda part: [Index(part, whole)]).cache()
    seconds = []
    for _ in range(3 + JOBS):  # the first job builds and caches the indexes, two more warm up
        start = time.perf_counter()
        indexes.flatMap(lambda index: index.search(TIMED_QUESTION, 5)).top(5, key=operator.itemgetter(0))
        seconds.append(time.perf_counter() - start)
    return seconds[3:]


def percentiles(seconds: list[float]) -> list[float]:
    """The 50th and the 99th percentile of `seconds` (the 99th of a few is the slowest), in milliseconds."""
    ordered = sorted(seconds)
    return [1e3 * ordered[math.ceil(len(ordered) * percent / 100) - 1] for percent in (50, 99)]


def print_table(calls: list[float], jobs: list[float]) -> None:
    (call50, call99), (job50, job99) = percentiles(calls), percentiles(jobs)
    row = "{:46}{:>8}{:>12}{:>12}".format
    print(row(f"The first question again, to all {PARTITIONS} partitions:", "times", "p50, ms", "p99, ms"))
    print(row("  the cluster, asked by a client process", len(calls), f"{call50:.2f}", f"{call99:.2f}"))
    print(row("  a Spark job over the same indexes, cached", len(jobs), f"{job50:.2f}", f"{job99:.2f}"))
    print(row("  the Spark job takes longer by the factor", "", f"{job50 / call50:.0f}", f"{job99 / call99:.0f}"))


if __name__ == "__main__":
    main()
