"""Arrow tables as values: what goes in comes out, nothing is copied on the way, and foreign octets raise one error."""

from __future__ import annotations

import contextlib
import datetime
import io
import random
import struct
import subprocess
import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire import tables
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.framing import SMALL_BYTES, Pieces, encode_vector
from spark_partition_server.wire.payload import ARRAYS_MAX, TABLE, decode_value, encode_value

pyarrow = pytest.importorskip("pyarrow")
numpy = pytest.importorskip("numpy")

ROWS = 20_000
LARGE = pyarrow.table(
    {
        "number": numpy.arange(ROWS, dtype=numpy.float64),
        "text": [f"row-{row}" for row in range(ROWS)],
        "few": pyarrow.array([f"kind-{row % 7}" for row in range(ROWS)]).dictionary_encode(),
        "list": [[row, None] if row % 3 else None for row in range(ROWS)],
    }
)
SMALL = pyarrow.table({"a": [1, 2, None], "b": ["x", None, "z"]}, metadata={"of": "a test"})
TABLES = {
    "large": LARGE,
    "small": SMALL,
    "sliced": LARGE.slice(777, 5000),
    "in chunks": pyarrow.concat_tables([SMALL, SMALL.slice(1), SMALL]),
    "without rows": SMALL.slice(0, 0),
    "without columns": pyarrow.table({}),
    "without chunks": pyarrow.table({"a": pyarrow.chunked_array([], pyarrow.int8())}),
    "nested": pyarrow.table(
        {"s": [{"x": 1, "y": [b"z"]}], "m": pyarrow.array([[("k", 1)]], pyarrow.map_("str", "i4"))}
    ),
    "moments": pyarrow.table({"t": [datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.timezone.utc)]}),
    "views": pyarrow.table({"v": pyarrow.array(["a" * 20, "b", None], pyarrow.string_view())}),
    "nulls": pyarrow.table({"n": pyarrow.nulls(5)}),
}


def there_and_back(value: Any) -> Any:
    return decode_value([bytes(frame) for frame in encode_value(value)])


@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_back(name):
    """[9.9] The frame MUST be one IPC stream: schema, metadata, nulls, chunks and all."""
    table = TABLES[name]
    back = there_and_back(table)
    assert type(back) is pyarrow.Table
    assert back.equals(table, check_metadata=True)


FIRST, LONG = SMALL.to_batches()[0], LARGE.to_batches()[0]


@pytest.mark.parametrize("batch", [FIRST, LONG, LONG.slice(5, 100), FIRST.slice(0, 0)], ids=range(4))
def test_a_record_batch_comes_back_as_one(batch):
    """[9.9] kind B: at most one record batch, with rows or without."""
    back = there_and_back(batch)
    assert type(back) is pyarrow.RecordBatch
    assert back.equals(batch, check_metadata=True)


def test_anywhere_in_a_value():
    """Beside arrays, in maps and lists, several of them: each has a frame of its own."""
    array = numpy.arange(5)
    value = {"t": [SMALL, array, {"b": SMALL.to_batches()[0]}], "u": SMALL, "v": array}
    frames = encode_value(value)
    assert len(frames) == 6
    back = decode_value(frames)
    assert back["t"][0].equals(SMALL)
    assert back["u"].equals(SMALL)
    assert back["t"][2]["b"].equals(SMALL.to_batches()[0])
    assert (back["t"][1] == array).all()


def test_columns_are_not_copied_on_the_way_out():
    """What is given to the socket is the memory of the column itself."""
    column = numpy.arange(100_000, dtype=numpy.float64)
    frames = encode_value(pyarrow.table({"a": column}))
    assert type(frames[1]) is Pieces
    assert column.ctypes.data in {address(piece) for piece in frames[1].pieces}
    vector = encode_vector(frames)
    assert column.ctypes.data in {address(piece) for piece in vector}
    assert bytes(frames[1]) in b"".join(vector)


def test_columns_are_not_copied_on_the_way_in():
    """They are looked at in the frame that has arrived."""
    frames = [bytes(frame) for frame in encode_value(LARGE)]
    back = decode_value(frames)
    (buffer,) = [one for one in back.column("number").chunks[0].buffers() if one is not None]
    start = address(memoryview(frames[1]))
    assert start <= buffer.address < start + len(frames[1])


def address(piece: Any) -> int:
    return int(numpy.frombuffer(piece, dtype=numpy.uint8).ctypes.data)


def test_small_pieces_are_joined():
    """A wide table of short columns is one buffer, not thousands."""
    wide = pyarrow.table({f"c{number}": [number] for number in range(200)})
    assert all(type(frame) is bytes or len(frame.pieces) < 5 for frame in encode_value(wide)[1:])
    assert type(encode_value(SMALL)[1]) is bytes
    assert len(encode_value(SMALL)[1]) <= SMALL_BYTES


def test_too_many_tables():
    """[9.8] A value MUST NOT hold more than 61 arrays of numbers and tables."""
    encode_value([SMALL] * ARRAYS_MAX)
    with pytest.raises(TypeError, match="more than 61"):
        encode_value([SMALL] * ARRAYS_MAX + [numpy.arange(2)])


