"""``submit(...).result()`` ends as ``call`` does: every test of ``call``, its errors and its restarts, on futures."""

from __future__ import annotations

from typing import Any

import pytest
from test_client import *  # noqa: F403 - the tests themselves
from test_client_errors import *  # noqa: F403
from test_client_restarts import *  # noqa: F403

from spark_partition_server import Client


@pytest.fixture(autouse=True)
def _call_is_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Client.call`` is made of the other."""

    def call(self: Client, partition: int, method: str, /, *args: Any, **kwargs: Any) -> Any:
        return self.submit(partition, method, *args, **kwargs).result()

    monkeypatch.setattr(Client, "call", call)
