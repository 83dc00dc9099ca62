"""What the examples of ranks that compute together share: a small Spark, and a plot where matplotlib is installed.

Each of them has a function `algorithm(comm, rows)` and a function `read(part, parts)` that yields the rows of one part
of the data. Spark calls the first on every partition at once; `under_mpi.py` calls the same two under mpi4py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext

from spark_partition_server import run

HERE = Path(__file__).resolve().parent
RANKS = 4


def start_spark(name: str) -> SparkContext:
    """An embedded Spark with a slot for each rank, on the loopback interface and silent but for errors."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # the executors run this very Python
    conf = SparkConf().setMaster(f"local[{RANKS}]").setAppName(name)
    conf.set("spark.ui.enabled", "false").set("spark.ui.showConsoleProgress", "false")
    conf.set("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={(HERE / 'log4j2.properties').as_uri()}")
    return SparkContext(conf=conf)


def run_ranks(
    sc: SparkContext,
    algorithm: Callable[[Any, Iterator[Any]], Any],
    read: Callable[[int, int], Iterator[Any]],
    ranks: int = RANKS,
) -> list[Any]:
    """What `algorithm` returned on each of so many partitions, in the order of the ranks."""
    # Each partition reads its own part where it is computed; nothing goes by the driver.
    rows = sc.parallelize(range(ranks), ranks).flatMap(lambda part: read(part, ranks))
    return run(sc, rows, algorithm, timeout=100.0)


def plot(name: str, draw: Callable[[Any], None]) -> None:
    """Have `draw` fill a matplotlib figure, which becomes the file NAME.png in the current folder."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print("No plot: matplotlib is not installed.")
        return
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    figure.savefig(f"{name}.png", dpi=100)
    print(f"The plot is in {name}.png.")
