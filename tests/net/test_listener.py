"""The server side of the direct lane in conversation: over real sockets on loopback, clients driven by hand."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import zmq
from support.lanes import LONG, Raw, echo, patterned, serving
from support.octets import GREETING, command, handshake, message
from support.wait import wait_until

from spark_partition_server.net.endpoints import bind_tcp, bind_unix
from spark_partition_server.net.lane import HEAD_BYTES_MAX
from spark_partition_server.net.listener import Listener

LOCAL = "127.0.0.1"


def much_waits(listener: Listener) -> bool:
    """Whether an answer has been given that the kernel did not take whole."""
    return any(one.outbox_bytes > 1 << 20 for one in list(listener._connections))


# ------------------------------------------------------------------------------------- asking, answering


def test_a_request_that_comes_octet_by_octet_is_answered():
    """The network may cut anywhere: in the greeting, in a size, in a body."""
    with serving() as served, served.raw(shake=False) as client:
        client.plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        octets = handshake(b"DEALER") + message([b"a", b"", patterned(300)])
        for index in range(len(octets)):
            client.plain.sendall(octets[index : index + 1])
        assert client.receive() == [b"a", b"", patterned(300)]


def test_pipelined_requests_are_answered_in_order():
    """A thousand requests leave before the first answer is read; sizes around every threshold are among them."""
    sizes = [0, 1, 255, 256, 8191, 8192, 32768, 70_000]
    requests = [[b"%d" % number, patterned(sizes[number % len(sizes)])] for number in range(1000)]
    with serving() as served, served.raw() as client:
        octets = b"".join(map(message, requests))
        sender = threading.Thread(target=client.plain.sendall, args=(octets,))
        sender.start()
        assert [client.receive() for _ in requests] == requests
        sender.join(LONG)


@pytest.mark.parametrize("size", [1 << 20, 40 << 20])
def test_large_messages_pass_both_ways(size):
    """Larger than any buffer of the kernel: written and read in many parts."""
    large = patterned(size)
    with serving() as served, served.raw() as client:
        sender = threading.Thread(target=client.send, args=(b"head", large, b"", large[:70_000]))
        sender.start()
        assert client.receive() == [b"head", large, b"", large[:70_000]]
        sender.join(LONG)


def test_an_answer_function_may_be_silent():
    """None is no answer; the connection serves on."""
    with (
        serving(lambda frames, received, caller: None if frames == [b"hush"] else frames) as served,
        served.raw() as client,
    ):
        client.send(b"hush")
        assert client.ask(b"speak") == [b"speak"]


def test_an_answer_function_learns_when_the_message_was_read():
    """The time allowed for a request counts from there; time never runs backwards."""
    times: list[float] = []

    def answer(frames, received, caller):
        times.append(received)
        return frames

    with serving(answer) as served, served.raw() as client:
        for _ in range(3):
            client.ask(b"x")
    assert times == sorted(times)


def test_the_envelope_of_a_request_goes_back_before_the_answer():
    """REQ sockets put an empty frame in front; an empty frame alone is no request and ends nothing."""
    seen: list[list[bytes]] = []

    def answer(frames, received, caller):
        seen.append([bytes(frame) for frame in frames])
        return [b"answer"]

    with serving(answer) as served, served.raw() as client:
        assert client.ask(b"", b"question") == [b"", b"answer"]
        client.send(b"")
        assert client.ask(b"question", b"") == [b"answer"]
    assert seen == [[b"question"], [b"question", b""]]


def test_a_libzmq_req_socket_is_served():
    """The simplest client there is in any language."""
    context = zmq.Context()
    with serving() as served:
        try:
            with context.socket(zmq.REQ) as client:
                client.rcvtimeo, client.linger = int(LONG * 1000), 0
                client.connect(f"tcp://{LOCAL}:{served.address[1]}")
                for _ in range(3):
                    client.send_multipart([b"one", b"two"])
                    assert client.recv_multipart() == [b"one", b"two"]
        finally:
            context.term()


def test_several_addresses_are_served_by_one_listener(tmp_path: Path):
    """A Unix socket for this host, IPv4 and IPv6 for the others."""
    tmp_path.chmod(0o700)
    path = tmp_path / "s"
    listening = [bind_unix(path), bind_tcp(LOCAL), bind_tcp("::1")]
    with (
        serving(echo, listening),
        Raw(path) as one,
        Raw(listening[1].getsockname()) as two,
        socket.create_connection(listening[2].getsockname()[:2]) as three,
    ):
        assert one.ask(b"unix") == [b"unix"]
        assert two.ask(b"tcp") == [b"tcp"]
        three.sendall(handshake(b"DEALER") + message([b"six"]))
        three.settimeout(LONG)
        data = b""
        while not data.endswith(message([b"six"])):
            data += three.recv(4096)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("octets", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes.fromhex("160301020001fc0303") + bytes(100),
    b"\x01\x00" + bytes(62),
    GREETING[:12] + b"CURVE" + bytes(47),
    handshake(b"PUSH"),
    handshake(b"PUB"),
    GREETING + command(b"HELLO", bytes(20)),
    GREETING + message([b"a message before READY"]),
    bytes(100_000),
], ids=["http", "tls", "zmtp 1", "curve", "push", "pub", "no ready", "early message", "zeros"])  # fmt: skip
def test_strangers_are_cut_off_and_others_are_served(octets):
    """Whoever speaks something else, or is a socket of the wrong type."""
    with serving() as served, served.raw() as client, served.raw(shake=False) as stranger:
        stranger.plain.sendall(octets)
        assert stranger.read_to_the_end() < 300
        assert client.ask(b"x") == [b"x"]
        wait_until(lambda: served.listener.connections == 1)


@pytest.mark.parametrize("octets", [
    b"\x02" + (10**12).to_bytes(8, "big"),
    b"\x02" + (HEAD_BYTES_MAX + 1001).to_bytes(8, "big"),
    message([bytes(60_000), bytes(6_600)]),
    message([b"x"] * 65),
    b"\x01\x00" * 65,
    b"\x08\x00",
    b"\x05\x00",
    b"\x04\x00",
    b"\x06" + (5000).to_bytes(8, "big"),
], ids=[
    "a terabyte", "an octet too many", "too much in two frames", "65 frames", "65 empty frames and more",
    "reserved flag", "command with more", "command without name", "huge command",
])  # fmt: skip
def test_a_message_over_a_limit_or_against_the_rules_ends_its_connection_only(octets):
    """Before any memory is spent on it; whatever else is being served goes on."""
    with serving(message_bytes_max=1000) as served, served.raw() as client, served.raw() as offender:
        offender.plain.sendall(octets)
        offender.read_to_the_end()
        assert client.ask(b"x") == [b"x"]
        wait_until(lambda: served.listener.connections == 1)


def test_a_message_of_exactly_the_limit_is_taken():
    """The limit is the payload's; preamble and fields stand before it and must not count."""
    with serving(message_bytes_max=100_000) as served, served.raw() as client:
        frames = [bytes(16), bytes(60_000), bytes(100_000)]
        assert client.ask(*frames) == frames
        assert client.ask(*[b"x"] * 64) == [b"x"] * 64


