"""Arrays in shared memory between real processes: whole, safe from what comes later, gone with a killed process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.lanes import Raw
from support.probe import LONG
from support.wait import wait_until

from spark_partition_server import Client, ClientOptions, QueryServer, ServerOptions, connect, method
from spark_partition_server.errors import MessageTooLarge
from spark_partition_server.net.endpoints import parse
from spark_partition_server.net.shared import LENT_FROM, SharedMemory
from spark_partition_server.testing import local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Kind, Request
from spark_partition_server.wire.payload import decode_value, encode_value

numpy = pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not SharedMemory.possible(), reason="the system has no memfd")

ROOT = Path(__file__).parents[2]
NAME = "memfd:spark-partition-server"
LARGE = 300_000  # items of 8 octets: well above LENT_FROM


class Arrays(QueryServer):
    """Makes arrays, and keeps those it was given."""

    def init_partition(self, rows: Any) -> None:
        self.kept: list[Any] = []

    @method
    def full(self, value: float, items: int = LARGE) -> Any:
        return numpy.full(items, value)

    @method
    def keep(self, *arrays: Any) -> float:
        self.kept.extend(arrays)
        return float(sum(array.sum() for array in arrays))

    @method
    def each(self, value: float) -> Iterator[Any]:
        yield self.full(value)

    @method
    def kept_one(self, array: Any) -> Iterator[float]:
        yield self.keep(array)

    @method
    def sums(self) -> list[float]:
        return [float(array.sum()) for array in self.kept]

    @method
    def pid(self) -> int:
        return os.getpid()


SERVER = """
import sys
sys.path[:0] = [{tests!r}]
from rooms_memory import Arrays
from spark_partition_server.testing import local_cluster
with local_cluster(Arrays(), [[0]]) as cluster:
    print(cluster.connection_file, flush=True)
    sys.stdin.read()
