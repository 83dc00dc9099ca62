"""What is said about lent memory: octets alone, with a fake for the memory itself."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.octets import command, handshake, message

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.lending import (
    PROPERTY,
    SLOTS_MAX,
    forget_octets,
    memory_octets,
    offered,
    release_octets,
)
from spark_partition_server.wire.zmtp import Engine, Limits

LIMITS = Limits(1000, 4)


class Memory:
    """Slots of which every one is there, and a list of what was asked."""

    bytes_max = 4096

    def __init__(self) -> None:
        self.asked: list[object] = []

    def borrow(self, slot: int, size: int) -> memoryview:
        self.asked.append(("borrow", slot, size))
        return memoryview(bytes(range(256)) * (size // 256))

    def returned(self, slots: Sequence[int]) -> None:
        self.asked.append(("returned", *slots))

    def forget(self, slots: Sequence[int]) -> None:
        self.asked.append(("forget", *slots))


def opening(offer: bytes | None) -> bytes:
    """A client's handshake, with an offer or without."""
    if offer is None:
        return handshake()
    properties = b"".join(
        bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value
        for name, value in ((b"Socket-Type", b"DEALER"), (PROPERTY, offer))
    )
    return handshake()[:64] + command(b"READY", properties)


def sharing(memory: Memory | None = None, offer: bytes | None = struct.pack("!Q", 777)) -> Engine:
    made = Engine(b"ROUTER", LIMITS, shared=memory or Memory())
    assert made.receive(opening(offer)) == []
    made.output()
    return made


# ---------------------------------------------------------------------------------------------- the offer


def test_the_offer_is_made_and_taken():
    """[6.14] A side MAY put the offer into its READY; they MUST NOT be sent to one that has made none."""
    assert sharing().lends == 777
    assert sharing(offer=None).lends == 0
    quiet = Engine(b"ROUTER", LIMITS)
    quiet.receive(opening(struct.pack("!Q", 777)))
    assert quiet.lends == 0
    assert PROPERTY not in quiet.output()
    loud = Engine(b"ROUTER", LIMITS, shared=Memory())
    assert PROPERTY + (8).to_bytes(4, "big") + (4096).to_bytes(8, "big") in loud.output()


@pytest.mark.parametrize("value", [b"", b"1", b"1234567", b"123456789"])
def test_an_offer_that_means_nothing_is_none(value):
    """A later version may say more; this one then sends octets."""
    assert offered(value) == 0
    assert sharing(offer=value).lends == 0


def test_who_has_offered_nothing_ignores_the_commands():
    """[6.4]: they are commands that it does not know."""
    engine = Engine(b"ROUTER", LIMITS)
    engine.receive(handshake())
    octets = memory_octets(1, 256, [(0, 0, 5)]) + release_octets([1]) + forget_octets([2]) + message([b"", b"x"])
    assert engine.receive(octets) == [[b"", b"x"]]


# ------------------------------------------------------------------------------------------------ memory


def test_octets_take_the_place_of_empty_frames():
    """[6.15] The frames that it names MUST be there and empty; the others stay, and so does the next message."""
    memory = Memory()
    engine = sharing(memory)
    octets = memory_octets(7, 512, [(1, 3, 4), (3, 500, 12)]) + message([b"a", b"", b"b", b""]) + message([b"", b""])
    found = engine.receive(octets)
    assert [[bytes(part) for part in frames] for frames in found] == [
        [b"a", bytes((3, 4, 5, 6)), b"b", bytes(range(244, 256))],
        [b"", b""],
    ]
    assert memory.asked == [("borrow", 7, 512)]


@given(st.data())
def test_every_cut_gives_the_same(data):
    """The stream is cut where the kernel likes, in a command too."""
    octets = memory_octets(7, 512, [(1, 3, 4)]) + message([b"a", b""]) + release_octets([1, 2]) + message([b"z"])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(octets) - 1), max_size=6)))
    memory = Memory()
    engine = sharing(memory)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        found += [[bytes(part) for part in frames] for frames in engine.receive(octets[start:end])]
    assert found == [[b"a", bytes((3, 4, 5, 6))], [b"z"]]
    assert memory.asked == [("borrow", 7, 512), ("returned", 1, 2)]


def test_long_frames_and_lent_ones_in_one_message():
    """A frame that is received into memory of its own ends the message."""
    engine = Engine(b"ROUTER", Limits(1 << 20, 4), shared=Memory())
    engine.receive(opening(None))
    long = bytes(100_000)
    assert engine.receive(memory_octets(7, 512, [(0, 0, 4)])) == []
    whole = message([b"", long])
    assert engine.receive(whole[:50_000]) == []
    room = engine.room()
    assert room is not None
    room[:] = whole[50_000:]
    (frames,) = engine.filled(len(room))
    assert [bytes(part) for part in frames] == [bytes((0, 1, 2, 3)), long]


PLACE = struct.pack("!BQQ", 0, 0, 1)
HEAD = struct.pack("!IQ", 1, 256)
BREACHES = {
    "no place": command(b"MEMORY", HEAD),
    "no head": command(b"MEMORY", b"\0"),
    "half a place": command(b"MEMORY", HEAD + PLACE + PLACE[:-1]),
    "nothing at a place": memory_octets(1, 256, [(0, 0, 0)]),
    "a place behind the end": memory_octets(1, 256, [(0, 250, 7)]),
    "a place far behind the end": memory_octets(1, 256, [(0, (1 << 64) - 1, 1)]),
    "twice": memory_octets(1, 256, [(0, 0, 1)]) * 2,
    "a frame that is not there": memory_octets(1, 256, [(1, 0, 1)]) + message([b""]),
    "a frame that is not empty": memory_octets(1, 256, [(0, 0, 1)]) + message([b"x"]),
    "a frame twice": memory_octets(1, 256, [(0, 0, 1), (0, 1, 1)]) + message([b""]),
    "half a slot returned": command(b"RELEASE", b"\0\0\0"),
    "half a slot forgotten": command(b"FORGET", b"\0\0\0\1\0"),
    "too many slots": release_octets(range(SLOTS_MAX + 1)),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_ends_the_connection(breach):
    """[6.18] A place outside its slot, and what makes no sense at all: the connection MUST end, for good."""
    engine = sharing()
    with pytest.raises(RemoteProtocolError) as caught:
        engine.receive(BREACHES[breach])
    assert caught.value.code == Code.MALFORMED
    with pytest.raises(RemoteProtocolError):
        engine.receive(message([b"more"]))


def test_lent_octets_count_for_the_limit():
    """[6.15] Or a server's limit of octets would hold only for those who do not share."""
    engine = sharing()
    assert engine.receive(memory_octets(1, 1024, [(0, 0, 999)]) + message([b"", b"x"]))
    with pytest.raises(RemoteProtocolError) as caught:
        engine.receive(memory_octets(1, 1024, [(0, 0, 999)]) + message([b"", b"xy"]))
    assert caught.value.code == Code.TOO_LARGE


@given(st.sampled_from([b"MEMORY", b"RELEASE", b"FORGET"]), st.binary(max_size=80), st.lists(st.binary(max_size=9)))
def test_any_body_is_taken_or_refused(name, body, frames):
    """Fuzz: an engine raises one kind of error."""
    engine = sharing()
    with contextlib.suppress(RemoteProtocolError):
        engine.receive(command(name, body) + message(frames or [b""]))
