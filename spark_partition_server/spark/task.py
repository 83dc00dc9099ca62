"""Who this task is: the facts a partition server needs of Spark, read on the executor."""

from __future__ import annotations

import sys
from dataclasses import dataclass

__all__ = ["Identity", "identity"]

JOB_GROUP = "spark.jobGroup.id"


@dataclass(frozen=True)
class Identity:
    """One attempt at one partition.

    Attributes:
        rank: the partition's index.
        attempt: Spark's attempt number; starts at 0, also in a new stage attempt.
        incarnation: Spark's task attempt id: unique in the SparkContext, greater for later attempts.
        job_group: the job group the task runs under, or None outside Spark.
    """

    rank: int
    attempt: int
    incarnation: int
    job_group: str | None = None


def identity(rank: int) -> Identity:
    """The identity of the task that runs in this process; a stand-in where Spark runs none."""
    pyspark = sys.modules.get("pyspark")  # a task's process has loaded it; nobody else needs it
    context = pyspark.TaskContext.get() if pyspark is not None else None
    if context is None:
        return Identity(rank, 0, 0)
    return Identity(rank, context.attemptNumber(), context.taskAttemptId(), context.getLocalProperty(JOB_GROUP))
