"""The timeouts that callers give: what is no time is told apart from a driver or a server that does not answer."""

from __future__ import annotations

from decimal import Decimal

import pytest

from spark_partition_server import QueryServer, method
from spark_partition_server.errors import CallTimeout
from spark_partition_server.testing import local_cluster

WAYS = {
    "call": lambda client, timeout: client.call(0, "run", timeout=timeout),
    "call_all": lambda client, timeout: client.call_all("run", timeout=timeout),
    "call_many": lambda client, timeout: client.call_many("run", [(0,)], timeout=timeout),
    "stream": lambda client, timeout: client.stream(0, "scan", timeout=timeout),
    "submit": lambda client, timeout: client.submit(0, "run", timeout=timeout).result(),
}


class Counting(QueryServer):
    runs = 0

    @method
    def run(self):
        self.runs += 1
        return self.runs

    @method
    def scan(self):
        yield self.run()


@pytest.fixture
def client():
    with local_cluster(Counting(), partitions=[[]]) as cluster:
        yield cluster.client()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("timeout", [0, -1.5])
def test_no_time_left_is_a_definite_timeout(client, way, timeout):
    """A deadline that is over already must not read as the loss of the driver, and nothing is run."""
    for runs in (1, 2):  # before the first connection and with one
        with pytest.raises(CallTimeout) as caught:
            WAYS[way](client, timeout)
        assert caught.value.definite
        assert client.call(0, "run") == runs


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_number_is_named(client, way):
    """A text out of a configuration, and NaN, which no deadline would ever reach."""
    with pytest.raises(TypeError, match="timeout must be a number of seconds, not '1'"):
        WAYS[way](client, "1")
    with pytest.raises(ValueError, match="timeout must be a number of seconds, not NaN"):
        WAYS[way](client, float("nan"))
    assert client.call(0, "run", timeout=Decimal(5)) == 1  # any real number will do, and nothing has run


@pytest.mark.parametrize(
    ("way", "arguments"), [("call_key", ("a", "run")), ("call_keys", ("run", ["a"])), ("partition_of", ("a",))]
)
def test_calls_by_key_name_it_too(client, way, arguments):
    """Also where the coordinator has to be asked for the partitioner first."""
    for wrong, kind in (("1", TypeError), (float("nan"), ValueError)):
        with pytest.raises(kind, match="timeout must be a number of seconds, not"):
            getattr(client, way)(*arguments, timeout=wrong)


@pytest.mark.parametrize("way", ["refresh", "wait_for_ready"])
def test_looking_at_the_cluster_names_it_too(client, way):
    """They are told how long they may wait as calls are."""
    with pytest.raises(TypeError, match="timeout must be a number of seconds, not '1'"):
        getattr(client, way)("1")