def test_a_table_that_arrow_cannot_write(monkeypatch):
    """The error names where it is."""

    def refuse(*arguments: Any) -> Any:
        raise pyarrow.ArrowNotImplementedError("not this one")

    monkeypatch.setattr(tables, "_ipc", lambda: type("ipc", (), {"new_stream": staticmethod(refuse)}))
    with pytest.raises(TypeError, match=r"args\[0\]\['t'\] is of type pyarrow.*not this one"):
        encode_value(([{"t": SMALL}],), ("args",))


def test_what_cannot_be_sent_is_named():
    """A pyarrow array is no table; the text says so and where."""
    with pytest.raises(TypeError, match=r"args\[1\] is of type pyarrow"):
        encode_value(([1, pyarrow.array([1])],), ("args",))


# --------------------------------------------------------------------------------------------- foreign octets


def stream(table: Any = SMALL, **options: Any) -> bytes:
    file = io.BytesIO()
    with pyarrow.ipc.new_stream(file, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(table)
    return file.getvalue()


def as_value(octets: bytes, *fields: Any) -> list[bytes]:
    return [msgpack.packb(msgpack.ExtType(TABLE, msgpack.packb(fields or [1, "T"]))), octets]


def refused(frames: list[bytes], text: str = "malformed table") -> None:
    with pytest.raises(RemoteProtocolError, match=text) as caught:
        decode_value(frames)
    assert caught.value.code == Code.MALFORMED


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("table", [SMALL, LARGE.select(["few"])], ids=["plain", "dictionary"])
def test_a_compressed_table_is_refused(codec, table):
    """[9.9] Its buffers MUST NOT be compressed: a few octets could ask for all memory there is."""
    if pyarrow.Codec.is_available(codec):
        refused(as_value(stream(table, compression=codec)), "compressed")


@pytest.mark.parametrize("fields", [(0, "T"), (2, "T"), (-1, "T"), ("1", "T"), (1, "X"), (1, None), (1,), (1, "T", 3)])
def test_fields_that_mean_nothing(fields):
    """[9.9] The index of the frame, and the kind, T or B."""
    refused(as_value(stream(), *fields))


WHOLE = stream()


@pytest.mark.parametrize(
    "octets", [b"", b"x", bytes(8), WHOLE + b"\0", WHOLE[:-8], WHOLE + WHOLE, b"A" * 99], ids=range(7)
)
def test_a_frame_that_is_not_one_stream(octets):
    """[9.9] One IPC stream with its end-of-stream marker and nothing behind it."""
    refused(as_value(octets))


def test_several_batches_are_no_record_batch():
    """[9.9] of kind B it has at most one."""
    refused(as_value(stream(pyarrow.concat_tables([SMALL, SMALL])), 1, "B"), "pieces")


def test_offsets_are_checked():
    """[9.10] A receiver MUST check a table as a whole: one offset beyond the column would read any memory."""
    texts = pyarrow.table({"s": ["first", "second", "third"]})
    octets = stream(texts)
    good = struct.pack("<4i", 0, 5, 11, 16)
    assert octets.count(good) == 1
    for bad in ((0, 5, 1 << 30, 16), (0, 5, 3, 16), (-5, 5, 11, 16), (0, 5, 11, 1 << 30)):
        refused(as_value(octets.replace(good, struct.pack("<4i", *bad))))
    refused(as_value(octets.replace(b"second", b"sec\xff\xfe!")), "UTF8|utf")


def test_indices_of_dictionaries_are_checked():
    """[9.10] An index beyond the dictionary would read what is behind it."""
    table = pyarrow.table({"d": pyarrow.array(["a", "b", "a"]).dictionary_encode()})
    octets = stream(table)
    good = struct.pack("<3i", 0, 1, 0)
    assert octets.count(good) == 1
    refused(as_value(octets.replace(good, struct.pack("<3i", 0, 77, 0))))


SEEDS = [stream(SMALL), stream(LARGE.slice(0, 40)), stream(TABLES["nested"]), stream(TABLES["views"])]


@settings(max_examples=400)
@given(st.sampled_from(SEEDS), st.integers(0, 2**32), st.integers(1, 6))
def test_broken_streams_raise_one_error_or_give_a_sound_table(octets, seed, count):
    """Fuzz: octets changed here and there. What is accepted can be read to its last item without harm."""
    chance = random.Random(seed)
    broken = bytearray(octets)
    for _ in range(count):
        broken[chance.randrange(len(broken))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    with contextlib.suppress(RemoteProtocolError):
        table = decode_value(as_value(bytes(broken)))
        with contextlib.suppress(Exception):  # two columns of one name, a moment before the year 1, ...
            str(table.slice(0, 100).to_pydict())


def test_an_old_pyarrow_is_not_trusted(monkeypatch):
    """Before 14.0.1 a schema could bring code along."""
    monkeypatch.setattr(pyarrow, "__version__", "14.0.0")
    with pytest.raises(ImportError, match="too old"):
        decode_value(as_value(stream()))
    assert tables.OLDEST > 14


def test_pyarrow_is_imported_where_a_table_is():
    """A process that sends none does not pay for it; one that has not got it is told what it lacks."""
    frames = [bytes(frame) for frame in encode_value([1, SMALL])]
    script = f"""
import sys
from spark_partition_server.wire.payload import decode_value, encode_value
encode_value([1, "x"])
assert "pyarrow" not in sys.modules
sys.modules["pyarrow"] = None
try:
    decode_value({frames!r})
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "pyarrow is not installed here" in done.stdout
