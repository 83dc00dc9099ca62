"""A line: the calls of one client to one partition, and the connection over which they go."""

from __future__ import annotations

import threading

from ..net.channel import Channel
from ..wire.messages import Member
from .pending import Pending, Sleeper

__all__ = ["Line"]


class Line:
    """The way to one partition. Its attributes belong to the lock of the ``Exchange``, but for ``reading``.

    Attributes:
        rank: the partition.
        member: who serves it, as ``channel`` was made; None: there is no connection.
        channel: the connection.
        linking: somebody is making one.
        parked: calls that wait for it.
        calls: calls under way over ``channel``.
        cancels: CANCELs sent over ``channel`` whose refusal, by a server that knows none, has not been seen.
        reading: held by the thread that reads from ``channel``.
        followers: threads that wait while another one reads.
        sending: a thread is giving octets to the kernel.
        stuck: the kernel took only some of them.
        turns: how often a waiting thread has read something.
        seen: ``turns`` when the pump looked last.
        steady: in how many of the pump's turns, one after the other, others have read.
        missed: in how many since they have not.
        watched: the pump waits for the channel.
        used: when the line was used last.
    """

    __slots__ = (
        "calls",
        "cancels",
        "channel",
        "followers",
        "linking",
        "member",
        "missed",
        "parked",
        "rank",
        "reading",
        "seen",
        "sending",
        "steady",
        "stuck",
        "turns",
        "used",
        "watched",
    )

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.member: Member | None = None
        self.channel: Channel | None = None
        self.linking = False
        self.parked: list[Pending] = []
        self.calls = 0
        self.cancels = 0
        self.reading = threading.Lock()
        self.followers: list[Sleeper] = []
        self.sending = False
        self.stuck = False
        self.turns = 0
        self.seen = 0
        self.steady = 0
        self.missed = 0
        self.watched = False
        self.used = 0.0

    def open(self, member: Member, channel: Channel) -> None:
        """A connection has been made."""
        self.member, self.channel = member, channel
        self.linking = self.sending = self.stuck = False
        self.calls = self.cancels = 0

    def drop(self) -> None:
        """The connection is of no further use."""
        if self.channel is not None:
            self.channel.abort()
        self.member = self.channel = None
        self.calls = 0
        self.watched = False

    def led(self, steady: int, patience: int) -> bool:
        """Whether others read from the line, as far as the pump can tell, which looks now.

        After ``steady`` turns in which they did, ``patience`` turns without a read are let pass.
        """
        if self.turns != self.seen:
            self.seen = self.turns
            self.steady += 1
            self.missed = 0
            return True
        self.missed += 1
        if self.steady >= steady and self.missed <= patience:
            return True
        self.steady = 0
        return False
