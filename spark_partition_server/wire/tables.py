"""Arrow tables and record batches as frames (PROTOCOL.md, section 9): one IPC stream each, without a copy of columns.

A table is written as its stream of messages; the octets of its columns are handed on where they lie, between the
small pieces that describe them. What arrives is read where it lies as well, once it has been looked at: Arrow trusts
the offsets in a column, so a stream is checked as a whole before anybody may use it. pyarrow is imported only where a
table is.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from .framing import Frame, Pieces

__all__ = ["BATCH", "TABLE_KINDS", "WHOLE", "is_table", "read_table", "write_table"]

WHOLE: Final = "T"  # a pyarrow.Table
BATCH: Final = "B"  # a pyarrow.RecordBatch
TABLE_KINDS: Final = (WHOLE, BATCH)
OLDEST: Final = 15  # older ones run code that a schema brings along (CVE-2023-47248, mended in 14.0.1)

# Arrow's message headers, and where their tables keep what is wanted here (format/Message.fbs).
DICTIONARY_BATCH: Final = 2
RECORD_BATCH: Final = 3
HEADER_TYPE, HEADER, BODY_BYTES = 1, 2, 3
DICTIONARY_DATA = 1
COMPRESSION = 3
CONTINUATION: Final = 0xFFFFFFFF


class _Sink:
    """What pyarrow writes to: a file that keeps the pieces as they are given, columns uncopied."""

    closed = False

    def __init__(self) -> None:
        self.pieces: list[Frame] = []

    def write(self, piece: Any) -> int:
        octets = memoryview(piece).cast("B")
        self.pieces.append(octets)
        return len(octets)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def is_table(pyarrow: Any, item: Any) -> bool:
    """Whether ``item`` is a table or a record batch."""
    return isinstance(item, (pyarrow.Table, pyarrow.RecordBatch))


def write_table(pyarrow: Any, item: Any) -> tuple[Frame | Pieces, str]:
    """The frame of a table or a record batch, and its kind.

    Raises:
        TypeError: Arrow cannot write it.
    """
    ipc = _ipc()
    sink = _Sink()
    try:
        with pyarrow.PythonFile(sink, mode="w") as file, ipc.new_stream(file, item.schema) as writer:
            writer.write(item)
    except pyarrow.ArrowException as error:
        raise TypeError(f"Arrow cannot write it: {error}") from None
    return Pieces.of(sink.pieces), BATCH if isinstance(item, pyarrow.RecordBatch) else WHOLE


def read_table(pyarrow: Any, frame: Frame, kind: str) -> Any:
    """The table or record batch in a frame, which it looks at for as long as it lives.

    Raises:
        ImportError: pyarrow is too old to be given foreign octets.
        Exception: of many kinds: the frame does not hold what it should.
    """
    if int(pyarrow.__version__.partition(".")[0]) < OLDEST:
        text = f"the value holds an Arrow table, and pyarrow {pyarrow.__version__} is too old: {OLDEST} or later"
        raise ImportError(text)
    if kind not in TABLE_KINDS:
        raise ValueError(f"a table of kind {kind!r}")
    _check_stream(memoryview(frame))
    table = _ipc().open_stream(pyarrow.py_buffer(frame)).read_all()
    table.validate(full=True)
    if kind == WHOLE:
        return table
    batches = table.to_batches()
    if len(batches) == 1:
        return batches[0]
    if batches:
        raise ValueError(f"a record batch in {len(batches)} pieces")
    return pyarrow.RecordBatch.from_pylist([], schema=table.schema)


def _ipc() -> Any:
    import pyarrow.ipc  # noqa: PLC0415 - the part of it that ``import pyarrow`` leaves out

    return pyarrow.ipc


# ---------------------------------------------------------------------------------------- Arrow's envelope


def _check_stream(octets: memoryview) -> None:
    """Walks over the messages of a stream: it ends where the frame ends, and nothing in it is compressed.

    A compressed buffer says itself how large it is to become, and a few octets would be enough to fill the memory.
    """
    position = 0
    while True:
        mark, size = struct.unpack_from("<II", octets, position)
        position += 8
        if mark != CONTINUATION:
            raise ValueError("not an Arrow IPC stream")
        if size == 0:
            if position != len(octets):
                raise ValueError(f"{len(octets) - position} octets behind the end of the stream")
            return
        metadata = octets[position : position + size]
        (root,) = struct.unpack_from("<I", metadata)
        _check_message(metadata, root)
        body = _field(metadata, root, BODY_BYTES)
        (length,) = struct.unpack_from("<q", metadata, body) if body else (0,)
        position += size + length
        if length < 0 or position > len(octets):
            raise ValueError("a message goes beyond the end of the frame")


def _check_message(metadata: memoryview, root: int) -> None:
    kind = _field(metadata, root, HEADER_TYPE)
    header = _field(metadata, root, HEADER)
    if not kind or not header or metadata[kind] not in (DICTIONARY_BATCH, RECORD_BATCH):
        return
    batch = _followed(metadata, header)
    if metadata[kind] == DICTIONARY_BATCH:
        data = _field(metadata, batch, DICTIONARY_DATA)
        if not data:
            return
        batch = _followed(metadata, data)
    if _field(metadata, batch, COMPRESSION):
        raise ValueError("a compressed record batch")


def _field(metadata: memoryview, table: int, index: int) -> int:
    """Where a field of a flatbuffers table is; 0: it is absent."""
    (back,) = struct.unpack_from("<i", metadata, table)
    vtable = table - back
    if vtable < 0:
        raise ValueError("a table without a vtable")
    (size,) = struct.unpack_from("<H", metadata, vtable)
    entry = 4 + 2 * index
    if entry + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, vtable + entry)
    return table + offset if offset else 0


def _followed(metadata: memoryview, position: int) -> int:
    (offset,) = struct.unpack_from("<I", metadata, position)
    return position + int(offset)
