"""Memory for large arrays is given back once it has long been free, without another large array."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support.probe import LONG
from support.wait import until, wait_until

from spark_partition_server import ClientOptions, QueryServer, ServerOptions, aio, method
from spark_partition_server.calling import loop_lines
from spark_partition_server.net import listener, memory
from spark_partition_server.testing import LocalCluster, local_cluster

numpy = pytest.importorskip("numpy")

SERVERS: list[Sums] = []
ITEMS = 300_000  # of 8 octets


class Sums(QueryServer):
    """Takes arrays and makes some; keeps the one that it is told to keep."""

    def init_partition(self, rows: Any) -> None:
        self.kept: Any = None
        SERVERS.append(self)

    @method
    def take(self, array: Any, keep: bool = False) -> float:
        if keep:
            self.kept = array
        return float(array.sum())

    @method
    def make(self) -> Any:
        return numpy.ones(ITEMS)

    @method
    def kept_sum(self) -> float:
        return float(self.kept.sum())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    for module in (memory, listener, loop_lines):
        monkeypatch.setattr(module, "IDLE", 0.1)
    SERVERS.clear()
    with local_cluster(Sums(options=ServerOptions(local=False)), [[]]) as running:
        yield running


def test_a_server_gives_back_what_large_requests_have_left(cluster):
    """A gigabyte once must not be a gigabyte for ever in an executor; what a method has kept stays as it is."""
    client = cluster.client(timeout=LONG)
    assert client.call(0, "take", numpy.ones(ITEMS), True) == ITEMS
    assert client.call(0, "take", numpy.full(ITEMS, 2.0)) == 2 * ITEMS
    kept = SERVERS[0]._listener._memory
    assert kept.kept > 2 * 8 * ITEMS
    wait_until(lambda: 8 * ITEMS <= kept.kept < 2 * 8 * ITEMS, LONG)
    assert client.call(0, "kept_sum") == ITEMS
    SERVERS[0].kept = None
    wait_until(lambda: kept.kept == 0, LONG)


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_blocking_client_gives_it_back_with_its_first_call_after_a_pause(cluster, way):
    """It has no thread that could do it while nobody calls; what the user holds stays as it is."""
    client = cluster.client(timeout=LONG)
    blocks = client._lanes._ways.memory
    held = client.submit(0, "make").result(LONG) if way == "submit" else client.call(0, "make")
    assert blocks.kept >= 8 * ITEMS

    def after_a_pause() -> bool:
        if way == "submit":
            client.submit(0, "take", numpy.ones(1)).result(LONG)
        else:
            client.call(0, "take", numpy.ones(1))
        return blocks.kept == 0

    pause(1.0)
    assert not after_a_pause()
    assert held.sum() == ITEMS
    del held
    pause(1.0)
    assert after_a_pause()


def pause(seconds: float) -> None:
    """Longer than a connection may be unused before it is looked at."""
    end = memory.monotonic() + seconds
    wait_until(lambda: memory.monotonic() > end)


def test_an_asyncio_client_gives_it_back_by_itself(cluster):
    """Its loop has a timer; while the user holds an array the timer goes on, and it does not hold the client."""

    async def main() -> None:
        options = ClientOptions(timeout=LONG)
        async with aio.connect(cluster.connection_file, options=options) as client:
            blocks = client._lines._memory
            held = await client.call(0, "make")
            end = memory.monotonic() + 0.3
            await until(lambda: memory.monotonic() > end)
            assert blocks.kept >= 8 * ITEMS
            assert held.sum() == ITEMS
            del held
            await until(lambda: blocks.kept == 0, LONG)
            await until(lambda: client._lines._resting is None, LONG)
            held = await client.call(0, "make")
        assert client._lines._resting is None
        assert held.sum() == ITEMS

    asyncio.run(main())
