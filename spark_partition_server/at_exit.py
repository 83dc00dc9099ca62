"""What stops a cluster at the end of the interpreter, when nobody else has."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Callable
from typing import Protocol

from .errors import ClusterError

__all__ = ["stop_at_exit"]

log = logging.getLogger("spark_partition_server.cluster")


class Stoppable(Protocol):
    """What has a ``stop``."""

    def stop(self) -> None: ...


def stop_at_exit(cluster: Stoppable) -> Callable[[], None]:
    """Registers a stop for the end of the interpreter that does not keep the cluster alive; returns its undoing."""
    found = weakref.ref(cluster)

    def stop() -> None:
        there = found()
        if there is not None:
            try:
                there.stop()
            except ClusterError as error:
                log.warning("stop at exit error=%s", error)

    atexit.register(stop)
    return lambda: atexit.unregister(stop)
