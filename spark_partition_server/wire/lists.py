"""The value that is an array, made item by item (PROTOCOL.md, section 9): its size is known while it grows."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgpack

from .fields import Frame
from .payload import _special, encode_value, size_of

__all__ = ["ListEncoder"]

PACKER_BYTES = 4096  # of a packer's memory at first; it grows
KEPT_BYTES = 64 * 1024  # a packer that has grown beyond this is given up


class ListEncoder:
    """Encodes arrays one after the other. Belongs to one thread.

    Attributes:
        count: items in the array so far.
        size: octets of all its frames, about.
    """

    __slots__ = ("_arrays", "_pack", "_parts", "count", "size")

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self._arrays: list[Frame] = []
        self._parts: list[bytes] = []
        self._pack: Any = self._packer()

    def add(self, item: Any, size_max: int) -> bool:
        """Adds an item at the end. False: it has no room beside the others, or cannot be sent; the array is as it was.

        Args:
            item: any value.
            size_max: of the array; but the first item always has room.

        Raises:
            TypeError: the array is empty, and the item cannot be sent; the text names its path and its type.
        """
        before = len(self._arrays)
        try:
            octets: bytes = self._pack(item)
        except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError, BufferError):
            self._pack = self._packer()
            del self._arrays[before:]
            if not self.count:
                encode_value(item)  # finds the words
                raise
            return False
        size = len(octets)
        if size > KEPT_BYTES:
            self._pack = self._packer()
        if len(self._arrays) > before:
            size += size_of(self._arrays[before:])
        if self.count and self.size + size > size_max:
            del self._arrays[before:]
            return False
        self._parts.append(octets)
        self.count += 1
        self.size += size
        return True

    def frames(self) -> list[Frame]:
        """The frames of the array; the next one begins empty."""
        header = msgpack.Packer().pack_array_header(self.count)
        frames: list[Frame] = [b"".join((header, *self._parts)), *self._arrays]
        self.clear()
        return frames

    def clear(self) -> None:
        """Begins anew."""
        self._arrays.clear()
        self._parts.clear()
        self.count = self.size = 0

    def _packer(self) -> Any:
        special = partial(_special, buffers=self._arrays)
        return msgpack.Packer(default=special, datetime=True, buf_size=PACKER_BYTES).pack
