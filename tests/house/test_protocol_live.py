"""A stranger with wire/PROTOCOL.md in his hand meets a running coordinator and a running server.

He has sockets, struct and msgpack. His octets are those of section 17, or are made here from sections 6 and 7.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
from types import SimpleNamespace

import msgpack
import pytest
from support import transcript
from support.lanes import Raw
from support.leaks import leaves_nothing
from support.octets import frame, message
from support.wait import wait_until

from spark_partition_server import (
    AuthenticationError,
    ClusterOptions,
    Coordinator,
    QueryServer,
    ServerOptions,
    connection_file,
    get_open_port,
    method,
)
from spark_partition_server.testing import local_cluster

__all__ = ["leaves_nothing"]

BLOCKS = transcript.spoken()
REFUSE, LOOKUP, VIEW, REQUEST, REPLY, ERROR = 7, 8, 4, 32, 33, 34


class Lookup(QueryServer):
    def init_partition(self, rows):
        self.values = dict(rows)

    @method(idempotent=True)
    def get(self, key):
        return self.values.get(key)

    @method
    def fail(self):
        raise KeyError("alice")

    @method
    def large(self):
        return bytes(200_000)


def preamble(kind, run_id):
    return struct.pack("!3sBBBH8s", b"SPS", 1, kind, 0, 0, run_id)


def read(frames):
    """Kind, fields and payload of a message."""
    return frames[0][4], msgpack.unpackb(frames[1]), frames[2:]


@pytest.fixture(scope="module")
def cluster():
    """Two partitions; partition 1 knows alice."""
    options = ServerOptions(message_bytes_max=100_000)
    with local_cluster(Lookup(options=options), [[("bob", 1)], [("alice", 42)]]) as running:
        for route in ("direct", "relay", "relay"):  # what first calls open is open before the first test
            running.client(route=route).call_all("get", "nobody")
        wait_until(lambda: len(running.coordinator._relaying._ledger.lanes) == 2)
        yield running


class Stranger:
    """A raw connection to one endpoint of a cluster, and the run id he has read in the connection file."""

    def __init__(self, endpoint, run_id):
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self.raw = Raw((host, int(port)))
        self.run_id = run_id

    def send(self, kind, fields, *payload, before=()):
        self.raw.send(*before, preamble(kind, self.run_id), msgpack.packb(fields), *payload)

    def ask(self, kind, fields, *payload):
        self.send(kind, fields, *payload)
        return read(self.raw.receive())

    def call(self, member, name="get", args=("alice",), kwargs=None, remaining_ms=1000, **others):
        fields = {"call_id": 7, "method": name, "remaining_ms": remaining_ms, "rank": member[0]}
        fields = {**fields, "incarnation": member[1], **others}
        return self.ask(REQUEST, list(fields.values()), msgpack.packb([args, kwargs or {}]))


@pytest.fixture
def stranger(cluster):
    """Makes connections, to the coordinator where no endpoint is named."""
    with open(cluster.connection_file, encoding="utf-8") as file:
        known = json.load(file)
    made = []

    def connect(endpoint=None):
        made.append(Stranger(endpoint or known["coordinator"], bytes.fromhex(known["run_id"])))
        return made[-1]

    yield connect
    for one in made:
        one.raw.plain.close()


@pytest.fixture
def member(stranger):
    """The entry of partition 1 in the view."""
    _, _, (members,) = stranger().ask(LOOKUP, [0])
    return msgpack.unpackb(members)[1]


# ---------------------------------------------------------------------------------------- the transcript


def test_the_transcript_is_what_a_coordinator_and_a_stranger_say():
    """Section 17: a server written from it joins, is found, and leaves; libzmq answers with these very frames."""
    one_port = (get_open_port(),) * 2  # which leaves none for the relay's door
    coordinator = Coordinator(1, False, transcript.TOKEN, options=ClusterOptions(ports=one_port), idempotent=["get"])
    coordinator.run_id = transcript.RUN_ID
    coordinator.start()
    try:
        with Raw(coordinator.address, shake=False) as one, Raw(coordinator.address) as client:
            open_it(one)
            expect(one, "M>C", "HELLO", "C>M", "WELCOME")
            expect(client, "K>C", "LOOKUP", "C>K", "VIEW")
            expect(one, "M>C", "HEARTBEAT", "C>M", "HEARTBEAT")
            coordinator.shutdown_hosts("the cluster stops", 1.0)
            assert message(one.receive()) == BLOCKS["C>M", "SHUTDOWN"]
            one.plain.sendall(BLOCKS["M>C", "GOODBYE"])
            assert coordinator.wait(lambda: not coordinator.hosts, 10.0)
    finally:
        coordinator.shutdown()


def open_it(raw):
    """The opening of the transcript, there and back; returns what came back."""
    raw.plain.sendall(BLOCKS["M>C", "opening"])
    octets = b""
    while not raw.engine.ready:
        data = raw.plain.recv(4096)
        assert raw.engine.receive(data) == []
        octets += data
    return octets


def expect(raw, way, title, back, answer):
    raw.plain.sendall(BLOCKS[way, title])
    assert message(raw.receive()) == BLOCKS[back, answer]


def test_the_transcript_is_what_a_server_answers():
    """[7.33.1] and section 17: the request gets the reply, to the octet."""
    coordinator = Coordinator(1, False, transcript.TOKEN)
    coordinator.run_id = transcript.RUN_ID
    coordinator.start()
    server = Lookup()
    server.set_coordinator_url(coordinator.get_url())
    server.set_token(transcript.TOKEN)
    server.set_run(transcript.RUN_ID, None)
    who = SimpleNamespace(rank=0, attempt=0, incarnation=7, job_group=None)
    thread = threading.Thread(target=lambda: list(server(0, [("alice", 42)], who)))
    thread.start()
    try:
        assert coordinator.wait(lambda: bool(coordinator.full_cluster), 30.0)
        with Raw(coordinator.hosts[0], shake=False) as raw:
            assert open_it(raw) == BLOCKS["C>M", "opening"]
            expect(raw, "K>S", "REQUEST", "S>K", "REPLY")
    finally:
        coordinator.shutdown_hosts()
        thread.join(30.0)
        coordinator.shutdown()


# ------------------------------------------------------------------------------------------ the coordinator


def test_a_delimiter_in_front_of_a_message_to_the_coordinator_is_dropped(stranger):
    """[5.1] and [13.2]: no answer to it, and the next message on the same connection gets one."""
    one = stranger()
    one.send(LOOKUP, [0], before=[b""])
    kind, (number, size, _), _ = one.ask(LOOKUP, [99])
    assert (kind, size) == (VIEW, 2)
    assert number >= 2
    assert one.raw.waiting == []


def test_a_stranger_to_the_coordinator_who_sends_a_reply_learns_it(stranger):
    """[13.1], last row: what only servers send is nothing for the coordinator."""
    kind, (code, text), _ = stranger().ask(REPLY, [1], b"\xc0")
    assert (kind, code) == (REFUSE, 21)
    assert "REPLY" in text


def test_a_request_to_the_coordinator_is_relayed_to_the_member_it_names(stranger, member):
    """[8.40], [8.44]: by a client that knows nothing of this library but the document."""
    one = stranger()
    kind, fields, _ = one.ask(REQUEST, [1, "get", 1000, member[0], member[1] + 1], b"\x92\x91\xa5alice\x80")
    assert (kind, fields[:2]) == (ERROR, [1, 2])
    kind, fields, _ = one.ask(REQUEST, [2, "get", 1000, member[0], member[1]], b"\x92\x91\xa5alice\x80")
    assert (kind, fields) == (REPLY, [2])


# ------------------------------------------------------------------------------------------------ the server


def test_a_value_comes_back_under_the_number_of_its_call(stranger, member):
    """[7.33.1] and [8.21]: two requests on one connection are told apart by nothing else."""
    one = stranger(member[5])
    for number in (0, 5, (1 << 64) - 1):
        assert one.call(member, call_id=number) == (REPLY, [number], [b"\x2a"])


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"rank": 0}, 2),
        ({"incarnation": 999}, 2),
        ({"rank": (1 << 64) - 1}, 2),
        ({"name": "none"}, 3),
        ({"args": (), "kwargs": {}}, 4),
        ({"kwargs": {"x" * 9000: 1}}, 4),
        ({"kwargs": {1: 1}}, 4),
        ({"name": "fail", "args": ()}, 7),
        ({"name": "large", "args": ()}, 20),
    ],
)
def test_a_request_that_cannot_be_answered_gets_its_error(stranger, member, changed, code):
    """[8.20], [8.21] and [7.34.1]: one ERROR with its call id, and the server goes on."""
    one = stranger(member[5])
    kind, (call_id, found, text, remote_type, detail, _), payload = one.call(member, **changed)
    assert (kind, call_id, found, payload) == (ERROR, 7, code, [])
    assert text
    if code == 7:
        assert (remote_type, text) == ("KeyError", "'alice'")
        assert detail.startswith("Traceback")
    assert one.call(member) == (REPLY, [7], [b"\x2a"])


@pytest.mark.parametrize("value", [None, [], [[]], [[], {}, 0], {"args": []}, [{}, []], [["alice"], []]])
def test_a_payload_that_is_not_arguments_is_an_invalid_argument(stranger, member, value):
    """[7.32.2]: an array of positional arguments and a map of named ones; anything else has a definite end."""
    one = stranger(member[5])
    kind, (_, code, *_), _ = one.ask(REQUEST, [7, "get", 1000, 1, member[1]], msgpack.packb(value))
    assert (kind, code) == (ERROR, 4)


def test_named_arguments_are_taken(stranger, member):
    """[7.32.2]: the second half of the payload."""
    assert stranger(member[5]).call(member, args=(), kwargs={"key": "alice"}) == (REPLY, [7], [b"\x2a"])


def test_an_answer_has_a_delimiter_if_and_only_if_its_request_had_one(stranger, member):
    """[6.6]: a REQ socket drops an answer without, a DEALER would take one for the preamble."""
    one = stranger(member[5])
    request = [preamble(REQUEST, one.run_id), msgpack.packb([7, "get", 1000, 1, member[1]]), b"\x92\x91\xa5alice\x80"]
    for before in ([], [b""], []):
        frames = one.raw.ask(*before, *request)
        assert frames[: len(before)] == before
        assert read(frames[len(before) :]) == (REPLY, [7], [b"\x2a"])


def test_a_message_over_the_limit_ends_the_connection(stranger, member):
    """[6.7]: at its header; nothing of it is waited for, nothing is answered."""
    one = stranger(member[5])
    one.raw.plain.sendall(frame(preamble(REQUEST, one.run_id), 1) + b"\x02" + (1 << 20).to_bytes(8, "big"))
    assert one.raw.read_to_the_end() == 0


def test_what_a_server_cannot_read_it_drops(stranger, member):
    """[13.2]: silence, and the connection stays."""
    one = stranger(member[5])
    opening = preamble(REQUEST, one.run_id)
    for wrong in ([b"x" * 16, b"", b""], [opening, b"\xc1", b""], [opening]):
        one.raw.send(*wrong)
    assert one.call(member) == (REPLY, [7], [b"\x2a"])
    assert one.raw.waiting == []


# ---------------------------------------------------------------------------------------- the file


def test_the_connection_file_is_its_owners_alone(monkeypatch):
    """[5.5]: what others may read they may use; what others may write leads to their cluster."""
    path = connection_file.write(connection_file.Connection("tcp://127.0.0.1:1", transcript.RUN_ID))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {
        "version": 1,
        "coordinator": "tcp://127.0.0.1:1",
        "run_id": transcript.RUN_ID.hex(),
    }
    assert connection_file.read(path).run_id == transcript.RUN_ID
    for mode in (0o640, 0o604, 0o620, 0o601):
        path.chmod(mode)
        with pytest.raises(AuthenticationError, match="0600"):
            connection_file.read(path)
    path.chmod(0o600)
    foreign = SimpleNamespace(st_uid=os.getuid() + 1, st_mode=stat.S_IFREG | 0o600)
    with monkeypatch.context() as patched:
        patched.setattr(connection_file.os, "fstat", lambda descriptor: foreign)
        with pytest.raises(AuthenticationError, match="belongs to user"):
            connection_file.read(path)
    connection_file.remove(path)
    assert not path.parent.exists()
