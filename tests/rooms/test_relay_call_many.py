"""``call_many`` and ``call_all`` by way of the coordinator: the tests of the direct ones, with ``route="relay"``.

Those that cut or count a server's own connections are about the direct lane.
"""

from __future__ import annotations

import pytest
import test_call_many
from support.probe import LONG

from spark_partition_server import Client
from spark_partition_server.testing import LocalCluster

DIRECT = {"test_a_batch_whose_server_is_lost_has_an_unknown_outcome_otherwise"}

for name, found in vars(test_call_many).items():
    if name not in DIRECT and (name.startswith("test_") or hasattr(found, "_fixture_function")):
        globals()[name] = found


@pytest.fixture
def client(cluster: LocalCluster) -> Client:
    return cluster.client(timeout=LONG, route="relay")
