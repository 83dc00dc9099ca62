"""Values between ranks: the checked-in vectors, replayed, and foreign octets into the decoder."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tracemalloc
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import msgpack
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.source import ROOT
from support.values import same
from vectors import generate
from vectors.cases_exact import exact_text
from vectors.notation import octets_from

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.exact import decode_exact, encode_exact
from spark_partition_server.wire.exact_kinds import ExactKind

CASES: list[dict[str, Any]] = json.loads(generate.EXACT.read_text(encoding="utf-8"))["cases"]
ROUNDS = 20_000  # values of a seeded run; a few seconds


def each(*results: str) -> list[Any]:
    """The cases with one of these results, as pytest's parameters."""
    return [pytest.param(case, id=case["id"]) for case in CASES if case["result"] in results]


def frames_of(case: dict[str, Any]) -> list[bytes]:
    return [octets_from(frame) for frame in case["frames"]]


def array(dtype: str, shape: tuple[int, ...], order: str, digits: str) -> Any:
    flat = numpy.frombuffer(bytes.fromhex(digits), dtype) if digits else numpy.zeros(0, dtype)
    return flat.reshape(shape, order=order)


def scalar(dtype: str, digits: str) -> Any:
    return numpy.frombuffer(bytes.fromhex(digits), dtype)[0]


NAMES = {
    **{"inf": float("inf"), "nan": float("nan"), "array": array, "scalar": scalar},
    **{"date": date, "time": time, "datetime": datetime, "timedelta": timedelta, "timezone": timezone},
}


def value_of(case: dict[str, Any]) -> Any:
    """What the expression of a case means."""
    return eval(case["value"], dict(NAMES))


# --------------------------------------------------------------------------------------------- the vectors


def test_generating_the_vectors_again_changes_nothing():
    """A changed vector is a changed protocol: it must show in the file, not happen behind it."""
    assert exact_text() == generate.EXACT.read_text(encoding="utf-8")
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", each("valid", "acceptable"))
def test_good_frames_decode_to_their_value(case):
    """To the last bit and to the type."""
    assert same(decode_exact(frames_of(case)), value_of(case))


@pytest.mark.parametrize("case", each("valid", "acceptable"))
def test_values_encode_to_their_one_canonical_form(case):
    """Two ranks with two releases understand each other."""
    found = [bytes(frame) for frame in encode_exact(value_of(case))]
    assert (found == frames_of(case)) == (case["result"] == "valid")


@pytest.mark.parametrize("case", each("invalid"))
def test_bad_values_are_refused(case):
    """[9.11.2] and [9.11.4]: never a value that was not sent, never an exception of msgpack or numpy."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_exact(frames_of(case))
    assert caught.value.code == Code.MALFORMED
    assert len(str(caught.value)) < 400


# --------------------------------------------------------------------------------------------- the rules


def test_a_mark_is_the_first_item_of_an_array():
    """[9.11.1]: in its one form, three octets."""
    assert encode_exact((1,)) == [b"\x92\xc7\x00\x10\x01"]
    assert decode_exact([b"\x92\xc7\x00\x10\x01"]) == (1,)
    for frame in (b"\x92\xd4\x10\x00\x01", b"\x92\x01\xc7\x00\x10"):
        with pytest.raises(RemoteProtocolError):
            decode_exact([frame])


def test_no_frames_are_no_value():
    """The sender forgot the first."""
    with pytest.raises(RemoteProtocolError, match="at least one frame"):
        decode_exact([])


def test_frames_are_numbered_in_the_order_of_the_value():
    """[9.11.3]: so no two arrays can share one, and none is left."""
    head, *beside = encode_exact({"a": numpy.zeros(4096, "u1"), "b": [bytes(65536), numpy.ones(4096, "u1")]})
    assert [bytes(frame)[:1] for frame in beside] == [b"\0", b"\0", b"\1"]
    with pytest.raises(RemoteProtocolError, match="not the next frame"):
        decode_exact([msgpack.packb([[msgpack.ExtType(ExactKind.OCTETS, b""), 1]] * 2), b"x"])
    with pytest.raises(RemoteProtocolError, match="frames belong to nothing"):
        decode_exact([head, *map(bytes, beside), b"x"])


class Bomb:
    """Unpickling it would be seen."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_a_pickle_is_not_loaded_unless_the_receiver_says_so():
    """[9.11.5]: whatever the sender allows."""
    import pickle

    for value in (Bomb(), [1, {"k": (Bomb(),)}]):
        with pytest.raises(RemoteProtocolError, match="nothing may be unpickled"):
            decode_exact(encode_exact(value, pickle.dumps))


