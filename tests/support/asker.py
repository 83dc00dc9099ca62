"""A client by relay that does what it is told."""

from __future__ import annotations

from spark_partition_server.testing import LocalCluster
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Request
from spark_partition_server.wire.payload import ValueEncoder

from .lanes import Raw

__all__ = ["Asker"]


class Asker:
    """A client by relay that does what it is told."""

    def __init__(self, cluster: LocalCluster, door: bool = False, buffer: int = 0) -> None:
        """``door``: not by the coordinator's first endpoint; ``buffer``: as of ``Raw``."""
        self.run_id = cluster.coordinator.run_id
        host, port = cluster.coordinator.address
        self.raw = Raw((host, cluster.coordinator._relay_port if door else port), buffer=buffer)
        self.members = cluster.coordinator._membership.members
        self.encode = ValueEncoder().encode

    def ask(self, call_id, method, *args, rank=1, timeout=5000):
        payload = tuple(bytes(frame) for frame in self.encode((args, {})))
        return Request(call_id, method, timeout, rank, self.members[rank].incarnation, payload)

    def say(self, message) -> None:
        self.raw.send(*[bytes(frame) for frame in codec.encode(message, self.run_id)])

    def hear(self):
        return codec.decode(self.raw.receive(), self.run_id)

    def answer(self, message):
        self.say(message)
        return self.hear()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.raw.close()
