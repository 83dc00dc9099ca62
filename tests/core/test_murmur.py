"""Spark's Murmur3: what its JVM answered to ``select hash(...)``, and the words that everything comes down to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_partition_server.core.murmur import SEED, murmur_int, murmur_long, murmur_octets

ANSWERS = [
    ("int", 0, 933211791),
    ("int", 1, -559580957),
    ("int", -1, -1604776387),
    ("int", 2147483647, 133916647),
    ("int", -2147483648, 723455942),
    ("int", 42, 29417773),
    ("bigint", 0, -1670924195),
    ("bigint", 1, -1712319331),
    ("bigint", -1, -939490007),
    ("bigint", 9223372036854775807, -1604625029),
    ("bigint", -9223372036854775808, -853646085),
    ("bigint", 4294967296, -1307033787),
    ("octets", b"", 142593372),
    ("octets", b"a", 1485273170),
    ("octets", b"ab", -97053317),
    ("octets", b"abc", 1322437556),
    ("octets", b"abcd", -396302900),
    ("octets", b"abcde", 814637928),
    ("octets", b"Z\xc3\xbcrich", -761243618),
    ("octets", b"\xff\x80\x7f", -555039606),
    ("octets", b"x" * 100, 1899616407),
]


def signed(number):
    return number - 2**32 if number >> 31 else number


@pytest.mark.parametrize(("kind", "value", "answer"), ANSWERS)
def test_it_is_the_hash_of_sparks_jvm(kind, value, answer):
    """[7.4.5]: recorded from Spark 4; what differs by one bit lives in another partition."""
    hashed = {"int": murmur_int, "bigint": murmur_long, "octets": murmur_octets}[kind]
    assert signed(hashed(value, SEED)) == answer


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32 - 1))
def test_numbers_are_their_octets_whatever_their_sign(number, seed):
    """A word is hashed as its four octets are, and a long as its eight."""
    assert murmur_long(number, seed) == murmur_octets((number % 2**64).to_bytes(8, "little"), seed)
    word = number % 2**32
    assert murmur_int(word, seed) == murmur_int(word - 2**32, seed) == murmur_octets(word.to_bytes(4, "little"), seed)


@given(st.binary(max_size=40), st.integers(0, 2**32 - 1))
def test_a_hash_has_32_bits(octets, seed):
    """And no sign, so that it can be the seed of the next."""
    assert 0 <= murmur_octets(octets, seed) < 2**32
