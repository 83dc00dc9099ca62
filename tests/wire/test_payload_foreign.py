"""Foreign octets in payloads: arrays that lie, types nobody knows, and receivers without numpy."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy
import pytest
from msgpack import ExtType, packb

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.payload import ARRAY, SCALAR, decode_value

ROOT = Path(__file__).parent.parent.parent


def ext(code: int, *fields: Any) -> bytes:
    """A value that is one extension."""
    return packb(ExtType(code, packb(list(fields))))


def refused(frames: list[bytes], text: str) -> None:
    """Asserts that a receiver refuses the frames for the reason given."""
    with pytest.raises(RemoteProtocolError, match=text) as caught:
        decode_value(frames)
    assert caught.value.code == Code.MALFORMED
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("code", [0, 4, 100, 127])
def test_unknown_extension_types_are_refused(code):
    """A later version's type is not silently a pair of a number and octets."""
    refused([ext(code, 1)], f"extension type {code}")


@pytest.mark.parametrize("index", [0, 2, 100, -1, True, 1.0, None, "1", 2**64 - 1])
def test_an_array_in_a_frame_that_is_not_there_is_refused(index):
    """Frame 0 is the value itself, and negative numbers would count from the end."""
    refused([ext(ARRAY, index, "<i2", [2], "C"), b"\0" * 4], "there is no frame")


@pytest.mark.parametrize(
    "dtype", ["|O", "O", "object", "|V4", "<i2,<i2", "i2", "int16", "(2,)<i2", "", None, 5, [["a", "<i2"]]]
)
def test_dtypes_that_are_not_plain_numbers_are_refused(dtype):
    """An object array would make pointers of foreign octets."""
    refused([ext(ARRAY, 1, dtype, [1], "C"), b"\0" * 8], "dtype")
    refused([ext(SCALAR, dtype, b"\0" * 8)], "dtype")


SHAPES = [
    *([1], [3], [0], [2, 2], [2**31, 2**31], [2**62, 4], [2**64 - 1]),  # other sizes, also when multiplied modulo 2^64
    *([-2], [-1, -2], [2.0], [True, 2], ["2"], [None], "2", 2, None),  # other things
]


@pytest.mark.parametrize("shape", SHAPES, ids=map(str, SHAPES))
def test_shapes_that_do_not_fit_their_frame_are_refused(shape):
    """An array longer than its frame would read memory that is not its own."""
    refused([ext(ARRAY, 1, "<i2", shape, "C"), b"\0" * 4], "malformed array")


@pytest.mark.parametrize("order", ["A", "K", "c", "", None, 1, b"C"])
def test_orders_that_nobody_knows_are_refused(order):
    """C or F."""
    refused([ext(ARRAY, 1, "<i2", [2], order), b"\0" * 4], "order")


def test_more_dimensions_than_numpy_has_everywhere_are_refused():
    """numpy 1 stops at 32."""
    assert decode_value([ext(ARRAY, 1, "|u1", [1] * 32, "C"), b"x"]).ndim == 32
    refused([ext(ARRAY, 1, "|u1", [1] * 33, "C"), b"x"], "33 dimensions")


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\xc0", b"\x05", b"\x90", b"\x94\x01", b"\x91\x01", b"\xdd\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("code", [ARRAY, SCALAR])
def test_extensions_with_other_content_are_refused(code, content):
    """Whatever msgpack and numpy say to it, it is one kind of error."""
    refused([packb(ExtType(code, content)), b"\0" * 4], "malformed array")


@pytest.mark.parametrize("octets", [b"", b"abc", "abcd", None, 5, ["abcd"]])
def test_scalars_without_their_octets_are_refused(octets):
    """Too few, or none at all."""
    refused([ext(SCALAR, "<i4", octets)], "malformed array")


def test_a_scalar_with_octets_to_spare_is_refused():
    """An array's frame must fit to the octet, so must a scalar's."""
    assert decode_value([ext(SCALAR, "<i4", b"\x05\0\0\0")]) == 5
    refused([ext(SCALAR, "<i4", b"\x05\0\0\0\0")], "malformed array")


