"""Waiting for something to become true: the only place in the tests that sleeps (tests/house keeps it so)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["until", "wait_until"]

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
    while not (found := _look(predicate, deadline, timeout, what)):
        time.sleep(PAUSE)
    return found


async def until(predicate: Callable[[], T], timeout: float = 5.0, what: str = "the predicate to hold") -> T:
    """The same for a coroutine: its loop goes on meanwhile, and the predicate is called in the loop's thread."""
    deadline = time.monotonic() + timeout
    while not (found := _look(predicate, deadline, timeout, what)):
        await asyncio.sleep(PAUSE)
    return found


def _look(predicate: Callable[[], T], deadline: float, timeout: float, what: str) -> T:
    late = time.monotonic() >= deadline
    found = predicate()
    if late and not found:
        raise AssertionError(f"waited {timeout:g} s for {what}; at the end it was {found!r}")
    return found
