"""Our ZMTP engine over plain blocking sockets against real libzmq, in both directions, over tcp and Unix sockets.

libzmq does its part in an I/O thread of its own, so both ends are driven from the one thread of the test.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from support.interop import PATIENCE, RECEIVE_BYTES, Lane, Libzmq, Listener, connect

from spark_partition_server.errors import RemoteProtocolError


@pytest.fixture
def libzmq() -> Iterator[Libzmq]:
    made = Libzmq()
    yield made
    made.close()


@pytest.fixture(params=["tcp", "ipc"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def address() -> Iterator[str]:
    """A path for a Unix socket; pytest's own folders can be too long for one."""
    with tempfile.TemporaryDirectory(prefix="sps") as folder:
        yield str(Path(folder) / "lane")


@pytest.fixture
def listener(transport: str, address: str) -> Iterator[Listener]:
    made = Listener(transport, address)
    yield made
    made.close()


@pytest.fixture
def router(libzmq: Libzmq, transport: str, address: str) -> zmq.Socket:
    """A bound libzmq ROUTER."""
    made = libzmq(zmq.ROUTER)
    made.bind("tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{address}")
    return made


@pytest.fixture
def dealer_lane(router: zmq.Socket) -> Iterator[Lane]:
    """A lane of ours to ``router``, closed when the test is over."""
    lane = connect(router)
    yield lane
    lane.plain.close()


def pattern(size: int) -> bytes:
    """Octets in which a lost or doubled piece would be seen."""
    return (b"%07d." * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size]


MESSAGES: dict[str, list[bytes]] = {
    "small": [b"hello"],
    "empty": [b""],
    "empty frames": [b"", b"", b""],
    "255": [pattern(255)],
    "256": [pattern(256)],
    "255 and 256": [pattern(255), pattern(256), pattern(255)],
    "100 kB": [b"head", pattern(100_000), b"tail"],
    "5 MB": [b"head", pattern(5_000_000)],
    "60 frames": [pattern(size) for size in range(60)],
    "60 long frames": [pattern(9000 + size) for size in range(60)],
}


# ----------------------------------------------------------------------------- our client, libzmq's server


@pytest.mark.parametrize("vector", [False, True], ids=["joined", "vector"])
def test_our_dealer_and_a_libzmq_router_understand_each_other(router, dealer_lane, vector):
    """Each message there and back, octet for octet, and then all of them at once."""
    for frames in MESSAGES.values():
        dealer_lane.send(frames, vector=vector)
        sender, *arrived = router.recv_multipart()
        assert arrived == frames
        router.send_multipart([sender, *arrived])
        assert dealer_lane.receive() == frames
    for frames in MESSAGES.values():
        dealer_lane.send(frames, vector=vector)
    for frames in MESSAGES.values():
        sender, *arrived = router.recv_multipart()
        assert arrived == frames
        router.send_multipart([sender, *arrived])
    assert [dealer_lane.receive() for _ in MESSAGES] == list(MESSAGES.values())


def test_two_of_our_dealers_are_two_senders_to_a_libzmq_router(router, dealer_lane):
    """We announce an empty identity, so libzmq gives each connection its own."""
    second = connect(router)
    try:
        dealer_lane.send([b"first"])
        second.send([b"second"])
        senders = {body: sender for sender, body in (router.recv_multipart() for _ in range(2))}
        assert set(senders) == {b"first", b"second"}
        router.send_multipart([senders[b"second"], b"to the second"])
        assert second.receive() == [b"to the second"]
    finally:
        second.plain.close()


def test_our_dealer_and_a_libzmq_rep_understand_each_other(libzmq):
    """A REP socket wants the empty frame of RFC 28 in front."""
    bound = libzmq(zmq.REP)
    bound.bind("tcp://127.0.0.1:*")
    lane = connect(bound)
    try:
        lane.send([b"", b"question"])
        assert bound.recv() == b"question"
        bound.send(b"answer")
        assert lane.receive() == [b"", b"answer"]
    finally:
        lane.plain.close()


# ----------------------------------------------------------------------------- libzmq's client, our server


@pytest.mark.parametrize("vector", [False, True], ids=["joined", "vector"])
def test_a_libzmq_dealer_and_our_router_understand_each_other(libzmq, listener, vector):
    """Each message there and back, octet for octet, and then all of them at once."""
    dealer = libzmq(zmq.DEALER)
    dealer.connect(listener.endpoint)
    lane = listener.accept()
    for frames in MESSAGES.values():
        dealer.send_multipart(frames)
        assert lane.receive() == frames
        lane.send(frames, vector=vector)
        assert dealer.recv_multipart() == frames
    for frames in MESSAGES.values():
        dealer.send_multipart(frames)
    for frames in MESSAGES.values():
        assert lane.receive() == frames
        lane.send(frames, vector=vector)
    assert [dealer.recv_multipart() for _ in MESSAGES] == list(MESSAGES.values())


def test_a_libzmq_req_and_our_router_understand_each_other(libzmq, listener):
    """REQ puts an empty frame in front of a request and wants it back in front of the reply."""
    requester = libzmq(zmq.REQ)
    requester.connect(listener.endpoint)
    lane = listener.accept()
    for frames in MESSAGES.values():
        requester.send_multipart(frames)
        delimiter, *arrived = lane.receive()
        assert delimiter == b""
        assert arrived == frames
        lane.send([delimiter, *arrived])
        assert requester.recv_multipart() == frames


