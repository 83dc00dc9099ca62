"""Foreign octets into the decoders: a message, a value or a RemoteProtocolError, and nothing else whatsoever."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import spec

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import FIELDS_BYTES_MAX, Kind, Message, View
from spark_partition_server.wire.payload import decode_value, encode_value

RUN = spec.RUN_ID
OPENING = codec.preamble(Kind.REQUEST, RUN)
ROUNDS = 100_000  # frames of a seeded run; a few seconds
TAME = frozenset(Code) - {Code.OK}


def outcome(decode: Callable[..., Any], *arguments: Any) -> Any:
    """What a decoder returned; None: it refused, and with a code. Everything else is let through."""
    try:
        return decode(*arguments)
    except RemoteProtocolError as error:
        if error.code not in TAME:
            raise AssertionError(f"a refusal without a code: {error}") from error
        return None


# ------------------------------------------------------------------------------------------- properties

FRAMES = st.lists(st.binary(max_size=60), max_size=4)


@given(frames=FRAMES)
def test_any_frames_into_decode(frames):
    """Whatever a stranger sends to the coordinator's port."""
    found = outcome(codec.decode, frames, RUN)
    assert found is None or isinstance(found, Message)


@given(kind=st.integers(0, 255), fields=st.binary(max_size=80), payload=FRAMES)
def test_any_fields_behind_a_good_preamble_into_decode(kind, fields, payload):
    """Whatever a member gone mad sends; a message that comes out encodes again."""
    found = outcome(codec.decode, [spec.preamble(kind), fields, *payload], RUN)
    assert found is None or codec.decode(codec.encode(found, RUN), RUN) == found


@given(
    values=st.recursive(st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), st.lists),
    kind=st.sampled_from(Kind),
)
def test_any_msgpack_behind_a_good_preamble_into_decode(values, kind):
    """Right octets, wrong types."""
    found = outcome(codec.decode, [spec.preamble(kind), msgpack.packb(values)], RUN)
    assert found is None or found.kind is kind


@given(frames=FRAMES)
def test_any_frames_into_the_short_way(frames):
    """Whatever arrives at a server's direct lane, and at a client that waits for a reply."""
    for opening in (OPENING, frames[0] if frames else b""):
        found = outcome(codec.read_request, frames, opening, RUN)
        assert found is None or [type(field) for field in found] == [int, str, int, int, int]
        assert type(outcome(codec.read_reply, frames, opening)) in (int, type(None))
        assert type(outcome(codec.read_heartbeat, frames, opening)) in (tuple, type(None))


@given(frames=FRAMES)
def test_any_octets_into_decode_value(frames):
    """Whatever a client sends as arguments."""
    outcome(decode_value, frames)


@given(octets=st.binary(max_size=60), code=st.sampled_from([1, 2]), frames=FRAMES)
def test_any_octets_as_an_array_into_decode_value(octets, code, frames):
    """Whatever is in an extension of ours."""
    outcome(decode_value, [msgpack.packb([msgpack.ExtType(code, octets)]), *frames])


@given(
    fields=st.tuples(
        st.integers(-2, 3) | st.none(),
        st.sampled_from(["<i4", "|O", "<f8", "|b1", "|u1", "<M8[s]", "<U1", "|S2", "|V1", "=i2", "<c8"])
        | st.text(max_size=6),
        st.lists(st.integers(-1, 4) | st.integers(0, 2**64 - 1), max_size=4) | st.none() | st.binary(max_size=3),
        st.sampled_from(["C", "F", "A", None]),
    ),
    frames=st.lists(st.sampled_from([0, 1, 2, 4, 8, 12, 16]).map(bytes), max_size=3),
)
def test_any_description_of_an_array_into_decode_value(fields, frames):
    """An array that comes out is exactly as large as its frame."""
    found = outcome(decode_value, [msgpack.packb(msgpack.ExtType(1, msgpack.packb(fields))), *frames])
    if found is not None:
        assert isinstance(found, numpy.ndarray)
        assert found.nbytes == len(frames[fields[0] - 1])


@given(octets=st.binary(max_size=80), size=st.integers(0, 5))
def test_any_octets_into_the_members_of_a_view(octets, size):
    """Whatever answers a LOOKUP."""
    found = outcome(codec.members_of, View(1, size, {}, (octets,)))
    assert found is None or len({member.rank for member in found}) == len(found) <= size


# ------------------------------------------------------------------------------------------ seeded runs


