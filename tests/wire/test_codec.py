"""Messages to frames and back: round trips, canonical octets, tolerance, every refusal, views, the short way."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import spec

from spark_partition_server.errors import LocalProtocolError, RemoteProtocolError
from spark_partition_server.wire import codec, messages
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import KINDS, Error, Goodbye, Heartbeat, Kind, Member, Reply, Request, View

RUN = spec.RUN_ID


def strategy(field: spec.Field) -> st.SearchStrategy:
    """Any legal value of a field."""
    plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
    return {
        "int": st.integers(field.least, field.most) | st.sampled_from([field.least, field.most]),
        "code": st.sampled_from([int(code) for code in Code]) | st.integers(1000, field.most),
        "text": st.text(min_size=field.least, max_size=min(field.most, 300)),
        "octets": st.binary(max_size=field.most),
        "map": st.dictionaries(st.text(max_size=20), plain | st.lists(plain, max_size=3), max_size=4),
    }[field.type]


def message_strategy(kind: spec.Kind) -> st.SearchStrategy:
    """Any legal message of a kind."""
    values = {field.name: strategy(field) for field in kind.fields}
    if kind.payload:
        values["payload"] = st.lists(st.binary(max_size=50), max_size=5).map(tuple)
    return st.builds(KINDS[Kind[kind.name]], **values)


MESSAGES = st.one_of(*map(message_strategy, spec.KINDS))
RUNS = st.binary(min_size=8, max_size=8)


@given(message=MESSAGES, run_id=RUNS)
def test_every_message_comes_back_and_has_one_form(message, run_id):
    """What is decoded is what was encoded, and encodes to the same octets again."""
    frames = codec.encode(message, run_id)
    found = codec.decode(frames, run_id)
    assert found == message
    assert codec.encode(found, run_id) == frames


@given(message=MESSAGES, run_id=RUNS, other=RUNS)
def test_a_message_of_another_run_is_refused_before_its_fields_are_read(message, run_id, other):
    """An executor's port may belong to another cluster by now."""
    if run_id == other:
        return
    frames = codec.encode(message, run_id)
    frames[1] = b"\xc1 whatever"
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(frames, other)
    assert caught.value.code == Code.WRONG_RUN


@given(message=MESSAGES, more=st.lists(st.none() | st.integers(0, 9) | st.text(), min_size=1, max_size=3))
def test_fields_of_later_versions_are_ignored(message, more):
    """A newer server may append fields; an older client must go on."""
    frames = codec.encode(message, RUN)
    frames[1] = msgpack.packb([*msgpack.unpackb(frames[1]), *more])
    assert codec.decode(frames, RUN) == message


@pytest.mark.parametrize("kind", spec.KINDS, ids=lambda kind: kind.name)
def test_absent_trailing_fields_take_their_defaults(kind):
    """An older client does not know the fields that were appended; a required one it does know."""
    values = list(kind.values("example").values())
    for count in range(len(values)):
        frames = [spec.preamble(kind.number), msgpack.packb(values[:count])]
        if count < kind.required:
            with pytest.raises(RemoteProtocolError, match=str(kind.required)) as caught:
                codec.decode(frames, RUN)
            assert caught.value.code == Code.MALFORMED
        else:
            assert codec.decode(frames, RUN) == KINDS[Kind[kind.name]](*values[:count])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_frames_of_any_buffer_type_are_read(kind):
    """The engine hands out bytes for short frames and memoryviews for long ones."""
    message = Request(1, "get", 1000, 3, 7, (b"\x92\x90\x80",))
    found = codec.decode([kind(frame) for frame in codec.encode(message, RUN)], RUN)
    assert found == message


def test_a_payload_is_handed_on_and_not_copied():
    """A copy of a 100 MB reply would be found here, on the way out and on the way in."""
    array = bytearray(100)
    frames = codec.encode(Reply(1, (array,)), RUN)
    assert frames[2] is array
    assert codec.decode(frames, RUN).payload[0] is array


