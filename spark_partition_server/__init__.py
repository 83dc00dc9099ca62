"""Turn the partitions of a Spark RDD into live servers; query them in microseconds; get what they computed back.

The names below are the public face, in the order in which a reader meets them; ``spark_partition_server.testing`` is
for tests of your own servers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .client import Client, connect
from .cluster import Cluster
from .comm import Comm
from .coordinator import Coordinator
from .errors import *  # noqa: F403 - the whole tree is public
from .errors import __all__ as _errors
from .frame_keys import spark_hash
from .keys import stable_hash
from .options import ClientOptions, ClusterOptions, ServerOptions
from .partition import Partition
from .partition_server import PartitionServer
from .peer_run import run
from .peer_server import PeerServer
from .query_server import QueryServer, method
from .utils import get_host, get_open_port
from .version import __version__

if TYPE_CHECKING:
    from . import MPI
    from .flask_server import FlaskPartitionServer
    from .thread_utils import ServerThread

__all__ = [  # noqa: PLE0604 - _errors is a list of strings
    "Client",
    "ClientOptions",
    "Cluster",
    "ClusterOptions",
    "Comm",
    "Coordinator",
    "FlaskPartitionServer",
    "MPI",
    "Partition",
    "PartitionServer",
    "PeerServer",
    "QueryServer",
    "ServerOptions",
    "ServerThread",
    "__version__",
    "connect",
    "get_host",
    "get_open_port",
    "method",
    "run",
    "spark_hash",
    "stable_hash",
    *_errors,
]


def __getattr__(name: str) -> Any:
    """The two names that need the flask extra, and mpi4py's names, loaded when they are asked for."""
    if name == "FlaskPartitionServer":
        from .flask_server import FlaskPartitionServer  # noqa: PLC0415

        return FlaskPartitionServer
    if name == "ServerThread":
        from .thread_utils import ServerThread  # noqa: PLC0415

        return ServerThread
    if name == "MPI":
        return import_module(".MPI", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
