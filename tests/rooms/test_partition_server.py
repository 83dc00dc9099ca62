"""``PartitionServer``: one call of a server from Spark's call to its result, against a real coordinator."""

from __future__ import annotations

import http.server
import os
import pickle
import socket
import threading
import time
from typing import Any

import pytest
from support.joining import coordinating
from support.wait import wait_until
from support.web import ask

from spark_partition_server import Coordinator, PartitionServer, QueryServer, ServerOptions
from spark_partition_server.errors import (
    AuthenticationError,
    ClusterClosed,
    CoordinatorLost,
    NotStarted,
    PartitionInitError,
    PortUnavailable,
)
from spark_partition_server.net.endpoints import bind_tcp, get_open_port
from spark_partition_server.spark.task import Identity, identity
from spark_partition_server.testing import local_cluster
from spark_partition_server.wire.codes import Code

LOCAL = "127.0.0.1"
LONG = 20.0


class Simple(PartitionServer):
    """Serves nothing, until it is told to end."""

    def _launch_server(self) -> None:
        self.over = threading.Event()
        self.port = self.port or 4242
        self._register()
        self.over.wait(LONG)

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        self.ended = (reason, grace)
        self.over.set()

    def _build_result(self) -> Any:
        return [self.ended, *self.itr]


class Called:
    """One call of a server in a thread, as Spark makes it in a process."""

    def __init__(self, server: PartitionServer, coordinator: Coordinator, rank: int = 0, incarnation: int = 1) -> None:
        self.server = server
        server.set_coordinator_url(server.coordinator_url or coordinator.get_url() or "")
        server.set_token(server.token or coordinator.token)
        server.set_run(server.run_id or coordinator.run_id, server.job_group)
        self.who = Identity(rank, 0, incarnation)
        self.result: list[Any] | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = list(self.server(self.who.rank, iter("rows"), self.who))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def ended(self) -> bool:
        self.thread.join(LONG)
        return not self.thread.is_alive()


# ----------------------------------------------------------------------------------------- a whole life


def test_a_server_registers_serves_leaves_and_returns_its_result():
    """Asked to leave, it is told why and how much time it has; then it is a member no longer."""
    with coordinating(1) as coordinator:
        called = Called(Simple(), coordinator)
        assert coordinator.wait(lambda: bool(coordinator.full_cluster), LONG)
        assert coordinator.hosts == {0: (LOCAL, 4242)}
        coordinator.shutdown_host(0, "enough", grace=1.5)
        assert called.ended()
        assert called.error is None
        assert called.result == [("enough", 1.5), *"rows"]
        assert coordinator.wait(lambda: not coordinator.hosts, LONG)


def test_a_server_may_return_by_itself():
    """Its work is done; the coordinator is told so."""

    class Brief(Simple):
        def _launch_server(self) -> None:
            self.ended = ("by itself", 0)
            self.port = 1
            self._register()

    with coordinating(1) as coordinator:
        called = Called(Brief(), coordinator)
        assert called.ended()
        assert called.result == [("by itself", 0), *"rows"]
        assert coordinator.wait(lambda: coordinator.was_full and not coordinator.hosts, LONG)


def test_a_server_that_never_registers_is_no_member():
    """It has served nobody and returns its result all the same."""

    class Shy(Simple):
        def _launch_server(self) -> None:
            self.ended = ("shy", 0)

    with coordinating(1) as coordinator:
        called = Called(Shy(), coordinator)
        assert called.ended()
        assert called.result == [("shy", 0), *"rows"]
        assert not coordinator.was_full


def test_a_server_holds_plain_data_before_it_is_called():
    """It is pickled on the driver; sockets and threads are born on the executor."""
    server = Simple(8080, {"x": [1]}, ServerOptions(leave_timeout=3.0))
    server.set_coordinator_url("tcp://127.0.0.1:1")
    server.set_token(b"token")
    server.set_run(b"run-----", "group")
    copy = pickle.loads(pickle.dumps(server))
    assert vars(copy) == vars(server)
    assert (copy.port, copy.config, copy.options.leave_timeout) == (8080, {"x": [1]}, 3.0)


def test_a_run_id_has_eight_octets():
    """Anything else would be refused by every message."""
    with pytest.raises(ValueError, match="8 octets, not 3"):
        Simple().set_run(b"abc", None)


# --------------------------------------------------------------------------- an HTTP server of its own


