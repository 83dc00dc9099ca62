"""A world of ranks in memory: their machines, the messages between them, their deaths, all in an order drawn by a seed.

A *program* is a generator that one rank runs: it yields requests and gets their results, or their errors are raised in
it. Between two ranks messages keep their order; everything else happens in any order: which message arrives next, when
the memory of a message is looked at, when a death is heard of.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

from spark_partition_server.core.peers.links import Identity, Transmit
from spark_partition_server.core.peers.matching import ANY
from spark_partition_server.core.peers.peer import Peer, first_context
from spark_partition_server.wire import codec

__all__ = ["FAR", "SMALL", "World", "outcomes", "recv", "send", "text"]

FAR = 1000.0  # a deadline that no working program reaches
SMALL = 1024  # a window with room for three messages
RUN = b"ranks..."
LATE = 0.3  # how often memory is looked at, and a message stays


class Rank:
    """One process: its machine, its communicator, its program and how that ended.

    Attributes:
        result: what the program returned.
        error: what it raised.
    """

    def __init__(self, peer, comm):
        self.peer = peer
        self.comm = comm
        self.alive = True
        self.program = None
        self.request = None
        self.over = False
        self.result = None
        self.error = None

    @property
    def rank(self):
        return self.comm.rank


class World:
    """Ranks and what is under way between them.

    Args:
        window: see ``Peer``; a small one makes every message wait for its receive.
        octets: send every message through the codec.
        hearers: how many of the others hear of a death by themselves; None: all. The rest must be told.
    """

    def __init__(self, size, seed=0, *, window=0, octets=False, hearers=None):
        self.random = random.Random(seed)
        self.now = 0.0
        self.octets = octets
        self.hearers = hearers
        self.steps = 0
        self.group = [Identity(rank, 7) for rank in range(size)]
        self.ranks = []
        for identity in self.group:
            peer = Peer(identity, size, window)
            self.ranks.append(Rank(peer, peer.open(first_context(1), self.group)))
        self.under_way = {}  # (sender, receiver) -> messages, with their tickets
        self.busy = []  # those of them that have messages
        self.rumours = []  # (who hears it, who was lost)
        self.sent = 0

    # --------------------------------------------------------------------------------------------- programs

    def run(self, program, *, until=None, kill=()):
        """Runs ``program(rank)`` on every rank until all are over; ``kill``: (step, rank) in order."""
        for rank in self.ranks:
            rank.program = program(rank)
        for rank in self.ranks:
            self._resume(rank)
        deaths = deque(sorted(kill))
        while True:
            while deaths and deaths[0][0] <= self.steps:
                self.kill(deaths.popleft()[1])
            if until is not None and self.steps >= until:
                return self
            if not self.step():
                if all(rank.over for rank in self.ranks if rank.alive):
                    break
                deadlines = [one.peer.deadline for one in self.ranks if one.alive]
                self.now = max(self.now, min(one for one in deadlines if one is not None))
                assert self.now < 2 * FAR, [rank.request and rank.request.doing for rank in self.ranks]
                for rank in self.ranks:
                    if rank.alive:
                        rank.peer.tick(self.now)
                        self._took(rank)
        return self

    def _resume(self, rank):
        """Runs a program until its next request that is not over."""
        while not rank.over and (rank.request is None or rank.request.done):
            try:
                if rank.request is None:
                    rank.request = next(rank.program)
                elif rank.request.error is not None:
                    rank.request = rank.program.throw(rank.request.error)
                else:
                    rank.request = rank.program.send(rank.request.value)
            except StopIteration as over:
                rank.over, rank.result = True, over.value
            except Exception as error:  # noqa: BLE001 - whatever a rank ends in is its outcome
                rank.over, rank.error = True, error
            self._perform(rank)

    def _took(self, rank):
        """After each call of a machine."""
        self._perform(rank)
        rank.peer.check()
        self._resume(rank)

    def _perform(self, rank):
        for effect in rank.peer.take():
            if isinstance(effect, Transmit):
                assert effect.to != rank.peer.me
                self.sent += 1
                pair = (rank.peer.me.rank, effect.to.rank)
                messages = self.under_way.setdefault(pair, deque())
                if not messages:
                    self.busy.append(pair)
                messages.append([effect.message, effect.ticket, effect.to])

    # ----------------------------------------------------------------------------------------------- events

    def step(self):
        """One thing happens; False: nothing is left that could."""
        pairs = len(self.busy)
        if not pairs + len(self.rumours):
            return False
        self.steps += 1
        number = self.random.randrange(pairs + len(self.rumours))
        if number >= pairs:
            hearer, lost = self.rumours.pop(number - pairs)
            if self.ranks[hearer].alive:
                self.ranks[hearer].peer.lost(lost)
                self._took(self.ranks[hearer])
            return True
        sender, receiver = self.busy[number]
        messages = self.under_way[sender, receiver]
        if self.random.random() < LATE:
            lent = [entry for entry in messages if entry[1] is not None]
            if lent:
                self._flush(sender, lent[0])
                return True
        self._deliver(sender, self.ranks[receiver], messages)
        return True

    def _deliver(self, sender, receiver, messages):
        entry = messages[0]
        self._flush(sender, entry)
        messages.popleft()
        if not messages:
            self.busy.remove((sender, receiver.rank))
        message, _, to = entry
        if receiver.alive and receiver.peer.me == to:
            if self.octets:
                message = codec.decode([bytes(frame) for frame in codec.encode(message, RUN)], RUN)
            receiver.peer.receive(message, self.group[sender])
            self._took(receiver)

    def _flush(self, sender, entry):
        """The octets of a message leave the memory they lie in."""
        message, ticket, _ = entry
        if hasattr(message, "payload"):
            entry[0] = replace(message, payload=tuple(bytes(frame) for frame in message.payload))
        if ticket is not None:
            entry[1] = None
            if self.ranks[sender].alive:
                self.ranks[sender].peer.sent(ticket)
                self._took(self.ranks[sender])

    def kill(self, victim):
        """A process dies: of what it has sent, the end of each connection may be lost; the others hear of it, once."""
        dead = self.ranks[victim]
        dead.alive = False
        for (sender, _), messages in self.under_way.items():
            if sender == victim:
                for entry in messages:
                    self._flush(sender, entry)
                for _ in range(self.random.randint(0, len(messages))):
                    messages.pop()
        self.busy = [pair for pair, messages in self.under_way.items() if messages]
        living = [rank.rank for rank in self.ranks if rank.alive]
        hearers = living if self.hearers is None else self.random.sample(living, min(self.hearers, len(living)))
        self.rumours += [(rank, dead.peer.me) for rank in hearers]


def outcomes(world):
    """What each living rank ended in: the result, or the class of the error."""
    return [type(rank.error) if rank.error is not None else rank.result for rank in world.ranks if rank.alive]


def send(rank, to, tag, octets, **more):
    """Begins to send octets."""
    return rank.peer.send(rank.comm, to, tag, (octets,), FAR, **more)


def recv(rank, source=ANY, tag=ANY, **more):
    """Begins to receive."""
    return rank.peer.recv(rank.comm, source, tag, FAR, **more)


def text(payload):
    """The octets of a payload."""
    return b"".join(bytes(frame) for frame in payload)
