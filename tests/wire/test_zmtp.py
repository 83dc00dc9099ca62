"""The ZMTP engine, octet by octet, against the text of RFC 37/ZMTP 3.1 and of RFC 28/REQREP."""

from __future__ import annotations

import itertools

import pytest
from support.engines import engine, feed, ready_engine
from support.octets import COMMAND, GREETING, LONG, MORE, command, frame, greeting, handshake, message, metadata, ready

from spark_partition_server.errors import LocalProtocolError, RemoteProtocolError
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.zmtp import (
    COMMAND_BYTES_MAX,
    OUTPUT_BYTES_MAX,
    PING_CONTEXT_MAX,
    Engine,
    Limits,
    encode,
    encode_vector,
)

# ------------------------------------------------------------------------------------------- what we say


@pytest.mark.parametrize(
    ("socket_type", "ready_hex"),
    [
        (b"DEALER", "0429 05 5245414459 0b 536f636b65742d54797065 00000006 4445414c4552 08 4964656e74697479 00000000"),
        (b"ROUTER", "0429 05 5245414459 0b 536f636b65742d54797065 00000006 524f55544552 08 4964656e74697479 00000000"),
    ],
)
def test_an_engine_opens_with_the_greeting_and_ready_of_the_rfc(socket_type, ready_hex):
    """A wrong octet here and no libzmq peer would talk to us."""
    opening = engine(socket_type).output()
    assert len(opening[:64]) == 64
    assert opening[:10] == b"\xff\0\0\0\0\0\0\0\0\x7f"
    assert opening[10:12] == b"\x03\x01"
    assert opening[12:32] == b"NULL" + bytes(16)
    assert opening[32:64] == bytes(32)
    assert opening[64:] == bytes.fromhex(ready_hex)


def test_output_hands_each_octet_out_once():
    """A greeting sent twice would be read as frames."""
    made = engine()
    assert made.output()
    assert made.output() == b""


def test_two_engines_of_ours_understand_each_other():
    """The client's opening makes the server ready, and the other way round."""
    client, server = engine(b"DEALER"), engine(b"ROUTER")
    assert server.receive(client.output()) == []
    assert client.receive(server.output()) == []
    assert client.ready
    assert server.ready
    assert client.metadata[b"socket-type"] == b"ROUTER"
    assert server.metadata[b"socket-type"] == b"DEALER"
    assert feed(server, [encode([b"a", b"b"])]) == [[b"a", b"b"]]
    assert feed(client, [encode([b"c"])]) == [[b"c"]]


@pytest.mark.parametrize("socket_type", [b"REQ", b"PUB", b"", b"dealer"])
def test_an_engine_of_another_type_is_our_own_mistake(socket_type):
    """Only the two types of the direct lane exist."""
    with pytest.raises(LocalProtocolError):
        Engine(socket_type, Limits(1, 1))


# --------------------------------------------------------------------------------------------- sending


@pytest.mark.parametrize(
    ("frames", "octets"),
    [
        ([b""], "0000"),
        ([b"a"], "000161"),
        ([b"", b"a"], "0100000161"),
        ([b"a", b"bc", b"d"], "010161 01026263 000164"),
        ([b"x" * 255], "00ff" + "78" * 255),
        ([b"x" * 256], "020000000000000100" + "78" * 256),
        ([b"x" * 256, b""], "030000000000000100" + "78" * 256 + "0000"),
        ([b"x" * 65536], "020000000000010000" + "78" * 65536),
    ],
)
def test_frames_are_encoded_to_the_octet(frames, octets):
    """Sizes up to 255 take one octet, from 256 on eight; MORE is set on all frames but the last."""
    assert encode(frames) == bytes.fromhex(octets)
    assert b"".join(encode_vector(frames)) == bytes.fromhex(octets)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_can_be_a_frame(kind):
    """Payloads are memoryviews of arrays; none of them may need a copy first."""
    frames = [kind(b"ab"), kind(b"c" * 300), kind(b"d" * 9000)]
    assert encode(frames) == message([b"ab", b"c" * 300, b"d" * 9000])
    assert b"".join(encode_vector(frames)) == encode(frames)


def test_a_vector_holds_long_frames_themselves():
    """A copy of a 100 MB array on the way to sendmsg would be found here."""
    long = bytearray(8192)
    view = memoryview(b"y" * 10_000)
    vector = encode_vector([b"a", long, b"b" * 8191, view])
    assert any(part is long for part in vector)
    assert any(part is view for part in vector)
    assert b"".join(vector) == encode([b"a", long, b"b" * 8191, view])
    assert len(vector) == 4


# ------------------------------------------------------------------------------------------- receiving


