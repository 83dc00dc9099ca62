"""User values to frames and back: every type that can be sent, arrays without a copy, what cannot be sent by name."""

from __future__ import annotations

import collections
import enum
import mmap
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.values import same

from spark_partition_server.wire.messages import FRAMES_MAX
from spark_partition_server.wire.payload import ARRAYS_MAX, decode_value, encode_value, size_of


def there_and_back(value: Any) -> Any:
    """What a receiver makes of ``value``, with frames as plain octets."""
    return decode_value([bytes(frame) for frame in encode_value(value)])


# ------------------------------------------------------------------------------------------- plain values

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(timezone.utc)).map(lambda moment: moment.replace(fold=0))  # UTC has no folds
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=4), max_leaves=20
)


@given(value=PLAIN)
def test_plain_values_come_back_to_the_last_bit(value):
    """Types, order of keys, the sign of a zero, NaN, tuples as keys."""
    assert same(there_and_back(value), value)


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (Colour.RED, 1),
        ({(1, ("a", None)): 2}, {(1, ("a", None)): 2}),
        (numpy.float64(1.5), 1.5),
        (numpy.str_("text"), "text"),
        (numpy.bytes_(b"octets"), b"octets"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_relatives_of_plain_values_arrive_as_plain_values(sent, received):
    """Tuples become lists, subclasses what they are subclasses of; keys stay tuples, for a list cannot be a key."""
    assert same(there_and_back(sent), received)


def test_a_datetime_arrives_as_the_same_instant():
    """In UTC, to the microsecond."""
    zone = timezone(timedelta(hours=5, minutes=45))
    sent = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=zone)
    received = there_and_back(sent)
    assert received == sent
    assert received.tzinfo is timezone.utc


def test_a_value_without_arrays_is_one_frame():
    """The smallest reply there is: no list of frames around it."""
    assert len(encode_value({"a": [1, 2, 3]})) == 1
    assert size_of(encode_value("ab")) == 3


# ------------------------------------------------------------------------------------------------- arrays

