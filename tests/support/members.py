"""Messages of the control plane with short defaults, for tests of the rules."""

from __future__ import annotations

from typing import Any

from spark_partition_server.core.membership import Membership
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Goodbye, Heartbeat, Hello, Member

__all__ = ["TOKEN", "goodbye", "heartbeat", "hello", "joined", "member", "membership"]

TOKEN = b"the token of the run"
INTERVAL = 1.0
LEASE = 15.0


def hello(rank: int = 0, incarnation: int = 7, **others: Any) -> Hello:
    """A HELLO that is accepted; ``others`` replaces what is to be wrong with it."""
    fields: dict[str, Any] = {
        "attempt": 0,
        "host": "10.0.0.5",
        "port": 4000 + rank,
        "endpoint": f"tcp://10.0.0.5:{4000 + rank}",
        "token": TOKEN,
        "version_min": 1,
        "version_max": 1,
    }
    return Hello(rank, incarnation, **{**fields, **others})


def member(rank: int = 0, incarnation: int = 7, **others: Any) -> Member:
    """The entry of a view that such a HELLO leads to."""
    said = hello(rank, incarnation, **others)
    return Member(said.rank, said.incarnation, said.attempt, said.host, said.port, said.endpoint)


def heartbeat(rank: int = 0, incarnation: int = 7, sequence: int = 1) -> Heartbeat:
    return Heartbeat(rank, incarnation, sequence)


def goodbye(rank: int = 0, incarnation: int = 7, code: Code = Code.OK, **others: Any) -> Goodbye:
    return Goodbye(rank, incarnation, **{"attempt": 0, "token": TOKEN, "code": code, **others})


def membership(size: int = 3, **others: Any) -> Membership:
    """A coordinator's rules: heartbeats every second, leases of 15."""
    return Membership(size, TOKEN, INTERVAL, LEASE, **others)


def joined(size: int, *ranks: int, incarnation: int = 7, now: float = 0.0) -> Membership:
    """One with members for these ranks; rank 2 speaks over the connection ``b"2"``."""
    made = membership(size)
    for rank in ranks:
        made.receive(hello(rank, incarnation), str(rank).encode(), now)
    made.check()
    return made
