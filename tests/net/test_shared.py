"""Shared memory between two ends of a Unix socket: what each may do, and what it costs."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sharing import LIMIT, End, Pair, filled, pairing

from spark_partition_server.net.memory import IDLE
from spark_partition_server.net.shared import LENT_FROM, SharedMemory
from spark_partition_server.wire.framing import Pieces
from spark_partition_server.wire.lending import SLOTS_MAX

pytestmark = pytest.mark.skipif(not SharedMemory.possible(), reason="the system has no memfd")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pairing() as made:
        yield made


# ------------------------------------------------------------------------------------------- back and forth


def test_a_large_frame_is_lent_and_arrives_whole(pair):
    """Both ways, beside frames that are sent as ever."""
    for sender, receiver in ((pair.server, pair.client), (pair.client, pair.server)):
        large, small = filled(LENT_FROM, 1), filled(LENT_FROM - 64, 2)
        assert sender.send(b"head", large, small, large + large)
        assert [bytes(frame) for frame in receiver.receive()] == [b"head", large, small, large + large]


def test_a_small_frame_is_sent(pair):
    """Below the size where it wins, nothing is lent."""
    assert not pair.server.send(bytes(LENT_FROM - 1))
    assert pair.client.receive() == [bytes(LENT_FROM - 1)]


def test_a_frame_in_pieces_is_put_together(pair):
    """An Arrow table lies in many buffers."""
    parts = [filled(LENT_FROM, 3), b"abc", filled(LENT_FROM, 4)]
    assert pair.server.send(b"x", Pieces(parts))
    assert bytes(pair.client.receive()[1]) == b"".join(parts)


def test_the_same_memory_is_used_again(pair):
    """[6.17] A slot is lent again once RELEASE has named it: a hundred arrays that nobody keeps take one slot."""
    for number in range(100):
        assert pair.server.send(filled(LENT_FROM, number))
        assert bytes(pair.client.receive()[0]) == filled(LENT_FROM, number)
        pair.client.send(b"next")
        pair.server.receive()
    assert len(pair.server.shared._slots) == 1


@settings(max_examples=60)
@given(st.data())
def test_what_is_looked_at_is_never_written_to(data):
    """[6.17] A slot that was lent MUST NOT be written to or lent again until RELEASE has named it; RELEASE MUST NOT be
    sent while anything can look at it. Any frames, any of them kept for any time, in any kind of view."""
    numpy = pytest.importorskip("numpy")
    views = (
        lambda frame: frame,
        lambda frame: frame[5:],
        lambda frame: numpy.frombuffer(frame, dtype=numpy.uint8)[3::2],
        lambda frame: numpy.frombuffer(frame, dtype=numpy.uint8).reshape(2, -1).T,
        lambda frame: memoryview(numpy.frombuffer(frame, dtype=numpy.uint8))[9:],
    )
    with pairing() as pair:
        held: dict[int, tuple[Any, bytes]] = {}
        for number in range(data.draw(st.integers(1, 15))):
            if held and data.draw(st.booleans()):
                del held[data.draw(st.sampled_from(sorted(held)))]
            size = st.sampled_from([64, LENT_FROM, LENT_FROM * 3, 1 << 20])
            sizes = data.draw(st.lists(size, min_size=1, max_size=3))
            pair.server.send(*(filled(size, number * 10 + index) for index, size in enumerate(sizes)))
            frames = pair.client.receive()
            assert [bytes(part) for part in frames] == [
                filled(size, number * 10 + index) for index, size in enumerate(sizes)
            ]
            kept = data.draw(st.sampled_from(views))(frames[-1])
            held[number] = (kept, numpy.asarray(memoryview(kept)).tobytes())
            del frames, kept
            pair.client.send(b"next")
            pair.server.receive()
            for view, before in held.values():
                assert numpy.asarray(memoryview(view)).tobytes() == before
            assert pair.server.budget.used <= LIMIT
        held.clear()


def test_a_fork_keeps_what_was_looked_at(pair):
    """[6.17] A child that was forked meanwhile still looks at it, and nobody knows for how long."""
    pair.server.send(filled(LENT_FROM, 1))
    frames = pair.client.receive()
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    del frames
    assert pair.client.shared.due() == b""
    pair.server.send(filled(LENT_FROM, 2))
    assert bytes(pair.client.receive()[0]) == filled(LENT_FROM, 2)
    assert pair.client.shared.due() != b"", "what came after the fork is returned as ever"
    assert len(pair.server.shared._slots) == 2


# -------------------------------------------------------------------------------------------------- limits


def test_memory_is_bounded(pair):
    """[6.14] Not more octets together than the offer says: a client that keeps everything gets the rest sent."""
    held = []
    for number in range(20):
        lent = pair.server.send(filled(1 << 20, number))
        held.append(pair.client.receive())
        assert lent == (number < 8)
    assert [bytes(frames[0]) for frames in held] == [filled(1 << 20, number) for number in range(20)]
    assert pair.server.budget.used == LIMIT


def test_slots_are_bounded():
    """[6.14] A lender's slots MUST NOT be more than 64."""
    with pairing(limit=1 << 30, budget=1 << 30) as pair:
        held = []
        for _ in range(SLOTS_MAX + 3):
            pair.server.send(bytes(LENT_FROM))
            held.append(pair.client.receive())
        assert len(pair.server.shared._slots) == SLOTS_MAX


