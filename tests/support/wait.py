"""Waiting for something to become true: the only place in the tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_until"]

T = TypeVar("T")

PAUSE = 0.005  # seconds between two looks


def wait_until(predicate: Callable[[], T], timeout: float = 5.0, what: str = "the predicate to hold") -> T:
    """Looks at ``predicate`` until it is true; returns what it returned then.

    Args:
        predicate: called at least once, and once more after the time is over.
        timeout: seconds.
        what: completes the sentence "waited for ...".

    Raises:
        AssertionError: it was still false after ``timeout`` seconds; the text says what was waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        found = predicate()
        if found:
            return found
        if late:
            raise AssertionError(f"waited {timeout:g} s for {what}; at the end it was {found!r}")
        time.sleep(PAUSE)
