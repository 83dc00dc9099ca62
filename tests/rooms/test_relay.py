"""The relay: servers that cannot be reached, servers and coordinators that go, and clients that do not keep to it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import msgpack
import pytest
from support.asker import Asker
from support.lanes import patterned
from support.probe import LONG, PAIRS, Probe, switches
from support.threads import begin
from support.wait import wait_until

from spark_partition_server import CallOutcomeUnknown, ClientOptions, MethodNotFound, PartitionServer, Unavailable
from spark_partition_server.core import ledger
from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Cancel, Credit, Error, Kind, Part, Refuse, Relay, Reply
from spark_partition_server.wire.payload import decode_value

nowhere = [""]  # the endpoint that servers tell


class Hidden(Probe):
    """Serves as others do, and tells an endpoint at which nobody listens."""

    def _endpoint(self) -> str:
        return nowhere[0]

    def _local_endpoint(self) -> str:
        return ""


class Silent(PartitionServer):
    """A server that takes no calls."""

    def _launch_server(self) -> None:
        self._register()
        switches.gate.wait(LONG)

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        switches.gate.set()


@pytest.fixture
def hidden() -> Iterator[LocalCluster]:
    """A cluster whose servers can be reached by relay alone: their endpoint refuses connections."""
    switches.reset()
    with bind_tcp("127.0.0.1") as closed:
        nowhere[0] = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
    with local_cluster(Hidden(), PAIRS) as made:
        yield made
        switches.gate.set()


@pytest.fixture
def silent() -> Iterator[LocalCluster]:
    """The same with an endpoint that never answers, as behind a firewall: its queue of connections is full."""
    switches.reset()
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        nowhere[0] = f"tcp://127.0.0.1:{full.getsockname()[1]}"
        with local_cluster(Hidden(), PAIRS) as made:
            yield made
            switches.gate.set()
        for filler in fillers:
            filler.close()


def relayed(cluster: LocalCluster) -> int:
    return cluster.coordinator._relaying.calls


# ------------------------------------------------------------------------------------------------- the route


def test_auto_takes_the_relay_where_servers_refuse_and_says_so_once(hidden, caplog):
    """Nobody has to know that executors cannot be reached; but who looks at the log learns why it takes longer."""
    client = hidden.client(timeout=LONG)
    with caplog.at_level(logging.INFO, "spark_partition_server.client"):
        assert [client.call(rank, "rank") for rank in range(3)] == [0, 1, 2]
        assert client.submit(1, "rank").result(LONG) == 1
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert "refused" in told[0].getMessage()
    assert "route='relay'" in told[0].getMessage()


def test_auto_takes_the_relay_where_servers_do_not_answer(silent):
    """A firewall drops packets: the attempt costs the first call some time, and all others nothing."""
    client = silent.client(timeout=2.0)
    assert client.call(1, "rank") == 1
    started = time.monotonic()
    assert [client.call(rank, "rank") for rank in range(3)] == [0, 1, 2]
    assert time.monotonic() - started < 1.5


def test_direct_does_not_take_the_relay(hidden):
    """Who has asked for the direct lane hears that there is none."""
    client = hidden.client(route="direct")
    with pytest.raises(Unavailable, match="cannot connect"):
        client.call(1, "rank", timeout=0.2)
    assert not relayed(hidden)


def test_relay_makes_one_connection_for_all_servers(cluster):
    """A thread needs no more, and nothing but the coordinator's port."""
    client = cluster.client(timeout=LONG, route="relay")
    assert client.call_all("rank") == [0, 1, 2]
    trunks = {lane.trunk for _, lane in client._local.lanes.values()}
    assert len(trunks) == 1
    assert all(not server._listener.connections for server in switches.servers)


def test_a_dead_server_is_told_as_soon_as_by_the_direct_lane(hidden):
    """It refuses connections as well; the coordinator finds that it has gone when it is called."""
    client = hidden.client(options=ClientOptions(timeout=LONG, wait_for_ready=False))
    assert client.call(1, "rank") == 1
    (server,) = [one for one in switches.servers if one.partition_ind == 1]
    server._life._loop.stop()
    server._listener.stop()  # and with it the lane
    wait_until(lambda: not server._life._loop.alive and not server._listener._connections)
    error = begin(client.call, 1, "rank").exception(LONG / 4)
    assert isinstance(error, Unavailable)
    assert error.definite


def test_a_server_that_takes_no_calls_is_not_asked_by_relay():
    """It says so in the view; who sends a call all the same is answered."""
    switches.reset()
    with local_cluster(Silent(), [[]]) as other, Asker(other) as asker:
        with pytest.raises(MethodNotFound, match="takes no calls"):
            other.client(route="relay").call(0, "rank")
        assert asker.answer(asker.ask(1, "rank", rank=0)).code == Code.UNIMPLEMENTED
        switches.gate.set()


def test_large_values_both_ways(hidden):
    """Many times what is relayed in one message, by both blocking faces."""
    client = hidden.client(timeout=LONG)
    octets = patterned(9_000_000)
    assert client.call(1, "echo", octets) == [[octets], {}]
    assert client.submit(1, "echo", octets).result(LONG) == [[octets], {}]
    assert client.call(1, "rank") == 1


def test_threads_have_connections_of_their_own(hidden):
    """Nobody waits for another's answer."""
    client = hidden.client(timeout=LONG)
    waiting = begin(client.call, 1, "wait")
    assert switches.entered.wait(LONG)
    assert client.call(2, "rank") == 2
    switches.gate.set()
    assert waiting.result(LONG) == "wait"


# ------------------------------------------------------------------------------------- what goes meanwhile