"""

CLIENT = """
import sys
from spark_partition_server import connect
client = connect(sys.argv[1], timeout=60)
held = [client.call(0, "full", number) for number in range(4)]
print("holding", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def process(script: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    ) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its connection file."""
    source = Path(__file__).read_text()
    (tmp_path / "rooms_memory.py").write_text(source.replace("from support", "from tests.support"))
    script = SERVER.format(tests=str(tmp_path))
    environment_tests = f"import sys; sys.path[:0] = [{str(ROOT / 'tests')!r}, {str(ROOT)!r}]\n"
    with process(environment_tests + script, tmp_path) as started:
        assert started.stdout is not None
        yield started, started.stdout.readline().strip()


def shared_memory(pid: int) -> tuple[int, int]:
    """How many mappings and descriptors of shared memory a process has."""
    mappings = Path(f"/proc/{pid}/maps").read_text().count(NAME)
    links = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir() if os.path.lexists(one)]
    return mappings, sum(NAME in link for link in links)


# ------------------------------------------------------------------------------------------------ killed


def test_a_killed_server_leaves_arrays_whole_and_nothing_else(server, tmp_path):
    """SIGKILL of the server: the arrays stay as they are, and no file was there that could be left."""
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    started, file = server
    with connect(file, timeout=LONG) as client:
        held = [client.call(0, "full", number) for number in range(4)]
        assert shared_memory(os.getpid())[0] == 4
        started.send_signal(signal.SIGKILL)
        started.wait(LONG)
        assert [array[-1] for array in held] == [0, 1, 2, 3]
        assert all(array.sum() == number * LARGE for number, array in enumerate(held))
    if before:
        assert {name for name in set(os.listdir("/dev/shm")) - before if "spark" in name} == set()
    del held
    assert shared_memory(os.getpid()) == (0, 0)


def test_a_killed_client_leaves_nothing_in_the_server(server, tmp_path):
    """SIGKILL of a client that holds arrays: the server gives the memory back, and serves on."""
    _, file = server
    with connect(file, timeout=LONG) as other:
        pid = other.call(0, "pid")
        with process(CLIENT, tmp_path, file) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "holding\n"
            assert shared_memory(pid)[0] == 4
            holder.send_signal(signal.SIGKILL)
            holder.wait(LONG)
        wait_until(lambda: shared_memory(pid) == (0, 0), LONG, "the memory to be given back")
        assert other.call(0, "full", 7.0)[0] == 7.0


# -------------------------------------------------------------------------------------- which calls share memory

RESULTS = {
    "call": (lambda client: [client.call(0, "full", 5.0)], True),
    "call_all": (lambda client: client.call_all("full", 5.0), True),
    "call_many": (lambda client: client.call_many("full", [(0, 5.0)]), True),
    "submit": (lambda client: [client.submit(0, "full", 5.0).result()], False),
    "stream": (lambda client: list(client.stream(0, "each", 5.0)), False),
}
ARGUMENTS = {
    "call": (lambda client, array: client.call(0, "keep", array), True),
    "call_all": (lambda client, array: client.call_all("keep", array), False),
    "call_many": (lambda client, array: client.call_many("keep", [(0, array)]), False),
    "submit": (lambda client, array: client.submit(0, "keep", array).result(), False),
    "stream": (lambda client, array: list(client.stream(0, "kept_one", array)), False),
}


@pytest.mark.parametrize("way", RESULTS)
def test_the_results_that_come_in_shared_memory(server, way):
    """As docs/arrays.md has it. The others come as octets, and are as good."""
    get, shared = RESULTS[way]
    with connect(server[1], timeout=LONG) as client:
        found = get(client)
        assert shared_memory(os.getpid())[0] == int(shared)
        assert found[0].sum() == 5.0 * LARGE


@pytest.mark.parametrize("way", ARGUMENTS)
def test_the_arguments_that_leave_in_shared_memory(server, way):
    """As docs/arrays.md has it: the server keeps the array, and looks at it where it is."""
    give, shared = ARGUMENTS[way]
    with connect(server[1], timeout=LONG) as client:
        give(client, numpy.full(LARGE, 2.0))
        assert shared_memory(client.call(0, "pid"))[0] == int(shared)
        assert client.call(0, "sums") == [2.0 * LARGE]


# ------------------------------------------------------------------------------------- in the same process


@pytest.fixture
def client() -> Iterator[Client]:
    with local_cluster(Arrays(), [[0]]) as cluster:
        yield cluster.client(timeout=LONG)


def shares(client: Client) -> SharedMemory:
    shared = client._lanes.local.lanes[0][1]._shared
    assert shared is not None
    return shared


def test_arrays_that_are_kept_stay_as_they_came(client):
    """Whatever is fetched later, with the same memory or other."""
    held = []
    for number in range(30):
        array = client.call(0, "full", float(number))
        array += 0.5  # it is the user's own
        if number % 3 == 0:
            held.append((number, array))
        for value, kept in held:
            assert kept[0] == kept[-1] == value + 0.5
    assert len(shares(client)._known) < 20


def test_a_server_that_keeps_what_it_was_given(client):
    """The arrays of requests are the server's for as long as it wants."""
    for number in range(6):
        assert client.call(0, "keep", numpy.full(LARGE, float(number))) == number * LARGE
        assert client.call(0, "keep", numpy.zeros(10), numpy.full(LARGE, 1.0)) == LARGE
    expected = [value for number in range(6) for value in (number * LARGE, 0.0, LARGE)]
    assert client.call(0, "sums") == expected


def test_small_calls_in_between_give_memory_back(client):
    """Slots go back with the next request, whatever it asks for."""
    client.call(0, "full", 1.0)
    assert shares(client).borrowed
    client.call(0, "pid")
    assert not shares(client).borrowed


def test_the_client_keeps_its_own_limit():
    """ClientOptions.memory_bytes_max: the rest is sent as octets, and all of it arrives."""
    limit = 4 * LENT_FROM
    with local_cluster(Arrays(), [[0]]) as cluster:
        client = cluster.client(options=ClientOptions(memory_bytes_max=limit, timeout=LONG))
        held = [client.call(0, "full", float(number), LENT_FROM // 8) for number in range(9)]
        assert [array[-1] for array in held] == list(range(9))
        assert sum(len(block.memory) for block in shares(client)._known.values()) <= limit


def test_a_server_without_shared_memory():
    """ServerOptions.memory_bytes_max at its least: octets over the socket."""
    with local_cluster(Arrays(options=ServerOptions(memory_bytes_max=1)), [[0]]) as cluster:
        client = cluster.client(timeout=LONG)
        assert client.call(0, "full", 2.0).sum() == 2 * LARGE
        assert not shares(client)._known


def test_limits_hold_for_lent_octets():
    """A reply in shared memory over message_bytes_max is as too large as any other."""
    options = ServerOptions(message_bytes_max=1 << 20)
    with local_cluster(Arrays(options=options), [[0]]) as cluster, pytest.raises(MessageTooLarge):
        cluster.client(timeout=LONG).call(0, "full", 2.0)


def test_who_offers_nothing_gets_octets(client):
    """[6.14] These commands MUST NOT be sent to a side that has made no offer: any ZeroMQ library, say."""
    client.refresh()
    member = client._routes.calls.members[0]
    payload = tuple(encode_value(([1.0], {})))
    request = Request(1, "full", 10_000, 0, member.incarnation, payload)
    with Raw(parse(member.local)[1]) as raw:
        frames = raw.ask(*codec.encode(request, client._routes._run_id))
        assert codec.read_reply(frames, codec.preamble(Kind.REPLY, client._routes._run_id)) == 1
        assert decode_value(frames[2:]).sum() == LARGE


def test_a_closed_client_keeps_no_memory():
    """Over tcp: what was kept to be used again goes with the client, and its last array stays."""
    with local_cluster(Arrays(), [[0]]) as cluster:
        client = cluster.client(options=ClientOptions(local=False, timeout=LONG))
        held = client.call(0, "full", 3.0)
        assert client._lanes._ways.memory.kept >= LARGE * 8
        client.close()
        assert client._lanes._ways.memory.kept == 0
        assert held.sum() == 3 * LARGE