def test_a_code_travels_as_its_number():
    """An IntEnum is encoded like the integer it is."""
    frames = codec.encode(Error(1, Code.HANDLER, "x"), RUN)
    assert msgpack.unpackb(frames[1]) == [1, 7, "x", "", "", 0]


# ------------------------------------------------------------------------------------------- our mistakes


@pytest.mark.parametrize("run_id", [b"", bytes(7), bytes(9)])
def test_a_run_id_has_eight_octets(run_id):
    """Anything else would shift the preamble."""
    with pytest.raises(LocalProtocolError):
        codec.encode(Heartbeat(1, 2, 3), run_id)


@pytest.mark.parametrize(
    "message",
    [
        View(1, 1, {"text": "x" * messages.FIELDS_BYTES_MAX}),
        Goodbye(1, 2, 3, b"", Code.INIT_FAILED, "", "\U0001f600" * messages.DETAIL_CHARS_MAX),
    ],
    ids=["meta", "a text of four octets a character"],
)
def test_fields_over_their_limit_together_are_our_own_mistake(message):
    """Each within its own limit, and together more than a receiver decodes."""
    with pytest.raises(LocalProtocolError, match=str(messages.FIELDS_BYTES_MAX)):
        codec.encode(message, RUN)


@pytest.mark.parametrize(
    "message",
    [
        View(1, 1, {"what": object()}),
        View(1, 1, {"number": 2**70}),
        Error(1, Code.HANDLER, "a \udcff in a file's name"),
    ],
    ids=["an object", "a large integer", "a lone surrogate"],
)
def test_fields_that_cannot_be_encoded_are_our_own_mistake(message):
    """A loop that sends must meet one kind of exception only."""
    with pytest.raises(LocalProtocolError):
        codec.encode(message, RUN)


# ------------------------------------------------------------------------------------------- their mistakes


@pytest.mark.parametrize("count", [0, 1, 65, 1000])
def test_too_few_and_too_many_frames_are_malformed(count):
    """Counted before anything is read."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode([b"\xc1"] * count, RUN)
    assert caught.value.code == Code.MALFORMED


def test_fields_over_their_limit_are_refused_unread():
    """Decoding msgpack can cost many times its size."""
    fields = b"\xdd" + (70_000).to_bytes(4, "big") + b"\x90" * 70_000
    with pytest.raises(RemoteProtocolError, match=str(messages.FIELDS_BYTES_MAX)):
        codec.decode_fields(fields)
    assert codec.decode_fields(b"\xdc\x04\x00" + bytes(1024)) == [0] * 1024
    with pytest.raises(RemoteProtocolError, match="1025 exceeds max_array_len"):
        codec.decode_fields(b"\xdc\x04\x01" + bytes(1025))


@pytest.mark.parametrize("kind", [kind for kind in spec.KINDS if not kind.payload], ids=lambda kind: kind.name)
def test_a_payload_where_none_belongs_is_malformed(kind):
    """Control messages have no place to hide a gigabyte."""
    frames = [spec.preamble(kind.number), msgpack.packb(list(kind.values("example").values())), b""]
    with pytest.raises(RemoteProtocolError, match=kind.name) as caught:
        codec.decode(frames, RUN)
    assert caught.value.code == Code.MALFORMED


def test_the_text_of_a_refusal_names_the_field():
    """Whoever writes a client in another language needs to know which."""
    frames = [spec.preamble(3), msgpack.packb([2**20, 1, 1])]
    with pytest.raises(RemoteProtocolError, match=r"Heartbeat\.rank: 1048576"):
        codec.decode(frames, RUN)


def test_the_text_of_a_refusal_is_short():
    """Errors are logged; a stranger must not choose how much."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode_fields(b"\x91\xa2\xc3\x28" + b"\xda\xff\x00" + bytes(65280))
    assert len(str(caught.value)) < 400


# ------------------------------------------------------------------------------------------------- views

