"""Messages in parts: cut, sent as far as credit goes, put together; and what does not fit."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire import codec, framing, relays
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.framing import Pieces
from spark_partition_server.wire.messages import Cancel, Credit, Error, Items, Kind, Part, Reply, Request
from spark_partition_server.wire.parts import Parts
from spark_partition_server.wire.relays import (
    CALL_WINDOW,
    FIRST_CREDIT,
    PART_BYTES_MAX,
    WHOLE_BYTES_MAX,
    WHOLE_FRAMES_MAX,
    BadPart,
    frames_of,
    opening_of,
)

RUN = b"run of 8"
LIMIT = 8 << 20


def octets(size: int) -> bytes:
    """Octets in which a piece lost, doubled or moved would be seen."""
    return b"".join(b"%07d." % number for number in range(size // 8 + 1))[:size]


def encoded(message) -> list[bytes]:
    return codec.encode(message, RUN)


def asking(size: int, call_id: int = 1, **others) -> list[bytes]:
    return encoded(Request(call_id, "get", 5000, 0, 7, others.pop("payload", (octets(size),))))


def part(call_id: int, offset: int, size: int, piece: bytes) -> list[bytes]:
    return encoded(Part(call_id, offset, size, (piece,)))


def ends(**options) -> tuple[Parts, Parts]:
    return Parts(RUN, LIMIT, **options), Parts(RUN, LIMIT, **options)


def exchange(sender: Parts, receiver: Parts, frames) -> list[list[bytes]]:
    """What arrives of a message; credit goes back as it comes."""
    arrived = []
    going = list(sender.send(frames))
    while going:
        whole, back = receiver.take(list(going.pop(0)))
        arrived += [[bytes(frame) for frame in whole]] if whole is not None else []
        for credit in back:
            passed, more = sender.take(list(credit))
            assert passed is None, "credit for parts is nobody else's business"
            going += more
        sender.check()
        receiver.check()
    return arrived


# ------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize("size", [0, 1, 100_000, WHOLE_BYTES_MAX, PART_BYTES_MAX * 3, 1 << 20, 3_000_001])
def test_a_message_of_any_size_arrives_as_it_was(size):
    """[7.41.1]: in one message or in many."""
    sender, receiver = ends()
    frames = asking(size)
    assert exchange(sender, receiver, frames) == [frames]
    assert not sender.waiting
    assert not receiver.joining


@given(st.lists(st.integers(0, 200_000), max_size=5), st.booleans())
def test_frames_of_any_sizes(sizes, pieces):
    """The pieces of the parts know nothing of the frames of the message."""
    payload = tuple(octets(size) for size in sizes)
    if pieces:
        payload = tuple(Pieces.of([one[:5000], one[5000:]]) for one in payload)
    frames = [codec.preamble(Kind.REQUEST, RUN), msgpack.packb((1, "get", 5000, 0, 7)), *payload]
    sender, receiver = ends()
    assert exchange(sender, receiver, frames) == [[bytes(frame) for frame in frames]]


def test_many_frames_travel_in_parts():
    """[8.45]: a RELAY has a preamble and fields of its own."""
    sender, receiver = ends()
    frames = asking(0, payload=tuple(bytes((number,)) for number in range(62)))
    assert len(frames) > WHOLE_FRAMES_MAX
    (message,) = sender.send(frames)
    assert message[0][4] == Kind.PART
    assert receiver.take(list(message))[0] == frames
    fits = asking(0, payload=tuple(bytes((number,)) for number in range(60)))
    assert sender.send(fits) == (fits,)


def test_no_more_leaves_than_the_credit_allows():
    """[7.41.3]: whatever the size of the message, so that what waits on the way is bounded."""
    sender, _ = ends()
    sent = sender.send(asking(5 << 20))
    assert sum(len(message[2]) for message in sent) == FIRST_CREDIT
    assert sender.waiting > 4 << 20
    assert sender.unsent(1)
    _, more = sender.take(encoded(Credit(1, 0, FIRST_CREDIT + 5)))
    assert [len(message[2]) for message in more] == [5]
    assert sender.take(encoded(Credit(1, 0, FIRST_CREDIT)))[1] == ()  # less than before says nothing
    assert sender.take(encoded(Credit(2, 0, 1 << 30)))[1] == ()  # of another call
    sender.check()


def test_credit_for_items_is_passed_on():
    """[7.40.1]: both counts are in one message."""
    sender, _ = ends()
    both = encoded(Credit(1, 3, 0))
    assert sender.take(both) == (both, ())
    sender.send(asking(1 << 20))
    both = encoded(Credit(1, 3, 2 * FIRST_CREDIT))
    whole, more = sender.take(both)
    assert whole == both
    assert len(more) == 1
    old = [codec.preamble(Kind.CREDIT, RUN), msgpack.packb((1, 3))]
    assert sender.take(old) == (old, ())


def test_later_messages_of_a_call_wait_behind_its_parts():
    """[7.41.2]: an item that overtook an earlier one would be in the wrong place."""
    sender, receiver = ends()
    sent = list(sender.send(encoded(Items(1, 0, (octets(1 << 20),)))))
    assert sender.send(encoded(Items(1, 1, (b"\x90",)))) == []
    assert sender.send(encoded(Items(2, 0, (b"\x90",)))) != []  # another call's
    assert sender.send(encoded(Reply(1, (b"\xc0",)))) == []
    got = []
    while sent:
        whole, back = receiver.take(list(sent.pop(0)))
        got += [codec.decode(whole, RUN)] if whole is not None else []
        for credit in back:
            sent += sender.take(list(credit))[1]
        sender.check()
    assert [type(message) for message in got] == [Items, Items, Reply]
    assert sender.idle
    assert receiver.idle


def test_credit_lasts_over_the_messages_of_a_call():
    """[7.40.1]: it counts from the call's first part."""
    sender, receiver = ends()
    for sequence in range(3):
        frames = encoded(Items(1, sequence, (octets(300_000),)))
        assert exchange(sender, receiver, frames) == [frames]
    assert not sender.idle
    assert len(sender.send(encoded(Reply(1, (b"\xc0",))))) == 1
    assert sender.idle


