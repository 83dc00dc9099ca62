"""Streams by way of the coordinator are streams: the tests of the direct ones, by each face with ``route="relay"``.

Those that cut or count a server's own connections are about the direct lane.
"""

from __future__ import annotations

import pytest
import test_faces_streams
import test_stream
from support.faces import RELAYED, Face
from support.probe import LONG

from spark_partition_server import CallOutcomeUnknown, Client
from spark_partition_server.testing import LocalCluster
from spark_partition_server.wire.codes import Code

DIRECT = {
    "test_a_server_that_is_lost_half_way_by_each_face",
    "test_a_stream_that_has_ended_leaves_its_connection_to_the_next",
}

for module in (test_faces_streams, test_stream):
    for name, found in vars(module).items():
        if name not in DIRECT and (name.startswith("test_") or hasattr(found, "_fixture_function")):
            globals()[name] = found


@pytest.fixture(params=["blocking", "asyncio"])
def face_type(request: pytest.FixtureRequest) -> type[Face]:
    return RELAYED[request.param]


@pytest.fixture
def client(cluster: LocalCluster) -> Client:
    return cluster.client(timeout=LONG, route="relay")


def test_a_server_that_is_lost_while_it_streams(cluster, face):
    """[8.48]: the items that have come are kept, and then the reader is told; by each face."""
    stream = face.stream(1, "count", 1_000_000, credit=2)
    assert next(stream) == 0
    cluster.launch(1, attempt=1)  # a later life takes over: the earlier one is no member any more
    with pytest.raises(CallOutcomeUnknown) as caught:
        for _ in stream:
            pass
    assert caught.value.code == Code.LOST
    assert list(face.stream(1, "count", 3)) == [0, 1, 2]


def test_a_stream_and_calls_of_one_thread_share_a_connection(client):
    """Items that nobody has asked for yet wait, while calls over the same connection are answered."""
    stream = client.stream(1, "count", 100, credit=4)
    got = [next(stream)]
    for item in stream:
        got.append(item)
        assert client.call(1, "plain") == 7
    assert got == list(range(100))
    assert len(client._local.spare.get(1, [])) <= 1