MEMBERS = st.builds(Member, **{field.name: strategy(field) for field in spec.MEMBER})


@given(members=st.lists(MEMBERS, max_size=6, unique_by=lambda member: member.rank))
def test_the_members_of_a_view_come_back(members):
    """In the order in which they were listed."""
    view = codec.view_of(3, 2**20, members, {})
    frames = codec.encode(view, RUN)
    assert codec.members_of(codec.decode(frames, RUN)) == tuple(members)


def test_a_view_of_the_largest_cluster_fits():
    """A million ranks are legal; a hundred thousand members must fit into one message."""
    members = [
        Member(rank, 2**63, 1, "host-1234.some.where", 50000, "tcp://10.11.12.13:50000") for rank in range(10**5)
    ]
    view = codec.view_of(1, 10**5, members, {})
    assert len(view.payload[0]) < codec.VIEW_BYTES_MAX
    assert len(codec.members_of(view)) == 10**5


@pytest.mark.parametrize("payload", [(), (b"\x90", b"\x90"), (bytes(codec.VIEW_BYTES_MAX + 1),)])
def test_a_view_has_one_frame_of_members_within_its_limit(payload):
    """Refused before msgpack is asked."""
    with pytest.raises(RemoteProtocolError, match="one frame") as caught:
        codec.members_of(View(1, 1, {}, payload))
    assert caught.value.code == Code.MALFORMED


# -------------------------------------------------------------------------- the query plane without ceremony

REQUEST, REPLY, ERROR = (codec.preamble(kind, RUN) for kind in (Kind.REQUEST, Kind.REPLY, Kind.ERROR))
QUERY = {kind.name: kind for kind in spec.KINDS}
FIELDS = st.tuples(*map(strategy, QUERY["REQUEST"].fields))
PAYLOAD = st.lists(st.binary(max_size=50), min_size=1, max_size=5)


@given(fields=FIELDS, payload=PAYLOAD)
def test_a_request_by_the_short_way_is_the_same_request(fields, payload):
    """Two ways to write one message may not differ by an octet, nor two ways to read it by a field."""
    frames = codec.request_frames(REQUEST, fields, payload)
    assert frames == codec.encode(Request(*fields, tuple(payload)), RUN)
    assert codec.read_request(frames, REQUEST, RUN) == fields


@given(call_id=strategy(QUERY["REPLY"].fields[0]), payload=PAYLOAD)
def test_a_reply_by_the_short_way_is_the_same_reply(call_id, payload):
    """As above."""
    frames = codec.reply_frames(REPLY, call_id, payload)
    assert frames == codec.encode(Reply(call_id, tuple(payload)), RUN)
    assert codec.read_reply(frames, REPLY) == call_id