def test_padding_as_server_and_filler_mean_nothing():
    """RFC 37 forbids to read meaning into the padding; a higher version must be accepted."""
    other = greeting(signature=b"\xffABCDEFGH\x7f", version=b"\x04\x09", as_server=b"\x01", filler=b"z" * 31)
    made = engine()
    assert feed(made, [other + ready(b"DEALER") + message([b"hi"])]) == [[b"hi"]]


def test_a_peer_of_version_3_0_is_understood():
    """libzmq 4.0 and 4.1 say 3.0."""
    assert feed(engine(), [greeting(version=b"\x03\x00") + ready(b"REQ") + message([b"", b"x"])]) == [[b"", b"x"]]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(b"ROUTER", kind) for kind in (b"DEALER", b"REQ", b"ROUTER")]
    + [(b"DEALER", kind) for kind in (b"ROUTER", b"REP", b"DEALER")],
)
def test_the_socket_types_of_rfc_28_may_talk(ours, theirs):
    """REQ and DEALER clients call a server; a client calls ROUTER and REP."""
    made = engine(ours)
    made.receive(GREETING + ready(theirs))
    assert made.ready


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("ROUTER", kind) for kind in ("REP", "PUB", "XPUB", "SUB", "XSUB", "PUSH", "PULL", "PAIR", "CLIENT", "dealer")]
    + [("DEALER", kind) for kind in ("REQ", "PUB", "SUB", "PUSH", "PULL", "PAIR")],
)
def test_other_socket_types_are_refused_with_an_error_command(ours, theirs):
    """RFC 37: an invalid socket type is answered by ERROR, then the connection ends."""
    made = engine(ours.encode())
    made.output()
    with pytest.raises(RemoteProtocolError, match=theirs):
        made.receive(GREETING + ready(theirs.encode()))
    assert made.output() == command(b"ERROR", b"\x13Invalid socket type")
    assert not made.ready


def test_metadata_is_kept_with_names_in_lower_case():
    """RFC 37: the case of names is not significant; unknown properties are allowed, empty values too."""
    body = metadata([(b"SOCKET-TYPE", b"DEALER"), (b"Identity", b"\x01" * 255), (b"X-Run", b"")])
    made = engine()
    made.receive(GREETING + command(b"READY", body))
    assert made.metadata == {b"socket-type": b"DEALER", b"identity": b"\x01" * 255, b"x-run": b""}


def test_a_short_body_in_a_long_frame_is_a_frame():
    """The grammar lets a long size carry few octets."""
    assert feed(ready_engine(), [message([b"a", b""], long=True)]) == [[b"a", b""]]
    made = engine()
    made.receive(GREETING + command(b"READY", metadata([(b"Socket-Type", b"DEALER")]), long=True))
    assert made.ready


def test_messages_may_follow_ready_in_the_same_octets():
    """A peer that has our READY already sends its own and its first message in one piece."""
    assert feed(engine(), [handshake() + message([b"1"]) + message([b"2", b"3"])]) == [[b"1"], [b"2", b"3"]]


@pytest.mark.parametrize("name", [b"SUBSCRIBE", b"CANCEL", b"JOIN", b"LEAVE", b"READY", b"X", b"Z" * 255])
def test_commands_of_other_sockets_and_later_versions_are_ignored(name):
    """A command we do not know is no reason to lose a connection."""
    assert feed(ready_engine(), [message([b"1"]) + command(name, b"data") + message([b"2"])]) == [[b"1"], [b"2"]]


# ------------------------------------------------------------------------------------------- PING and PONG


@pytest.mark.parametrize("context", [b"", b"c", b"0123456789abcdef"])
def test_a_ping_is_answered_by_a_pong_with_its_context(context):
    """RFC 37: a PONG echoes the context. Without it libzmq cuts the connection after HEARTBEAT_TIMEOUT."""
    made = ready_engine()
    assert made.receive(command(b"PING", b"\x00\x0f" + context)) == []
    assert made.output() == command(b"PONG", context)


def test_pings_between_messages_change_nothing_else():
    """Heartbeats come at any time."""
    ping = command(b"PING", b"\x00\x00ab")
    made = ready_engine()
    assert feed(made, [ping + message([b"1"]) + ping + ping + message([b"2"])]) == [[b"1"], [b"2"]]
    assert made.output() == command(b"PONG", b"ab") * 3


def test_a_command_between_the_frames_of_a_message_is_taken():
    """libzmq's heartbeat timer puts PING and PONG between two frames of a message under way (see test_interop)."""
    made = ready_engine()
    octets = frame(b"a", MORE) + command(b"PING", b"\x00\x00x") + frame(b"b" * 300, MORE) + command(b"PONG", b"y")
    assert feed(made, [octets + frame(b"c")]) == [[b"a", b"b" * 300, b"c"]]
    assert made.output() == command(b"PONG", b"x")
    assert made.pongs == [b"y"]


