"""In which order a loop does what is to be done: commands, messages, ticks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import zmq
from support.driving import BEAT, RUN, Peer, Recorder, driven
from support.lanes import LONG
from support.wait import wait_until

from spark_partition_server.core.effects import Effect
from spark_partition_server.net.loop import Loop
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Lookup, Message


class Story(Recorder):
    """Writes down the order of things."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def receive(self, message: Message, sender: bytes, now: float) -> list[Effect]:
        self.told.append(f"received {message.kind.name}")
        self.meanwhile()
        return super().receive(message, sender, now)

    def tick(self, now: float) -> list[Effect]:
        if self.deadline is not None and now >= self.deadline:
            self.told.append("tick")
        return super().tick(now)


def something_waits(loop: Loop) -> bool:
    """Whether a message is there to be received. In the loop's thread."""
    return bool(loop._events(zmq.EVENTS) & zmq.POLLIN)


def test_what_has_come_goes_before_the_tick_that_is_due():
    """A loop that did not run for a moment: a heartbeat that came in time must not be found missing."""
    with driven(Story()) as one, Peer(zmq.DEALER, one.endpoint) as member:
        assert member.ask(BEAT) == BEAT
        one.machine.told.clear()
        stalled = threading.Event()

        def stall(now: float) -> list[Effect]:
            one.machine.interval, one.machine.deadline = 1000.0, now + 1.0
            stalled.set()
            return []

        def until_it_is_late(now: float) -> list[Effect]:
            deadline = one.machine.deadline
            wait_until(lambda: something_waits(one.loop) and time.monotonic() > deadline, LONG)
            return []

        one.loop.call(stall)
        assert stalled.wait(LONG)
        wait_until(lambda: one.loop._due == one.machine.deadline)  # it sleeps until then
        one.loop.call(until_it_is_late)
        assert member.ask(BEAT) == BEAT
        wait_until(lambda: len(one.machine.told) == 2, LONG)
        assert one.machine.told == ["received HEARTBEAT", "tick"]


def test_what_was_asked_before_a_message_was_sent_is_done_before_it_is_received():
    """``coordinator.fail`` has returned, then a client looks up: it learns of the failure, however busy the loop is."""
    with driven(Story()) as one, Peer(zmq.DEALER, one.endpoint) as member, Peer(zmq.DEALER, one.endpoint) as client:
        assert client.ask(BEAT) == BEAT

        def command(now: float) -> list[Effect]:
            one.machine.told.append("command")
            return []

        def meanwhile() -> None:
            one.machine.meanwhile = lambda: None
            one.loop.call(command)
            client.socket.send_multipart(codec.encode(Lookup(0), RUN))
            wait_until(lambda: something_waits(one.loop), LONG)

        one.machine.told.clear()
        one.machine.meanwhile = meanwhile
        assert member.ask(BEAT) == BEAT
        wait_until(lambda: len(one.machine.told) == 3, LONG)
        assert one.machine.told == ["received HEARTBEAT", "command", "received LOOKUP"]
