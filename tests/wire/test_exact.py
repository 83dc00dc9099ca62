"""Values between ranks arrive as exactly what they were; what cannot be sent is named by its path."""

from __future__ import annotations

import array
import collections
import enum
import pickle
import random
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.values import same

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire.exact import (
    ARRAY_BESIDE_MIN,
    BESIDE_MAX,
    OCTETS_BESIDE_MIN,
    ExactEncoder,
    decode_exact,
    encode_exact,
)


def there_and_back(value: Any) -> Any:
    """What another rank makes of ``value``."""
    return decode_exact([bytearray(frame) for frame in encode_exact(value)])


# ------------------------------------------------------------------------------------------- round trips

ZONES = st.none() | st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
TIMES = (
    st.dates()
    | st.timedeltas()
    | st.builds(lambda moment, fold: moment.replace(fold=fold), st.datetimes(timezones=ZONES), st.integers(0, 1))
    | st.builds(lambda moment, zone: moment.replace(tzinfo=zone), st.times(), ZONES)
    | st.just(timezone.utc)
    | st.just(timezone(timedelta(seconds=-1), "just west"))
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.text(st.characters(codec="utf-16", exclude_categories=[]) | st.characters(categories=["Cs"]), max_size=5)
    | st.binary()
    | TIMES
)
HASHABLE = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=5
)
VALUES = st.recursive(
    LEAVES | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=VALUES)
def test_builtins_come_back_as_exactly_what_they_were(value):
    """Types, order of keys, the sign of a zero, NaN, integers of any size, lone surrogates, folds and zones."""
    assert same(there_and_back(value), value)


@given(values=st.lists(VALUES, max_size=5))
def test_one_encoder_encodes_values_one_after_the_other(values):
    """Nothing of one value is left in the next."""
    encoder = ExactEncoder()
    assert same([decode_exact(encoder.encode(value)) for value in values], values)


KINDS = [
    *("?", "b", "B", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16", "g", "G"),
    *(">i2", ">u8", ">f4", ">f8", ">c16", "S1", "S5", "<U3", ">U2"),
    *("<M8[ns]", "<M8[D]", "<M8[25s]", "<m8[us]", "<m8", ">M8[h]"),
]


def octets_for(kind: Any, count: int) -> Any:
    """Items that are neither zero nor alike."""
    size = kind.itemsize * count
    octets = bytes(range(1, 128)) * (size // 127 + 1) if kind.kind not in "bU" else bytes(size + 1)
    return numpy.frombuffer(octets[:size], kind) if count else numpy.zeros(0, kind)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3), (0, 4), (70, 60), (1,) * 32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_dtype_and_shape_come_back_and_can_be_written(dtype, shape, order):
    """In place and in frames of their own; alone, and twice in one value, where they are two arrays."""
    kind = numpy.dtype(dtype)
    sent = numpy.asarray(octets_for(kind, int(numpy.prod(shape, dtype=int))).reshape(shape), order=order)
    one, (two, again) = there_and_back(sent), there_and_back((sent, sent))
    for received in (one, two, again):
        assert same(received, sent)
        assert received.flags.writeable
    assert not numpy.shares_memory(two, again)


@pytest.mark.parametrize("dtype", [kind for kind in KINDS if not kind.startswith(">")])
def test_scalars_of_numpy_stay_scalars_of_numpy(dtype):
    """A float64 is no float, though it is one of its kind; a bool_ is no bool."""
    sent = octets_for(numpy.dtype(dtype), 1)[0]
    assert same(there_and_back({"k": sent}), {"k": sent})


@pytest.mark.parametrize("sent", [numpy.str_("a\0\0"), numpy.str_(""), numpy.bytes_(b"a\0"), numpy.bytes_(b"")])
def test_zeros_at_the_end_of_a_text_of_numpy_stay(sent):
    """An array of texts would cut them off."""
    received = there_and_back(sent)
    assert (type(received), str(received) if isinstance(received, str) else bytes(received)) == (
        type(sent),
        str(sent) if isinstance(sent, str) else bytes(sent),
    )


def test_views_of_all_strides_are_copied_into_order():
    """And a memory-mapped array arrives as an array."""
    base = numpy.arange(12_000, dtype="<i4").reshape(40, 50, 6)
    for sent in (base[::2], base[:, ::-3], base.T, base.transpose(1, 0, 2), base[5, 7], base[..., 0]):
        received = there_and_back(sent)
        assert numpy.array_equal(received, sent)
        assert (received.dtype, received.flags.writeable) == (sent.dtype, True)


def test_a_map_memory_array_arrives_as_an_array(tmp_path):
    """The file is on another machine."""
    mapped = numpy.memmap(tmp_path / "numbers", numpy.int32, "w+", shape=(3,))
    mapped[:] = [1, 2, 3]
    assert same(there_and_back(mapped), numpy.array([1, 2, 3], "<i4"))


CELLS = LEAVES | HASHABLE | st.binary().map(bytearray)


@given(rows=st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[CELLS] * width), min_size=8, max_size=12)))
def test_many_tuples_of_one_length_come_back(rows):
    """They are written as one, unless something in them goes beside."""
    assert same(there_and_back(rows), rows)


