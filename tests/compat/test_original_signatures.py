"""Names and signatures of the original library that its users may have in their code."""

from __future__ import annotations

import inspect

import pytest

import spark_partition_server as library
from spark_partition_server import thread_utils, utils

SIGNATURES = {
    "Cluster": ["sc", "rdd", "partition_server", "cache_result", "verbose"],
    "Cluster.start": ["self", "await_hosts"],
    "Cluster.stop": ["self"],
    "Cluster.is_active": ["self"],
    "Cluster.get_hosts": ["self"],
    "Cluster.get_result_rdd": ["self"],
    "PartitionServer": ["port", "config"],
    "PartitionServer.__call__": ["self", "ind", "itr"],
    "PartitionServer._launch_server": ["self"],
    "PartitionServer._register": ["self"],
    "PartitionServer._build_result": ["self"],
    "PartitionServer.set_coordinator_url": ["self", "url"],
    "PartitionServer.set_token": ["self", "token"],
    "FlaskPartitionServer": ["blueprint", "init_partition"],
    "Coordinator": ["await_partitions", "verbose", "token"],
    "Coordinator.shutdown_host": ["self", "ind"],
    "Coordinator.shutdown_hosts": ["self"],
    "Coordinator.print_hosts": ["self"],
    "Coordinator.set_register_callback": ["self", "fn"],
    "Coordinator.get_url": ["self"],
    "ServerThread": ["app", "port"],
    "ServerThread.shutdown": ["self"],
    "ServerThread.get_url": ["self"],
    "get_host": [],
    "get_open_port": [],
}


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_signature(name: str) -> None:
    """The original's parameters come first, in its order; whatever was added has a default."""
    found = library
    for part in name.split("."):
        found = getattr(found, part)
    parameters = list(inspect.signature(found).parameters.values())
    wanted = SIGNATURES[name]
    assert [parameter.name for parameter in parameters[: len(wanted)]] == wanted
    for added in parameters[len(wanted) :]:
        assert added.default is not inspect.Parameter.empty or added.kind is inspect.Parameter.VAR_KEYWORD


def test_defaults() -> None:
    """The defaults are the original's, but for `start`, which waits now: its own README needed that."""
    cluster = inspect.signature(library.Cluster).parameters
    assert [cluster[name].default for name in ("partition_server", "cache_result", "verbose")] == [None, False, True]
    assert inspect.signature(library.Cluster.start).parameters["await_hosts"].default is True


def test_modules() -> None:
    """The helpers are where they were."""
    assert utils.get_host is library.get_host
    assert thread_utils.ServerThread is library.ServerThread
    assert isinstance(library.get_host(), str)
    assert 0 < library.get_open_port() < 65536