@given(fields=FIELDS, payload=PAYLOAD, more=st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_a_request_of_a_later_version_is_read_by_the_short_way(fields, payload, more):
    """Appended fields are ignored here too; a reply with more of them is left to ``decode``."""
    frames = codec.request_frames(REQUEST, (*fields, *more), payload)
    assert codec.read_request(frames, REQUEST, RUN) == fields
    later = [REPLY, msgpack.packb([5, *more]), *payload]
    assert codec.read_reply(later, REPLY) is None
    assert codec.decode(later, RUN) == Reply(5, tuple(payload))


@given(message=message_strategy(QUERY["HEARTBEAT"]))
def test_a_heartbeat_by_the_short_way_is_the_same_heartbeat(message):
    """A member that is read with another's rank keeps the wrong lease alive."""
    frames = codec.encode(message, RUN)
    opening = codec.preamble(Kind.HEARTBEAT, RUN)
    assert codec.read_heartbeat(frames, opening) == (message.rank, message.incarnation)
    assert codec.read_heartbeat(frames, codec.preamble(Kind.HEARTBEAT, b"another.")) is None


@pytest.mark.parametrize(
    "frames",
    [
        [codec.preamble(Kind.HEARTBEAT, RUN), msgpack.packb([1, 7, 3, "more"])],  # of a later version
        [codec.preamble(Kind.HEARTBEAT, RUN), msgpack.packb([1, 7])],
        [codec.preamble(Kind.HEARTBEAT, RUN), msgpack.packb([True, 7, 3])],
        [codec.preamble(Kind.HEARTBEAT, RUN), msgpack.packb([1, 7, -3])],
        [codec.preamble(Kind.HEARTBEAT, RUN), msgpack.packb([1, 7, 3]), b"payload"],
        [codec.preamble(Kind.HEARTBEAT, RUN), b"\xdd\xff\xff\xff\xff"],
        [codec.preamble(Kind.HEARTBEAT, RUN), msgpack.packb(["x" * 99] * 3)],
        [codec.preamble(Kind.LOOKUP, RUN), msgpack.packb([1, 7, 3])],
        [codec.preamble(Kind.HEARTBEAT, RUN)],
        [],
    ],
)
def test_what_is_no_plain_heartbeat_is_left_to_decode(frames):
    """It accepts it, or says what is wrong with it; the short way has no words."""
    assert codec.read_heartbeat(frames, codec.preamble(Kind.HEARTBEAT, RUN)) is None


@given(message=message_strategy(QUERY["ERROR"]) | message_strategy(QUERY["REFUSE"]))
def test_what_is_no_reply_is_left_to_decode(message):
    """An ERROR read as a reply would be a wrong result."""
    assert codec.read_reply(codec.encode(message, RUN), REPLY) is None


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (codec.preamble(Kind.HELLO, RUN), Code.UNEXPECTED),
        (REPLY, Code.UNEXPECTED),
        (spec.preamble(99), Code.UNKNOWN_KIND),
        (spec.preamble(32, version=2), Code.VERSION),
        (spec.preamble(32, run_id=bytes(8)), Code.WRONG_RUN),
        (spec.preamble(32, magic=b"XXX"), Code.MALFORMED),
        (b"", Code.MALFORMED),
    ],
)
def test_what_is_no_request_for_us_is_refused_with_its_code(first, code):
    """A server is told apart from a coordinator, an old run from this one."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.read_request([first, b"\xc1", b""], REQUEST, RUN)
    assert caught.value.code == code


def test_a_request_with_flags_of_a_later_version_is_read():
    """The short way compares whole preambles; one with flags set takes the long way and is still a request."""
    frames = codec.request_frames(REQUEST, (1, "get", 2, 3, 4), [b"\xc0"])
    frames[0] = spec.preamble(32, flags=1)
    assert codec.read_request(frames, REQUEST, RUN) == (1, "get", 2, 3, 4)


BROKEN_REQUESTS = [
    (field.name, name, {**QUERY["REQUEST"].values("example"), field.name: value})
    for field in QUERY["REQUEST"].fields
    for name, value in {**field.outside(), **field.mistyped()}.items()
    if field.name not in ("rank", "incarnation") or name not in ("below 0", "over its limit")
]


@pytest.mark.parametrize(("field", "what", "values"), BROKEN_REQUESTS, ids=[f"{a}: {b}" for a, b, _ in BROKEN_REQUESTS])
def test_a_broken_field_is_refused_by_the_short_way_too(field, what, values):
    """Except a rank or an incarnation out of range: no server has it, so the answer is WRONG_MEMBER."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.read_request([REQUEST, msgpack.packb(list(values.values())), b""], REQUEST, RUN)
    assert caught.value.code == Code.MALFORMED


@pytest.mark.parametrize("count", range(5))
def test_a_request_with_too_few_fields_or_frames_is_malformed(count):
    """Nothing is filled in."""
    values = list(QUERY["REQUEST"].values("example").values())
    for frames in ([REQUEST, msgpack.packb(values[:count]), b""], [REQUEST, msgpack.packb(values)][: count // 2]):
        with pytest.raises(RemoteProtocolError) as caught:
            codec.read_request(frames, REQUEST, RUN)
        assert caught.value.code == Code.MALFORMED