@pytest.mark.parametrize(("ttl", "tenths"), [(0.0, 0), (0.1, 1), (1, 10), (1.25, 12), (6553.5, 65535)])
def test_our_ping_carries_its_time_to_live_in_tenths(ttl, tenths):
    """RFC 37: ping-ttl has 16 bits and counts tenths of seconds."""
    assert engine().ping(ttl, b"abc") == command(b"PING", tenths.to_bytes(2, "big") + b"abc")


@pytest.mark.parametrize(("ttl", "context"), [(6553.6, b""), (-1, b""), (0, b"x" * 17)])
def test_a_ping_over_its_limits_is_our_own_mistake(ttl, context):
    """Better an error here than a peer that hangs up."""
    with pytest.raises(LocalProtocolError):
        engine().ping(ttl, context)


def test_pongs_are_kept_oldest_first_and_bounded():
    """A peer that sends PONGs for ever costs 64 contexts of 16 octets."""
    made = ready_engine()
    made.receive(b"".join(command(b"PONG", b"%d" % number) for number in range(100)))
    assert made.pongs == [b"%d" % number for number in range(36, 100)]
    made.pongs.clear()
    made.receive(command(b"PONG", b"z" * 200))
    assert made.pongs == [b"z" * PING_CONTEXT_MAX]


