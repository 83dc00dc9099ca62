"""The packers that are kept from one message to the next give what new ones would, whatever went before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from spark_partition_server.wire.framing import SMALL_BYTES, encode, encode_small
from spark_partition_server.wire.payload import KEPT_BYTES, ValueEncoder, decode_value, encode_value

numpy = pytest.importorskip("numpy")


def test_a_value_that_cannot_be_sent_leaves_nothing_in_the_next() -> None:
    """Provoked: an array and half a list are packed already when the packer meets an object."""
    encoder = ValueEncoder()
    with pytest.raises(TypeError, match=r"value\[2\] is of type builtins.object"):
        encoder.encode([numpy.arange(3), "packed", object()])
    assert encoder.encode(["next"]) == [msgpack.packb(["next"])]


def test_arrays_of_one_value_do_not_travel_with_the_next() -> None:
    """The encoder is used again; its frames are those of one value."""
    encoder = ValueEncoder()
    frames = encoder.encode({"a": numpy.arange(3)})
    assert decode_value(frames)["a"].tolist() == [0, 1, 2]
    assert len(encoder.encode("no array")) == 1


def test_a_value_that_encodes_another_while_it_is_encoded() -> None:
    """Provoked: a dict that makes its items when it is asked for them; msgpack would mix the two in one buffer."""
    encoder = ValueEncoder()

    class Lazy(dict[str, Any]):
        def items(self) -> Any:
            return [("inner", encoder.encode([1, 2])[0])]

    assert encoder.encode(Lazy(one_item=0)) == [msgpack.packb({"inner": msgpack.packb([1, 2])})]
    assert encoder.encode(3) == [msgpack.packb(3)]


def test_values_of_any_size_one_after_the_other() -> None:
    """Provoked: the packer is given up after a large value, and the next value is small again."""
    encoder = ValueEncoder()
    for size in (1, KEPT_BYTES + 1, 1, 4096, 1):
        assert encoder.encode(b"x" * size) == encode_value(b"x" * size)


def sizes() -> Iterator[tuple[int, ...]]:
    for size in (0, 1, 255, 256, SMALL_BYTES):
        yield (16, 20, size)
        yield (size, 20, 3)
        yield (16, size, 3)
        yield (16, size)
        yield (1, 16, 20, size)


@pytest.mark.parametrize("lengths", list(sizes()))
def test_small_messages_are_encoded_as_all_are(lengths: tuple[int, ...]) -> None:
    """Provoked: a frame that takes a long header; a message just over the limit, which is not copied."""
    frames = [b"x" * length for length in lengths]
    assert encode_small(frames) == (encode(frames) if sum(lengths) <= SMALL_BYTES else None)


def test_an_error_in_a_values_own_code_leaves_nothing_in_the_next() -> None:
    """Provoked: a dict that fails while its items are packed, with an error that is not the packer's."""
    encoder = ValueEncoder()

    class Broken(dict[str, Any]):
        def items(self) -> Any:
            yield "packed", 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(["before", Broken(one_item=0)])
    assert encoder.encode("next") == [msgpack.packb("next")]
