"""The rules of wire/PROTOCOL.md, sections 6 and 13, that need neither a socket nor a clock: each is broken once.

The octets are made by struct and msgpack here, as a stranger would make them from the document.
"""

from __future__ import annotations

import struct

import msgpack
import pytest
from support.engines import engine, ready_engine
from support.octets import COMMAND, GREETING, MORE, command, frame, greeting, handshake, message, ready

from spark_partition_server.errors import LocalProtocolError, RemoteProtocolError
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Heartbeat, Hello, Lookup, Refuse, Reply, Request
from spark_partition_server.wire.zmtp import Limits

RUN = b"run of 8"
OTHER = b"another!"
MOST = (1 << 64) - 1


def preamble(kind, *, magic=b"SPS", version=1, flags=0, reserved=0, run=RUN):
    return struct.pack("!3sBBBH8s", magic, version, kind, flags, reserved, run)


def fields(*values):
    return msgpack.packb(values)


LOOKUP = [preamble(8), fields(5)]


def refused(frames, code=Code.MALFORMED):
    """Whether the decoder refuses them with this code."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(frames, RUN)
    return caught.value.code == code


# ----------------------------------------------------------------------------------------- the ZMTP layer


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"G", Code.MALFORMED),  # of GET
        (b"\x01", Code.MALFORMED),  # of an old ZeroMQ
        (greeting(version=b"\x02\x00")[:11], Code.VERSION),
        (greeting(mechanism=b"PLAIN"), 0),
    ],
)
def test_a_peer_that_opens_otherwise_is_refused_as_soon_as_that_is_seen(octets, code):
    """[6.1]: a browser on the port must not hold a connection until it has sent 64 octets."""
    with pytest.raises(RemoteProtocolError) as caught:
        engine().receive(octets)
    assert caught.value.code == code


@pytest.mark.parametrize("version", [b"\x03\x00", b"\x03\x01", b"\x04\x00"])
def test_a_peer_of_version_3_or_later_is_taken(version):
    """[6.1]: the older libzmq says 3.0."""
    made = engine()
    assert made.receive(greeting(version=version) + ready(b"DEALER")) == []
    assert made.ready


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (b"ROUTER", {b"DEALER", b"REQ", b"ROUTER"}),
        (b"DEALER", {b"ROUTER", b"REP", b"DEALER"}),
    ],
)
def test_the_pairs_of_socket_types_that_talk(ours, theirs):
    """[6.2]: any other would wait for messages in an order that never comes; it is told so by ERROR."""
    for one in (b"DEALER", b"REQ", b"ROUTER", b"REP", b"PUB", b"PULL", b"CLIENT", b""):
        made = engine(ours)
        made.output()
        if one in theirs:
            assert made.receive(GREETING + ready(one, (b"identity", b"x"), (b"X-Unknown", b"y"))) == []
            assert made.ready
        else:
            with pytest.raises(RemoteProtocolError):
                made.receive(GREETING + ready(one))
            assert made.output() == command(b"ERROR", b"\x13Invalid socket type")


@pytest.mark.parametrize("first", [command(b"PING", b"\0\0"), command(b"ERROR", b"\x02no"), frame(b"message")])
def test_the_first_command_is_ready(first):
    """[6.2]: whatever comes before it comes from somebody whose type is not known."""
    with pytest.raises(RemoteProtocolError):
        engine().receive(GREETING + first)


@pytest.mark.parametrize("size", [0, 1, 255])
def test_a_short_frame_may_have_a_long_size(size):
    """[6.3]: other libraries write what is easiest for them."""
    body = b"x" * size
    assert ready_engine().receive(frame(body, long=True) + frame(body, long=False)) == [[body], [body]]


@pytest.mark.parametrize("name", [b"SUBSCRIBE", b"JOIN", b"X"])
def test_a_command_that_is_not_known_is_ignored(name):
    """[6.4]: a later ZMTP must not lose its connections to us."""
    made = ready_engine()
    assert made.receive(command(name, b"data") + frame(b"message")) == [[b"message"]]
    assert made.output() == b""


@pytest.mark.parametrize("context", [b"", b"c", b"sixteen octets.."])
def test_a_ping_is_answered_wherever_a_frame_may_begin(context):
    """[6.5]: libzmq's timer does not wait for the end of a message, and hangs up without its PONG."""
    made = ready_engine()
    ping = command(b"PING", b"\x00\x64" + context)
    assert made.receive(frame(b"first", MORE) + ping + frame(b"last") + ping) == [[b"first", b"last"]]
    assert made.output() == 2 * command(b"PONG", context)


