"""Many messages in one: the parcels that a rank passes on for others, as the frames of one message.

::

    bundle  = index *frame                  the frames of all parcels, in order; where they are too many, in one frame
    index   = count *parcel                 the first frame; integers are unsigned and big-endian
    count   = 4OCTET                        parcels
    parcel  = 2OCTET *size                  frames of it, and their octets
    size    = 8OCTET
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ..errors import RemoteProtocolError
from .codes import Code
from .fields import FRAMES_MAX, Frame

__all__ = ["bundle", "unbundle"]

BODY_FRAMES = FRAMES_MAX - 3  # without preamble, fields and index
COUNT = struct.Struct("!I")
FRAMES = struct.Struct("!H")


def bundle(parcels: Sequence[tuple[Frame, ...]]) -> tuple[Frame, ...]:
    """The frames of one message that carries ``parcels``. Nothing is copied unless there are more frames than fit."""
    index = [COUNT.pack(len(parcels))]
    body: list[Frame] = []
    for parcel in parcels:
        index.append(struct.pack(f"!H{len(parcel)}Q", len(parcel), *[len(frame) for frame in parcel]))
        body.extend(parcel)
    if len(body) > BODY_FRAMES:
        body = [b"".join(body)]
    return (b"".join(index), *body)


def unbundle(frames: Sequence[Frame]) -> list[tuple[Frame, ...]]:
    """The parcels that a message carries; their frames are views of those of the message.

    Raises:
        RemoteProtocolError: with MALFORMED: it carries something else.
    """
    try:
        sizes = _read_index(bytes(frames[0]))
    except (struct.error, IndexError):
        raise RemoteProtocolError("the index of a bundle is cut off", Code.MALFORMED) from None
    wanted = [size for parcel in sizes for size in parcel]
    body: list[Frame] = list(frames[1:])
    if len(wanted) > BODY_FRAMES and len(body) == 1 and len(body[0]) == sum(wanted):
        whole, at = memoryview(body[0]), 0
        body = []
        for size in wanted:
            body.append(whole[at : at + size])
            at += size
    if [len(frame) for frame in body] != wanted:
        raise RemoteProtocolError("the frames of a bundle are not those of its index", Code.MALFORMED)
    rest = iter(body)
    return [tuple([next(rest) for _ in parcel]) for parcel in sizes]


def _read_index(octets: bytes) -> list[tuple[int, ...]]:
    (count,) = COUNT.unpack_from(octets)
    at = COUNT.size
    sizes = []
    for _ in range(count):
        (frames,) = FRAMES.unpack_from(octets, at)
        sizes.append(struct.unpack_from(f"!{frames}Q", octets, at + FRAMES.size))
        at += FRAMES.size + 8 * frames
    if at != len(octets):
        raise struct.error
    return sizes