def test_the_identity_of_a_libzmq_dealer_is_in_the_metadata(libzmq, listener):
    """ZMQ_ROUTING_ID travels in READY."""
    dealer = libzmq(zmq.DEALER)
    dealer.routing_id = b"i am a dealer"
    dealer.connect(listener.endpoint)
    lane = listener.accept()
    lane.shake_hands()
    assert lane.engine.metadata == {b"socket-type": b"DEALER", b"identity": b"i am a dealer"}


# ------------------------------------------------------------------------------------------ heartbeats

PINGS = 13  # at one in 100 ms more than the second after which libzmq cuts a silent connection


@pytest.fixture
def beating(libzmq: Libzmq, listener: Listener) -> tuple[zmq.Socket, Lane]:
    """A libzmq DEALER that pings every 100 ms and hangs up after a second of silence, and our end of it."""
    dealer = libzmq(zmq.DEALER)
    dealer.heartbeat_ivl, dealer.heartbeat_timeout, dealer.heartbeat_ttl = 100, 1000, 5000
    dealer.connect(listener.endpoint)
    return dealer, listener.accept()


def test_our_pongs_keep_a_connection_that_libzmq_watches(beating):
    """Longer than its HEARTBEAT_TIMEOUT nothing but PING and PONG passes, and then a message still does."""
    dealer, lane = beating
    while lane.pongs_sent < PINGS:
        lane.step()
    dealer.send(b"still here")
    assert lane.receive() == [b"still here"]
    lane.send([b"so am I"])
    assert dealer.recv() == b"so am I"


def test_libzmq_hangs_up_when_no_pong_comes(beating):
    """The counter-proof of the test above: without our PONGs the connection does end."""
    _, lane = beating
    lane.shake_hands()
    while lane.plain.recv(RECEIVE_BYTES):
        pass


def test_libzmq_answers_our_ping(router, dealer_lane):
    """The PONG carries our context; a message behind it arrives as ever."""
    dealer_lane.shake_hands()
    for context in (b"", b"0123456789abcdef"):
        dealer_lane.plain.sendall(dealer_lane.engine.ping(10.0, context))
        while not dealer_lane.engine.pongs:
            dealer_lane.step()
        assert dealer_lane.engine.pongs.pop() == context
    dealer_lane.send([b"x"])
    assert router.recv_multipart()[1:] == [b"x"]


def test_pings_of_libzmq_come_between_the_frames_of_a_message(libzmq, listener):
    """libzmq's heartbeat timer does not wait for the end of a message; a request with large arrays meets it."""
    dealer = libzmq(zmq.DEALER)
    dealer.heartbeat_ivl, dealer.heartbeat_timeout = 1, int(PATIENCE * 1000)
    dealer.connect(listener.endpoint)
    lane = listener.accept()
    frames = [pattern(300_000)] * 40
    for _ in range(100):
        dealer.send_multipart(frames, copy=False)
        assert lane.receive() == frames
        if lane.pongs_inside:
            break
    assert lane.pongs_inside
    lane.send([b"done"])
    assert dealer.recv() == b"done"


# -------------------------------------------------------------------------------------------- refusals


def read_all(lane: Lane) -> None:
    """Receives until the engine raises or libzmq hangs up."""
    while True:
        lane.step()


@pytest.mark.parametrize("kind", [zmq.PUSH, zmq.PUB, zmq.REP])
def test_a_libzmq_socket_of_the_wrong_type_is_refused(libzmq, listener, kind):
    """A stranger's PUSH socket on our port: RFC 28 allows only DEALER, REQ and ROUTER."""
    stranger = libzmq(kind)
    stranger.connect(listener.endpoint)
    lane = listener.accept(opening=64)  # without our READY: libzmq hangs up on it before we see its own
    with pytest.raises(RemoteProtocolError, match="socket"):
        read_all(lane)
    assert b"\x05ERROR" in lane.engine.output()


def test_a_libzmq_socket_with_another_mechanism_is_refused(libzmq, listener):
    """A client with a password meets a server without."""
    stranger = libzmq(zmq.DEALER)
    stranger.plain_username, stranger.plain_password = b"user", b"secret"
    stranger.connect(listener.endpoint)
    lane = listener.accept(opening=11)  # without our mechanism: libzmq hangs up on it before it has told its own
    with pytest.raises(RemoteProtocolError, match="PLAIN"):
        read_all(lane)


@pytest.mark.parametrize("kind", [zmq.PUSH, zmq.PUB, zmq.REP])
def test_libzmq_refuses_us_when_its_type_is_wrong(libzmq, listener, kind):
    """Whoever is first to see the other's type ends the connection; neither waits for ever."""
    stranger = libzmq(kind)
    stranger.connect(listener.endpoint)
    lane = listener.accept()
    with pytest.raises((RemoteProtocolError, EOFError, ConnectionError)):
        read_all(lane)


def test_our_dealer_refuses_a_libzmq_server_of_the_wrong_type(libzmq):
    """A client that was given the address of something else says so instead of waiting."""
    bound = libzmq(zmq.PULL)
    bound.bind("tcp://127.0.0.1:*")
    lane = connect(bound, opening=64)
    try:
        with pytest.raises(RemoteProtocolError, match="PULL"):
            read_all(lane)
    finally:
        lane.plain.close()
