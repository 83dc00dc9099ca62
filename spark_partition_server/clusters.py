"""What the cluster on Spark and the one of ``testing`` have in common."""

from __future__ import annotations

import logging
from typing import Any

from .coordinator import Coordinator
from .errors import InvalidCluster
from .options import ServerOptions
from .partition_server import PartitionServer
from .query_server import QueryServer, marks_of

__all__ = ["check_server", "default_server", "described"]

log = logging.getLogger("spark_partition_server.cluster")


def check_server(server: Any) -> None:
    """Refuses what cannot be a server of a cluster, where the mistake was made: on the driver.

    A query server without a method that clients may call is no more than warned of: it may serve for its result.

    Raises:
        InvalidCluster: it is no instance of ``PartitionServer``, or its constructor did not call ours.
    """
    if isinstance(server, type) and issubclass(server, PartitionServer):
        raise InvalidCluster(f"an instance is wanted: {server.__qualname__}(), not the class {server.__qualname__}")
    if not isinstance(server, PartitionServer):
        kind = f"{type(server).__module__}.{type(server).__qualname__}"
        raise InvalidCluster(f"a PartitionServer is wanted, not a {kind}")
    if not isinstance(getattr(server, "options", None), ServerOptions):
        raise InvalidCluster(f"{type(server).__qualname__}.__init__ must call super().__init__()")
    if isinstance(server, QueryServer) and not marks_of(type(server)):
        _warn_of_no_methods(type(server))


def _warn_of_no_methods(kind: type[QueryServer]) -> None:
    """Most likely the mark was forgotten: those that could have it are named."""
    public = (name for name in dir(kind) if not name.startswith("_") and not hasattr(QueryServer, name))
    unmarked = ", ".join(name for name in public if callable(getattr(kind, name))) or "there is no other either"
    log.warning("%s has no method for clients: none is marked with @method (%s)", kind.__qualname__, unmarked)


def described(cluster: object, server: PartitionServer, coordinator: Coordinator | None) -> str:
    """A cluster in one line, without its secrets. ``coordinator``: the running one; None: it is not running."""
    name = f"{type(cluster).__name__} of {type(server).__qualname__}"
    if coordinator is None:
        return f"<{name}, not running>"
    served = f"{len(coordinator.hosts)} of {coordinator.await_partitions} partitions served"
    return f"<{name}: {served}, coordinator at {coordinator.get_url()}>"


def default_server() -> PartitionServer:
    """What a cluster runs that was given no server: the original library's."""
    from .flask_server import FlaskPartitionServer  # noqa: PLC0415 - flask is an extra

    return FlaskPartitionServer()
