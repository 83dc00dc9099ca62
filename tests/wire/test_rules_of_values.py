"""The rules of wire/PROTOCOL.md, section 9: what a value may be made of, and what is none."""

from __future__ import annotations

import pickle
import struct
from datetime import datetime, timedelta, timezone

import msgpack
import numpy
import pytest

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Kind
from spark_partition_server.wire.payload import decode_value, encode_value

RUN = b"run of 8"


@pytest.mark.parametrize("first", [b"", b"\x01\x02", b"\x92\x01", b"\xc1"])
def test_the_first_frame_of_a_value_is_one_object(first):
    """[9.1] and [7.33.1]: half a value, or one and a half, is none."""
    with pytest.raises(RemoteProtocolError, match="msgpack"):
        decode_value([first])
    with pytest.raises(RemoteProtocolError, match="at least one frame"):
        decode_value([])


def test_arrays_are_frames_behind_the_value_in_the_order_in_which_they_appear():
    """[9.2]: index from 1, dtype, shape, order."""
    first, second = numpy.arange(6, dtype="<i2").reshape(2, 3), numpy.asfortranarray(numpy.eye(2, 3, dtype="<f4"))
    frames = encode_value({"a": first, "b": [second]})
    one = msgpack.ExtType(1, msgpack.packb([1, "<i2", [2, 3], "C"]))
    two = msgpack.ExtType(1, msgpack.packb([2, "<f4", [2, 3], "F"]))
    assert frames[0] == msgpack.packb({"a": one, "b": [two]})
    assert [bytes(frame) for frame in frames[1:]] == [first.tobytes("C"), second.tobytes("F")]
    back = decode_value(frames)
    assert numpy.array_equal(back["a"], first)
    assert numpy.array_equal(back["b"][0], second)


def array(index=1, dtype="<i2", shape=(2,), order="C"):
    return msgpack.packb(msgpack.ExtType(1, msgpack.packb([index, dtype, list(shape), order])))


@pytest.mark.parametrize(
    "wrong", [{"index": 0}, {"index": 2}, {"index": "1"}, {"order": "K"}, {"shape": (-2,)}, {"shape": (2.0,)}]
)
def test_an_array_that_does_not_say_where_it_is_is_malformed(wrong):
    """[9.2]: an index that is off by one would show the octets of somebody else's array."""
    assert decode_value([array(), bytes(4)]).tolist() == [0, 0]
    with pytest.raises(RemoteProtocolError):
        decode_value([array(**wrong), bytes(4)])


@pytest.mark.parametrize(
    ("octets", "shape"), [(3, (2,)), (5, (2,)), (0, (2,)), (4, ()), (4, (2, 0)), (4, (1 << 62, 4))]
)
def test_a_frame_holds_the_items_of_its_array_exactly(octets, shape):
    """[9.3]: shorter would read beyond the end, longer would hide something."""
    with pytest.raises(RemoteProtocolError):
        decode_value([array(shape=shape), bytes(octets)])


@pytest.mark.parametrize(
    "dtype", ["|b1", "<i8", ">u2", "<f2", "<f8", "<c16", "|S7", "<U3", "<M8[ns]", "<m8[10s]", "<M8"]
)
def test_the_dtypes_of_numbers_moments_and_strings_are_taken(dtype):
    """[9.4]: what numpy calls ``dtype.str``."""
    sent = numpy.zeros(3, dtype)
    assert sent.dtype.str == dtype
    back = decode_value(encode_value(sent))
    assert back.dtype.str == dtype
    assert back.tobytes() == sent.tobytes()


@pytest.mark.parametrize(
    "dtype", ["|O", "O8", "|V8", "<i2,<i2", "=i2", "i2", "<S0", "<U0", "<i0", "<x4", "", None, 2, []]
)
def test_any_other_dtype_is_malformed(dtype):
    """[9.4] and [15.2]: objects would need pickle, and pickle runs code."""
    with pytest.raises(RemoteProtocolError):
        decode_value([array(dtype=dtype), bytes(16)])


def test_a_scalar_holds_one_item_exactly():
    """[9.5]: dtype and octets."""
    (sent,) = encode_value(numpy.int16(258))
    assert sent == msgpack.packb(msgpack.ExtType(2, msgpack.packb(["<i2", b"\x02\x01"])))
    assert decode_value([sent]) == 258
    for octets in (b"", b"\x02", b"\x02\x01\x00", b"\x02\x01\x02\x01"):
        with pytest.raises(RemoteProtocolError):
            decode_value([msgpack.packb(msgpack.ExtType(2, msgpack.packb(["<i2", octets])))])


@pytest.mark.parametrize("code", [0, 3, 127, -2, -128])
def test_any_other_extension_is_malformed(code):
    """[9.7]: a value that was not sent is worse than none."""
    with pytest.raises(RemoteProtocolError):
        decode_value([b"\x91\xd6" + struct.pack("b", code) + b"data"])


def test_no_more_than_61_arrays_and_32_dimensions_are_sent():
    """[9.8]: one more would not fit the frames of a message."""
    assert len(encode_value([numpy.zeros(1)] * 61)) == 62
    assert decode_value(encode_value(numpy.zeros([1] * 32))).ndim == 32
    with pytest.raises(TypeError, match="61 arrays"):
        encode_value([numpy.zeros(1)] * 62)
    with pytest.raises(TypeError, match="dimensions"):
        encode_value(numpy.zeros([1] * 33))
    with pytest.raises(RemoteProtocolError):
        decode_value([array(dtype="|u1", shape=[1] * 33), b"\0"])


class Bomb:
    """Unpickling it would be seen."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_nothing_that_arrives_is_run():
    """[15.2]: a pickle is octets like any other, wherever it stands; an object cannot be sent at all."""
    bomb = pickle.dumps(Bomb())
    assert decode_value([msgpack.packb([bomb, {"__reduce__": bomb}])]) == [bomb, {"__reduce__": bomb}]
    hello = msgpack.packb([0, 7, 0, "h", 1, "", bomb[:64], 1, 1, {"x": bomb}])
    assert codec.decode([codec.preamble(Kind.HELLO, RUN), hello], RUN).meta == {"x": bomb}
    for dtype in ("|O", "<O8"):
        with pytest.raises(RemoteProtocolError):
            decode_value([array(dtype=dtype, shape=(1,)), bomb])
    with pytest.raises(TypeError, match="Bomb"):
        encode_value([Bomb()])


@pytest.mark.parametrize(
    ("moment", "octets"),
    [
        (datetime(1970, 1, 1, tzinfo=timezone.utc), b"\xd6\xff\0\0\0\0"),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), b"\xd6\xff\0\0\0\0"),
        (datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=timezone.utc), b"\xd7\xff" + (5000 << 34 | 1).to_bytes(8, "big")),
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=timezone.utc), b"\xc7\x0c\xff" + bytes(4) + b"\xff" * 8),
    ],
)
def test_a_moment_is_a_timestamp_in_its_shortest_form(moment, octets):
    """[9.6]: and means the same everywhere."""
    assert encode_value(moment) == [octets]
    assert decode_value([octets]) == moment
