"""The hashes of another Python: SipHash and its key, against the published vectors and against real ``hash()``."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.core.siphash import MASK, ROUNDS, memory_of, secret, siphash, text_hash

OCTETS = bytes(range(64))
KEY = (int.from_bytes(OCTETS[:8], "little"), int.from_bytes(OCTETS[8:16], "little"))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "310e0edd47db6f72"),
        (1, "fd67dc93c539f874"),
        (7, "37d1018bf50002ab"),
        (8, "6224939a79f5f593"),
        (9, "b0e4a90bdf82009e"),
        (15, "e545be4961ca29a1"),
        (63, "724506eb4c328a95"),
    ],
)
def test_siphash_2_4_is_the_published_one(size, expected):
    """[7.4.4]: the vectors of the SipHash paper's authors: one wrong rotation and every key is elsewhere."""
    assert siphash(OCTETS[:size], KEY, 2, 4).to_bytes(8, "little").hex() == expected


# a text of each width, at the borders of widths and of blocks of 8 octets, and lone surrogates
TEXTS = ["", "a", "alice", "1234567", "12345678", "123456789", "x" * 255, "x" * 256, "x" * 257, "\x00", "\x7f", "\x80"]
TEXTS += ["ÿ", "Ā", "Zürich", "π", "ππππ", "\ud800", "\udfff", "\ud83d\ude00", "\uffff"]
TEXTS += ["\U00010000", "a😀", "\U0010ffff"]
SCRIPT = """
import json, sys
texts = json.loads(sys.argv[1])
octets = [text.encode("utf-8", "surrogatepass") for text in texts]
print(json.dumps([sys.hash_info.algorithm, list(map(hash, texts)), list(map(hash, octets))]))
"""


@pytest.mark.parametrize("seed", [0, 1, 42, 24000, 2**31, 2**32 - 1])
def test_it_is_the_hash_of_a_python_with_that_seed(seed):
    """[7.4.4]: texts and octets, asked of a Python that was started with this PYTHONHASHSEED."""
    sent = [text for text in TEXTS if text != "\ud83d\ude00"]  # JSON would join the two
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(sent)],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    algorithm, texts, octets = json.loads(done.stdout)
    key = secret(seed)
    assert [text_hash(memory_of(text), key, algorithm) for text in sent] == texts
    assert [text_hash(text.encode("utf-8", "surrogatepass"), key, algorithm) for text in sent] == octets


@given(st.text(st.characters(), max_size=40))
def test_memory_is_the_narrowest_that_holds_every_character(text):
    """[7.4.4]: one character above a border makes all of them wider, and their hash another."""
    width = 1 if all(one < "\u0100" for one in text) else 2 if all(one < "\U00010000" for one in text) else 4
    little, big = memory_of(text), memory_of(text, "big")
    assert len(little) == len(big) == width * len(text)
    for at, one in enumerate(text):
        there = slice(at * width, (at + 1) * width)
        assert int.from_bytes(little[there], "little") == int.from_bytes(big[there], "big") == ord(one)


def test_two_lone_surrogates_stay_two_characters():
    """[7.4.4]: a codec that joins them hashes another text."""
    assert memory_of("\ud83d\ude00") == b"\x3d\xd8\x00\xde"
    assert memory_of("\ud83d\ude00x😀")[:8] == b"\x3d\xd8\x00\x00\x00\xde\x00\x00"


def test_seed_zero_is_no_key():
    """[7.4.4]: the generator would make one of it."""
    assert secret(0) == (0, 0)
    assert secret(1) != (0, 0)
    assert len({secret(seed) for seed in range(100)}) == 100


@pytest.mark.parametrize("algorithm", ROUNDS)
def test_hashes_are_signed_and_never_minus_one(algorithm, monkeypatch):
    """[7.4.4]: -1 says in C that hashing has failed."""
    found = [text_hash(bytes([one]), (0, 0), algorithm) for one in range(100)]
    assert min(found) < 0 < max(found)
    assert all(-(2**63) <= one < 2**63 for one in found)
    assert text_hash(b"", (1, 2), algorithm) == 0
    monkeypatch.setattr("spark_partition_server.core.siphash.siphash", lambda *arguments: MASK)
    assert text_hash(b"x", (0, 0), algorithm) == -2


def test_the_rounds_are_those_of_their_names():
    """siphash13 took the place of siphash24 in Python 3.11."""
    assert ROUNDS == {"siphash13": (1, 3), "siphash24": (2, 4)}
    assert text_hash(b"x", KEY, "siphash13") != text_hash(b"x", KEY, "siphash24")
