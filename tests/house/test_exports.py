"""The public face: its names, what importing it loads, and errors that can be sent from process to process."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import spark_partition_server
from spark_partition_server import errors

PUBLIC = [
    "AuthenticationError", "CallError", "CallOutcomeUnknown", "CallTimeout", "Client", "ClientOptions", "Cluster",
    "ClusterClosed", "ClusterError", "ClusterOptions", "Coordinator", "CoordinatorLost", "FlaskPartitionServer",
    "HandlerError", "InsufficientSlots", "InvalidArguments", "InvalidCluster", "LocalProtocolError",
    "MessageTooLarge", "MPI", "MethodNotFound", "MissingDependency", "NotReady", "NotSerializable", "NotStarted",
    "Overloaded", "Partition", "PartitionInitError", "PartitionServer", "PortUnavailable", "ProtocolError",
    "QueryServer", "RemoteProtocolError", "ServerOptions", "ServerThread", "SparkPartitionServerError", "StartTimeout",
    "StreamLost", "TooFewDescriptors", "Unavailable", "VersionMismatch", "__version__", "connect", "get_host",
    "get_open_port", "method", "JobFailed", "NoPartitioner", "RoutingError", "UnroutableKey", "spark_hash",
    "stable_hash", "CollectiveMismatch", "CollectiveTimeout", "CommError", "CommRevoked", "CommTimeout", "RankLost",
    "RankFailed", "Comm", "PeerServer", "run",
]  # fmt: skip


def test_the_public_names_are_these():
    """A name that goes, or one that comes, is a decision: it changes this list."""
    assert sorted(spark_partition_server.__all__) == sorted(PUBLIC)
    assert len(set(PUBLIC)) == len(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name):
    """Those that need an extra are loaded when they are asked for."""
    assert getattr(spark_partition_server, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    """Loading names late must not swallow that."""
    with pytest.raises(AttributeError, match="nothing"):
        spark_partition_server.nothing


HEAVY = ["cheroot", "flask", "numpy", "pandas", "pyarrow", "pyspark", "tqdm", "waitress", "werkzeug"]
IMPORT = """
import sys
import spark_partition_server
from spark_partition_server import Cluster, QueryServer, connect, method
from spark_partition_server.testing import local_cluster

class Echo(QueryServer):
    @method
    def echo(self, value):
        return value

with local_cluster(Echo(), [[]]) as cluster:
    assert cluster.client().call(0, "echo", 1) == 1
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""


def test_importing_and_calling_load_nothing_heavy():
    """A client needs neither Spark nor an HTTP server nor arrays."""
    folder = str(Path(__file__).parents[2])
    arguments = [sys.executable, "-c", IMPORT, *HEAVY]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, cwd=folder, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


WHERE: dict[str, Any] = {"rank": 3, "method": "get", "endpoint": "tcp://h:1", "code": 7, "definite": True}
SIMPLE = (
    errors.ClusterClosed,
    errors.ClusterError,
    errors.CommError,
    errors.InvalidCluster,
    errors.NotSerializable,
    errors.NotStarted,
    errors.ProtocolError,
    errors.RoutingError,
    errors.SparkPartitionServerError,
)
CALLS = (
    errors.CallError,
    errors.InvalidArguments,
    errors.MessageTooLarge,
    errors.MethodNotFound,
    errors.Overloaded,
    errors.StreamLost,
)
EXAMPLES: list[Exception] = [
    *(kind("as it says") for kind in SIMPLE),
    *(kind("as it says", **WHERE) for kind in CALLS),
    errors.NotReady([0, 2], [1], 0.5),
    errors.CommRevoked("no more", 2),
    errors.RankLost("gone", (1, 2)),
    errors.RankFailed(3, "ValueError", "no", "Traceback"),
    errors.CollectiveMismatch("not the same", 4, (0, 1), ("bcast", "reduce")),
    errors.CommTimeout("late", (1,)),
    errors.CollectiveTimeout("late", (1,), 4),
    errors.RemoteProtocolError("bad", 14),
    errors.LocalProtocolError("bad"),
    errors.VersionMismatch(1, "2..3"),
    errors.CallTimeout("late", **WHERE),
    errors.Unavailable("gone", **WHERE),
    errors.CallOutcomeUnknown("who knows", **WHERE),
    errors.HandlerError("raised", remote_type="T", remote_message="m", remote_traceback="tb", **WHERE),
    errors.InsufficientSlots(5, 2, 4, ": buy more"),
    errors.StartTimeout([0, 2], [1], 3.0, "hm"),
    errors.PartitionInitError(1, 2, "host", "text", "Traceback"),
    errors.MissingDependency("msgpack", "/python"),
    errors.PortUnavailable("host", (1, 2), "taken"),
    errors.TooFewDescriptors(5, 10, 8),
    errors.JobFailed("killed"),
    errors.CoordinatorLost("silent"),
    errors.AuthenticationError("no"),
    errors.NoPartitioner("none"),
    errors.UnroutableKey("it has no place", ["a", 1]),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_an_error_can_be_sent_to_another_process(error, copied):
    """A pool's worker calls, and its parent sees the same error."""
    back = copied(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert isinstance(back, errors.SparkPartitionServerError)


def test_every_error_is_of_one_tree():
    """One except clause catches all that this library raises by itself; and each of them was sent above."""
    assert {type(error).__name__ for error in EXAMPLES} == set(errors.__all__)
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.SparkPartitionServerError), name