@pytest.mark.parametrize("cell", [1.5, b"x", bytearray(b"x"), "\ud800", (1,), numpy.arange(3)])
def test_what_is_in_many_tuples_keeps_its_type(cell):
    """Also where the packer has to begin anew."""
    assert same(there_and_back([(number, cell) for number in range(10)]), [(number, cell) for number in range(10)])
    with pytest.raises(TypeError, match=r"value\[3\]\[1\] is of type .*Alone"):
        encode_exact([(number, Alone() if number == 3 else cell) for number in range(10)])


# ---------------------------------------------------------------------------------------- beside the msgpack

LARGE = random.Random(4).randbytes(OCTETS_BESIDE_MIN)


def test_large_octets_and_arrays_travel_beside_the_msgpack():
    """Where they lie: without a copy on this side."""
    numbers = numpy.arange(ARRAY_BESIDE_MIN // 8, dtype="<i8")
    octets = bytearray(LARGE)
    head, *frames = encode_exact({"a": [LARGE], "b": (octets, {"c": numbers}), "d": {LARGE[1:]}})
    assert len(head) < OCTETS_BESIDE_MIN + 200
    assert frames[0] is LARGE
    assert frames[1] is octets
    assert numpy.shares_memory(numpy.frombuffer(frames[2], "u1"), numbers)
    assert len(frames) == 3


def test_what_is_small_goes_in_place():
    """A frame costs more than a copy."""
    value = [b"x" * (OCTETS_BESIDE_MIN - 1), bytearray(10), numpy.arange(ARRAY_BESIDE_MIN // 8 - 1)]
    assert len(encode_exact(value)) == 1
    assert same(there_and_back(value), value)


@pytest.mark.parametrize("value", [LARGE, bytearray(LARGE), [LARGE, bytearray(LARGE), (LARGE, {LARGE: LARGE})]])
def test_large_octets_come_back_as_what_they_were(value):
    """Also as the key of a dict; a bytearray can be written."""
    assert same(there_and_back(value), value)


def test_an_array_is_a_view_of_its_frame_where_that_can_be_written():
    """The receiver's only copy is the one from the socket."""
    head, octets = encode_exact(numpy.arange(1000))
    frame = bytearray(octets)
    received = decode_exact([head, frame])
    assert numpy.shares_memory(received, numpy.frombuffer(frame, "u1"))
    head, octets = encode_exact(bytearray(LARGE))
    frame = bytearray(octets)
    assert decode_exact([head, frame]) is frame


@pytest.mark.parametrize("frame", [bytes, memoryview, lambda octets: memoryview(bytes(octets))])
def test_an_array_is_a_copy_where_its_frame_cannot_be_written(frame):
    """mpi4py's arrays can be written, so can these."""
    sent = numpy.asfortranarray(numpy.arange(1000.0).reshape(20, 50))
    head, octets = encode_exact(sent)
    received = decode_exact([head, frame(octets)])
    received[0, 0] = -1
    assert sent[0, 0] == 0 or frame is memoryview
    assert received.flags.f_contiguous


def test_nothing_of_what_is_lent_is_left_in_the_value():
    """What a rank sends to itself would be one array with two owners."""
    sent = [numpy.arange(1000), bytearray(LARGE)]
    received = decode_exact(encode_exact(sent), lent=True)
    assert same(received, sent)
    assert not numpy.shares_memory(received[0], sent[0])
    assert received[1] is not sent[1]


def test_there_may_be_any_number_of_arrays():
    """Those that find no frame go in place."""
    sent = [numpy.full(ARRAY_BESIDE_MIN, number, "u1") for number in range(BESIDE_MAX + 20)]
    frames = encode_exact(sent)
    assert len(frames) == 1 + BESIDE_MAX
    assert same(decode_exact([bytearray(frame) for frame in frames]), sent)


# ----------------------------------------------------------------------------------------- what cannot be sent


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Alone:
    pass


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (Alone(), "value", "Alone"),
        ([1, {"k": (2, Alone())}], "value[1]['k'][1]", "Alone"),
        ({Alone(): 1}, "value key <", "Alone"),
        ({1: {frozenset({Colour.RED})}}, "value[1] item frozenset({<Colour.RED: 1>}) item <Colour.RED: 1>", "Colour"),
        (Point(1, 2), "value", "Point"),
        (collections.OrderedDict(a=1), "value", "collections.OrderedDict"),
        ([True, Decimal(1)], "value[1]", "decimal.Decimal"),
        ((range(3),), "value[0]", "builtins.range"),
        ([memoryview(b"ab")], "value[0]", "builtins.memoryview"),
        (memoryview(b"ab"), "value", "builtins.memoryview"),
        (array.array("d", [1.0]), "value", "array.array"),
        ([msgpack.ExtType(16, b""), b""], "value[0]", "msgpack.ext.ExtType"),
        (msgpack.Timestamp(1), "value", "msgpack.ext.Timestamp"),
        (numpy.array([None]), "value", "numpy.ndarray"),
        (numpy.zeros(2, "i4,f8"), "value", "numpy.ndarray"),
        (numpy.zeros(2, "i4,f8")[0], "value", "numpy.void"),
        (numpy.ma.masked_array([1], [True]), "value", "numpy.ma.MaskedArray"),
        (datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Zurich")), "value", "datetime.datetime"),
        (lambda: 1, "value", "builtins.function"),
        (type, "value", "builtins.type"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_sent_is_named_by_its_path_and_type(value, path, kind):
    """And the text says what can be done; the encoder is as good as before."""
    encoder = ExactEncoder()
    with pytest.raises(TypeError) as caught:
        encoder.encode(value)
    text = str(caught.value)
    assert text.startswith(path)
    assert f"{kind}, which cannot be sent" in text or kind in text
    assert text.endswith("convert it, or allow it to be pickled (allow_pickle=True)")
    assert encoder.encode(1.5) == [msgpack.packb(1.5)]


def test_the_reason_is_named_where_there_is_one():
    """A type that can be sent, but not like this."""
    for value, reason in [
        (numpy.zeros(2, "i4,f8"), "cannot send a structured array; send its fields"),
        (numpy.array([None]), r"dtype '\|O'"),
        (datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Zurich")), "zoneinfo.ZoneInfo; use astimezone"),
        (memoryview(b""), r"send bytes\(it\)"),
    ]:
        with pytest.raises(TypeError, match=reason):
            encode_exact(value)


def test_a_value_that_holds_itself_is_refused():
    """By a TypeError like all others, not by RecursionError."""
    ring: list[Any] = []
    ring.append({"again": ring})
    with pytest.raises(TypeError, match="nested too deeply, or refers to itself"):
        encode_exact(ring)


@pytest.mark.parametrize("inner", [1, bytearray(b"x")])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {1: inner}])
def test_a_value_may_be_nested_a_hundred_levels_deep(inner, wrap):
    """And what is too deep is refused on this side."""
    value = inner
    for _ in range(100):
        value = wrap(value)
    assert same(there_and_back(value), value)
    for _ in range(1000):
        value = wrap(value)
    with pytest.raises(TypeError, match="nested too deeply"):
        encode_exact(value)


def test_a_pickler_that_is_too_deep_is_told_apart():
    """What the pickler raises is the reason, whatever it is."""

    def dumps(item):
        raise RecursionError("too deep")

    with pytest.raises(TypeError, match="cannot be pickled either: too deep"):
        encode_exact([Alone()], dumps)


# ------------------------------------------------------------------------------------------------- pickles


def test_only_what_cannot_be_sent_otherwise_is_pickled():
    """And only where both sides allow it."""
    value = [Point(1, 2), (Colour.RED, {"d": Decimal("1.5"), "z": ZoneInfo("Europe/Zurich")}), numpy.array([None, "x"])]
    frames = encode_exact(value, pickle.dumps)
    received = decode_exact(frames, loads=pickle.loads)
    assert (received[0], received[1]) == (value[0], value[1])
    assert (type(received[0]), type(received[1][0])) == (Point, Colour)
    assert received[2].tolist() == [None, "x"]
    with pytest.raises(RemoteProtocolError, match="allow_pickle=True"):
        decode_exact(frames)


def test_a_large_pickle_travels_beside():
    """As large octets do."""
    value = collections.OrderedDict(octets=LARGE)
    frames = encode_exact(value, pickle.dumps)
    assert [len(frames), len(frames[0]) < 20] == [2, True]
    assert decode_exact(frames, loads=pickle.loads) == value


def test_what_cannot_even_be_pickled_is_named():
    """With the reason of the pickler, and no advice to allow what is allowed."""
    with pytest.raises(TypeError, match=r"value\[1\] is of type builtins.function.*pickled either: ") as caught:
        encode_exact([1, lambda: 1], pickle.dumps)
    assert "allow_pickle" not in str(caught.value)


def test_a_pickle_that_does_not_load_is_told_from_a_broken_message():
    """The receiver lacks a module, say."""

    def loads(octets):
        raise ModuleNotFoundError("No module named 'theirs'")

    with pytest.raises(RemoteProtocolError, match=r"cannot be unpickled: ModuleNotFoundError.*theirs") as caught:
        decode_exact(encode_exact(Alone, pickle.dumps), loads=loads)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_pickler_may_encode_with_the_same_encoder():
    """A class whose __reduce__ sends something of its own."""
    encoder = ExactEncoder(lambda item: encoder.encode((1, 2))[0])
    assert decode_exact(encoder.encode([Alone()]), loads=lambda octets: decode_exact([octets])) == [(1, 2)]


@pytest.mark.parametrize("moment", [date.min, datetime.max, time.max, timedelta.min, timedelta.max, timezone.utc])
def test_the_ends_of_time_come_back(moment):
    """Also the one object that is UTC."""
    received = there_and_back(moment)
    assert same(received, moment)
    assert received is moment or moment is not timezone.utc
