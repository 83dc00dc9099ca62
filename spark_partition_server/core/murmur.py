"""Where Spark's JVM puts a row: Murmur3, 32 bits, as ``df.repartition(n, column)`` and SQL's ``hash()`` compute it.

Rules only. It is the published Murmur3 but for the octets behind the last whole word, each of which Spark mixes in as a
word of its own, with its sign.
"""

from __future__ import annotations

__all__ = ["SEED", "murmur_int", "murmur_long", "murmur_octets"]

SEED = 42  # of every row's first column; a null leaves the hash as it is
MASK = 0xFFFFFFFF


def murmur_int(number: int, seed: int) -> int:
    """Of 32 bits, signed or not: 0..2^32-1."""
    return _end(_mix(seed, number & MASK), 4)


def murmur_long(number: int, seed: int) -> int:
    """Of 64 bits: the low word first."""
    return _end(_mix(_mix(seed, number & MASK), (number >> 32) & MASK), 8)


def murmur_octets(octets: bytes, seed: int) -> int:
    """Of octets; of a text, its UTF-8."""
    size = len(octets)
    whole = size & ~3
    found = seed
    for start in range(0, whole, 4):
        found = _mix(found, int.from_bytes(octets[start : start + 4], "little"))
    for octet in octets[whole:]:
        found = _mix(found, (octet - 256 if octet > 127 else octet) & MASK)
    return _end(found, size)


def _mix(found: int, word: int) -> int:
    word = word * 0xCC9E2D51 & MASK
    word = (word << 15 | word >> 17) & MASK
    found ^= word * 0x1B873593 & MASK
    found = (found << 13 | found >> 19) & MASK
    return (found * 5 + 0xE6546B64) & MASK


def _end(found: int, size: int) -> int:
    found ^= size
    found ^= found >> 16
    found = found * 0x85EBCA6B & MASK
    found ^= found >> 13
    found = found * 0xC2B2AE35 & MASK
    return found ^ found >> 16