def test_a_ping_with_too_long_a_context_ends_the_connection():
    """[6.5]: what is echoed is memory that a stranger chooses."""
    with pytest.raises(RemoteProtocolError):
        ready_engine().receive(command(b"PING", bytes(2 + 17)))


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (frame(bytes(60), MORE) + frame(bytes(41))[:2], Code.TOO_LARGE),
        (b"\x02" + (1 << 40).to_bytes(8, "big"), Code.TOO_LARGE),
        (4 * frame(b"", MORE) + frame(b"")[:2], Code.MALFORMED),
    ],
)
def test_a_message_over_the_limits_ends_the_connection_at_its_header(octets, code):
    """[6.7]: nothing is kept of a message that would not be taken, and nothing is answered."""
    made = ready_engine(Limits(100, 4))
    with pytest.raises(RemoteProtocolError) as caught:
        made.receive(octets)
    assert caught.value.code == code
    assert made.output() == b""


def test_a_message_within_the_limits_is_taken():
    """[6.7]: to the last octet and frame."""
    parts = [bytes(97), b"a", b"b", b"c"]
    assert ready_engine(Limits(100, 4)).receive(message(parts)) == [parts]


def test_a_frame_that_is_neither_message_nor_command_ends_the_connection():
    """Section 6.1, grammar: the bits above 4 are not in use."""
    for flags in (0x08, 0x80, COMMAND | MORE):
        with pytest.raises(RemoteProtocolError):
            ready_engine().receive(bytes((flags, 0)))


# -------------------------------------------------------------------------------------------- the preamble


@pytest.mark.parametrize(
    "first",
    [b"", preamble(8)[:15], preamble(8) + b"\0", preamble(8, magic=b"SPs"), b"GET / HTTP/1.1\r\n"],
    ids=["empty", "short", "long", "magic", "http"],
)
def test_a_first_frame_that_is_no_preamble_is_malformed(first):
    """[6.8] and [5.1]: noise is recognised before anything of it is decoded; an empty delimiter counts as noise."""
    assert refused([first, b"\xc1 no msgpack"])


def test_the_octets_of_a_preamble():
    """[6.8]: magic, version, kind, flags, reserved, run id."""
    (first, _) = codec.encode(Lookup(5), RUN)
    assert first == b"SPS\x01\x08\x00\x00\x00run of 8" == preamble(8)


