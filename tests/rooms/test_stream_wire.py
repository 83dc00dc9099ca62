"""``Client.stream`` on the wire: what becomes of a server that answers nonsense, and of one that refuses."""

from __future__ import annotations

from typing import Any

import pytest
from support.astray import StandIn, lead_astray
from support.lanes import serving
from support.wait import wait_until

from spark_partition_server.errors import CallTimeout, RemoteProtocolError
from spark_partition_server.testing import LocalCluster
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Error, Items, Reply, Stream
from spark_partition_server.wire.payload import encode_value


@pytest.fixture
def cluster(sources: LocalCluster) -> LocalCluster:
    return sources


def items(number: int, sequence: int, values: Any) -> Items:
    return Items(number, sequence, tuple(encode_value(values)))


ANSWERS: dict[str, Any] = {
    "items out of order": lambda number: items(number, 5, [1]),
    "more than was granted": lambda number: items(number, 0, [0] * 129),
    "no list": lambda number: items(number, 0, {"a": 1}),
    "no value": lambda number: Items(number, 0, (b"\xc1",)),
    "no message": lambda number: Reply(number, (b"\xc1",)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_breaks_the_protocol(cluster, client, name):
    """A typed error, the stream is over, and the client can be used on."""
    stand_in = StandIn(
        cluster.coordinator.run_id,
        lambda message: ANSWERS[name](message.call_id) if isinstance(message, Stream) else None,
    )
    with serving(stand_in) as served:
        lead_astray(cluster, client, served.address[1])
        stream = client.stream(1, "count", 3)
        with pytest.raises(RemoteProtocolError):
            next(stream)
        assert list(stream) == []
        assert client.call(2, "plain") == 7


def test_items_of_another_stream_are_passed_over(cluster, client):
    """[8.31]: late items go to nobody; then silence is a timeout."""
    stand_in = StandIn(
        cluster.coordinator.run_id,
        lambda message: items(message.call_id + 1, 0, [1]) if isinstance(message, Stream) else None,
    )
    with serving(stand_in) as served:
        lead_astray(cluster, client, served.address[1])
        with pytest.raises(CallTimeout, match="0 items had come"):
            next(client.stream(1, "count", 3, timeout=0.2))
        wait_until(lambda: stand_in.kinds() == {"STREAM": 1, "CANCEL": 1})


def test_a_refusal_is_tried_again_as_a_call_is(cluster, client):
    """Overloaded twice, then served: nothing had come, so the reader notices nothing."""
    def answer(message: Any) -> Any:
        if not isinstance(message, Stream):
            return None
        if stand_in.kinds()["STREAM"] < 3:
            return Error(message.call_id, Code.OVERLOADED, "not now", retry_ms=10)
        return Reply(message.call_id, (b"\xc0",))

    stand_in = StandIn(cluster.coordinator.run_id, answer)
    with serving(stand_in) as served:
        lead_astray(cluster, client, served.address[1])
        assert list(client.stream(1, "count", 3)) == []
        assert stand_in.kinds() == {"STREAM": 3}