def test_a_call_that_is_taken_back_sends_nothing_more():
    """[8.47]: neither side keeps anything of it."""
    sender, receiver = ends()
    for message in sender.send(asking(1 << 20)):
        receiver.take(list(message))
    assert receiver.joining
    cancel = encoded(Cancel(1))
    assert sender.send(cancel) == (cancel,)
    assert sender.take(encoded(Credit(1, 0, 1 << 30)))[1] == ()
    assert receiver.take(cancel) == (cancel, ())
    assert sender.idle
    assert receiver.idle
    assert not receiver.joining


def test_an_answer_ends_a_request_that_has_not_left():
    """[8.44]: a refusal comes while the request is still being sent."""
    sender, _ = ends()
    sender.send(asking(1 << 20))
    refused = encoded(Error(1, Code.UNAVAILABLE, "no"))
    assert sender.take(refused) == (refused, ())
    assert not sender.unsent(1)
    assert not sender.waiting


# ----------------------------------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (part(1, 0, LIMIT + 1, b"x"), Code.TOO_LARGE),
        (part(1, 5, 4, b"x"), Code.MALFORMED),
        (part(1, 0, 100, b""), Code.MALFORMED),
        (part(1, 0, 1 << 20, bytes(PART_BYTES_MAX + 1)), Code.MALFORMED),
        (encoded(Part(1, 0, 9, (b"x", b"y"))), Code.MALFORMED),
        (part(1, 0, 3, b"\x00\x05x"), Code.MALFORMED),  # not one whole frame
        (part(1, 0, 3, b"\x01\x01x"), Code.MALFORMED),  # more was to follow
        (part(1, 0, 4, b"\x00\x01xy"), Code.MALFORMED),
        (part(1, 0, 4, b"\x04\x02xy"), Code.MALFORMED),  # a command
        (part(1, 0, 4, b"\x02\x00\x00\x00"), Code.MALFORMED),
        (part(1, 0, 130, b"\x01\x00" * 65), Code.MALFORMED),  # more frames than a message may have
    ],
)
def test_a_part_that_breaks_a_limit_is_refused(message, code):
    """[7.41.4]: at the first part, before memory is spent on it."""
    _, receiver = ends()
    with pytest.raises(BadPart) as caught:
        receiver.take(message)
    assert (caught.value.code, caught.value.call_id) == (code, 1)
    assert receiver.idle
    receiver.check()


@pytest.mark.parametrize("message", [part(1, 7, 100, b"x"), part(1, 5, 99, b"x"), part(1, 0, 100, b"x")])
def test_a_part_that_does_not_follow_is_refused(message):
    """[7.41.2]: a hole would be filled with zeroes."""
    _, receiver = ends()
    receiver.take(part(1, 0, 100, b"01234"))
    with pytest.raises(BadPart):
        receiver.take(message)
    assert receiver.idle


