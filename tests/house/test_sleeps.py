"""Tests wait for what they need, and for nothing longer: ``wait_until`` and ``until`` of tests/support/wait.py."""

from __future__ import annotations

import re

import pytest
from support.source import Source, sources

WAITING = "tests/support/wait.py"
SLEEP = re.compile(r"\bsleep\((?!0\))")  # sleep(0) gives others their turn and takes no time


def sleeping(source: Source) -> list[str]:
    """Calls of a ``sleep``, those in the texts of scripts for other processes included."""
    lines = enumerate(source.text.splitlines(), 1)
    return [f"{source.at(number)} sleeps" for number, line in lines if SLEEP.search(line)]


def test_no_test_sleeps():
    """A pause that is long enough today is too short on a busy machine, and too long on every other."""
    assert [breach for source in sources("tests") if source.path != WAITING for breach in sleeping(source)] == []


@pytest.mark.parametrize("call", ["time.{}(1)", "    {}(PAUSE)", "await asyncio.{}(0.05)", "SCRIPT = 'time.{}(1)'"])
def test_a_sleep_is_found(call):
    """The counter-proof; what takes no time is none."""
    assert sleeping(Source("x.py", call.format("sleep"))) == ["x.py:1 sleeps"]
    assert sleeping(Source("x.py", "await asyncio.sleep(0)\nif oversleep(due, now): pass")) == []
