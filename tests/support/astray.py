"""Leading a client to another server than the one that serves: a stand-in that says what the test wants."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from spark_partition_server.testing import LocalCluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Member, Message

__all__ = ["StandIn", "lead_astray"]


def lead_astray(cluster: LocalCluster, client: Any, port: int) -> None:
    """Makes coordinator and client believe that partition 1 is served at ``port``."""
    client.refresh()
    real = client._routes.calls.members[1]
    wrong = Member(1, real.incarnation, 0, "127.0.0.1", port, f"tcp://127.0.0.1:{port}")
    rules = cluster.coordinator._membership
    rules._entries[1].member = wrong
    rules._view = None  # it keeps the view that it told before
    client.refresh()
    assert client._routes.calls.members[1] == wrong


class StandIn:
    """An answer function for ``serving``: notes every message and says what the test wants said.

    Args:
        run_id: of the run it pretends to belong to.
        script: a message that came -> the message to answer it with, or None.

    Attributes:
        came: the messages, in order.
    """

    def __init__(self, run_id: bytes, script: Callable[[Any], Message | None]) -> None:
        self.came: list[Any] = []
        self._run_id = run_id
        self._script = script
        self._lock = threading.Lock()

    def kinds(self) -> Counter[str]:
        """How many of each kind came."""
        return Counter(message.kind.name for message in self.came)

    def __call__(self, frames: Sequence[Any], received: float, caller: Any) -> Any:
        message = codec.decode(frames, self._run_id)
        with self._lock:
            self.came.append(message)
        said = self._script(message)
        return None if said is None else codec.encode(said, self._run_id)
