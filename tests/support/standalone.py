"""A standalone Spark master and workers on 127.0.0.1, as processes of this one."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyspark

from support.wait import wait_until

__all__ = ["standalone_master"]

HOME = os.path.dirname(pyspark.__file__)


@contextlib.contextmanager
def standalone_master(folder: Path, workers: int, cores: int = 1) -> Iterator[str]:
    """The URL of a master with ``workers`` workers of ``cores`` cores each; all are ended at the end."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        log = folder / "master.log"
        processes.append(_start(log, "master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"))
        found = wait_until(lambda: re.search(r"spark://127\.0\.0\.1:\d+", log.read_text()), 60, "the master's URL")
        url = found.group()
        for number in range(workers):
            work = str(folder / f"worker-{number}")
            arguments = ("--host", "127.0.0.1", "--webui-port", "0", "--cores", str(cores), "--memory", "1g")
            processes.append(
                _start(folder / f"worker-{number}.log", "worker.Worker", *arguments, "--work-dir", work, url)
            )
        wait_until(lambda: log.read_text().count("Registering worker") == workers, 60, "the workers")
        yield url
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


def _start(log: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": HOME, "SPARK_DAEMON_MEMORY": "256m"}
    with log.open("wb") as output:
        return subprocess.Popen(
            [f"{HOME}/bin/spark-class", f"org.apache.spark.deploy.{name}", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
