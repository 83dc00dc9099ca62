"""Every test in this folder is watched for what it leaves behind. And a lane with the test at its other end."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from support.lanes import LONG, Acceptor
from support.leaks import leaves_nothing

from spark_partition_server.net import lane as lane_module
from spark_partition_server.net.lane import Lane

__all__ = ["leaves_nothing"]


@pytest.fixture
def server() -> Iterator[Acceptor]:
    with Acceptor() as made:
        yield made


@pytest.fixture(params=[False, True], ids=["", "signals"])
def pair(server: Acceptor, request, monkeypatch) -> Iterator[tuple[Lane, socket.socket]]:
    """A lane and the other side's socket, past the handshake; in a process that handles signals, and in one that
    does not."""
    monkeypatch.setattr(lane_module, "_signals_are_handled", lambda: request.param)
    lane = Lane(server.endpoint, time.monotonic() + LONG, 1 << 30)
    other = server.accepted()
    other.recv(1000)  # our greeting and READY
    yield lane, other
    lane.close()