@pytest.mark.parametrize("dtype", ["|S0", "<U0"])
def test_items_of_no_octets_are_refused(dtype):
    """A million million empty texts fit into an empty frame; the first loop over them does not end."""
    refused([ext(ARRAY, 1, dtype, [2**40], "C"), b""], "malformed array")


@pytest.mark.parametrize(
    ("dtype", "octets"), [("<U1", b"\xff" * 4), ("<M8[0s]", bytes(8)), ("<M8", bytes(8))], ids=["<U1", "<M8[0s]", "<M8"]
)
def test_octets_behind_a_value_are_refused_without_looking_at_it(dtype, octets):
    """An array of impossible characters or dates can be decoded and not printed; the refusal must not try."""
    refused([ext(ARRAY, 1, dtype, [1], "C") + b"\0", octets], "not msgpack|malformed array")


@pytest.mark.parametrize("key", [b"\x80", b"\x91\x80", b"\x91\x91\x80", ext(ARRAY, 1, "<i2", [2], "C")])
def test_keys_that_cannot_be_keys_are_refused(key):
    """A map, a list that holds one, an array."""
    refused([b"\x81" + key + b"\x01", b"\0" * 4], "not msgpack")


def test_lists_as_keys_become_tuples_at_every_depth():
    """The same value as with plain keys, arrays included."""
    inner = b"\x81" + b"\x92\x01\x91\x02" + ext(ARRAY, 1, "<i2", [2], "C")
    value = decode_value([b"\x82\xa1a" + inner + b"\x91\xa1b\x05", b"\1\0\2\0"])
    assert list(value) == ["a", ("b",)]
    assert list(value["a"]) == [(1, (2,))]
    assert value["a"][(1, (2,))].tolist() == [1, 2]


def test_a_value_that_claims_to_be_huge_costs_little():
    """Sizes in headers are claims; memory is spent on what is there."""
    tracemalloc.start()
    try:
        for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
            refused([b"\x91" * 100 + head + b"\xff\xff\xff\xff" + bytes(1000)], "not msgpack")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# -------------------------------------------------------------------------------------- without numpy


def run(script: str) -> None:
    """Runs a script in an interpreter of its own; what it prints to stderr explains a failure."""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_numpy_is_not_imported_before_an_array_arrives():
    """It costs 60 ms and 20 MB, and many clients have none."""
    frames = [ext(ARRAY, 1, "<i2", [2], "C"), b"\1\0\2\0"]
    run(
        f"""
import sys
from spark_partition_server.wire.payload import decode_value, encode_value
assert "numpy" not in sys.modules, "imported with the module"
value = {{"a": [1, 2.5, None, b"x", (3, 4)]}}
assert decode_value(encode_value(value))["a"][4] == [3, 4]
try:
    encode_value({{1, 2}})
except TypeError:
    pass
assert "numpy" not in sys.modules, "imported for a plain value"
assert decode_value({frames!r}).tolist() == [1, 2]
assert "numpy" in sys.modules
"""
    )


def test_without_numpy_an_array_is_an_import_error_that_says_so():
    """Not a protocol error: the sender has done nothing wrong."""
    array = [b"\x91" + ext(ARRAY, 1, "<i2", [2], "C"), b"\1\0\2\0"]
    scalar = [b"\x81\x91\x01" + ext(SCALAR, "<i2", b"\1\0")]
    run(
        f"""
import sys
sys.modules["numpy"] = None
from spark_partition_server.wire.payload import decode_value, encode_value
assert decode_value(encode_value([1, "a"])) == [1, "a"]
for frames in ({array!r}, {scalar!r}):
    try:
        decode_value(frames)
    except ImportError as error:
        assert "numpy is not installed" in str(error), error
    else:
        raise SystemExit("no error")
try:
    encode_value([object()])
except TypeError as error:
    assert "value[0]" in str(error), error
"""
    )


def test_big_endian_octets_are_shown_right_whatever_this_machine_is():
    """The dtype says the order of the octets."""
    assert decode_value([ext(ARRAY, 1, ">i2", [2], "C"), b"\0\1\0\2"]).tolist() == [1, 2]
    assert decode_value([ext(ARRAY, 1, "<i2", [2], "C"), b"\1\0\2\0"]).tolist() == [1, 2]
    assert decode_value([ext(SCALAR, ">f8", numpy.array(1.5, ">f8").tobytes())]) == 1.5
