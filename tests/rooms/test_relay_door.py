"""The relay's door: who is let in, what goes by it, and what happens when it or a lane is not there."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support.asker import Asker
from support.faces import FACES
from support.lanes import Raw
from support.probe import LONG, PAIRS, Probe, switches
from support.wait import wait_until

from spark_partition_server import CallOutcomeUnknown, ClientOptions, ClusterOptions, get_open_port
from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import (
    Attach,
    Credit,
    Goodbye,
    Heartbeat,
    Kind,
    Lookup,
    Part,
    Refuse,
    Relay,
    Reply,
    Stop,
)
from spark_partition_server.wire.zmtp import Engine, Limits


def lanes(cluster):
    """The ranks that have a lane."""
    return sorted(lane.rank for lane in list(cluster.coordinator._relaying._ledger.lanes.values()))


def attached(cluster, *ranks):
    """Has the servers of some partitions open their lanes."""
    client = cluster.client(timeout=LONG, route="relay")
    for rank in ranks:
        client.call(rank, "rank")
    wait_until(lambda: set(ranks) <= set(lanes(cluster)))
    return client


def server_of(rank):
    return [one for one in switches.servers if one.partition_ind == rank][-1]


def in_a_thread(outcome, function, *args):
    """Runs it in a thread; what it returns or raises is put into ``outcome``."""

    def run():
        try:
            outcome.append(function(*args))
        except Exception as error:  # noqa: BLE001 - looked at by the test
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# ------------------------------------------------------------------------------------------------ what goes by it


def test_a_member_to_which_nothing_is_relayed_has_no_lane(cluster):
    """[8.52]: ten thousand members do not open ten thousand connections. The second call goes by the lane."""
    assert lanes(cluster) == []
    client = attached(cluster, 1)
    assert lanes(cluster) == [1]
    control = server_of(1)._life._relayed
    came = []
    receive, control.receive = control.receive, lambda *message: came.append(message[1][0][4]) or receive(*message)
    assert client.call(1, "rank") == 1
    assert client.call(1, "echo", bytes(3_000_000)) == [[bytes(3_000_000)], {}]
    assert Kind.RELAY not in came  # over the control plane
    assert all(not server._listener.connections for server in switches.servers)


def test_what_is_relayed_at_the_door_is_all_that_is_taken_there(cluster):
    """[5.7]: nobody learns, joins, leaves or stops anything there, not even with a token."""
    token = cluster.coordinator.token
    said = [
        Lookup(0),
        Heartbeat(0, 1, 1),
        Goodbye(0, 1, 0, token, Code.OK),
        Stop(cluster.coordinator.admin_token),
        Reply(1, (b"\x01",)),
        Relay(b"\x91\xc4\x01x", tuple(codec.encode(Reply(1, (b"\x01",)), cluster.coordinator.run_id))),
    ]
    with Asker(cluster, door=True) as asker:
        for message in said:
            refused = asker.answer(message)
            assert (type(refused), refused.code) == (Refuse, Code.UNEXPECTED), message
        asker.raw.send(b"", *codec.encode(Lookup(0), asker.run_id))  # [5.1]
        assert asker.answer(asker.ask(1, "rank")).call_id == 1
    with Asker(cluster) as asker:
        refused = asker.answer(Attach(0, 1, token))
        assert (type(refused), refused.code) == (Refuse, Code.UNEXPECTED)
    assert sorted(cluster.coordinator.hosts) == [0, 1, 2]


def test_a_stranger_at_the_door_is_told_why_he_is_refused(cluster):
    """[13.1], [13.3]: by the run id that he came with."""
    with Asker(cluster, door=True) as asker:
        ours, asker.run_id = asker.run_id, b"another!"
        refused = asker.answer(Lookup(0))
        assert refused.code == Code.WRONG_RUN
        asker.run_id = ours
        asker.raw.send(b"nonsense")
        asker.raw.send(codec.preamble(1, asker.run_id), b"\xc1")
        assert asker.answer(asker.ask(1, "rank")).call_id == 1


def test_a_name_of_the_door_is_nobodys_at_the_first_endpoint(cluster):
    """[5.4]: who chose the name of another connection would be sent the answers that are for that one."""
    attached(cluster, 1)
    engine = Engine(b"DEALER", Limits(1 << 20, 64))
    with socket.create_connection(cluster.coordinator.address) as plain:
        plain.settimeout(0.3)
        name = next(iter(cluster.coordinator._relaying._ledger.lanes))
        opening = engine.output().replace(b"Identity" + bytes(4), b"Identity" + len(name).to_bytes(4, "big") + name)
        at = 64 + 1
        plain.sendall(opening[:at] + bytes((opening[at] + len(name),)) + opening[at + 1 :])
        while not engine.ready:
            engine.receive(plain.recv(4096))
        lookup = codec.encode(Lookup(0), cluster.coordinator.run_id)
        plain.sendall(b"\x01" + bytes((len(lookup[0]),)) + lookup[0] + b"\0" + bytes((len(lookup[1]),)) + lookup[1])
        with pytest.raises(TimeoutError):
            plain.recv(1)
    assert lanes(cluster) == [1]


# ------------------------------------------------------------------------------------------------- who is let in


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"token": b"wrong"}, Code.BAD_TOKEN),
        ({"incarnation": 0}, Code.STALE),
        ({"incarnation": 99}, Code.NOT_MEMBER),
        ({"rank": 99}, Code.NOT_MEMBER),
    ],
)
def test_an_attach_of_somebody_else_is_refused_and_his_connection_closed(cluster, wrong, code):
    """[8.52] and [15.1]: he would get every call that is meant for the server."""
    token = cluster.coordinator.token
    right = {"rank": 1, "incarnation": cluster.coordinator._membership.members[1].incarnation, "token": token}
    with Asker(cluster, door=True) as asker:
        refused = asker.answer(Attach(**{**right, **wrong}))
        assert (type(refused), refused.code) == (Refuse, code)
        with pytest.raises(EOFError):
            asker.hear()
    assert lanes(cluster) == []


def test_a_server_that_is_refused_answers_over_the_control_plane(cluster):
    """Nothing depends on the lane."""
    client = cluster.client(timeout=LONG, route="relay")
    server = server_of(1)
    server._relay_lane._attach = codec.encode(Attach(1, 99, b"no"), cluster.coordinator.run_id)
    assert client.call(1, "rank") == 1
    wait_until(lambda: not server._relay_lane._there)
    assert client.call(1, "rank") == 1
    assert lanes(cluster) == []


# ---------------------------------------------------------------------------------------------------- what ends


def test_a_lane_that_is_cut_ends_its_calls_and_the_next_one_works(cluster):
    """[8.54]: the caller hears it long before its deadline, and nothing is repeated that may have run."""
    client = attached(cluster, 1)
    outcome = []
    waiting = in_a_thread(outcome, client.call, 1, "wait")
    switches.entered.wait(LONG)
    (connection,) = server_of(1)._listener._connections
    started = time.monotonic()
    connection.socket.shutdown(socket.SHUT_RDWR)
    waiting.join(LONG)
    assert time.monotonic() - started < LONG / 2
    assert isinstance(outcome[0], CallOutcomeUnknown)
    assert outcome[0].code == Code.LOST
    switches.gate.set()
    assert client.call(1, "rank") == 1
    cluster.coordinator._relaying.check()


def test_a_lane_that_was_cut_is_made_again(cluster):
    """With the next call that comes over the control plane, and not at once: it could be cut for ever."""
    client = attached(cluster, 1)
    lane = server_of(1)._relay_lane
    lane._again = 0.0
    (connection,) = server_of(1)._listener._connections
    connection.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: not lane._there and lanes(cluster) == [])
    assert client.call(1, "rank") == 1
    wait_until(lambda: lanes(cluster) == [1])
    assert lane._again > time.monotonic()


def test_a_member_that_is_replaced_loses_its_lane(cluster):
    """[8.54]: and its successor gets one of its own."""
    client = attached(cluster, 1)
    (before,) = cluster.coordinator._relaying._ledger.lanes
    cluster.launch(1, attempt=1)
    wait_until(lambda: lanes(cluster) == [])
    assert client.call(1, "rank") == 1
    wait_until(lambda: lanes(cluster) == [1])
    assert before not in cluster.coordinator._relaying._ledger.lanes


def test_a_client_that_vanishes_at_the_door_leaves_nothing(cluster):
    """[8.47]: at once, without an answer that could not be sent."""
    with Asker(cluster, door=True) as asker:
        asker.say(asker.ask(1, "wait", rank=0))
        asker.say(asker.ask(2, "wait", rank=1))
        wait_until(lambda: cluster.coordinator._relaying.calls == 2)
        asker.raw.vanish()
        wait_until(lambda: cluster.coordinator._relaying.calls == 0)
    switches.gate.set()


@pytest.mark.parametrize("lane", [True, False])
def test_large_answers_that_are_under_way_when_a_server_leaves_arrive(cluster, lane):
    """[8.54]: it has answered; its GOODBYE must not overtake the answer, nor its end cut it off."""
    if lane:
        attached(cluster, 1)
    else:
        server_of(1)._relay_lane._there = True  # so it opens none
    with Asker(cluster, door=True) as asker:
        asker.say(asker.ask(1, "large", 5 << 20))
        come, allowed = len(asker.hear().payload[0]), 1 << 20
        cluster.coordinator.shutdown_host(1, grace=LONG)
        wait_until(lambda: server_of(1)._answering.dispatch.leaving)
        while come < 5 << 20:
            allowed += 1 << 18
            asker.say(Credit(1, 0, allowed))
            while come < min(allowed - (1 << 18), 5 << 20):
                come += len(asker.hear().payload[0])
    wait_until(lambda: sorted(cluster.coordinator.hosts) == [0, 2])


# ---------------------------------------------------------------------------------- where the door is not reached


@pytest.fixture
def shut() -> Iterator[LocalCluster]:
    """A cluster that tells a port for its door at which nobody listens, as behind a firewall that lets one through."""
    switches.reset()
    with bind_tcp("127.0.0.1") as closed:
        port = closed.getsockname()[1]
    with local_cluster(Probe(), PAIRS) as made:
        made.coordinator._membership.meta["relay_port"] = port
        made.coordinator._membership._view = None
        wait_until(lambda: all(server._life.registered for server in switches.servers))
        for server in switches.servers:
            server._life.door = f"tcp://127.0.0.1:{port}"
        yield made
        switches.gate.set()


@pytest.mark.parametrize("face", sorted(FACES))
def test_a_door_that_cannot_be_reached_is_done_without(shut, face, caplog):
    """[5.7]: by members and by clients; who looks at the log learns once why it takes longer."""
    options = ClientOptions(timeout=LONG, route="relay")
    with (
        caplog.at_level(logging.INFO, "spark_partition_server.client"),
        FACES[face](shut.coordinator.get_url(), shut.coordinator.run_id, options) as made,
    ):
        assert [made.call(rank, "rank") for rank in (0, 1, 2, 1)] == [0, 1, 2, 1]
        assert made.call(1, "echo", bytes(1_000_000)) == [[bytes(1_000_000)], {}]
    told = [record for record in caplog.records if "relay's door" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert lanes(shut) == []


def test_a_range_of_one_port_leaves_none_for_the_door(caplog):
    """The relay goes on without it, and the driver's log says why it is slower."""
    switches.reset()
    port = get_open_port()
    with (
        caplog.at_level(logging.WARNING),
        local_cluster(Probe(), PAIRS, options=ClusterOptions(ports=(port, port))) as one,
    ):
        assert one.client(timeout=LONG, route="relay").call_all("rank") == [0, 1, 2]
        assert lanes(one) == []
    assert "no port for the relay's door" in caplog.text


