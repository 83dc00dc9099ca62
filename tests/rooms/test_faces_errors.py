"""Every error that a call can end in, by each face of a client: its type, whether it is definite, and its words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.astray import lead_astray
from support.faces import Face
from support.lanes import serving
from support.probe import LONG, PAIRS, Page, Probe, switches
from support.wait import wait_until

from spark_partition_server import ClientOptions, ServerOptions, connect, connection_file
from spark_partition_server.core.dispatch import Dispatch
from spark_partition_server.errors import (
    CallError,
    CallTimeout,
    ClusterClosed,
    CoordinatorLost,
    HandlerError,
    InvalidArguments,
    JobFailed,
    MessageTooLarge,
    MethodNotFound,
    Overloaded,
    RemoteProtocolError,
    SparkPartitionServerError,
    Unavailable,
)
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Error, Kind, Refuse, Reply

ENDPOINT = r"tcp://127\.0\.0\.1:\d+"


def failing(call: Callable[[], Any], kind: type[CallError], text: str) -> CallError:
    """The error of a call of partition 1, whose text matches ``text`` and says who and where."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert type(error) is kind
    assert error.rank == 1
    assert re.search(text, str(error), re.DOTALL), str(error)
    assert "partition 1" in str(error)
    assert f"method {error.method!r}" in str(error)
    return error


# ------------------------------------------------------------------------------------- one error each


def test_call_timeout(face):
    """A method that takes longer than the call allows."""
    text = f"{ENDPOINT}.*no answer within 0.1 s; it may still run"
    error = failing(lambda: face.call(1, "wait", timeout=0.1), CallTimeout, text)
    assert isinstance(error, TimeoutError)
    assert not error.definite