class Http(PartitionServer):
    """What a user writes who has an HTTP server already: ``_launch_server`` and ``_register``, nothing else."""

    def _launch_server(self) -> None:
        server = self
        self.requests: list[tuple[str, str | None]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.requests.append((self.path, self.headers["X-SPS-Token"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if self.path == "/control/shutdown":
                    threading.Thread(target=listening.shutdown).start()

            def log_message(self, *args: Any) -> None:
                pass

        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        kind = type("Server", (http.server.ThreadingHTTPServer,), {"address_family": family})
        with kind((self._bind_host(), 0), Handler) as listening:
            self.port = listening.server_address[1]
            self._register()
            listening.serve_forever(poll_interval=0.01)

    def _build_result(self) -> Any:
        return self.requests


def test_a_server_with_an_http_server_of_its_own_is_told_to_end_by_http():
    """A POST to its own port, with the run's token."""
    with local_cluster(Http(), [[], []]) as cluster:
        token = cluster.coordinator.token.hex()
        _, port = cluster.coordinator.hosts[1]
        assert ask(port, "/x", "POST")[0] == 200
    assert cluster.results == {0: [("/control/shutdown", token)], 1: [("/x", None), ("/control/shutdown", token)]}


def test_a_proxy_for_the_outside_does_not_keep_a_server_from_ending(monkeypatch):
    """Executors often have one in their environment; the request goes to the server itself."""
    monkeypatch.setenv("http_proxy", f"http://{LOCAL}:{get_open_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with coordinating(1) as coordinator:
        called = Called(Http(), coordinator)
        assert coordinator.wait(lambda: bool(coordinator.full_cluster), LONG)
        coordinator.shutdown_hosts()
        assert called.ended(), "it was not told to end"


def test_a_server_on_an_ipv6_address_is_told_to_end():
    """Its URL has brackets."""
    with coordinating(1, host="::1") as coordinator:
        called = Called(Http(options=ServerOptions(advertise_host="::1")), coordinator)
        assert coordinator.wait(lambda: bool(coordinator.full_cluster), LONG)
        coordinator.shutdown_hosts()
        assert called.ended(), "it was not told to end"


def test_a_shutdown_that_fails_is_logged(caplog):
    """And the server ends all the same when it is told in another way."""

    class Stubborn(Simple):
        def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
            self.ended = (reason, grace)
            raise ZeroDivisionError("shutdown is broken")

    with coordinating(1) as coordinator:
        called = Called(Stubborn(), coordinator)
        assert coordinator.wait(lambda: bool(coordinator.full_cluster), LONG)
        coordinator.shutdown_hosts("asked")
        wait_until(lambda: "shutdown is broken" in caplog.text)
        called.server.over.set()
        assert called.ended()
        assert called.result == [("asked", 1.0), *"rows"]


# ------------------------------------------------------------------------------------ refusals, failures


class Broken(QueryServer):
    def init_partition(self, rows: Any) -> None:
        if self.partition_ind == 1:
            self.value = self.config["missing"]


def test_a_partition_that_cannot_be_initialised_is_reported_with_its_traceback():
    """Where, which attempt, what it was and where in whose code."""
    with pytest.raises(PartitionInitError) as caught, local_cluster(Broken(), [[], [], []]):
        pass
    error = caught.value
    assert (error.rank, error.attempt, error.host) == (1, 0, LOCAL)
    assert "KeyError: 'missing'" in str(error)
    assert 'self.value = self.config["missing"]' in error.remote_traceback
    assert os.path.basename(__file__) in error.remote_traceback


def test_a_server_without_launch_server_says_so():
    """The subclass forgot its one duty."""
    with pytest.raises((PartitionInitError, NotImplementedError), match="must implement _launch_server"), local_cluster(
        PartitionServer(), [[]]
    ):
        pass


def test_a_port_that_is_taken_is_reported():
    """The job's own exception, and a word to the coordinator."""
    with bind_tcp(LOCAL) as taken, coordinating(1) as coordinator:
        port = taken.getsockname()[1]
        called = Called(Broken(port=port), coordinator)
        assert called.ended()
        assert isinstance(called.error, PortUnavailable)
        assert coordinator.wait(lambda: bool(coordinator.init_failures), LONG)
        (goodbye,) = coordinator.init_failures
        assert (goodbye.rank, goodbye.code) == (0, Code.PORT_UNAVAILABLE)
        assert "Address already in use" in goodbye.text
        assert f"{port}..{port}" in goodbye.detail


def test_an_error_after_the_registration_ends_the_call_with_it():
    """Spark sees it and starts the task again."""

    class Failing(Simple):
        def _launch_server(self) -> None:
            self.port = 1
            self._register()
            raise ZeroDivisionError("while serving")

    with coordinating(1) as coordinator:
        called = Called(Failing(), coordinator)
        assert called.ended()
        assert isinstance(called.error, ZeroDivisionError)
        assert not coordinator.init_failures


def test_a_wrong_token_is_an_authentication_error():
    """The server learns it at once; it does not serve."""
    with coordinating(1) as coordinator:
        server = Simple()
        server.set_token(b"wrong")
        called = Called(server, coordinator)
        assert called.ended()
        assert isinstance(called.error, AuthenticationError)
        assert "partition 0, attempt 0 (incarnation 1)" in str(called.error)
        assert coordinator.get_url() in str(called.error)
        assert coordinator.hosts == {}


def test_a_server_of_another_run_is_told_so():
    """The port of its coordinator belongs to another cluster by now: no wait for half a minute."""
    with coordinating(1) as coordinator:
        server = Simple()
        server.set_run(b"another!", None)
        called = Called(server, coordinator)
        called.thread.join(5.0)
        assert called.ended()
        assert isinstance(called.error, ClusterClosed)
        assert coordinator.hosts == {}


def test_a_server_of_a_stopping_cluster_ends():
    """A task that Spark started late."""
    with coordinating(1) as coordinator:
        coordinator.shutdown_hosts("the end")
        wait_until(lambda: coordinator._membership.state.value == "stopping")
        called = Called(Simple(), coordinator)
        assert called.ended()
        assert isinstance(called.error, ClusterClosed)
        assert "the end" in str(called.error)


def test_an_earlier_life_ends_when_a_later_one_serves():
    """It is told, ends, and raises; the later one is not touched. The earlier one cannot come back."""
    with coordinating(1) as coordinator:
        old = Called(Simple(port=1), coordinator, incarnation=1)
        assert coordinator.wait(lambda: coordinator.hosts == {0: (LOCAL, 1)}, LONG)
        new = Called(Simple(port=2), coordinator, incarnation=2)
        assert coordinator.wait(lambda: coordinator.hosts == {0: (LOCAL, 2)}, LONG)
        assert old.ended()
        assert isinstance(old.error, ClusterClosed)
        assert "incarnation 2 of partition 0 has taken over" in str(old.error)
        again = Called(Simple(port=3), coordinator, incarnation=1)
        assert again.ended()
        assert isinstance(again.error, ClusterClosed)
        assert coordinator.hosts == {0: (LOCAL, 2)}
        coordinator.shutdown_hosts()
        assert new.ended()
        assert new.error is None


def test_a_server_ends_when_the_coordinator_vanishes():
    """The driver was killed: after leave_timeout seconds without a word."""
    with coordinating(1) as coordinator:
        called = Called(Simple(options=ServerOptions(leave_timeout=1.0)), coordinator)
        assert coordinator.wait(lambda: bool(coordinator.full_cluster), LONG)
        coordinator.stop()
        began = time.monotonic()
        assert called.ended()
        assert time.monotonic() - began < 10
        assert isinstance(called.error, CoordinatorLost)
        assert "no word from the coordinator for 1 s" in str(called.error)


def test_a_coordinator_that_cannot_be_reached_is_an_error():
    """A firewall, a wrong address; the text says where to."""
    with coordinating(1) as coordinator:
        url = f"tcp://{LOCAL}:{get_open_port()}"
        server = Simple(options=ServerOptions(leave_timeout=0.5))
        server.set_coordinator_url(url)
        called = Called(server, coordinator)
        assert called.ended()
        assert isinstance(called.error, CoordinatorLost)


def test_a_server_outside_a_cluster_says_what_to_do():
    """Called by hand, say."""
    with pytest.raises(NotStarted, match="Cluster"):
        Simple()(0, [])


def test_a_server_of_another_job_is_not_started_again():
    """Spark computes a lost block of a result once more, long after the cluster has stopped: the text says why not."""
    server = Simple()
    server.set_coordinator_url("tcp://127.0.0.1:1")
    server.set_token(b"x")
    server.set_run(b"run-----", "group 1")
    for group in (None, "group 2"):
        with pytest.raises(ClusterClosed, match="Checkpoint"):
            server(0, [], Identity(0, 0, 1, group))


def test_outside_spark_a_task_is_nobody_in_particular():
    """No pyspark is loaded for it."""
    assert identity(7) == Identity(7, 0, 0, None)


# ---------------------------------------------------------------------------------------- addresses


def placed(options: ServerOptions | None = None, port: int | None = None, url: str = "tcp://127.0.0.1:1") -> Any:
    """What a server would tell and bind, on its route to a coordinator."""
    server = Simple(port, None, options)
    server.set_coordinator_url(url)
    server.host = server._advertised_host()
    return server.host, server._bind_host(), server._ports()


def test_a_server_tells_the_address_on_its_route_to_the_driver():
    """And binds it, on any port; each of the three can be said."""
    assert placed() == (LOCAL, LOCAL, None)
    assert placed(url="tcp://[::1]:1") == ("::1", "::1", None)
    assert placed(ServerOptions(advertise_host="name")) == ("name", "name", None)
    assert placed(ServerOptions(bind_host="0.0.0.0")) == (LOCAL, "0.0.0.0", None)
    assert placed(ServerOptions(ports=(5, 9))) == (LOCAL, LOCAL, (5, 9))
    assert placed(ServerOptions(ports=(5, 9)), port=7) == (LOCAL, LOCAL, (7, 7))