def test_parts_over_the_credit_are_refused():
    """[7.41.3]: flow control that only one side keeps is none."""
    _, receiver = ends()
    receiver.take(part(1, 0, LIMIT, bytes(PART_BYTES_MAX)))
    receiver._calls[1].allowed = receiver._calls[1].received + 5
    with pytest.raises(BadPart):
        receiver.take(part(1, PART_BYTES_MAX, LIMIT, bytes(6)))


def test_no_more_is_put_together_than_there_is_room_for():
    """[7.41.4]: many announcements cost as much as one that is too large."""
    receiver = Parts(RUN, 1000, 1500)
    receiver.take(part(1, 0, 1000, b"x"))
    with pytest.raises(BadPart) as caught:
        receiver.take(part(2, 0, 501, b"x"))
    assert caught.value.code == Code.OVERLOADED
    receiver.take(part(3, 0, 500, b"x"))
    receiver.check()


def test_parts_of_calls_that_nobody_waits_for_are_dropped():
    """[8.42]: late answers cost nothing, large ones neither."""
    expected = {1}
    receiver = Parts(RUN, LIMIT, None, expected.__contains__)
    receiver.take(part(1, 0, 1000, b"x"))
    assert receiver.take(part(2, 0, 1000, b"x")) == (None, ())
    expected.clear()
    assert receiver.take(part(1, 1, 1000, b"x")) == (None, ())
    assert receiver.idle
    other = Parts(RUN, LIMIT)
    assert other.take(part(1, 1, 1000, b"x")) == (None, ())  # the rest of what was given up


@pytest.mark.parametrize(
    "frames",
    [
        [codec.preamble(Kind.PART, RUN), msgpack.packb((1, 2)), b"x"],
        [codec.preamble(Kind.PART, RUN), msgpack.packb((1, 2, -3)), b"x"],
        [codec.preamble(Kind.CREDIT, RUN), msgpack.packb(("x", 1, 1))],
        [codec.preamble(Kind.CREDIT, RUN), msgpack.packb((1, 1, "x"))],
        [codec.preamble(Kind.CREDIT, RUN), msgpack.packb(())],
    ],
)
def test_malformed_fields(frames):
    """[6.11]."""
    sender, _ = ends()
    sender.send(asking(1 << 20))
    with pytest.raises(RemoteProtocolError):
        sender.take(frames)


def test_a_message_without_a_call_cannot_be_told_apart():
    """The first field of every message of the query plane is the call's id."""
    sender, _ = ends()
    sender.send(asking(1 << 20))
    for frames in ([codec.preamble(Kind.REPLY, RUN), msgpack.packb(())], [codec.preamble(Kind.REPLY, RUN)]):
        with pytest.raises(RemoteProtocolError):
            sender.take(frames)
    assert sender.take([b"short"]) == ([b"short"], ())


def test_the_opening_of_a_message_is_in_its_first_part():
    """[7.41.5]: the coordinator reads there who is meant."""
    frames = asking(1 << 20)
    sender, _ = ends()
    ((_, _, piece),) = sender.send(frames)
    assert opening_of(piece) == (frames[0], frames[1])
    small = asking(10)
    assert opening_of(framing.encode(small)) == (small[0], small[1])
    wide = encoded(Request(1, "m" * 256, 5000, 0, 7, (b"x",)))
    assert opening_of(framing.encode(wide)) == (wide[0], wide[1])
    for cut in (20, 25):
        with pytest.raises(RemoteProtocolError):
            opening_of(framing.encode(small)[:cut])
    assert frames_of(memoryview(framing.encode([b"", b"a" * 300]))) == [b"", b"a" * 300]


def test_a_whole_message_over_the_limit_is_refused_too():
    """[7.41.4]: a receiver with a small limit gets the same error, in how many messages ever it comes."""
    receiver = Parts(RUN, 1000)
    with pytest.raises(BadPart) as caught:
        receiver.take(asking(2000, 5))
    assert (caught.value.code, caught.value.call_id) == (Code.TOO_LARGE, 5)
    assert receiver.take(asking(900))[0] is not None
    assert relays.room_for(1000) > 1000


def test_the_windows_fit_each_other():
    """A window of less than a part would never move."""
    assert FIRST_CREDIT >= PART_BYTES_MAX
    assert CALL_WINDOW % PART_BYTES_MAX == 0
    assert relays.WHOLE_BYTES_MAX >= codec.FIELDS_BYTES_MAX + codec.PREAMBLE_BYTES, "an ERROR is never in parts"