# ----------------------------------------------------------------------------------------- who does not keep to it


def test_a_client_that_floods_and_never_reads_delays_nobody(cluster):
    """[8.46], [8.49]: what waits for it is bounded, its calls are answered for, and control and others go on."""
    client = attached(cluster, 0, 1, 2)
    at_door = cluster.coordinator._loop._door
    at_door._backlog_bytes = 4 << 20  # of the next connection
    with Asker(cluster, door=True, buffer=4096) as asker:
        flooding = threading.Event()

        def flood():
            call_id = 0
            asker.raw.plain.settimeout(0.2)
            try:
                while not flooding.is_set():
                    call_id += 1
                    asker.say(asker.ask(call_id, "large", 100_000, rank=call_id % 3))
            except (TimeoutError, OSError):
                flooding.wait(LONG)  # nobody reads from it any more

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            wait_until(lambda: max(one.outbox_bytes for one in list(at_door._connections)) > 1 << 20)
            started = time.monotonic()
            assert [client.call(number % 3, "rank") for number in range(100)] == [number % 3 for number in range(100)]
            for _ in range(20):  # control answers, too
                client._routes.refresh(time.monotonic(), time.monotonic() + LONG)
            assert time.monotonic() - started < LONG / 2
            most = max(one.outbox_bytes for one in list(at_door._connections))
            assert most < 5 << 20
        finally:
            flooding.set()
            thread.join(LONG)
    wait_until(lambda: cluster.coordinator._relaying.calls == 0)
    assert sorted(cluster.coordinator.hosts) == [0, 1, 2]


def test_a_bug_behind_the_door_ends_one_connection(cluster, caplog):
    """The loop is everybody's: heartbeats, and all that others relay, go on."""
    client = attached(cluster, 1)
    rules = cluster.coordinator._relaying
    handlers = dict(rules._handlers)

    def fail(*_):
        raise KeyError("not thought of")

    with Asker(cluster, door=True) as asker:
        rules._handlers[codec.preamble(Kind.PART, asker.run_id)] = fail
        asker.say(Part(1, 0, 9, (b"x",)))
        with pytest.raises(EOFError):
            asker.hear()
    rules._handlers = handlers
    assert client.call(1, "rank") == 1
    assert cluster.coordinator._loop.alive
    assert "a bug of this library" in caplog.text


def test_a_handshake_that_does_not_end_is_cut_off(cluster):
    """Nobody holds a connection to the door without speaking the protocol."""
    with Raw((cluster.coordinator.address[0], cluster.coordinator._relay_port), shake=False) as silent:
        silent.plain.settimeout(LONG)
        assert silent.read_to_the_end() > 0  # its own half of the handshake, and then the end
