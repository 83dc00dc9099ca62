"""What another CPython's ``hash()`` of a text or of octets is: SipHash, with a key drawn from PYTHONHASHSEED.

Rules only; everything is computed from the arguments, and nothing depends on the Python that computes it. The words
follow the SipHash paper: ``SipHash-c-d`` mixes every 8 octets with c rounds and ends with d.
"""

from __future__ import annotations

__all__ = ["ROUNDS", "memory_of", "secret", "siphash", "text_hash"]

MASK = (1 << 64) - 1
INITIAL = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
ROUNDS = {"siphash13": (1, 3), "siphash24": (2, 4)}  # sys.hash_info.algorithm: rounds for each 8 octets, at the end
SEED_MAX = (1 << 32) - 1  # of PYTHONHASHSEED


def secret(seed: int) -> tuple[int, int]:
    """The key that CPython draws from a PYTHONHASHSEED of 0..2^32-1; 0 stands for no key at all."""
    if seed == 0:
        return 0, 0
    octets = bytearray()
    state = seed
    for _ in range(16):  # a linear congruential generator; the octets above 16 are for other hashes
        state = (state * 214013 + 2531011) & 0xFFFFFFFF
        octets.append((state >> 16) & 0xFF)
    return int.from_bytes(octets[:8], "little"), int.from_bytes(octets[8:], "little")


def memory_of(text: str, byteorder: str = "little") -> bytes:
    """A text as CPython holds it: 1, 2 or 4 octets a character, whichever its greatest character needs."""
    greatest = max(text, default="")
    if greatest < "\u0100":
        return text.encode("latin-1")
    # lone surrogates are characters like any other; two of them are never joined here
    width = "utf-16" if greatest < "\U00010000" else "utf-32"
    return text.encode(f"{width}-{'le' if byteorder == 'little' else 'be'}", "surrogatepass")


def text_hash(octets: bytes, key: tuple[int, int], algorithm: str) -> int:
    """``hash()`` of octets, or of a text by its memory: signed, 64 bits, 0 for nothing and never -1.

    Args:
        key: of ``secret``.
        algorithm: one of ``ROUNDS``.
    """
    if not octets:
        return 0
    found = siphash(octets, key, *ROUNDS[algorithm])
    if found == MASK:  # -1 says in C that hashing has failed
        return -2
    return found - (1 << 64) if found >> 63 else found


def siphash(octets: bytes, key: tuple[int, int], each: int, last: int) -> int:
    """SipHash of octets: 0..2^64-1.

    Args:
        key: two numbers of 64 bits.
        each: rounds for each 8 octets.
        last: rounds at the end.
    """
    k0, k1 = key
    v0, v1, v2, v3 = INITIAL[0] ^ k0, INITIAL[1] ^ k1, INITIAL[2] ^ k0, INITIAL[3] ^ k1
    size = len(octets)
    whole = size & ~7
    for start in range(0, whole, 8):
        word = int.from_bytes(octets[start : start + 8], "little")
        v0, v1, v2, v3 = _mix(v0, v1, v2, v3 ^ word, each)
        v0 ^= word
    word = int.from_bytes(octets[whole:], "little") | (size & 0xFF) << 56
    v0, v1, v2, v3 = _mix(v0, v1, v2, v3 ^ word, each)
    v0, v1, v2, v3 = _mix(v0 ^ word, v1, v2 ^ 0xFF, v3, last)
    return v0 ^ v1 ^ v2 ^ v3


def _mix(v0: int, v1: int, v2: int, v3: int, rounds: int) -> tuple[int, int, int, int]:
    for _ in range(rounds):
        v0 = (v0 + v1) & MASK
        v1 = ((v1 << 13 | v1 >> 51) & MASK) ^ v0
        v0 = (v0 << 32 | v0 >> 32) & MASK
        v2 = (v2 + v3) & MASK
        v3 = ((v3 << 16 | v3 >> 48) & MASK) ^ v2
        v0 = (v0 + v3) & MASK
        v3 = ((v3 << 21 | v3 >> 43) & MASK) ^ v0
        v2 = (v2 + v1) & MASK
        v1 = ((v1 << 17 | v1 >> 47) & MASK) ^ v2
        v2 = (v2 << 32 | v2 >> 32) & MASK
    return v0, v1, v2, v3
