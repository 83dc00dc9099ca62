"""The ext types of values between ranks (PROTOCOL.md, section 9.11). Append-only."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["EMPTY_MARK", "ExactKind", "integer_octets"]

EMPTY_MARK: Final = b"\xc7\x00"  # how every mark begins: ext 8 with no data; its kind follows


class ExactKind(IntEnum):
    """What an array stands for whose first item is such a mark; INTEGER and COMPLEX have their value as data."""

    TUPLE = 16
    SET = 17
    FROZENSET = 18
    OCTETS = 19
    BYTEARRAY = 20
    ARRAY = 21
    SCALAR = 22
    DATE = 23
    TIME = 24
    DATETIME = 25
    TIMEDELTA = 26
    TIMEZONE = 27
    PICKLE = 28
    INTEGER = 29
    COMPLEX = 30
    ROWS = 31


def integer_octets(number: int) -> int:
    """How many octets an integer takes, signed, in its shortest form."""
    return ((number if number >= 0 else ~number).bit_length() + 8) // 8