@pytest.mark.parametrize("changed", [{"flags": 1}, {"flags": 255}, {"reserved": 1}, {"reserved": 65535}])
def test_flags_and_reserved_are_sent_as_zero_and_ignored(changed):
    """[6.9]: a later version gives them a meaning that this one can do without."""
    assert codec.decode([preamble(8, **changed), fields(5)], RUN) == Lookup(5)
    request = [preamble(32, **changed), fields(1, "get", 9, 0, 7), b"\xc0"]
    assert codec.read_request(request, preamble(32), RUN) == (1, "get", 9, 0, 7)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([preamble(8)], Code.MALFORMED),
        ([b"x" * 16, b""], Code.MALFORMED),
        ([preamble(99, version=2, run=OTHER), b""], Code.VERSION),
        ([preamble(99, run=OTHER), b""], Code.WRONG_RUN),
        ([preamble(99), b""], Code.UNKNOWN_KIND),
        ([preamble(8), b"\xc1"], Code.MALFORMED),
        ([preamble(8), fields(5), b"payload"], Code.MALFORMED),
    ],
)
def test_what_arrives_is_judged_in_one_order(frames, code):
    """[13.1]: a message with two faults gets the answer of the first, in every implementation."""
    assert refused(frames, code)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([preamble(32, version=2, run=OTHER), fields()], Code.VERSION),
        ([preamble(32), fields()], Code.MALFORMED),  # two frames are no request
        ([preamble(99, version=2, run=OTHER), b"", b""], Code.VERSION),
        ([preamble(99, run=OTHER), b"", b""], Code.WRONG_RUN),
        ([preamble(99), b"", b""], Code.UNKNOWN_KIND),
        ([preamble(4), b"\xc1", b""], Code.UNEXPECTED),
        ([preamble(32), b"\xc1", b""], Code.MALFORMED),
    ],
)
def test_a_server_judges_in_the_same_order(frames, code):
    """[13.1]: it reads requests by a way of its own, and must not differ."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.read_request(frames, preamble(32), RUN)
    assert caught.value.code == code


def test_a_refusal_of_a_stranger_carries_the_strangers_run_id():
    """[13.3]: the right one would let it call everything."""
    assert codec.run_id_of(preamble(32, run=OTHER), RUN) == OTHER
    assert codec.run_id_of(preamble(32, version=2, run=OTHER), RUN) == OTHER
    assert codec.run_id_of(b"short", RUN) == RUN


def test_a_message_of_another_run_is_not_acted_on():
    """[13.3]: the port of a stopped cluster was given to the next one; a REFUSE of that one is not ours either."""
    for sent in (Lookup(5), Refuse(Code.WRONG_RUN), Reply(1, (b"\xc0",))):
        assert refused(codec.encode(sent, OTHER), Code.WRONG_RUN)
    assert codec.read_reply(codec.encode(Reply(1, (b"\xc0",)), OTHER), preamble(33)) is None


# --------------------------------------------------------------------------------------------- the fields


@pytest.mark.parametrize(
    "second",
    [
        b"",
        b"\xc1",
        fields(5)[:-1],
        fields(5) + b"\0",
        msgpack.packb(5),
        msgpack.packb({0: 5}),
        b"\xdd\x00\x01\x00\x00" + bytes(65536),
        fields(5, [0] * 1025),
        fields(5, dict.fromkeys(range(1025))),
    ],
    ids=["empty", "no msgpack", "cut", "more behind", "no array", "a map", "too long", "long array", "long map"],
)
def test_fields_that_are_not_one_array_within_its_limits_are_malformed(second):
    """[6.10]: 64 KiB that unfold to gigabytes are never unfolded."""
    assert refused([preamble(8), second])


def test_fields_at_their_limits_are_taken():
    """[6.10]: a limit that is one too small is a message lost."""
    assert codec.decode([preamble(8), fields(5, [0] * 1024)], RUN) == Lookup(5)
    filler = b"x" * (65536 - len(fields(5, b"")) - 1)
    assert len(fields(5, filler)) == 65536
    assert codec.decode([preamble(8), fields(5, filler)], RUN) == Lookup(5)


@pytest.mark.parametrize("five", [b"\x05", b"\xcc\x05", b"\xcd\0\x05", b"\xce\0\0\0\x05", b"\xcf" + bytes(7) + b"\x05"])
def test_an_integer_may_come_in_any_of_its_encodings(five):
    """[6.11]: not every encoder looks for the shortest."""
    assert codec.decode([preamble(8), b"\x91" + five], RUN) == Lookup(5)


@pytest.mark.parametrize("value", [None, True, 5.0, "5", b"5", [5], -1])
def test_an_integer_is_nothing_else(value):
    """[6.11]: true is not 1, and 5.0 is not 5."""
    assert refused([preamble(8), fields(value)])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (3, b"10.0.0.5"),  # octets where text belongs
        (3, ""),
        (3, "h" * 256),
        (6, "token"),  # text where octets belong
        (6, bytes(65)),
        (9, []),
        (9, {b"key": 1}),
        (9, {"k" * 257: 1}),
    ],
)
def test_text_octets_and_maps_are_not_converted(field, value):
    """[6.11]: one side that is lenient and one that is not do not understand each other."""
    values = [0, 7, 0, "10.0.0.5", 4000, "", b"token", 1, 1, {"k" * 256: [None]}]
    assert isinstance(codec.decode([preamble(1), fields(*values)], RUN), Hello)
    values[field] = value
    assert refused([preamble(1), fields(*values)])


def test_the_length_of_a_text_is_counted_in_characters_and_it_is_valid_utf_8():
    """[6.11]: 255 characters of four octets each are a host; half a character is none."""
    values = [0, 7, 0, "\U0001f600" * 255, 4000, "", b"token", 1, 1]
    assert codec.decode([preamble(1), fields(*values)], RUN).host == "\U0001f600" * 255
    broken = fields(*values).replace(b"\xf0\x9f\x98\x80", b"\xf0\x9f\x98\xff", 1)
    assert refused([preamble(1), broken])


def test_fields_that_are_not_known_are_ignored_and_absent_ones_take_their_default():
    """[6.12]: two releases of one version understand each other."""
    assert codec.decode([preamble(8), fields(5, "new", {"x": 1})], RUN) == Lookup(5)
    assert codec.decode([preamble(7), fields(9)], RUN) == Refuse(9, "")
    assert codec.decode([preamble(33), fields(1, "new"), b"\xc0"], RUN) == Reply(1, (b"\xc0",))
    request = [preamble(32), fields(1, "get", 9, 0, 7, "new"), b"\xc0"]
    assert codec.read_request(request, preamble(32), RUN) == (1, "get", 9, 0, 7)


@pytest.mark.parametrize(("kind", "values"), [(8, ()), (3, (0, 7)), (7, ()), (33, ())])
def test_a_message_that_lacks_a_field_without_a_default_is_malformed(kind, values):
    """[6.12]: what it should mean is anybody's guess."""
    assert refused([preamble(kind), fields(*values)])


