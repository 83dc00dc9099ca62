"""Every way to call, from many threads, from forked children, and from a process that has neither pyspark nor Java."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.threads import at_once

from spark_partition_server.testing import LocalCluster

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def cluster(sources: LocalCluster) -> LocalCluster:
    return sources


def test_many_threads_share_a_client_in_every_way(cluster, client):
    """Sixteen at once; each gets its own answers, whichever way it asked."""

    def go(number: int) -> None:
        for count in range(5):
            expected = [number * 1000 + count * 10 + one for one in range(30)]
            got = client.call_many("same", [(one % 3, value) for one, value in enumerate(expected)])
            streams = [client.stream(rank, "count", 50 + number) for rank in range(3)]
            futures = [client.submit(one % 3, "same", value) for one, value in enumerate(expected)]
            everyone = client.call_all("same", number)
            assert got == [one.result() for one in futures] == expected
            assert [list(one) for one in streams] == [list(range(50 + number))] * 3
            assert everyone == [number] * 3

    at_once(16, go)
    assert not client._room.active


FORK = """
import os, sys
from spark_partition_server import QueryServer, method
from spark_partition_server.testing import local_cluster

class Echo(QueryServer):
    @method
    def echo(self, value):
        return [self.partition_ind, value]

    @method
    def count(self, until):
        yield from range(until)

def ask(client, name):
    for count in range(20):
        calls = [(number % 2, [name, number]) for number in range(40)]
        assert client.call_many("echo", calls) == [list(call) for call in calls], name
        for rank in range(2):
            assert client.call(rank, "echo", [name, count]) == [rank, [name, count]], name
        assert client.submit(1, "echo", count).result() == [1, count], name
        assert list(client.stream(1, "count", 30)) == list(range(30)), name
        assert client.call_all("echo", name) == [[0, name], [1, name]], name

with local_cluster(Echo(), [[], []]) as cluster:
    client = cluster.client()
    ask(client, "before")
    stream = client.stream(0, "count", 1000)
    assert next(stream) == 0
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            try:
                try:
                    list(stream)
                except ConnectionError as error:
                    assert "belongs to the process" in str(error), error
                ask(client, number)
                if number % 2:
                    client.close()
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    ask(client, "meanwhile")
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert list(stream) == list(range(1, 1000))
    ask(client, "after")
print(codes)
"""


def run(script: str, *arguments: str, **environment: str) -> tuple[str, str, int]:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
        timeout=60,
    )
    return done.stdout, done.stderr, done.returncode


def test_forked_children_use_their_parents_client_in_every_way():
    """Connections of their own; the parent's stream stays the parent's, whole."""
    assert run(FORK) == ("[0, 0, 0, 0]\n", "", 0)


HELD = """
import os, signal, threading
from spark_partition_server import QueryServer, method
from spark_partition_server.testing import local_cluster

class Echo(QueryServer):
    @method
    def rank(self):
        return self.partition_ind

with local_cluster(Echo(), [[], []]) as cluster:
    client = cluster.client()
    assert client.call(0, "rank") == 0
    with client._routes._lock, client._lanes._open_lock:  # as other threads of the parent do at this moment
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            found = []
            thread = threading.Thread(target=lambda: found.append(client.call(1, "rank")))
            thread.start()
            thread.join()
            client.close()
            os._exit(0 if found == [1] else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert client.call(1, "rank") == 1
print(code)
"""


def test_a_child_waits_for_no_thread_of_its_parent():
    """It was forked while others asked the coordinator and made connections: their locks are never given back there."""
    assert run(HELD) == ("0\n", "", 0)


BARE = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyspark", "py4j", "numpy", "pyarrow", "pandas", "flask"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Nowhere())
from spark_partition_server import connect

with connect(sys.argv[1], timeout=10.0) as client:
    client.wait_for_ready()
    assert client.call(1, "same", 5) == 5
    assert client.partition(1).same(5) == 5
    assert client.call_all("same", 5) == [5, 5, 5]
    assert client.call_many("same", [(2, 7), (0, 8), (1, 9)]) == [7, 8, 9]
    assert client.submit(1, "same", 5).result() == 5
    assert list(client.stream(1, "count", 300)) == list(range(300))
assert not {"pyspark", "py4j", "numpy"} & set(sys.modules)
print("done")
"""


def test_a_client_needs_neither_pyspark_nor_java(cluster):
    """The connection file is enough, for all of it."""
    done = run(BARE, cluster.connection_file, JAVA_HOME="/nowhere", PATH="/nowhere", SPARK_HOME="/nowhere")
    assert done == ("done\n", "", 0)
