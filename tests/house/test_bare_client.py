"""examples/bare_client.py: a client in eighty lines, written from wire/PROTOCOL.md, against running servers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.leaks import leaves_nothing
from support.source import ROOT, sources

from spark_partition_server import PartitionServer, QueryServer, method
from spark_partition_server.testing import local_cluster

__all__ = ["leaves_nothing"]

CLIENT = ROOT / "examples" / "bare_client.py"
ALLOWED = {"zmq", "msgpack", "struct", "json", "sys"}


class Lookup(QueryServer):
    def init_partition(self, rows):
        self.values = dict(rows)

    @method
    def get(self, key, default=None):
        return self.values.get(key, default)

    @method
    def fail(self):
        raise KeyError("alice")


@pytest.fixture(scope="module")
def cluster():
    with local_cluster(Lookup(), [[("bob", 1)], [("alice", {"age": 42, 7: None}), (7, "seven")]]) as running:
        running.client().call_all("get", "nobody")  # what their first call opens is open before the first test
        yield running


def run(*arguments):
    """Status, output and complaint of the client in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-I", CLIENT, *map(str, arguments)],
        env={"PATH": os.environ.get("PATH", "")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_it_knows_zeromq_and_msgpack_and_nothing_of_this_library():
    """If it needed more, the document would be missing something."""
    (client,) = (source for source in sources("examples") if source.path.endswith("bare_client.py"))
    assert {one.top for one in client.imports} == ALLOWED
    assert len(client.text.splitlines()) < 80


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ((1, "get", "alice"), "{'age': 42, 7: None}"),
        ((1, "get", "7"), "seven"),
        ((1, "get", "nobody", '["a", 1.5]'), "['a', 1.5]"),
        ((0, "get", "bob"), "1"),
    ],
)
def test_it_calls_a_method_and_prints_what_it_returned(cluster, arguments, printed):
    """[7.32.1]: rank and incarnation come from one view; a stranger who does what is written is answered."""
    assert run(cluster.connection_file, *arguments) == (0, printed, "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((1, "none"), "failed with code 3: "),
        ((1, "get"), "failed with code 4: "),
        ((1, "fail"), "failed with code 7: KeyError 'alice'"),
        ((9, "get", "alice"), "nobody takes calls for partition 9 of 2"),
    ],
)
def test_it_says_why_a_call_failed(cluster, arguments, complaint):
    """The codes of the document are the codes of the wire."""
    status, printed, said = run(cluster.connection_file, *arguments)
    assert (status, printed) == (1, "")
    assert said.startswith(complaint)


class Silent(PartitionServer):
    """Takes no calls: its endpoint is empty."""

    def _launch_server(self):
        import threading

        self._over = threading.Event()
        self._register()
        self._over.wait(60)

    def shutdown(self, reason="", grace=0.0):
        self._over.set()


def test_a_server_without_an_endpoint_is_not_called():
    """[5.2]: an empty endpoint is nothing to connect to."""
    with local_cluster(Silent(), [[]]) as silent:
        status, _, said = run(silent.connection_file, 0, "get")
    assert (status, said) == (1, "nobody takes calls for partition 0 of 1")


def test_it_learns_that_the_cluster_is_over(cluster):
    """[8.16]: not by its patience, but by the code CLOSED."""
    with local_cluster(Lookup(), [[]]) as ending:
        ending.coordinator.shutdown_hosts("stop() was called")
        status, _, said = run(ending.connection_file, 0, "get", "alice")
    assert (status, said) == (1, "refused with code 17: stop() was called")
