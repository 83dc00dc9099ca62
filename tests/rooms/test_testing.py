"""``local_cluster``: a cluster on lists for the tests of a user's own servers, with the faults of a real one."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from support.probe import LONG, Page

from spark_partition_server import PartitionServer, QueryServer, connection_file, method
from spark_partition_server.errors import (
    InvalidCluster,
    NotSerializable,
    NotStarted,
    PartitionInitError,
    StartTimeout,
    Unavailable,
)
from spark_partition_server.options import ClusterOptions
from spark_partition_server.testing import local_cluster

RELEASE = threading.Event()


class Count(QueryServer):
    def init_partition(self, rows: Any) -> None:
        self.rows = list(rows)

    @method
    def count(self) -> int:
        return len(self.rows)

    @method
    def remember(self, row: Any) -> None:
        self.rows.append(row)

    def _build_result(self) -> Any:
        return self.rows


def test_partitions_are_served_and_give_their_results():
    """Any iterable is a partition; what the servers return at the end is there by partition."""
    with local_cluster(Count(), [[1, 2], range(5), (x for x in "ab")]) as cluster:
        client = cluster.client(timeout=LONG)
        assert client.call_all("count") == [2, 5, 2]
        client.call(0, "remember", 3)
        assert cluster.results == {}
    assert cluster.results == {0: [1, 2, 3], 1: [0, 1, 2, 3, 4], 2: ["a", "b"]}
    assert cluster.failures == {}


def test_the_server_is_copied_as_spark_copies_it():
    """State that is set on the driver's server before is there, state of one server is not in another."""
    server = Count(config={"x": 1})
    with local_cluster(server, [[], []]) as cluster:
        client = cluster.client(timeout=LONG)
        client.call(0, "remember", "only here")
        assert client.call_all("count") == [1, 0]
    assert not hasattr(server, "rows")
    assert server.coordinator_url is None


def test_what_cannot_be_shipped_fails_here_already():
    """A lock in the server: Spark could not pickle it either, and nothing is left running."""
    server = Count()
    server.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(NotSerializable, match=r"its attribute 'lock' .*cannot pickle"), local_cluster(server, [[]]):
        pass


def test_classes_may_be_made_inside_functions():
    """As in a notebook; each server gets a copy of the class."""

    class Inner(QueryServer):
        @method
        def rank(self) -> int:
            return self.partition_ind

    with local_cluster(Inner(), [[], []]) as cluster:
        assert cluster.client(LONG).call_all("rank") == [0, 1]


def test_a_class_made_inside_a_function_needs_no_cloudpickle_where_there_is_pyspark(monkeypatch):
    """A user has installed pyspark and not our development extras; pyspark carries a cloudpickle of its own."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    class Inner(QueryServer):
        @method
        def rank(self) -> int:
            return self.partition_ind

    with local_cluster(Inner(), [[], []]) as cluster:
        assert cluster.client(LONG).call_all("rank") == [0, 1]


def test_without_cloudpickle_and_pyspark_the_error_says_what_to_install(monkeypatch):
    """Plain pickle is left, which does a module's classes and no others; a lock is still the lock's fault."""
    for absent in ("cloudpickle", "pyspark.cloudpickle"):
        monkeypatch.setitem(sys.modules, absent, None)

    class Inner(QueryServer):
        @method
        def rank(self) -> int:
            return self.partition_ind

    with pytest.raises(NotSerializable, match=r"Inner.*its class.*cloudpickle: pip install it"), local_cluster(
        Inner(), [[]]
    ):
        pass
    server = Count()
    server.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(NotSerializable, match=r"its attribute 'lock' \(a _thread\.lock\)") as caught, local_cluster(
        server, [[]]
    ):
        pass
    assert "pip install" not in str(caught.value)
    with local_cluster(Count(), [[1, 2]]) as cluster:
        assert cluster.client(LONG).call_all("count") == [2]


class Failing(QueryServer):
    def init_partition(self, rows: Any) -> None:
        if self.partition_ind == self.config["bad"]:
            raise ValueError("no luck")
        RELEASE.wait(self.config.get("wait", 0))


def test_a_failed_start_says_why_and_leaves_nothing():
    """One of three servers cannot be initialised."""
    with pytest.raises(PartitionInitError, match=r"(?s)partition 2 .*no luck"), local_cluster(
        Failing(config={"bad": 2}), [[], [], []]
    ):
        pass


def test_a_start_that_takes_too_long_says_who_is_missing():
    """One hangs in ``init_partition``."""

    class Slow(QueryServer):
        def init_partition(self, rows: Any) -> None:
            list(rows)
            if self.partition_ind == 1:
                threading.Event().wait(1.0)  # over start_timeout; the end of the cluster waits for it

    with pytest.raises(StartTimeout) as caught, local_cluster(Slow(), [[], [], []], start_timeout=0.4):
        pass
    assert (caught.value.registered, caught.value.missing) == ([0, 2], [1])


def test_an_error_in_the_block_is_not_hidden_and_stops_the_cluster():
    """A failing assertion of the user's test."""
    with pytest.raises(ZeroDivisionError), local_cluster(Count(), [[1]]) as cluster:
        raise ZeroDivisionError
    assert cluster.results == {0: [1]}


def test_outside_its_block_there_is_no_cluster():
    """Neither before nor after; stop is harmless twice."""
    cluster = local_cluster(Count(), [[]])
    with pytest.raises(NotStarted, match="with block"):
        cluster.client()
    with pytest.raises(NotStarted):
        cluster.launch(0)
    cluster.stop()
    with cluster:
        client = cluster.client(LONG)
        client.call(0, "count")
        cluster.stop()
    cluster.stop()
    with pytest.raises(Unavailable, match="client is closed"):
        client.call(0, "count")


