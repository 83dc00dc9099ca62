"""``submit(...).result()`` ends as ``call`` does: the blocking client's own tests, on futures."""

from __future__ import annotations

from typing import Any

import pytest
from test_client import *  # noqa: F403 - the tests themselves

from spark_partition_server import Client


@pytest.fixture(autouse=True)
def _call_is_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Client.call`` is made of the other."""

    def call(self: Client, partition: int, method: str, /, *args: Any, **kwargs: Any) -> Any:
        return self.submit(partition, method, *args, **kwargs).result()

    monkeypatch.setattr(Client, "call", call)
