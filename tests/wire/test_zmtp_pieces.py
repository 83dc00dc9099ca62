"""The ZMTP engine and the pieces in which octets arrive: every cut, every chunking, the limits, and fuzzing."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engines import engine, feed, feed_rooms, ready_engine
from support.octets import GREETING, LONG, MORE, command, frame, handshake, message

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.framing import DIRECT_BYTES
from spark_partition_server.wire.zmtp import MAPPED_BYTES, Limits, encode, encode_vector

PING = command(b"PING", b"\x00\x05ctx")
PONG = command(b"PONG", b"back")
SEEDED = random.Random(37)


def body(size: int) -> bytes:
    """Octets in which a shift by one would be seen."""
    return SEEDED.randbytes(size)


# name: what the other side sends, the messages in it, its pings
CORPUS: dict[str, tuple[bytes, list[list[bytes]], int]] = {}


def _add(name: str, *parts: list[bytes] | bytes) -> None:
    octets = handshake() + b"".join(part if isinstance(part, bytes) else message(part) for part in parts)
    messages = [part for part in parts if not isinstance(part, bytes)]
    CORPUS[name] = (octets, messages, sum(part == PING for part in parts))


_add("one small message", [b"hello"])
_add("an empty frame, twice", [b""], [b"", b""])
_add("many frames", [body(size % 7) for size in range(60)], [b"x"])
_add("around 256", [body(254), body(255), body(256), body(257)], [body(256)], [body(255)])
_add("pings in between", PING, [b"a", b"b"], PING, PONG, PING, [body(300)], PING)
_add("around DIRECT_BYTES", [body(DIRECT_BYTES - 1), b"t"], [body(DIRECT_BYTES), body(DIRECT_BYTES + 1)], PING, [b"z"])
_add("long frames at both ends", [body(DIRECT_BYTES + 5), b"", body(DIRECT_BYTES + 9)], PING, [body(3)])
MAPPED = "over MAPPED_BYTES"
_add(MAPPED, [b"h", body(MAPPED_BYTES - 1), body(MAPPED_BYTES)], PING, [body(MAPPED_BYTES + 70_000), b"t"])


def cuts_of(name: str, octets: bytes, messages: list[list[bytes]]) -> Iterator[int]:
    """Where a stream is cut in two: everywhere, or, when it is long, around each frame and at a sample."""
    if name != MAPPED:
        yield from range(1, len(octets))
        return
    edges = [len(handshake())]
    for frames in messages:
        for part in frames:
            edges.append(edges[-1] + len(part) + (9 if len(part) > 255 else 2))
    near = {edge + step for edge in edges for step in (-1, 0, 1, 2, 8, 9, 10, 8192)}
    sample = {SEEDED.randrange(1, len(octets)) for _ in range(20)}
    yield from sorted(cut for cut in near | sample if 0 < cut < len(octets))


@pytest.mark.parametrize("feeder", [feed, feed_rooms])
@pytest.mark.parametrize("name", CORPUS)
def test_every_cut_in_two_gives_the_same_messages(name, feeder):
    """TCP cuts where it likes: in a signature, a size, a body, a command."""
    octets, messages, pings = CORPUS[name]
    for cut in cuts_of(name, octets, messages):
        made = engine()
        made.output()
        assert feeder(made, (octets[:cut], octets[cut:])) == messages, f"cut at {cut}"
        assert made.output() == command(b"PONG", b"ctx") * pings, f"cut at {cut}"


@pytest.mark.parametrize("feeder", [feed, feed_rooms])
@pytest.mark.parametrize("name", [name for name in CORPUS if name != MAPPED])
def test_single_octets_give_the_same_messages(name, feeder):
    """The slowest sender there is."""
    octets, messages, pings = CORPUS[name]
    made = engine()
    made.output()
    assert feeder(made, (octets[at : at + 1] for at in range(len(octets)))) == messages
    assert made.output() == command(b"PONG", b"ctx") * pings


@pytest.mark.parametrize("feeder", [feed, feed_rooms])
@pytest.mark.parametrize("chunk", [1000, 8191, 8192, 65536, 262_144, 1 << 24])
def test_chunks_of_one_size_give_the_same_messages(chunk, feeder):
    """What a real receive buffer does to a stream, long frames included."""
    for name, (octets, messages, _) in CORPUS.items():
        pieces = (octets[at : at + chunk] for at in range(0, len(octets), chunk))
        assert feeder(engine(), pieces) == messages, name


def test_messages_come_out_as_soon_as_they_are_whole():
    """A message that waits for the octets of the next one would wait for ever."""
    first, second = message([b"a", body(400)]), message([body(DIRECT_BYTES * 2)])
    made = ready_engine()
    assert made.receive(first[:-1]) == []
    assert len(made.receive(first[-1:] + second[:100])) == 1
    assert len(made.receive(second[100:])) == 1


# ----------------------------------------------------------------------------------- room and filled


def test_a_long_frame_is_received_into_its_own_memory():
    """The octets of a large array are written once: the frame handed out is the memory that was filled."""
    made = ready_engine()
    size = DIRECT_BYTES * 3
    assert made.receive(frame(bytes(size))[:100]) == []
    room = made.room()
    assert room is not None
    assert len(room) == size - 91
    room[:] = b"\x07" * len(room)
    ((received,),) = made.filled(len(room))
    assert isinstance(received, memoryview)
    assert not received.readonly
    assert bytes(received) == bytes(91) + b"\x07" * (size - 91)
    assert made.room() is None


def test_a_long_frame_may_go_on_in_other_memory():
    """Who learns from the frames before it where it belongs has it received there: the frame is that very memory."""
    made = ready_engine()
    assert made.long_octets == 0
    made.receive(frame(b"head", MORE) + frame(b"\x05" * DIRECT_BYTES)[:109])
    assert (made.begun, made.long_octets) == ([b"head"], DIRECT_BYTES)
    memory = memoryview(bytearray(DIRECT_BYTES))
    made.move(memory)
    room = made.room()
    assert room is not None
    room[:] = b"\x06" * len(room)
    ((_, received),) = made.filled(len(room))
    assert received is memory
    assert bytes(memory) == b"\x05" * 100 + b"\x06" * (DIRECT_BYTES - 100)


def test_there_is_no_room_for_a_frame_below_the_limit():
    """Short frames come by receive; a system call each would be dear."""
    made = ready_engine()
    made.receive(frame(bytes(DIRECT_BYTES - 1))[:20])
    assert made.room() is None
    made = ready_engine()
    made.receive(frame(bytes(DIRECT_BYTES))[:20])
    assert made.room() is not None


def test_filled_in_parts_shrinks_the_room():
    """recv_into returns what the kernel had, not what was asked for."""
    made = ready_engine()
    made.receive(frame(bytes(DIRECT_BYTES), MORE)[:9])
    for left in range(DIRECT_BYTES, 0, -1024):
        room = made.room()
        assert room is not None
        assert len(room) == left
        assert made.filled(1024) == []
    assert made.room() is None
    assert feed(made, [frame(b"end")]) == [[bytes(DIRECT_BYTES), b"end"]]


# -------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [([1000], True), ([1001], False), ([500, 500], True), ([500, 501], False), ([1000, 0], True), ([255] * 4, False)],
)
@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_the_octets_of_a_message_are_limited_all_frames_together(sizes, fits, chunk):
    """A message just within the limit passes, one octet more is TOO_LARGE, however it arrives."""
    frames = [body(size) for size in sizes]
    octets = message(frames) * 3
    pieces = (octets[at : at + chunk] for at in range(0, len(octets), chunk))
    made = ready_engine(Limits(1000, 64))
    if fits:
        assert feed(made, pieces) == [frames] * 3
        return
    with pytest.raises(RemoteProtocolError, match="1000") as caught:
        feed(made, pieces)
    assert caught.value.code == Code.TOO_LARGE


@pytest.mark.parametrize("chunk", [1, 3, 100_000])
def test_the_frames_of_a_message_are_limited(chunk):
    """A message of endless empty frames is MALFORMED at the first one too many, not when memory is gone."""
    octets = message([b""] * 8) + message([b"x"] * 8)
    pieces = [octets[at : at + chunk] for at in range(0, len(octets), chunk)]
    assert feed(ready_engine(Limits(1000, 8)), pieces) == [[b""] * 8, [b"x"] * 8]
    with pytest.raises(RemoteProtocolError, match="7 frames") as caught:
        feed(ready_engine(Limits(1000, 7)), pieces)
    assert caught.value.code == Code.MALFORMED


@pytest.mark.parametrize("size", [1001, DIRECT_BYTES, MAPPED_BYTES, 1 << 40, (1 << 64) - 1])
def test_a_frame_over_the_limit_is_refused_at_its_header(size):
    """Nine octets must not make us reserve a terabyte."""
    made = ready_engine(Limits(1000, 8))
    header = bytes([LONG]) + size.to_bytes(8, "big")
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError) as caught:
            made.receive(header)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024
    finally:
        tracemalloc.stop()
    assert caught.value.code == Code.TOO_LARGE
    assert made.room() is None


def resident_octets() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_large_frame_that_is_announced_and_never_sent_costs_nothing():
    """256 connections that announce the largest request each must not fill the host."""
    made = ready_engine(Limits(1 << 30, 8))
    before = resident_octets()
    made.receive(bytes([LONG]) + (1 << 30).to_bytes(8, "big") + b"first octets")
    room = made.room()
    assert room is not None
    assert len(room) == (1 << 30) - 12
    assert resident_octets() - before < 16 << 20


# ---------------------------------------------------------------------------------------- properties

SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from([254, 255, 256, 257, 8183, 8191, 8192, 8193, 20_000]),
)
FRAMES = st.lists(SIZES.map(lambda size: random.Random(size).randbytes(size)), min_size=1, max_size=8)
PARTS = st.lists(st.one_of(FRAMES, st.just(PING)), max_size=6)


@given(parts=PARTS, cuts=st.lists(st.integers(0, 70_000), max_size=20), rooms=st.booleans())
def test_any_frames_in_any_chunks_come_back(parts, cuts, rooms):
    """What encode makes of frames, the engine makes frames of again, with commands between the messages."""
    octets = handshake() + b"".join(part if isinstance(part, bytes) else encode(part) for part in parts)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(octets)), len(octets)]
    pieces = [octets[start:stop] for start, stop in pairwise(edges) if start < stop]
    made = engine()
    made.output()
    messages = (feed_rooms if rooms else feed)(made, pieces)
    assert messages == [part for part in parts if not isinstance(part, bytes)]
    assert made.output() == command(b"PONG", b"ctx") * sum(isinstance(part, bytes) for part in parts)


@given(frames=FRAMES)
def test_both_encoders_agree_with_the_grammar(frames):
    """encode, encode_vector and RFC 37 written down a second time."""
    assert encode(frames) == message(frames)
    assert b"".join(encode_vector(frames)) == message(frames)


# --------------------------------------------------------------------------------------------- fuzzing

TIGHT = Limits(64 * 1024, 8)


def mutated(source: random.Random, octets: bytes) -> bytes:
    """A stream with a few octets changed, lost, doubled or put in."""
    damaged = bytearray(octets)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(damaged) + 1)
        span = source.choice((1, 1, 2, 9, 40))
        match source.randrange(5):
            case 0:
                damaged[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                del damaged[at : at + span]
            case 2:
                damaged[at:at] = damaged[at : at + span]
            case 3:
                damaged[at:at] = source.randbytes(span)
            case 4:
                damaged[at : at + 1] = bytes([source.choice((0, 1, 2, 3, 4, 6, 255))])
    return bytes(damaged)


def fuzz_one(source: random.Random, octets: bytes) -> None:
    """Feeds damaged octets in random pieces; anything but messages and RemoteProtocolError is let through."""
    made = engine(limits=TIGHT)
    made.output()
    feeder = source.choice((feed, feed_rooms))
    at = 0
    try:
        while at < len(octets):
            stop = at + source.choice((1, 2, 17, 500, 100_000))
            for frames in feeder(made, (octets[at:stop],)):
                assert 1 <= len(frames) <= TIGHT.frames
                assert sum(map(len, frames)) <= TIGHT.message_bytes
            at = stop
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            made.receive(b"\x00")
    room = made.room()
    assert room is None or len(room) <= TIGHT.message_bytes


STREAMS = [octets for name, (octets, _, _) in CORPUS.items() if len(octets) < 50_000]


@pytest.mark.parametrize("kind", ["mutated", "random after the handshake", "random after the greeting", "random"])
def test_damaged_octets_give_messages_or_a_remote_protocol_error_in_bounded_memory(kind):
    """No IndexError, no MemoryError, no endless buffer: whatever a stranger sends."""
    source = random.Random(f"zmtp {kind}")
    start = {"random after the handshake": handshake(), "random after the greeting": GREETING}.get(kind, b"")
    tracemalloc.start()
    try:
        for _ in range(1500):
            if kind == "mutated":
                fuzz_one(source, mutated(source, source.choice(STREAMS)))
            else:
                few = source.choices((0, 1, 2, 3, 4, 5, 6, 255), k=source.randrange(200))
                fuzz_one(source, start + source.choice((bytes(few), source.randbytes(source.randrange(300)))))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
