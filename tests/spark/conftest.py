"""Everything in this folder runs on real Spark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.processes import leftovers


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No thread, listening socket or connection file of ours outlives a test, here or in an executor's Python."""
    yield
    leftovers()