def test_two_clusters_side_by_side():
    """Each has its own partitions."""
    with local_cluster(Count(), [[1]]) as one, local_cluster(Count(), [[1, 2]]) as two:
        assert one.client(LONG).call_all("count") == [1]
        assert two.client(LONG).call_all("count") == [2]


def test_options_are_the_coordinators():
    """Heartbeats and addresses can be chosen."""
    options = ClusterOptions(heartbeat_interval=0.05, lease=0.5, bind_host="0.0.0.0")
    with local_cluster(Count(), [[1]], options=options) as cluster:
        assert cluster.client(LONG).call(0, "count") == 1
        assert cluster.coordinator._options is options


def test_servers_of_other_kinds_are_served_too():
    """Anything that is a ``PartitionServer``."""
    with local_cluster(Page(), [[], []]) as cluster:
        assert cluster.coordinator.hosts == {0: ("127.0.0.1", 80), 1: ("127.0.0.1", 80)}
    assert cluster.results == {0: [], 1: []}


class Careless(QueryServer):
    """Uses the base class's names for its own things while it starts."""

    def init_partition(self, rows: Any) -> None:
        self.token, self.options, self.run_id, self.coordinator_url = {}, {}, "mine", None  # type: ignore[assignment]
        self.host, self.port = "nowhere", 1

    @method
    def answer(self) -> int:
        return 42


def test_names_of_the_base_class_may_be_used_by_init_partition():
    """`self.options = {}` in a user's server must neither break its registration nor lead clients astray."""
    with local_cluster(Careless(), [[], []]) as cluster:
        assert cluster.client(timeout=10).call_all("answer") == [42, 42]


def test_a_method_of_a_name_that_the_base_class_uses_is_refused():
    """An attribute of the instance would hide it, and every call of it would fail."""
    for name in ("token", "port", "shutdown"):
        with pytest.raises(TypeError, match=f"{name}: PartitionServer uses that name itself"):
            type("Taken", (QueryServer,), {name: method(lambda self: None)})


def test_mistakes_with_the_server_are_told_before_anything_starts():
    """The class instead of an instance, something else, a constructor that forgot ours."""

    class Forgetful(QueryServer):
        def __init__(self) -> None:
            self.mine = 1

    for wrong, text in (
        (QueryServer, r"an instance is wanted: QueryServer\(\)"),
        (Forgetful(), r"Forgetful\.__init__ must call super\(\)\.__init__\(\)"),
        ("server", r"a PartitionServer is wanted, not a builtins\.str"),
    ):
        with pytest.raises(InvalidCluster, match=text):
            local_cluster(wrong, [[]])  # type: ignore[arg-type]


class Perishing(PartitionServer):
    """Serves for a while, and fails."""

    def _launch_server(self) -> None:
        self._register()
        RELEASE.wait(LONG)
        raise ValueError("the disk is gone")


def test_a_server_that_fails_while_it_serves_says_goodbye(caplog):
    """[8.5] To leave, it MUST send one GOODBYE: nobody must wait for the end of its lease to learn that it has gone."""
    RELEASE.clear()
    with local_cluster(Perishing(), [[]]) as cluster:
        coordinator = cluster.coordinator
        assert coordinator is not None
        assert list(coordinator.hosts) == [0]
        RELEASE.set()
        assert coordinator.wait(lambda: not coordinator.hosts, 10.0)  # the lease is 15 s
    assert "left partition=0 code=UNAVAILABLE text=ValueError: the disk is gone" in caplog.text


def test_a_cluster_that_cannot_write_its_connection_file_leaves_nothing_behind(monkeypatch):
    """A full disk: the coordinator, which runs already, ends."""

    def full(connection: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(connection_file, "write", full)
    cluster = local_cluster(Count(), [[1]])
    with pytest.raises(OSError, match="No space left"), cluster:
        pass
    assert cluster.coordinator is None


def test_a_query_server_of_which_nothing_can_be_called_is_warned_of(caplog):
    """The mark is forgotten soon; without a word every call would fail. It serves all the same, for its result."""

    class Forgotten(QueryServer):
        limit = 3

        def init_partition(self, rows: Any) -> None:
            self.rows = list(rows)

        def get(self, key: Any) -> Any:
            return key

        def _build_result(self) -> Any:
            return self.rows

    with local_cluster(Forgotten(), [[1, 2]]) as cluster:
        pass
    assert cluster.results == {0: [1, 2]}
    assert "Forgotten has no method for clients: none is marked with @method (get)" in caplog.text
    caplog.clear()
    local_cluster(QueryServer(), [])
    assert "QueryServer has no method for clients: none is marked with @method (there is no other" in caplog.text
    caplog.clear()
    local_cluster(Count(), [])
    local_cluster(PartitionServer(), [])
    assert caplog.text == ""


def test_a_cluster_prints_itself_without_its_secrets():
    """What it serves, how much of it, and where its coordinator is."""
    cluster = local_cluster(Count(), [[1], [2]])
    assert repr(cluster) == "<LocalCluster of Count, not running>"
    with cluster:
        assert cluster.coordinator is not None
        url, secrets = cluster.coordinator.get_url(), (cluster.coordinator.token, cluster.coordinator.admin_token)
        assert repr(cluster) == f"<LocalCluster of Count: 2 of 2 partitions served, coordinator at {url}>"
        assert not any(secret.hex() in repr(cluster) or str(secret) in repr(cluster) for secret in secrets)
    assert repr(cluster) == "<LocalCluster of Count, not running>"
