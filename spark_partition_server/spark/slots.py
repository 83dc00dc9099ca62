"""Task slots: how many servers can run at once.

A server holds its slot for as long as it serves, so a cluster with more partitions than slots would never be complete;
Spark itself would only let the tasks wait.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ClusterClosed, InsufficientSlots, StartTimeout
from ..net.clock import monotonic
from .job import is_alive, seconds_since_start

__all__ = [
    "JOB_GROUP_PREFIX",
    "Slots",
    "Tasks",
    "await_no_tasks",
    "await_slots",
    "read_slots",
    "tasks_of",
    "why_missing",
]

log = logging.getLogger("spark_partition_server.spark")

JOB_GROUP_PREFIX = "spark-partition-server-"
LOOK_EVERY = 0.25  # seconds between two looks
SETTLED = 30.0  # seconds after the start of an application by which its executors have registered


@dataclass(frozen=True)
class Slots:
    """The slots of an application.

    Attributes:
        now: of the executors that are there.
        coming: of all executors the application is configured to have, at least ``now``; None: not known yet.
        held: by partition servers of other clusters.
        how: how to get more, for an error text.
        without_limit: dynamic allocation may add executors as tasks wait for them, and nothing bounds it.
    """

    now: int
    coming: int | None
    held: int
    how: str
    without_limit: bool = False

    @property
    def available(self) -> int | None:
        """Slots that servers can have, once all executors are there; None: not known yet."""
        return None if self.coming is None else max(self.coming - self.held, 0)


def read_slots(sc: Any, age: float) -> Slots:
    """Asks Spark, as it does itself before a barrier stage.

    Args:
        sc: the SparkContext.
        age: seconds since the application started.
    """
    conf = sc.getConf()
    scala = sc._jsc.sc()
    now = scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile())
    master = sc.master or ""
    held = _held(scala)
    if master.startswith("local") and not master.startswith("local-cluster"):
        return Slots(now, now, held, f": master {master!r} has {now}")
    if conf.get("spark.dynamicAllocation.enabled", "false").lower() == "true":
        coming = _dynamic(conf, now)
        how = ": spark.dynamicAllocation.maxExecutors, spark.executor.cores"
        return Slots(now, coming, held, how, without_limit=coming is None)
    configured = _configured(conf, master)
    if configured is None and (now == 0 or age < SETTLED):
        return Slots(now, None, held, ": more executors, or spark.executor.cores")
    return Slots(now, max(now, configured or 0), held, ": more executors, or spark.executor.cores")


def _per_executor(conf: Any) -> float:
    return int(conf.get("spark.executor.cores", "1")) // float(conf.get("spark.task.cpus", "1"))


def _configured(conf: Any, master: str) -> int | None:
    """The slots the configuration promises, where it says."""
    if master.startswith("local-cluster"):
        workers, cores, _ = (int(part) for part in master[len("local-cluster[") : -1].split(","))
        return math.floor(workers * (cores // float(conf.get("spark.task.cpus", "1"))))
    instances = conf.get("spark.executor.instances")
    if instances is not None:
        return math.floor(int(instances) * _per_executor(conf))
    cores_max = conf.get("spark.cores.max")
    if cores_max is not None:
        return math.floor(int(cores_max) // float(conf.get("spark.task.cpus", "1")))
    return None


def _dynamic(conf: Any, now: int) -> int | None:
    """The slots dynamic allocation may grow to; None: no limit is set, so only time can tell."""
    executors_max = conf.get("spark.dynamicAllocation.maxExecutors")
    if executors_max is None:
        return None
    return max(now, math.floor(int(executors_max) * _per_executor(conf)))


@dataclass(frozen=True)
class Tasks:
    """The tasks of one job group.

    Attributes:
        running: on an executor now.
        unfinished: running or waiting for a slot.
    """

    running: int = 0
    unfinished: int = 0


def tasks_of(sc: Any, group: str) -> Tasks:
    """The tasks of a job group, as the scheduler itself counts them."""
    return _tasks(sc._jsc.sc()).get(group, Tasks())


def why_missing(sc: Any, running: int, size: int) -> str:
    """What is known about why partitions are missing."""
    if running < size:
        slots = read_slots(sc, SETTLED)
        return (
            f"Spark runs {running} of the {size} tasks on {slots.now} slots: other jobs may hold the rest, or "
            "executors cannot be had; see Spark's web page"
        )
    return (
        "All their tasks run, so init_partition is still at work or the executors cannot reach the driver at the "
        "coordinator's address (docs/deploying.md, 'Addresses'); raise start_timeout if it is the former"
    )


def _tasks(scala: Any) -> dict[str, Tasks]:
    """The tasks by job group. Spark's public status lags behind by up to a heartbeat, so its scheduler is asked."""
    found: dict[str, Tasks] = {}
    try:
        for manager in _task_sets(scala.taskScheduler().rootPool()):
            properties = manager.taskSet().properties()
            group = properties.getProperty("spark.jobGroup.id") if properties is not None else None
            if group is not None:
                old = found.get(group, Tasks())
                running = manager.runningTasks()
                # a zombie is a task set that failed or was cancelled: it starts nothing more
                unfinished = running if manager.isZombie() else manager.numTasks() - manager.tasksSuccessful()
                found[group] = Tasks(old.running + running, old.unfinished + unfinished)
    except Exception as error:  # noqa: BLE001 - an internal interface of Spark; without it the start timeout decides
        log.debug("tasks unknown error=%s", error)
    return found


def _task_sets(pool: Any) -> Iterator[Any]:
    """The task sets of a scheduler pool and, under FAIR scheduling, of the pools inside it."""
    for item in pool.schedulableQueue().toArray():
        if item.schedulableQueue() is None:
            yield item
        else:
            yield from _task_sets(item)


def _held(scala: Any) -> int:
    """Slots that other clusters' servers hold or wait for."""
    return sum(tasks.unfinished for group, tasks in _tasks(scala).items() if group.startswith(JOB_GROUP_PREFIX))


def await_slots(sc: Any, size: int, timeout: float, interrupted: threading.Event) -> None:
    """Raises at once where the slots are known to be too few; waits while executors still arrive.

    Raises:
        InsufficientSlots: ``size`` is more than there can be.
        StartTimeout: not known within ``timeout`` seconds.
        ClusterClosed: ``interrupted`` was set meanwhile.
    """
    deadline = monotonic() + timeout
    while True:
        slots = read_slots(sc, seconds_since_start(sc))
        if slots.now - slots.held >= size or slots.without_limit:
            return
        if slots.available is not None:
            if slots.available < size:
                raise InsufficientSlots(size, slots.available, slots.coming or 0, slots.how)
            return  # the executors are on their way; their tasks wait for them
        if monotonic() >= deadline:
            why = f"the application has {slots.now} task slots, {slots.held} of them held by other servers"
            raise StartTimeout((), range(size), timeout, why)
        if interrupted.wait(LOOK_EVERY):
            raise ClusterClosed("stop() was called while the cluster was starting")


def await_no_tasks(sc: Any, group: str, timeout: float) -> None:
    """Waits until no task of a job that is over runs any more, ``timeout`` seconds at the longest.

    Spark calls a job over while tasks of it still run, and kills their Python two seconds later.
    """
    deadline = monotonic() + timeout
    while is_alive(sc) and tasks_of(sc, group).running and monotonic() < deadline:
        threading.Event().wait(LOOK_EVERY / 5)
