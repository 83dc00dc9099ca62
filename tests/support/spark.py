"""Real Spark for the tests: one application after the other in this process, each on its own master."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pyspark
from pyspark import SparkConf, SparkContext

__all__ = ["spark_application"]

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "512m",
    "spark.log.level": "OFF",
    "spark.ui.showConsoleProgress": "false",
    "spark.task.maxFailures": "4",
}


@contextlib.contextmanager
def spark_application(master: str, **settings: str) -> Iterator[Any]:
    """A SparkContext on ``master``, stopped at the end. ``spark_x_y`` as a keyword sets ``spark.x.y``.

    Executors run this Python and talk to 127.0.0.1 only.
    """
    folder = tempfile.mkdtemp(prefix="spark-tests-")
    os.environ.update(
        SPARK_LOCAL_IP="127.0.0.1",
        SPARK_HOME=os.path.dirname(pyspark.__file__),  # local-cluster starts its executors from there
        SPARK_WORKER_DIR=folder,
        PYSPARK_PYTHON=settings.pop("python", sys.executable),
    )
    conf = SparkConf().setMaster(master).setAppName("tests").set("spark.local.dir", folder)
    for name, value in SETTINGS.items():
        conf.set(name, value)
    for name, value in settings.items():
        conf.set(name.replace("_", "."), value)
    sc = SparkContext(conf=conf)
    try:
        yield sc
    finally:
        sc.stop()
