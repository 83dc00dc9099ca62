"""``Client.call_many`` on the wire: what a server sees of it, and what becomes of a server that answers nonsense."""

from __future__ import annotations

from typing import Any

import pytest
from support.astray import StandIn, lead_astray
from support.lanes import serving
from support.wait import wait_until

from spark_partition_server.errors import CallTimeout, RemoteProtocolError, SparkPartitionServerError
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Batch, Cancel, Error, Kind, Refuse, Reply, Results
from spark_partition_server.wire.payload import decode_value, encode_value


def test_the_calls_of_one_server_travel_in_few_messages(cluster, client):
    """Sixteen first, then 256 in each; at most four ahead of their answers."""
    ahead: list[int] = []

    def answer(message: Any) -> Any:
        if isinstance(message, Batch):
            ahead.append(1)
            runs = decode_value(message.payload)
            return Results(message.call_id, tuple(encode_value([[run[0] for run in runs], []])))
        return None

    stand_in = StandIn(cluster.coordinator.run_id, answer)
    with serving(stand_in) as served:
        lead_astray(cluster, client, served.address[1])
        for count, messages in ((1040, 5), (1024, 4), (1, 1)):
            stand_in.came.clear()
            assert client.call_many("get", [(1, number) for number in range(count)]) == list(range(count))
            assert stand_in.kinds() == {"BATCH": messages}


ANSWERS: dict[str, Any] = {
    "too few results": lambda number: Results(number, tuple(encode_value([[1], []]))),
    "no results": lambda number: Results(number, tuple(encode_value([1, 2, 3]))),
    "nothing": lambda number: Results(number, (b"\xc0",)),
    "not msgpack": lambda number: Results(number, (b"\xc1",)),
    "a reply": lambda number: Reply(number, (b"\xc0",)),
    "a failure beyond the end": lambda number: Results(number, tuple(encode_value([[1, 2], [[9, 7, "x", "y", "z"]]]))),
    "a failure that is none": lambda number: Results(number, tuple(encode_value([[1, 2], [["0", 7, "x", "y", "z"]]]))),
    "a failure too short": lambda number: Results(number, tuple(encode_value([[1, 2], [[]]]))),
    "fields of the wrong type": lambda number: Results(number, tuple(encode_value([[1, 2], [[0, "x", 7, 8, 9]]]))),
    "an unknown code": lambda number: Error(number, 4711, "an application's own"),
    "refused": lambda number: Refuse(Code.UNEXPECTED, "not now"),
    "silence": lambda number: None,
    "another call": lambda number: Results(number + 1, tuple(encode_value([[1, 2], []]))),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_answers_nonsense(cluster, client, name):
    """A typed error by the deadline for its own calls; the client can be used on."""
    stand_in = StandIn(
        cluster.coordinator.run_id,
        lambda message: ANSWERS[name](message.call_id) if message.kind is Kind.BATCH else None,
    )
    with serving(stand_in) as served:
        lead_astray(cluster, client, served.address[1])
        got = client.call_many("run", [(1, "x"), (2, "z"), (1, "y")], timeout=0.5, return_errors=True)
        assert got[1] == 1
        assert all(isinstance(one, SparkPartitionServerError) for one in (got[0], got[2]))
        if "result" in name or "failure" in name:
            assert isinstance(got[0], RemoteProtocolError)
        assert client.call(2, "get", "c") == 3


def test_what_is_given_up_is_taken_back(cluster, client):
    """At the deadline each server is told, and a late answer goes to nobody."""
    late: list[Any] = []

    def answer(message: Any) -> Any:
        if isinstance(message, Cancel):
            return Results(message.call_id, tuple(encode_value([["late"], []])))
        late.append(message)
        return None if len(late) == 1 else Results(message.call_id, tuple(encode_value([["mine"], []])))

    stand_in = StandIn(cluster.coordinator.run_id, answer)
    with serving(stand_in) as served:
        lead_astray(cluster, client, served.address[1])
        with pytest.raises(CallTimeout):
            client.call_many("run", [(1, "x")], timeout=0.3)
        wait_until(lambda: stand_in.kinds() == {"BATCH": 1, "CANCEL": 1})
        assert stand_in.came[1].call_id == stand_in.came[0].call_id
        assert client.call_many("run", [(1, "x")]) == ["mine"]
