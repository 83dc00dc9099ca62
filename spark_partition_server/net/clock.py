"""The only clock. Monotonic: neither summer time nor an administrator moves it."""

from __future__ import annotations

from time import monotonic

__all__ = ["monotonic"]
