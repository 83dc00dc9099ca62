"""What a cluster may have left behind, here and in the processes below this one."""

from __future__ import annotations

import glob
import os
import tempfile
import threading
from typing import Any

import psutil

from support.wait import wait_until

__all__ = ["leftovers", "python_workers"]

OURS = "spark-partition-server"


def leftovers() -> None:
    """Fails if a thread, a socket or a file of ours is left. Gives Spark the time it takes to end workers."""
    wait_until(lambda: not _threads(), 5, f"the threads to end: {_threads()}")
    assert not glob.glob(os.path.join(tempfile.gettempdir(), f"{OURS}-{os.getpid()}-*")), "a connection file is left"
    wait_until(lambda: not _sockets(), 10, f"sockets to close: {_sockets()}")


def python_workers() -> list[psutil.Process]:
    """The Python processes below this one that are Spark's daemons or workers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("pyspark.daemon" in part or "pyspark/daemon" in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(OURS)]


def _sockets() -> list[Any]:
    """Listening sockets of Spark's Python processes: a worker that serves nobody listens nowhere."""
    found = []
    for process in python_workers():
        try:
            # a daemon's pipe to its JVM is a socket of Spark's; it has no address of its own in a worker's children
            found += [
                (process.pid, one.laddr)
                for one in process.net_connections("tcp")
                if one.status == psutil.CONN_LISTEN and process.pid not in _daemons()
            ]
        except psutil.Error:
            continue
    return found


def _daemons() -> set[int]:
    """Workers are forked from daemons: the processes whose parent is a JVM."""
    daemons = set()
    for process in python_workers():
        try:
            parent = process.parent()
            if parent is None or "java" in parent.name():
                daemons.add(process.pid)
        except psutil.Error:
            continue
    return daemons
