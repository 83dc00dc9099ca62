"""Memory that is used again: never while anything can reach it, and never more of it than was allowed."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.net.memory import IDLE, KEPT_FROM, Blocks
from spark_partition_server.wire.payload import decode_value, encode_value

numpy = pytest.importorskip("numpy")

KEPT = 4 << 20
SIZES = (KEPT_FROM - 1, KEPT_FROM, KEPT_FROM + 1, 300_000, 500_000, 1 << 20, KEPT, KEPT + 1)

def cycle(view: memoryview) -> list[Any]:
    held: list[Any] = [view]
    held.append(held)
    return held


# What a user may keep of an array, each by another path to the memory.
VIEWS: dict[str, Callable[[memoryview], Any]] = {
    "the view itself": lambda view: view,
    "a slice": lambda view: view[len(view) // 3 :],
    "a slice of a slice": lambda view: view[1:][1:],
    "an array": lambda view: numpy.frombuffer(view, dtype=numpy.uint8),
    "a part of an array": lambda view: numpy.frombuffer(view, dtype=numpy.uint8)[::2],
    "an array of another type": lambda view: numpy.frombuffer(view[: len(view) // 8 * 8], dtype=numpy.float64),
    "one of several dimensions": lambda view: numpy.frombuffer(view[:6000], dtype=numpy.uint8).reshape(20, 300).T,
    "a view of an array": lambda view: memoryview(numpy.frombuffer(view, dtype=numpy.uint8))[7:],
    "a base": lambda view: numpy.frombuffer(view, dtype=numpy.uint8)[3:].base,
    "a frame of a value": lambda view: decode_value([*encode_value(numpy.zeros(len(view), numpy.uint8))[:1], view]),
    "in a cycle": cycle,
}


def octets(held: Any) -> bytes:
    """What the holder sees."""
    if isinstance(held, list):
        held = held[0]
    return numpy.asarray(held).tobytes()


@given(st.data())
def test_what_somebody_holds_is_never_given_out_again(data):
    """A user keeps arrays of all kinds for as long as they like, while the memory of others is used again."""
    blocks = Blocks(KEPT)
    held: dict[int, tuple[Any, bytes]] = {}
    for step in range(data.draw(st.integers(1, 12))):
        if held and data.draw(st.booleans()):
            del held[data.draw(st.sampled_from(sorted(held)))]
        view = blocks.allocate(data.draw(st.sampled_from(SIZES)))
        view[:] = bytes([step + 1]) * len(view)
        keeper = VIEWS[data.draw(st.sampled_from(sorted(VIEWS)))](view)
        del view
        held[step] = (keeper, octets(keeper))
        for one, before in held.values():
            assert octets(one) == before
        assert blocks.kept <= KEPT


@pytest.mark.parametrize("kind", VIEWS)
def test_whatever_is_kept_of_an_array_keeps_all_of_it(kind):
    """The smallest thing that leads to the memory is enough; the memory comes back when it goes."""
    blocks = Blocks(KEPT)
    view = blocks.allocate(KEPT_FROM)
    held = [VIEWS[kind](view)]
    where = numpy.frombuffer(view, dtype=numpy.uint8).ctypes.data
    del view
    assert address(blocks.allocate(KEPT_FROM)) != where
    held.clear()
    gc.collect()
    assert where in {address(view) for view in [blocks.allocate(KEPT_FROM), blocks.allocate(KEPT_FROM)]}


def address(view: memoryview) -> int:
    return numpy.frombuffer(view, dtype=numpy.uint8).ctypes.data


def test_the_next_frame_goes_where_the_last_one_was():
    """Without it every large reply would cost fresh pages."""
    blocks = Blocks(KEPT)
    assert len({address(blocks.allocate(1 << 20)) for _ in range(10)}) == 1
    assert blocks.kept == 1 << 20


def test_an_array_does_not_hold_memory_much_larger_than_itself():
    """A small reply after a large one: the large one's memory is left for the next large one."""
    blocks = Blocks(2 * KEPT)
    blocks.allocate(KEPT)
    small = blocks.allocate(KEPT_FROM)
    assert len(small.obj) < 2 * KEPT_FROM
    assert blocks.kept == KEPT + len(small.obj)


def test_what_is_over_the_limit_is_given_back():
    """A client that holds many large arrays costs what the arrays cost."""
    blocks = Blocks(KEPT)
    held = [blocks.allocate(1 << 20) for _ in range(8)]
    assert blocks.kept <= KEPT
    assert all(len(view) == 1 << 20 for view in held)


def test_memory_that_has_long_been_free_is_given_back():
    """A large reply yesterday: its memory goes with the next large reply of another size."""
    now = [0.0]
    blocks = Blocks(KEPT, lambda: now[0])
    blocks.allocate(2 << 20)
    now[0] = IDLE / 2
    held = blocks.allocate(KEPT_FROM)
    assert blocks.kept > 2 << 20
    now[0] = IDLE * 2
    again = blocks.allocate(KEPT_FROM)
    assert blocks.kept < 1 << 20
    assert len(held) == len(again) == KEPT_FROM


def test_memory_that_has_long_been_free_is_given_back_when_somebody_looks():
    """A large reply yesterday, and none since; one that is held stays known, to be used again."""
    now = [0.0]
    blocks = Blocks(KEPT, lambda: now[0])
    blocks.allocate(3 << 20)
    held = blocks.allocate(1 << 20)
    blocks.rest()
    assert blocks.kept == 4 << 20
    now[0] = IDLE * 1.1
    with blocks._lock:
        blocks.rest()  # somebody is at it: later
    assert blocks.kept == 4 << 20
    blocks.rest()
    assert blocks.kept == 1 << 20
    where = address(held)
    del held
    assert address(blocks.allocate(1 << 20)) == where
    now[0] = IDLE * 3
    blocks.rest()
    assert not blocks.blocks


def test_clear_takes_nothing_from_those_who_hold_it():
    """A client is closed; its user computes on with the last array."""
    blocks = Blocks(KEPT)
    held = blocks.allocate(1 << 20)
    held[:] = b"x" * len(held)
    blocks.clear()
    blocks.allocate(1 << 20)[:] = bytes(1 << 20)
    assert blocks.kept == 1 << 20
    assert held == b"x" * len(held)


def test_a_lock_that_nobody_will_ever_release():
    """A process was forked while another thread was in here: its child gets memory all the same."""
    blocks = Blocks(KEPT)
    with blocks._lock:
        view = blocks.allocate(1 << 20)
    view[:] = b"y" * len(view)
    assert blocks.kept == 0


def test_threads_never_get_the_same_memory():
    """Many threads, each writes its own number and looks whether it stays."""
    blocks = Blocks(KEPT)
    mixed: list[int] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait(20)
        for _ in range(150):
            view = blocks.allocate(KEPT_FROM)
            array = numpy.frombuffer(view, dtype=numpy.uint8)
            array[:] = number
            if array.min() != number or array.max() != number:
                mixed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not mixed
