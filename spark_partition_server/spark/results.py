"""The result RDD: what the servers returned, kept so that no partition is ever computed again.

An RDD that Spark only caches is computed again when a block is lost, and computing one of ours would start a server
that waits for a cluster that is over. So the result is moved off its lineage before ``stop()`` returns:

* into Spark's checkpoint directory, if ``sc.setCheckpointDir`` was called: any size, and it survives lost executors;
* otherwise onto the driver, up to a limit: it survives lost executors and ``unpersist`` too;
* above the limit it stays in the executors' block stores. A lost block then raises ``ClusterClosed`` (the server looks
  at its job group), it does not start a server.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["keep", "run_keeping", "run_only"]

log = logging.getLogger("spark_partition_server.spark")


def run_only(rdd: Any, server: Any) -> None:
    """Runs the servers as one job; what they return is dropped."""
    rdd.mapPartitionsWithIndex(server).foreachPartition(_exhaust)


def run_keeping(rdd: Any, server: Any) -> Any:
    """Runs the servers as one job and leaves what they returned in the executors' block stores."""
    from pyspark import StorageLevel  # noqa: PLC0415

    result = rdd.mapPartitionsWithIndex(server)
    result.persist(StorageLevel.MEMORY_AND_DISK)
    if _checkpoint_dir(rdd.ctx):
        result.checkpoint()  # written by the same action, from the persisted blocks
    result.count()
    return result


def keep(result: Any, bytes_max: int) -> Any:
    """An RDD with the elements and the partitions of ``result`` that never runs a server."""
    sc = result.ctx
    if result.isCheckpointed():
        return result
    stored = _stored_bytes(sc, result.id())
    if stored > bytes_max:
        log.warning(
            "result stays on the executors bytes=%d limit=%d: a lost executor loses it; sc.setCheckpointDir() keeps it",
            stored,
            bytes_max,
        )
        return result
    partitions = result.mapPartitions(_pickled).collect()
    kept = sc.parallelize(partitions, max(len(partitions), 1)).flatMap(_unpickled)
    kept.cache()
    result.unpersist()
    return kept


def _exhaust(elements: Iterable[Any]) -> None:
    for _ in elements:
        pass


def _pickled(elements: Iterable[Any]) -> Iterator[bytes]:
    from pyspark.serializers import CPickleSerializer  # noqa: PLC0415

    yield CPickleSerializer().dumps(list(elements))


def _unpickled(octets: bytes) -> Iterable[Any]:
    from pyspark.serializers import CPickleSerializer  # noqa: PLC0415

    elements: Iterable[Any] = CPickleSerializer().loads(octets)
    return elements


def _checkpoint_dir(sc: Any) -> bool:
    return bool(sc._jsc.sc().getCheckpointDir().isDefined())


def _stored_bytes(sc: Any, rdd_id: int) -> int:
    for info in sc._jsc.sc().getRDDStorageInfo():
        if info.id() == rdd_id:
            return int(info.memSize() + info.diskSize())
    return 0
