"""The relay under load, between processes: large replies, beside heartbeats, control messages and small calls."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from support.apart import Apart
from support.remote import Remote
from support.wait import wait_until

from spark_partition_server import connect
from spark_partition_server.net.clock import monotonic

LARGE = 100_000_000
LEASE = 3.0
LONG = 60.0
# PROTOCOL.md [8.50]: 4 MiB of parts for each connection, of which there are seven; and as much again, as octets that
# are being read or written are there twice.
MEMORY = 7 * 2 * 4 * 1024 * 1024


def test_three_large_replies_at_once():
    """[8.50], [8.51]: what three servers send at once does not fill the driver, silence heartbeats, or hold up others.

    For longer than a lease three clients read 100 MB at a time. Meanwhile a fourth server answers small calls, and then
    leaves when it is asked to.
    """
    executors = [(Remote, (rank,)) for rank in range(4)]
    with Apart(Remote, "127.0.0.1", executors, heartbeat_interval=LEASE / 6, lease=LEASE) as cluster:
        before, started, done = cluster.driver("peak", True), monotonic(), threading.Event()

        def fetch(rank: int) -> list[tuple[float, float]]:
            times = []
            with connect(cluster.path, timeout=LONG, route="relay") as client:
                while not (done.is_set() and times):
                    began = monotonic()
                    array = client.call(rank, "array", LARGE)
                    assert (len(array), array[-1]) == (LARGE // 8, LARGE // 8 - 1)
                    times.append((began, monotonic()))
            return times

        with ThreadPoolExecutor(3) as pool, connect(cluster.path, timeout=LONG, route="relay") as client:
            try:
                fetching = [pool.submit(fetch, rank) for rank in range(3)]
                small = []
                while monotonic() - started < 1.5 * LEASE:
                    began = monotonic()
                    assert client.call(3, "rank") == 3
                    small.append((began, monotonic()))
                cluster.driver("stop", 3)
                wait_until(lambda: 3 not in cluster.driver("addresses"), LONG, "the fourth server to leave")
                assert sorted(cluster.driver("addresses")) == [0, 1, 2]
            finally:
                done.set()
            large = [time for one in fetching for time in one.result(LONG)]
        assert cluster.driver("lost") == []
        assert any(first < began and ended < last for first, last in large for began, ended in small)
        assert cluster.driver("peak") - before < MEMORY
