"""asyncio clients in loops: asyncio's own and uvloop's."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from spark_partition_server import ClientOptions, aio
from spark_partition_server.testing import LocalCluster

from .probe import LONG

__all__ = ["Run", "alone", "beside", "client_of", "run"]

Run = Callable[[Any], Any]

uvloop.new_event_loop().close()  # libuv keeps one pipe for the signals of all loops; it comes with the first of them


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Run]:
    """``asyncio.run``, and the same on uvloop. Nothing may be left to complain about."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield asyncio.run if request.param == "asyncio" else uvloop.run
        gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def client_of(cluster: LocalCluster, **options: Any) -> aio.Client:
    """A client of a cluster, which its caller closes."""
    given = ClientOptions(**{"timeout": LONG, **options})
    return aio.Client(cluster.coordinator.get_url(), cluster.coordinator.run_id, given)


async def alone() -> None:
    """Fails when there is another task than the caller's."""
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def beside(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs what waits in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)