def test_a_peer_that_pings_and_never_reads_is_cut_off():
    """Unsent PONGs are memory of ours that a stranger fills."""
    made = ready_engine()
    flood = command(b"PING", b"\x00\x00" + b"x" * 16) * 100
    with pytest.raises(RemoteProtocolError) as caught:
        feed(made, itertools.repeat(flood, OUTPUT_BYTES_MAX // 100))
    assert caught.value.code == Code.MALFORMED
    assert len(made.output()) <= OUTPUT_BYTES_MAX + 64


def test_a_peer_that_pings_and_reads_may_do_so_for_ever():
    """The counterpart: what has been handed out is not counted."""
    made = ready_engine()
    flood = command(b"PING", b"\x00\x00" + b"x" * 16) * 100
    for _ in range(OUTPUT_BYTES_MAX // 1000):
        made.receive(flood)
        assert made.output() == command(b"PONG", b"x" * 16) * 100


# -------------------------------------------------------------------------------------- malformed input

MALFORMED = Code.MALFORMED
NO_CODE = 0  # the refusal of a peer, not a fault of its octets
BEFORE = {"greeting": b"", "handshake": GREETING, "traffic": handshake()}
BAD: list[tuple[str, str, bytes, int]] = [
    # at the greeting
    ("greeting", "one octet of something else", b"\x00", MALFORMED),
    ("greeting", "an HTTP client", b"GET / HTTP/1.1\r\n\r\n", MALFORMED),
    ("greeting", "a TLS client", b"\x16\x03\x01\x02\x00", MALFORMED),
    ("greeting", "a ZMTP 1 peer", b"\xff" + bytes(7) + b"\x01\x00", MALFORMED),
    ("greeting", "version 0", GREETING[:10] + b"\x00", Code.VERSION),
    ("greeting", "version 2", GREETING[:10] + b"\x02", Code.VERSION),
    ("greeting", "PLAIN", greeting(mechanism=b"PLAIN"), NO_CODE),
    ("greeting", "CURVE", greeting(mechanism=b"CURVE"), NO_CODE),
    ("greeting", "no mechanism", greeting(mechanism=b""), NO_CODE),
    ("greeting", "a mechanism that begins like ours", greeting(mechanism=b"NULLS"), NO_CODE),
    ("greeting", "a mechanism with something behind its end", greeting(mechanism=b"NULL\0x"), NO_CODE),
    ("greeting", "a mechanism that is no ASCII", greeting(mechanism=b"\xc3" * 20), NO_CODE),
    # at the handshake
    ("handshake", "a message", message([b"x"]), MALFORMED),
    ("handshake", "the first frame of a message", frame(b"x", MORE), MALFORMED),
    ("handshake", "a long message, of which only the size is there", frame(bytes(300))[:9], MALFORMED),
    ("handshake", "PING", command(b"PING", b"\x00\x00"), MALFORMED),
    ("handshake", "PONG", command(b"PONG"), MALFORMED),
    ("handshake", "HELLO of PLAIN", command(b"HELLO", b"\x01a\x01b"), MALFORMED),
    ("handshake", "ready in lower case", command(b"ready", metadata([(b"Socket-Type", b"DEALER")])), MALFORMED),
    ("handshake", "READY without a socket type", command(b"READY"), NO_CODE),
    ("handshake", "READY of a PUB socket", ready(b"PUB"), NO_CODE),
    ("handshake", "a property without a name", command(b"READY", metadata([(b"", b"x")])), MALFORMED),
    ("handshake", "a property's name cut", command(b"READY", b"\x0bSocket"), MALFORMED),
    ("handshake", "a property's size cut", command(b"READY", b"\x01a\x00\x00\x00"), MALFORMED),
    ("handshake", "a property's size missing", command(b"READY", b"\x01a"), MALFORMED),
    ("handshake", "a property's value cut", command(b"READY", b"\x01a\x00\x00\x00\x02x"), MALFORMED),
    ("handshake", "a property's value of 4 GiB", command(b"READY", b"\x01a\xff\xff\xff\xff"), MALFORMED),
    ("handshake", "ERROR", command(b"ERROR", b"\x05Go on"), NO_CODE),
    ("handshake", "ERROR without a reason", command(b"ERROR", b"\x00"), NO_CODE),
    ("handshake", "ERROR without a body", command(b"ERROR"), NO_CODE),
    ("handshake", "ERROR with a reason cut", command(b"ERROR", b"\xffshort"), NO_CODE),
    # in traffic
    *(("traffic", f"reserved bit {bit}", bytes([1 << bit, 0]), MALFORMED) for bit in range(3, 8)),
    *(("traffic", f"reserved bit {bit} and LONG", bytes([1 << bit | LONG]) + bytes(8), MALFORMED) for bit in (3, 7)),
    ("traffic", "a command with MORE", frame(b"\x04PING\x00\x00", COMMAND | MORE), MALFORMED),
    ("traffic", "an empty command", frame(b"", COMMAND), MALFORMED),
    ("traffic", "a command with a name of no length", frame(b"\x00PING", COMMAND), MALFORMED),
    ("traffic", "a command's name cut", frame(b"\x05PING", COMMAND), MALFORMED),
    ("traffic", "a command over its limit", frame(bytes(COMMAND_BYTES_MAX + 1), COMMAND)[:9], MALFORMED),
    ("traffic", "a command of 2^63 octets", bytes([COMMAND | LONG]) + b"\x80" + bytes(7), MALFORMED),
    ("traffic", "PING without its time to live", command(b"PING"), MALFORMED),
    ("traffic", "PING with half of it", command(b"PING", b"\x00"), MALFORMED),
    ("traffic", "PING with 17 octets of context", command(b"PING", bytes(2 + 17)), MALFORMED),
    ("traffic", "ERROR", command(b"ERROR", b"\x03Bye"), NO_CODE),
    ("traffic", "a frame of 2^63 octets", bytes([LONG]) + b"\x80" + bytes(7), Code.TOO_LARGE),
    ("traffic", "a frame of 2^64 - 1 octets", bytes([LONG]) + b"\xff" * 8, Code.TOO_LARGE),
    ("traffic", "1 TiB behind a short frame", frame(b"a", MORE) + bytes([LONG, 0, 0, 1]) + bytes(5), Code.TOO_LARGE),
]  # fmt: skip


@pytest.mark.parametrize(("phase", "what", "octets", "code"), BAD, ids=[f"{case[0]}: {case[1]}" for case in BAD])
@pytest.mark.parametrize("way", ["whole", "in single octets"])
def test_malformed_input_is_a_remote_protocol_error_for_ever(phase, what, octets, code, way):
    """Whatever is wrong raises once what proves it is there; later octets, good ones too, raise the very same."""
    made = engine()
    pieces = [BEFORE[phase], octets] if way == "whole" else [bytes([octet]) for octet in BEFORE[phase] + octets]
    with pytest.raises(RemoteProtocolError) as caught:
        feed(made, filter(None, pieces))
    first = caught.value
    assert first.code == code
    for later in (b"\x00", message([b"good"]), handshake()):
        with pytest.raises(RemoteProtocolError) as again:
            made.receive(later)
        assert again.value is first
    assert made.room() is None


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (greeting(mechanism=b"CURVE"), "CURVE"),
        (GREETING + command(b"ERROR", b"\x0cwrong secret"), "wrong secret"),
        (GREETING + command(b"ERROR"), "no reason given"),
        (greeting(version=b"\x02\x00"), "ZMTP 2"),
    ],
)
def test_the_text_of_an_error_says_what_the_other_side_said(octets, text):
    """Whoever reads the log must see why a connection was refused."""
    with pytest.raises(RemoteProtocolError, match=text):
        engine().receive(octets)


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_stranger_is_refused_at_its_first_octet(cut):
    """No buffer is kept for a peer whose first octets prove that it is none."""
    with pytest.raises(RemoteProtocolError):
        engine().receive(b"GET / HTTP/1.1"[:cut])


def test_no_octets_are_no_error():
    """An owner that forwards an empty piece changes nothing, at any time."""
    made = engine()
    for octet in handshake() + message([b"a", b"b" * 9000]):
        assert made.receive(b"") == []
        made.receive(bytes([octet]))
    assert made.receive(b"") == []