def test_unavailable_when_nobody_serves(cluster, face):
    """The server left and nobody took its place; the others are served on."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    error = failing(lambda: face.call(1, "get", "b", timeout=0.3), Unavailable, "nobody serves it in view [0-9]+")
    assert isinstance(error, ConnectionError)
    assert error.definite
    assert error.endpoint is None
    assert face.call(2, "get", "c") == 3


def test_unavailable_when_the_server_cannot_be_reached(cluster, face_type):
    """A view that leads to a closed port, nobody who knows better, and no other way that may be taken."""
    with serving() as gone:
        endpoint = f"tcp://127.0.0.1:{gone.address[1]}"
    options = ClientOptions(timeout=LONG, route="direct")
    text = f"{endpoint}.*cannot connect.*refused"
    with face_type(cluster.coordinator.get_url(), cluster.coordinator.run_id, options) as face:
        lead_astray(cluster, face, gone.address[1])
        error = failing(lambda: face.call(1, "get", "b", timeout=0.3), Unavailable, text)
    assert error.definite
    assert error.endpoint == endpoint


def test_unavailable_when_the_server_leaves(cluster, face):
    """It answers what is under way and no more; the call looks for another server until its deadline."""
    face.call(1, "rank")
    (server,) = [one for one in switches.servers if one.partition_ind == 1]
    server._answering.dispatch.leaving = True
    text = f"{ENDPOINT}.*partition 1 is shutting down"
    error = failing(lambda: face.call(1, "rank", timeout=0.3), Unavailable, text)
    assert error.definite


def test_overloaded(face, monkeypatch):
    """The server refuses for lack of room: the call is tried again until its deadline, and then told."""
    tries = 0

    def admit(self: Dispatch, fields: codec.Fields, received: float, now: float) -> Error:
        nonlocal tries
        tries += 1
        return Error(fields[0], Code.OVERLOADED, "eleven requests wait")

    monkeypatch.setattr(Dispatch, "admit", admit)
    error = failing(lambda: face.call(1, "get", "b", timeout=0.3), Overloaded, f"{ENDPOINT}.*eleven requests wait")
    assert error.definite
    assert tries > 1


@pytest.mark.parametrize("name", ["nothing", "not_a_method", "init_partition", "__init__", "_cut", "x" * 256])
def test_method_not_found(face, name):
    """Only what is marked can be called; the error lists what there is."""
    error = failing(lambda: face.call(1, name), MethodNotFound, f"{ENDPOINT}.*no such method; there are: cut, .*echo")
    assert error.definite
    assert error.method == name


def test_method_not_found_where_the_server_takes_no_calls():
    """Servers of the HTTP kind."""
    with local_cluster(Page(), [[], []]) as cluster:
        client = cluster.client()
        error = failing(lambda: client.call(1, "get"), MethodNotFound, "127.0.0.1:80.*takes no calls.*QueryServer")
        assert error.definite


@pytest.mark.parametrize("partition", [-1, 3, 1 << 40])
def test_invalid_arguments_when_there_is_no_such_partition(face, partition):
    """The text says how many there are."""
    text = f"partition {partition}.*no such partition; the cluster has 3"
    with pytest.raises(InvalidArguments, match=text) as caught:
        face.call(partition, "get", "b")
    assert caught.value.definite


@pytest.mark.parametrize(("args", "kwargs", "text"), [
    ((), {}, "missing a required argument: 'key'"),
    (("b", 2), {}, "too many positional arguments"),
    (("b",), {"more": 2}, "unexpected keyword argument 'more'"),
    (("b",), {"key": 2}, "multiple values for argument 'key'"),
])  # fmt: skip
def test_invalid_arguments_when_they_do_not_fit(face, args, kwargs, text):
    """They never reach the method."""
    text = f"{ENDPOINT}.*do not fit: .*{text}"
    error = failing(lambda: face.call(1, "get", *args, **kwargs), InvalidArguments, text)
    assert error.definite


@pytest.mark.parametrize(("args", "kwargs", "text"), [
    ((1, object()), {}, r"args\[1\] is of type builtins.object"),
    (({"x": [1, {2}]},), {}, r"args\[0\]\['x'\]\[1\] is of type builtins.set"),
    ((), {"k": 1 << 64}, r"kwargs\['k'\] is an int of 65 bits"),
])  # fmt: skip
def test_what_cannot_be_sent_is_a_type_error_that_names_it(face, args, kwargs, text):
    """Before anything is sent; for ``call_all`` too."""
    with pytest.raises(TypeError, match=text):
        face.call(1, "echo", *args, **kwargs)
    with pytest.raises(TypeError, match=text):
        face.call_all("echo", *args, **kwargs)


def test_handler_error(face):
    """Type, text and traceback of what the method raised; the error says all of it."""
    text = f"{ENDPOINT}.*raised ValueError: it broke"
    error = failing(lambda: face.call(1, "fail", "it broke"), HandlerError, text)
    assert isinstance(error, HandlerError)
    assert (error.remote_type, error.remote_message) == ("ValueError", "it broke")
    assert "probe.py" in error.remote_traceback
    assert "raise ValueError(text)" in str(error)
    assert "query_server.py" not in error.remote_traceback
    assert not error.definite
    assert face.call(1, "get", "b") == 2


# ------------------------------------------------------------------------------------- too large


@pytest.fixture
def small() -> Iterator[LocalCluster]:
    """Servers that take and give a hundred thousand octets."""
    switches.reset()
    with local_cluster(Probe(options=ServerOptions(message_bytes_max=100_000)), PAIRS) as made:
        yield made


def client_of(cluster: LocalCluster, face_type: type[Face], limit: int) -> Face:
    options = ClientOptions(timeout=3.0, message_bytes_max=limit)
    return face_type(cluster.coordinator.get_url(), cluster.coordinator.run_id, options)


def test_a_request_over_the_clients_limit(small, face_type):
    """Refused before it is sent, so it is definite."""
    with client_of(small, face_type, 50_000) as client:
        text = r"the request takes 60\d\d\d octets, the limit is 50000 \(ClientOptions.message_bytes_max\)"
        error = failing(lambda: client.call(1, "echo", bytes(60_000)), MessageTooLarge, text)
        assert error.definite
        with pytest.raises(MessageTooLarge):
            client.call_all("echo", bytes(60_000))


def test_a_reply_over_the_servers_limit(small, face_type):
    """The method has run; the server and its connections serve on."""
    with client_of(small, face_type, 1 << 20) as client:
        text = r"the reply takes 1000\d\d octets, the limit is 100000"
        error = failing(lambda: client.call(1, "large", 100_001), MessageTooLarge, text)
        assert not error.definite
        assert client.call(1, "get", "b") == 2


def test_a_reply_over_the_clients_limit(small, face_type):
    """Refused before its memory is spent: the same error, whoever's limit it is; the client can be used on."""
    with client_of(small, face_type, 10_000) as client:
        error = failing(lambda: client.call(1, "large", 90_000), MessageTooLarge, "limit")
        assert not error.definite
        assert client.call(1, "get", "b") == 2


def test_a_request_over_the_servers_limit(small, face_type):
    """A client that may send more than the server takes knows it from the view: nothing is sent."""
    text = r"the request takes 20\d\d\d\d octets, the limit is 100000 \(the servers' ServerOptions.message_bytes_max\)"
    with client_of(small, face_type, 10 << 20) as client:
        client.refresh()
        error = failing(lambda: client.call(1, "echo", bytes(200_000)), MessageTooLarge, text)
        assert error.definite
        with pytest.raises(MessageTooLarge, match=text):
            client.call_all("echo", bytes(200_000))
        assert client.call(1, "get", "b") == 2