def seeds() -> list[list[bytes]]:
    """Good messages to damage: of every kind, with values and arrays."""
    made = []
    for kind in spec.KINDS:
        payload: Sequence[Any] = ()
        if kind.payload:
            payload = encode_value([("alice", {"k": [1.5, None, numpy.arange(6).reshape(2, 3)]}), numpy.float32(1)])
        for which in ("smallest", "example"):
            fields = msgpack.packb(list(kind.values(which).values()))
            made.append([spec.preamble(kind.number), fields, *map(bytes, payload)])
    return made


def damaged(source: random.Random, frames: list[bytes]) -> list[bytes]:
    """A message with an octet changed, put in or lost, or with its frames lost, doubled or swapped."""
    frames = list(frames)
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        at = source.randrange(len(frames)) if frames else 0
        match source.randrange(8):
            case 0 if frames:
                frames.pop(at)
            case 1:
                frames.insert(at, source.randbytes(source.randrange(20)))
            case 2 if frames:
                frames.insert(at, frames[source.randrange(len(frames))])
            case _ if frames and frames[at]:
                octets = bytearray(frames[at])
                spot = source.randrange(len(octets))
                edit = source.choice(("change", "change", "flip", "put in", "lose", "cut"))
                if edit == "change":
                    octets[spot] = source.choice(
                        (0, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xD4, 0xDD, 0xFF, source.randrange(256))
                    )
                elif edit == "flip":
                    octets[spot] ^= 1 << source.randrange(8)
                elif edit == "put in":
                    octets[spot:spot] = source.randbytes(source.choice((1, 4)))
                elif edit == "lose":
                    del octets[spot : spot + source.choice((1, 4))]
                else:
                    del octets[spot:]
                frames[at] = bytes(octets)
    return frames


def mutated_message(source: random.Random, good: list[list[bytes]]) -> list[bytes]:
    """One octet or frame away from a good message, or a few."""
    return damaged(source, source.choice(good))


def random_message(source: random.Random, _good: list[list[bytes]]) -> list[bytes]:
    """A good preamble and any octets, most of the time an array."""
    fields = source.randbytes(source.randrange(1, 24))
    array = bytes([0x90 + source.randrange(11)])
    return [spec.preamble(source.choice(spec.KINDS).number), (array if source.random() < 0.7 else b"") + fields]


def tally(rounds: int, draw: Callable[[], list[bytes]], decode: Callable[..., Any], *rest: Any) -> tuple[int, int]:
    """How many of so many drawn messages were accepted, and how many refused."""
    accepted = sum(outcome(decode, draw(), *rest) is not None for _ in range(rounds))
    return accepted, rounds - accepted


@pytest.mark.parametrize(("draw", "least"), [(mutated_message, 1000), (random_message, 10)])
def test_a_hundred_thousand_damaged_messages(draw, least):
    """Seeded, so that a failure can be repeated; the counts show that both outcomes were met."""
    source, good = random.Random(draw.__name__), seeds()
    accepted, refused = tally(ROUNDS // 2, lambda: draw(source, good), codec.decode, RUN)
    assert accepted > least
    assert refused > 1000


def damaged_value(source: random.Random) -> Callable[[], list[bytes]]:
    """Draws the frames of a value, damaged."""
    values = [
        [("alice", 3), {"limit": 10}],
        {"a": numpy.arange(6, dtype="<i2").reshape(2, 3), ("k", 1): [numpy.float32(2), 1.5]},
        [numpy.array(["x", "yy"]), numpy.array(5), numpy.zeros((0, 3)), b"octets" * 9, "text", None, True],
    ]
    good = [[bytes(frame) for frame in encode_value(value)] for value in values]
    return lambda: damaged(source, source.choice(good))


def read_value(frames: list[bytes]) -> tuple[Any]:
    """A value, wrapped, so that None is one too."""
    return (decode_value(frames),)


def test_twenty_thousand_damaged_values():
    """The payload is read by the handlers' side, and by every client."""
    accepted, refused = tally(ROUNDS // 5, damaged_value(random.Random("values")), read_value)
    assert accepted > 1000
    assert refused > 1000


def test_damaged_messages_and_values_cost_little_memory():
    """Nothing is kept of them, and no claim in a header is believed."""
    source, good = random.Random("memory"), seeds()
    tracemalloc.start()
    try:
        tally(3000, lambda: mutated_message(source, good), codec.decode, RUN)
        tally(3000, damaged_value(source), read_value)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_the_worst_fields_frame_costs_less_than_128_MiB_and_only_for_a_moment():
    """A thousand nested arrays that each claim to fill the rest: the most that msgpack can be made to reserve."""
    fields = (b"\xdd\x00\x00\xff\xff" * 1000).ljust(FIELDS_BYTES_MAX, b"\0")
    tracemalloc.start()
    try:
        assert outcome(codec.decode_fields, fields) is None
        now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 128 << 20
    assert now < 1 << 20