# ------------------------------------------------------------------------------------------------ the fuzz


def outcome(frames: list[bytes]) -> Any:
    """The value; None: it was refused. Everything but a refusal is let through."""
    try:
        return decode_exact(frames)
    except RemoteProtocolError as error:
        if error.code != Code.MALFORMED:
            raise AssertionError(f"a refusal with another code: {error}") from error
        return None


@given(frames=st.lists(st.binary(max_size=60), max_size=4))
def test_any_frames_are_a_value_or_refused(frames):
    """Nothing else comes out, and a value that comes out can be sent on."""
    encode_exact(outcome(frames))


MARKS = st.sampled_from([msgpack.ExtType(kind, b"") for kind in ExactKind])
PIECES = st.none() | st.integers(-5, 9) | st.sampled_from(["<i2", "C", "U", b"ab", b"", 1.5, True]) | MARKS
NESTED = st.recursive(PIECES, lambda inner: st.lists(inner, max_size=6) | st.tuples(MARKS, inner, inner), max_leaves=12)


@given(head=NESTED, beside=st.lists(st.binary(max_size=4), max_size=2))
def test_marks_in_any_place_are_a_value_or_refused(head, beside):
    """The handlers of the marks get arguments of every kind and number."""
    encode_exact(outcome([msgpack.packb(head), *beside]))


def test_good_values_with_flipped_octets_are_a_value_or_refused():
    """A seeded run; a seed that fails belongs here with a sentence."""
    chance = random.Random(20261124)
    value = [(1, {2.5, "x"}, frozenset([b"y"])), {"k": bytearray(b"z"), (1, 2): 1 << 90}, 1j, datetime(2024, 1, 1)]
    frames = [*map(bytes, encode_exact([*value, numpy.arange(4), numpy.float64(1), numpy.zeros(4096, "u1")]))]
    for _ in range(ROUNDS):
        broken = bytearray(frames[0])
        for _ in range(chance.randint(1, 3)):
            broken[chance.randrange(len(broken))] = chance.choice((chance.randrange(256), 0xC7, 0, 16, 21, 0xFF))
        outcome([bytes(broken), *frames[1:]])


@pytest.mark.parametrize(
    "head",
    [
        b"\xdd\xff\xff\xff\xff\xc7\x00\x10",
        msgpack.packb([msgpack.ExtType(ExactKind.ARRAY, b""), b"", "|S1", [2**40], "C"]),
        msgpack.packb([msgpack.ExtType(ExactKind.SCALAR, b""), "<U999999999", b"abcd"]),
        b"\xc9\xff\xff\xff\xff\x1d",
    ],
)
def test_a_length_that_lies_takes_no_memory(head):
    """Announced is not sent."""
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decode_exact([head])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_without_numpy_everything_else_arrives():
    """And an array says what is missing."""
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from spark_partition_server.wire.exact import decode_exact, encode_exact\n"
        "value = [(1, {2}), 1 << 99, bytearray(b'x'), {'k': 1j}]\n"
        "assert decode_exact(encode_exact(value)) == value\n"
        "try: decode_exact([bytes.fromhex(sys.argv[1])])\n"
        "except ImportError as error: print(error)\n"
    )
    (head,) = encode_exact(numpy.arange(3))
    done = subprocess.run(
        [sys.executable, "-c", program, head.hex()], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "the value holds a numpy array, and numpy is not installed here",
    ), done.stderr