def test_messages_of_exactly_the_limit_pass(small, face_type):
    """Both ways, where client and server have the same limit; one octet more is an error of the right kind."""
    with client_of(small, face_type, 100_000) as client:
        largest = bytes(100_000 - 5)  # behind one octet of type and four of size
        assert client.call(1, "large", len(largest)) == largest
        with pytest.raises(MessageTooLarge, match="the reply takes 100001 octets"):
            client.call(1, "large", len(largest) + 1)
        largest = bytes(100_000 - 8)  # two lists and a map around it
        assert client.call(1, "echo", largest) == [[largest], {}]
        with pytest.raises(MessageTooLarge, match="the request takes 100001 octets"):
            client.call(1, "echo", largest + b"x")


# ------------------------------------------------------------------------------------- the cluster is over


def test_a_cluster_that_stops(cluster, face):
    """Nobody serves any more and the coordinator says so."""
    cluster.coordinator.shutdown_hosts("maintenance")
    wait_until(lambda: not cluster.coordinator.hosts)
    with pytest.raises(ClusterClosed, match="maintenance"):
        face.call(1, "get", "b")


def test_a_job_that_failed(cluster, face):
    """The driver says why nobody serves any more."""
    cluster.coordinator.fail("the job was killed: out of memory")
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    with pytest.raises(JobFailed, match="out of memory"):
        face.call(1, "get", "b")


def test_a_coordinator_that_is_gone(cluster):
    """The driver was killed; its connection file is still there."""
    with serving() as gone:
        pass
    endpoint = f"tcp://127.0.0.1:{gone.address[1]}"
    path = connection_file.write(connection_file.Connection(endpoint, bytes(8)))
    try:
        with pytest.raises(CoordinatorLost, match=f"{endpoint} does not answer.*refused.*is the driver running"):
            connect(path, timeout=1.0)
    finally:
        connection_file.remove(path)


def test_a_coordinator_that_hangs(cluster):
    """Its port accepts and nobody answers: known by the deadline."""
    with serving(lambda frames, received, caller: None) as hung:
        endpoint = f"tcp://127.0.0.1:{hung.address[1]}"
        path = connection_file.write(connection_file.Connection(endpoint, bytes(8)))
        try:
            with pytest.raises(CoordinatorLost, match="no answer by the deadline"):
                connect(path, timeout=0.3)
        finally:
            connection_file.remove(path)


def test_a_coordinator_of_another_run(cluster):
    """The file is old, and the port belongs to another cluster by now: no hang, and the text says what to do."""
    path = connection_file.write(connection_file.Connection(cluster.coordinator.get_url(), b"old run!"))
    try:
        with pytest.raises(ClusterClosed, match="another run"):
            connect(path, timeout=1.0)
    finally:
        connection_file.remove(path)


# ---------------------------------------------------------------------------------- a server gone mad


REPLY_1 = Reply(1, (b"\xc0",))
ANSWERS: dict[str, Callable[[bytes, int], list[Any]]] = {
    "no message": lambda run, number: [b"garbage"],
    "not for this run": lambda run, number: codec.encode(REPLY_1, b"another!"),
    "no value": lambda run, number: codec.encode(Reply(number, (b"\xc1",)), run),
    "an array of nothing": lambda run, number: codec.encode(
        Reply(number, (codec.msgpack.packb(codec.msgpack.ExtType(1, b"\x90")),)), run
    ),
    "an array too few": lambda run, number: codec.encode(
        Reply(number, (codec.msgpack.packb(codec.msgpack.ExtType(1, codec.msgpack.packb([1, "<f8", [9], "C"]))),)), run
    ),
    "a request": lambda run, number: codec.request_frames(
        codec.preamble(Kind.REQUEST, run), (number, "get", 1, 1, 1), [b"\xc0"]
    ),
    "fields that are none": lambda run, number: [codec.preamble(Kind.REPLY, run), b"\xc1", b"\xc0"],
    "an unknown code": lambda run, number: codec.encode(Error(number, 4711, "an application's own"), run),
    "refused": lambda run, number: codec.encode(Refuse(Code.UNEXPECTED, "not now"), run),
    "refused for good": lambda run, number: codec.encode(Refuse(Code.CLOSED, "over"), run),
    "silence": lambda run, number: [],
    "another call": lambda run, number: codec.encode(Reply(number + 1, (b"\xc0",)), run),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_breaks_the_protocol(cluster, face, name):
    """Whatever it answers: a typed error by the deadline, and the client can be used on."""
    run_id = cluster.coordinator.run_id
    opening = codec.preamble(Kind.REQUEST, run_id)

    def answer(frames: Any, received: float, caller: Any) -> Any:
        if frames[0] != opening:  # a CANCEL: the client has given up
            return None
        return ANSWERS[name](run_id, codec.read_request(frames, opening, run_id)[0]) or None

    with serving(answer) as mad:
        lead_astray(cluster, face, mad.address[1])
        with pytest.raises(SparkPartitionServerError) as caught:
            face.call(1, "run", "x", timeout=0.5)
        assert isinstance(caught.value, (CallError, RemoteProtocolError, ClusterClosed))
        assert face.call(2, "get", "c") == 3
