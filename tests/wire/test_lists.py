"""Arrays that are made item by item: the same octets as those of the whole value."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.wire.lists import ListEncoder
from spark_partition_server.wire.payload import decode_value, encode_value

ITEMS = st.recursive(st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), st.lists, max_leaves=5)


@given(st.lists(ITEMS, max_size=40))
def test_item_by_item_is_the_same_as_at_once(items):
    """[9.1]: whoever reads it need not know how it was made."""
    encoder = ListEncoder()
    for item in items:
        assert encoder.add(item, 1 << 30)
    assert encoder.count == len(items)
    assert encoder.frames() == encode_value(items)
    assert encoder.frames() == encode_value([])


def test_arrays_are_numbered_in_the_order_in_which_they_appear():
    """[9.2]: also behind an item that was turned away."""
    encoder, arrays = ListEncoder(), [numpy.arange(number) for number in range(1, 4)]
    encoder.add(arrays[0], 1000)
    assert not encoder.add([arrays[1], {1}], 1000)
    assert not encoder.add(numpy.zeros(500), 1000)
    encoder.add([arrays[1], arrays[2]], 1000)
    assert encoder.size > 48
    frames = encoder.frames()
    assert len(frames) == 4
    first, (second, third) = decode_value(frames)
    assert [found.tolist() for found in (first, second, third)] == [array.tolist() for array in arrays]


def test_the_first_item_always_has_room():
    """Whatever its size; the second has none beside it."""
    encoder = ListEncoder()
    assert encoder.add(bytes(100_000), 10), "and its memory is given up"
    assert not encoder.add(1, 10)
    assert decode_value(encoder.frames()) == [bytes(100_000)]
    assert encoder.add(1, 10)


def test_what_cannot_be_sent_is_named_once_it_is_the_first():
    """Before that it has no room: those before it are to be sent first."""
    encoder = ListEncoder()
    encoder.add(1, 1000)
    assert not encoder.add([{2}], 1000)
    assert decode_value(encoder.frames()) == [1]
    with pytest.raises(TypeError, match=r"value\[0\] is of type builtins.set"):
        encoder.add([{2}], 1000)
    assert encoder.add(3, 1000)
    assert decode_value(encoder.frames()) == [3]