def test_one_connection_more_than_the_most_is_closed_at_once():
    """It learns that there is no room by the end of its connection; when somebody leaves there is room again."""
    with serving(connections_max=2) as served, served.raw() as one, served.raw() as two:
        with served.raw(shake=False) as three:
            assert three.read_to_the_end() == 0
        assert one.ask(b"1") == [b"1"]
        assert two.ask(b"2") == [b"2"]
        one.close()
        wait_until(lambda: served.listener.connections == 1)
        with served.raw() as four:
            assert four.ask(b"4") == [b"4"]


# ------------------------------------------------------------------------------------------- stopping


def test_stop_gives_waiting_answers_their_grace():
    """Sixteen megabytes are on their way when the stop comes from another thread: all of them arrive."""
    large = bytes(16 << 20)
    with serving(lambda frames, received, caller: [large]) as served, served.raw(buffer=1 << 16) as client:
        client.send(b"x")
        wait_until(lambda: much_waits(served.listener))
        served.listener.stop(grace=LONG)
        assert client.receive() == [large]
        assert client.read_to_the_end() == 0
        assert served.ended()


@pytest.mark.parametrize("grace", [0.0, 0.2])
def test_stop_does_not_wait_longer_than_the_grace_for_a_client_that_does_not_read(grace):
    """Its answer is cut off, and ``serve`` returns."""
    large = bytes(16 << 20)
    with serving(lambda frames, received, caller: [large]) as served, served.raw(buffer=1 << 16) as client:
        client.send(b"x")
        wait_until(lambda: much_waits(served.listener))
        served.listener.stop(grace)
        assert served.ended()
        assert client.read_to_the_end() < len(large)


def test_after_stop_nobody_is_accepted_and_the_port_is_free():
    """While old answers have their grace, too."""
    large = bytes(16 << 20)
    with serving(lambda frames, received, caller: [large]) as served, served.raw(buffer=1 << 16) as client:
        client.send(b"x")
        wait_until(lambda: much_waits(served.listener))
        served.listener.stop(grace=LONG)

        def refused() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(served.address) != 0

        wait_until(refused)
        assert client.receive() == [large]
    with bind_tcp(LOCAL, (served.address[1], served.address[1])):
        pass


def test_stop_is_harmless_twice_and_after_the_end():
    """Also from several threads at once."""
    with serving() as served:
        threads = [threading.Thread(target=served.listener.stop) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert served.ended()
        served.listener.stop()
        assert served.listener.connections == 0


def test_stop_before_serve_makes_serve_return():
    """A server that is told to leave while it still starts."""
    bound = bind_tcp(LOCAL)
    listener = Listener([bound], echo, 1000)
    listener.stop()
    listener.serve()
    assert bound.fileno() == -1


def test_stop_from_the_answer_function_lets_the_answer_out():
    """A method that ends its own server."""
    with serving() as served:

        def answer(frames, received, caller):
            served.listener.stop(grace=LONG)
            return [b"bye"]

        served.listener._answer = answer
        with served.raw() as client:
            assert client.ask(b"x") == [b"bye"]
            assert served.ended()


def test_a_listener_that_never_serves_holds_nothing():
    """The registration failed, so nobody will call ``serve``: only the socket it was given is to be closed."""
    bound = bind_tcp(LOCAL)
    Listener([bound], echo, 1000)
    bound.close()