def test_a_frame_larger_than_all_of_it_is_sent(pair):
    """And all smaller ones are lent as before."""
    assert not pair.server.send(bytes(LIMIT + 1))
    assert len(pair.client.receive()[0]) == LIMIT + 1
    assert pair.server.send(bytes(LENT_FROM))
    assert len(pair.client.receive()[0]) == LENT_FROM


def test_free_slots_make_room_for_another_size(pair):
    """[6.18] FORGET names slots that were released and are no more; the receiver unmaps them."""
    for size in (1 << 20, 7 << 20, 3 << 20, 7 << 20, 1 << 20):
        assert pair.server.send(bytes(size))
        assert len(pair.client.receive()[0]) == size
        pair.client.send(b"next")
        pair.server.receive()
        mapped = sum(len(block.memory) for block in pair.client.shared._known.values())
        assert mapped <= LIMIT
        assert set(pair.client.shared._known) == set(pair.server.shared._slots)


def test_one_budget_for_all_connections():
    """What one connection holds the others cannot get; what it has free and unused goes when it is asked again."""
    with pairing() as first, pairing() as second:
        second.server.shared._budget = first.server.budget
        held = []
        for _ in range(8):
            assert first.server.send(bytes(1 << 20))
            held.append(first.client.receive())
        assert not second.server.send(bytes(1 << 20))
        second.client.receive()
        first.server.shared.close()
        assert second.server.send(bytes(1 << 20))
        second.client.receive()


def pages_of(end: End) -> int:
    """Octets of memory that the slots of an end take."""
    total = 0
    for slot in end.shared._slots.values():
        with open("/proc/self/smaps") as file:
            lines = file.read().split("\n")
        address = array_address(slot.memory)
        at = next(index for index, line in enumerate(lines) if line.startswith(f"{address:x}-"))
        total += next(int(line.split()[1]) for line in lines[at:] if line.startswith("Rss:")) * 1024
    return total


def array_address(memory: Any) -> int:
    numpy = pytest.importorskip("numpy")
    return int(numpy.frombuffer(memory, dtype=numpy.uint8).ctypes.data)


def test_memory_that_nobody_uses_goes_back_to_the_system(pair):
    """A client that fetched a large array, and then nothing more: its server does not keep the pages."""
    pair.server.send(filled(4 << 20, 1))
    assert len(pair.client.receive()[0]) == 4 << 20
    pair.client.send(b"thanks")
    pair.server.receive()
    assert pages_of(pair.server) >= 4 << 20
    pair.now = IDLE + 1
    assert not pair.server.shared.idle()
    assert pair.server.budget.used == 0
    assert pages_of(pair.server) == 0
    pair.server.send(filled(4 << 20, 2))
    assert bytes(pair.client.receive()[0]) == filled(4 << 20, 2)
    assert len(pair.server.shared._slots) == 1


def test_memory_that_is_looked_at_does_not_go(pair):
    """However long it takes."""
    pair.server.send(filled(1 << 20, 1))
    frames = pair.client.receive()
    pair.now = IDLE * 10
    assert pair.server.shared.idle()
    assert bytes(frames[0]) == filled(1 << 20, 1)


def test_what_was_lent_outlives_the_connection(pair):
    """The user computes on; the connection is gone."""
    pair.server.send(filled(1 << 20, 1))
    frames = pair.client.receive()
    pair.server.close()
    pair.client.close()
    gc.collect()
    assert bytes(frames[0]) == filled(1 << 20, 1)