def test_a_server_that_is_lost_with_calls_under_way(hidden):
    """[8.48]: each caller hears at once that nobody knows; what may run twice is repeated by the client."""
    client = hidden.client(timeout=LONG, route="relay")
    waiting = begin(client.call, 1, "wait")
    assert switches.entered.wait(LONG)
    hidden.launch(1, attempt=1)  # a later life takes over: the earlier one is no member any more
    error = waiting.exception(LONG)
    assert isinstance(error, CallOutcomeUnknown)
    assert not error.definite
    assert error.code == Code.LOST
    switches.gate.set()
    assert client.call(1, "get", "b") == 2


def test_a_coordinator_that_stops_ends_the_calls_it_relays(hidden):
    """The connection ends, and the caller hears of it before its deadline."""
    client = hidden.client(timeout=LONG, route="relay")
    waiting = begin(client.call, 1, "wait")
    assert switches.entered.wait(LONG)
    hidden.coordinator.shutdown()
    assert isinstance(waiting.exception(LONG / 2), CallOutcomeUnknown)
    switches.gate.set()
    for server in switches.servers:
        server._listener.stop()
        server._life._loop.stop()


def test_a_call_that_nobody_waits_for_is_given_up_everywhere(hidden, monkeypatch):
    """[8.47]: by the coordinator a second after its deadline, and by the server with it."""
    monkeypatch.setattr(ledger, "SLACK", 0.1)
    client = hidden.client(route="relay")
    with pytest.raises(TimeoutError):
        client.call(1, "wait", timeout=0.2)
    wait_until(lambda: relayed(hidden) == 0)
    switches.gate.set()
    assert client.call(1, "rank") == 1


# ----------------------------------------------------------------------------------- who does not keep to it


@pytest.fixture(params=["first endpoint", "door"])
def asker(hidden, request) -> Iterator[Asker]:
    with Asker(hidden, door=request.param == "door") as made:
        yield made


def test_a_relay_of_a_clients_own_is_refused(hidden, asker):
    """[8.41]: it would be an answer to somebody else's call."""
    inside = tuple(codec.encode(Reply(1, (b"\x01",)), asker.run_id))
    refused = asker.answer(Relay(b"\x00abcd", inside))
    assert isinstance(refused, Refuse)
    assert refused.code == Code.UNEXPECTED


def test_parts_that_do_not_fit_end_their_call_alone(hidden, asker):
    """[7.41.2], [7.41.4]: the connection goes on."""
    head = codec.encode(asker.ask(1, "echo"), asker.run_id)
    opening = b"\x01\x10" + bytes(head[0]) + b"\x01" + bytes((len(head[1]),)) + bytes(head[1])
    asker.say(Part(1, 0, 1 << 20, (opening,)))
    told = asker.answer(Part(1, 5, 1 << 20, (b"x",)))
    while isinstance(told, Credit):
        told = asker.hear()
    assert (told.call_id, told.code) == (1, Code.MALFORMED)
    told = asker.answer(Part(2, 0, 1 << 50, (opening.replace(b"\x95\x01", b"\x95\x02"),)))
    while isinstance(told, Credit):
        told = asker.hear()
    assert (told.call_id, told.code) == (2, Code.TOO_LARGE)
    answer = asker.answer(asker.ask(3, "rank"))
    assert decode_value(answer.payload) == 1
    wait_until(lambda: relayed(hidden) == 0)


def test_a_client_that_gives_no_credit_gets_no_more_and_holds_up_nobody(hidden, asker):
    """[8.50]: at most a window of its answer has come; others are served meanwhile."""
    asker.say(asker.ask(1, "large", 50 << 20))
    come = 0
    while come < 1 << 20:
        come += len(asker.hear().payload[0])
    assert come == 1 << 20
    client = hidden.client(timeout=LONG, route="relay")
    assert len(client.call(1, "large", 20 << 20)) == 20 << 20
    asker.say(Cancel(1))
    wait_until(lambda: relayed(hidden) == 0)


def test_a_flood_is_turned_away(hidden, asker):
    """[8.46]: the calls above the limit at once, and certainly not run; those below are served."""
    for call_id in range(ledger.CALLS_PER_CLIENT + 50):
        asker.say(asker.ask(call_id, "wait", f"flood {call_id}", rank=2, timeout=20000))
    refused = [asker.hear() for _ in range(50)]
    assert {type(one) for one in refused} == {Error}
    assert {one.code for one in refused} == {Code.OVERLOADED}
    assert all(one.retry_ms for one in refused)
    client = hidden.client(timeout=LONG, route="relay")
    assert client.call(1, "rank") == 1
    switches.gate.set()
    for _ in range(ledger.CALLS_PER_CLIENT):
        asker.hear()


def test_nonsense_is_dropped_and_the_connection_goes_on(hidden, asker):
    """[13.2]."""
    for kind in (Kind.REQUEST, Kind.PART, Kind.CREDIT, Kind.CANCEL):
        for rest in ((b"\xc1",), (msgpack.packb([1]),), (b"", b"", b"")):
            asker.raw.send(codec.preamble(kind, asker.run_id), *rest)
    assert decode_value(asker.answer(asker.ask(1, "rank")).payload) == 1


def test_a_client_that_vanishes_leaves_nothing(hidden):
    """[8.47]: its calls are taken back when the first answer cannot be sent."""
    with Asker(hidden) as asker:
        asker.say(asker.ask(1, "wait", rank=0))
        asker.say(asker.ask(2, "wait", rank=1))
        wait_until(lambda: relayed(hidden) == 2)
    switches.gate.set()
    wait_until(lambda: relayed(hidden) == 0)
    hidden.coordinator._relaying.check()