KINDS = [
    *("?", "b", "B", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"),
    *(">i2", ">u8", ">f4", ">f8", ">c16", "S1", "S5", "<U3", ">U2"),
    *("<M8[ns]", "<M8[D]", "<M8[25s]", "<m8[us]", "<m8", ">M8[h]"),
]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3), (0, 4), (3, 0, 2), (1,) * 32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_dtype_and_shape_come_back(dtype, shape, order):
    """Also of no dimensions, of no items, in Fortran order and with the octets the other way round."""
    kind = numpy.dtype(dtype)
    count = int(numpy.prod(shape, dtype=int))
    octets = bytes(range(1, 128)) * (count * kind.itemsize // 127 + 1) if kind.kind not in "bU" else bytes(10_000)
    flat = numpy.frombuffer(octets[: count * kind.itemsize], kind) if count else numpy.zeros(0, kind)
    array = numpy.asarray(flat.reshape(shape), order=order)
    assert same(there_and_back(array), array)
    assert same(there_and_back([array, {"k": array}]), [array, {"k": array}])


BASE = numpy.arange(120, dtype="<i4").reshape(4, 5, 6)


@pytest.mark.parametrize(
    "array",
    [
        BASE[::2],
        BASE[:, ::-1],
        BASE[..., 1],
        BASE[1:3, 2:4, 3:5],
        BASE.transpose(1, 0, 2),
        numpy.broadcast_to(numpy.arange(3), (4, 3)),
        numpy.broadcast_to(numpy.float32(7), (3,)),
        BASE.T[::3],
        numpy.diagonal(BASE[0]),
        numpy.asfortranarray(BASE)[1:],
    ],
    ids=range(10),
)
def test_arrays_that_are_not_contiguous_come_back_with_their_items(array):
    """A view of a larger array is sent as what it shows."""
    received = there_and_back(array)
    assert received.dtype == array.dtype
    assert received.shape == array.shape
    assert numpy.array_equal(received, array)


@pytest.mark.parametrize("array", [BASE, numpy.asfortranarray(BASE), BASE.T, BASE[2], numpy.array(5)])
def test_an_array_is_sent_without_a_copy(array):
    """A frame is the array's own memory."""
    frame = encode_value({"a": array})[1]
    assert numpy.shares_memory(numpy.frombuffer(frame, "u1"), array)


def test_an_array_is_received_without_a_copy_and_writable_where_its_frame_is():
    """Long frames arrive in memory of their own, which the array takes over."""
    source = numpy.arange(1000.0).reshape(10, 100)
    value, octets = encode_value(source)
    for frame in (bytearray(octets), memoryview(bytearray(octets)), memoryview(mmap.mmap(-1, len(octets)))):
        frame[:] = octets
        received = decode_value([value, frame])
        assert numpy.shares_memory(received, numpy.frombuffer(frame, "u1"))
        assert received.flags.writeable
        received[3, 4] = -1.0
        assert bytes(frame) != bytes(octets)


def test_an_array_in_octets_that_cannot_change_is_read_only():
    """Short frames are plain bytes; writing into them would change what others see."""
    value, octets = encode_value(numpy.arange(4))
    received = decode_value([value, bytes(octets)])
    with pytest.raises(ValueError, match="read-only"):
        received[0] = 1
    assert numpy.shares_memory(received, numpy.frombuffer(bytes(octets), "u1")) is False


def test_a_frame_need_not_be_aligned():
    """Behind a header of two octets nothing is."""
    value, octets = encode_value(numpy.arange(5, dtype="<f8"))
    shifted = memoryview(bytearray(b"\0" + bytes(octets)))[1:]
    assert numpy.array_equal(decode_value([value, shifted]), numpy.arange(5, dtype="<f8"))


def test_many_arrays_keep_their_places():
    """As many as a message has frames for."""
    arrays = [numpy.full(number, number, dtype="<u2") for number in range(ARRAYS_MAX)]
    frames = encode_value(arrays)
    assert len(frames) + 2 == FRAMES_MAX
    assert same(decode_value(frames), arrays)


def test_one_array_in_two_places_is_sent_twice():
    """Simple, and right: what arrives are two arrays."""
    array = numpy.arange(3)
    frames = encode_value([array, array])
    assert len(frames) == 3
    first, second = decode_value([bytearray(frame) for frame in frames])
    first[0] = 9
    assert second[0] == 0


@pytest.mark.parametrize(
    "scalar",
    [
        numpy.bool_(True),
        numpy.int8(-5),
        numpy.int64(-(2**63)),
        numpy.uint64(2**64 - 1),
        numpy.float16(0.5),
        numpy.float32(-0.0),
        numpy.complex64(1 - 2j),
        numpy.complex128(1j),
        numpy.datetime64("2024-02-29T12:00", "m"),
        numpy.datetime64("NaT", "ns"),
        numpy.timedelta64(-3, "D"),
    ],
    ids=lambda scalar: scalar.dtype.str,
)
def test_numpy_scalars_come_back_as_what_they_were(scalar):
    """What ``array[3]`` or ``array.sum()`` returns can be returned by a method, also as a key."""
    assert same(there_and_back(scalar), scalar)
    assert same(there_and_back({scalar: [scalar]}), {scalar: [scalar]})


# -------------------------------------------------------------------------------------- what cannot be sent


class Custom:
    def __repr__(self) -> str:
        return "<custom>"


NAIVE = datetime(2024, 1, 1)
CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1, 2}, "value is of type builtins.set"),
        (frozenset(), "value is of type builtins.frozenset"),
        (1j, "value is of type builtins.complex"),
        (object(), "value is of type builtins.object"),
        (Custom(), "value is of type .*Custom"),
        (Custom, "value is of type builtins.type"),
        (print, "value is of type builtins.builtin_function_or_method"),
        (range(3), "value is of type builtins.range"),
        ((item for item in ()), "value is of type builtins.generator"),
        (Decimal("1.5"), "value is of type decimal.Decimal"),
        (date(2024, 1, 1), "value is of type datetime.date"),
        (timedelta(1), "value is of type datetime.timedelta"),
        (NAIVE, "value is a datetime without a time zone"),
        (2**64, "value is an int of 65 bits"),
        (-(2**63) - 1, "value is an int of 64 bits"),
        ("a \ud800", "value of type builtins.str cannot be sent"),
        ([1, [2, {3}]], r"value\[1\]\[1\] is of type builtins.set"),
        ({"a": {"b": [0, NAIVE]}}, r"value\['a'\]\['b'\]\[1\] is a datetime"),
        ({"a": (1, 2**70)}, r"value\['a'\]\[1\] is an int of 71 bits"),
        ({(1, Custom()): 2}, r"value key \(1, <custom>\)\[1\] is of type .*Custom"),
        ({frozenset(): 2}, r"value key frozenset\(\) is of type builtins.frozenset"),
        (CYCLE, "nested too deeply, or refers to itself"),
        (numpy.array([None]), r"value is of type numpy.ndarray.*\|O"),
        ([numpy.array([1, "a"], dtype=object)], r"value\[0\] is of type numpy.ndarray"),
        (numpy.zeros(2, "i4,f4"), r"value is of type numpy.ndarray.*\|V8"),
        (numpy.zeros(2, "V3"), r"value is of type numpy.ndarray.*\|V3"),
        ({"v": numpy.void(b"ab")}, r"value\['v'\] is of type numpy.void"),
        ([numpy.zeros(1)] * (ARRAYS_MAX + 1), f"more than {ARRAYS_MAX} arrays"),
        (numpy.zeros((1,) * 33), "33 dimensions"),
    ],
    ids=range(29),
)
def test_what_cannot_be_sent_is_named_by_path_and_type(value, text):
    """In a value of a thousand items, "can not serialize object" helps nobody."""
    with pytest.raises(TypeError, match=text) as caught:
        encode_value(value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_items_of_a_call_are_called_by_their_names():
    """A client says "args[1]" and not "value[0][1]"."""
    with pytest.raises(TypeError, match=r"^args\[1\] is of type builtins.set"):
        encode_value(((1, {2}), {}), ("args", "kwargs"))
    with pytest.raises(TypeError, match=r"^kwargs\['when'\] is a datetime"):
        encode_value(((1,), {"when": NAIVE}), ("args", "kwargs"))


@pytest.mark.parametrize("depth", [1, 100, 400, 1000])
def test_nesting_up_to_a_thousand_is_sent(depth):
    """Whatever one side can send, the other can read."""
    value: Any = 7
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    received = there_and_back(value)
    for level in reversed(range(depth)):
        received = received[0] if level % 2 else received["k"]
    assert received == 7


@pytest.mark.parametrize("depth", [1100, 5000, 200_000])
def test_nesting_beyond_is_an_error_and_no_crash(depth):
    """Neither side may run out of stack."""
    value: Any = 7
    for _ in range(depth):
        value = [value]
    with pytest.raises(TypeError, match="nested too deeply"):
        encode_value(value)
    while value != 7:  # taken apart by hand, so that no destructor recurses
        value = value[0]


def test_a_memoryview_with_gaps_is_named_like_everything_else():
    """msgpack cannot read it; the caller still deserves a TypeError with a path."""
    with pytest.raises(TypeError, match=r"value\['m'\]"):
        encode_value({"m": memoryview(b"abcdef")[::2]})


def test_a_masked_array_is_not_sent_without_its_mask():
    """Wrong numbers are worse than an error."""
    with pytest.raises(TypeError, match="mask"):
        encode_value(numpy.ma.masked_array([1, 2, 3], mask=[0, 1, 0]))