@pytest.mark.parametrize(("count", "taken"), [(0, False), (1, False), (2, True), (64, True), (65, False)])
def test_the_number_of_frames(count, taken):
    """[6.13]: sixty-two frames of payload and not one more."""
    frames = [preamble(33), fields(1), *[b"\xc0"] * 63][:count]
    if taken:
        assert codec.decode(frames, RUN) == Reply(1, tuple(frames[2:]))
    else:
        assert refused(frames)


def test_a_kind_without_payload_has_two_frames():
    """[6.13]: whoever sends more means something that the receiver does not know."""
    assert codec.decode(LOOKUP, RUN) == Lookup(5)
    assert refused([*LOOKUP, b""])


@pytest.mark.parametrize("code", [24, 999, 1000, (1 << 32) - 1])
def test_a_code_that_is_not_known_is_no_fault_of_the_message(code):
    """[11.1]: a later version adds codes; what they mean here is UNEXPECTED."""
    message = codec.decode([preamble(34), fields(1, code, "why")], RUN)
    assert message.code == code
    assert Code.of(message.code) is Code.UNEXPECTED


# ------------------------------------------------------------------------------------- our own messages


def test_what_breaks_a_limit_cannot_be_made():
    """[6.11]: the sender finds its own mistake, not its peer."""
    for make in (lambda: Heartbeat(1 << 20, 0, 0), lambda: Lookup(MOST + 1), lambda: Request(1, "", 1, 0, 0)):
        with pytest.raises(LocalProtocolError):
            make()


def test_the_opening_of_a_connection_is_the_one_of_the_document():
    """[6.1] and [6.2]: 64 octets of greeting, then READY."""
    for kind in (b"DEALER", b"ROUTER"):
        assert engine(kind).output() == handshake(kind)
