"""Bundles: many parcels in one message, of any frames, and nothing that is cut off or made up is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.fields import FRAMES_MAX
from spark_partition_server.wire.parcels import bundle, unbundle

PARCELS = st.lists(st.lists(st.binary(max_size=6), max_size=4).map(tuple), max_size=40)


def plain(parcels):
    return [tuple(bytes(frame) for frame in parcel) for parcel in parcels]


@given(PARCELS)
def test_what_is_bundled_comes_out(parcels):
    """Parcels of no frames and frames of no octets too; and it fits a message, however many there are."""
    frames = bundle(parcels)
    assert len(frames) <= FRAMES_MAX - 2
    assert plain(unbundle(frames)) == parcels


def test_large_frames_are_not_copied():
    """What a rank only passes on costs it no memory."""
    large = bytearray(1 << 20)
    frames = bundle([(large,), (b"x", large)])
    assert frames[1] is frames[3] is large
    assert unbundle(frames)[1][1] is large


def test_more_frames_than_a_message_has_are_one():
    """Seventy ranks with an array each pass one rank; a body of another length is refused as well."""
    parcels = [(b"%d" % number, b"x" * number) for number in range(70)]
    frames = bundle(parcels)
    assert len(frames) == 2
    assert plain(unbundle(frames)) == parcels
    for body in (frames[1] + b"x", frames[1][1:], b""):
        with pytest.raises(RemoteProtocolError):
            unbundle((frames[0], body))


@given(PARCELS, st.data())
def test_what_is_cut_off_is_refused(parcels, data):
    """At any octet of the index, at any frame of the body, or with one frame more."""
    frames = bundle(parcels)
    cut = data.draw(st.integers(0, len(frames[0]) - 1))
    broken = [(frames[0][:cut], *frames[1:]), (*frames, b"more"), (frames[0] + b"\0", *frames[1:])]
    if len(frames) > 1:
        broken += [frames[:-1], (*frames[:-1], bytes(frames[-1]) + b"x")]
    for one in broken:
        with pytest.raises(RemoteProtocolError) as caught:
            unbundle(one)
        assert caught.value.code == Code.MALFORMED


def test_no_frames_are_no_bundle():
    """An empty message is what a barrier sends."""
    with pytest.raises(RemoteProtocolError):
        unbundle(())
