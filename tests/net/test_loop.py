"""The driver of a machine on a ZeroMQ socket: what comes in reaches it once, what it wants happens, nothing ends it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence

import pytest
import zmq
from support.driving import BEAT, LOCAL, RUN, Driven, Peer, Recorder, driven
from support.lanes import LONG, Acceptor
from support.wait import wait_until

from spark_partition_server.core.effects import Effect, Ended, Send
from spark_partition_server.net.control import CONTROL_FRAME_BYTES
from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Heartbeat, Kind, Lookup, Message, Request, View


def end(text: str) -> Ended:
    return Ended(Code.OK, text)


# -------------------------------------------------------------------------------------------- messages


def test_a_message_reaches_the_machine_with_its_sender_and_the_answer_goes_back():
    """Two members; each is told its own."""
    with driven() as one, Peer(zmq.DEALER, one.endpoint) as first, Peer(zmq.DEALER, one.endpoint) as second:
        assert first.ask(BEAT) == BEAT
        assert second.ask(Heartbeat(4, 1, 1)) == Heartbeat(4, 1, 1)
        senders = [sender for _, sender in one.machine.received]
        assert len(set(senders)) == 2


def test_a_member_drives_a_dealer_the_same_way():
    """The other end of the same loop; there is one sender, and it has no name."""
    with Peer(zmq.ROUTER) as coordinator, driven(endpoint=coordinator.endpoint) as one:
        one.do(Send(None, Lookup(0)))
        sender, *frames = coordinator.socket.recv_multipart()
        assert codec.decode(frames, RUN) == Lookup(0)
        coordinator.socket.send_multipart([sender, *codec.encode(BEAT, RUN)])
        assert coordinator.socket.recv_multipart() == [sender, *codec.encode(BEAT, RUN)]
        assert one.machine.received == [(BEAT, b"")]


def frames_of(count: int) -> list[bytes]:
    """A REQUEST, which may carry payload, of ``count`` frames."""
    return [*codec.encode(Request(1, "m", 1, 0, 0), RUN), *[b"x"] * (count - 2)]


MALFORMED: dict[str, tuple[Sequence[bytes], Code]] = {
    "empty": ([b""], Code.MALFORMED),
    "one frame": ([b"x" * 16], Code.MALFORMED),
    "no preamble": ([b"hello", b"world"], Code.MALFORMED),
    "another magic": ([b"XYZ" + bytes(13), b"\x90"], Code.MALFORMED),
    "another version": ([b"SPS\x09" + bytes(12), b"\x90"], Code.VERSION),
    "another run": (codec.encode(BEAT, b"another-"), Code.WRONG_RUN),
    "unknown kind": ([b"SPS\x01\xff\x00\x00\x00" + RUN, b"\x90"], Code.UNKNOWN_KIND),
    "no msgpack": ([codec.preamble(Kind.HEARTBEAT, RUN), b"\xc1"], Code.MALFORMED),
    "no array": ([codec.preamble(Kind.HEARTBEAT, RUN), b"\x01"], Code.MALFORMED),
    "too few fields": ([codec.preamble(Kind.HEARTBEAT, RUN), b"\x91\x01"], Code.MALFORMED),
    "wrong type": ([codec.preamble(Kind.HEARTBEAT, RUN), b"\x93\xa0\xa0\xa0"], Code.MALFORMED),
    "deep": ([codec.preamble(Kind.HEARTBEAT, RUN), b"\x91" * 5000 + b"\x90"], Code.MALFORMED),
    "payload where none belongs": ([*codec.encode(BEAT, RUN), b"x"], Code.MALFORMED),
    "65 frames": (frames_of(65), Code.MALFORMED),
    "66 frames": (frames_of(66), Code.MALFORMED),
    "5000 frames": (frames_of(5000), Code.MALFORMED),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_message_never_reaches_receive(name):
    """The machine is told of it, with the code it would be refused with; the next message is read as ever."""
    frames, code = MALFORMED[name]
    with driven() as one, Peer(zmq.DEALER, one.endpoint) as member:
        member.socket.send_multipart(frames)
        assert member.ask(BEAT) == BEAT
        ((_, sender),) = one.machine.received
        assert one.machine.refused == [(code, sender)]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_member_survives_what_is_no_message_too(name):
    """A machine without ``malformed`` hears nothing of it."""

    class Deaf(Recorder):
        malformed = None  # type: ignore[assignment]

    with Peer(zmq.ROUTER) as coordinator, driven(Deaf(), endpoint=coordinator.endpoint) as one:
        one.do(Send(None, Lookup(0)))
        sender, *_ = coordinator.socket.recv_multipart()
        coordinator.socket.send_multipart([sender, *MALFORMED[name][0]])
        coordinator.socket.send_multipart([sender, *codec.encode(BEAT, RUN)])
        assert coordinator.socket.recv_multipart()[1:] == codec.encode(BEAT, RUN)
        assert one.machine.received == [(BEAT, b"")]


def test_a_message_of_the_most_frames_is_one():
    """The counter-proof of "65 frames"."""
    with driven() as one, Peer(zmq.DEALER, one.endpoint) as member:
        member.socket.send_multipart(frames_of(64))
        assert member.ask(BEAT) == BEAT
        message, _ = one.machine.received[0]
        assert isinstance(message, Request)
        assert len(message.payload) == 62


def test_a_frame_over_the_limit_costs_its_sender_the_connection():
    """Others are served on."""
    with driven() as one, Peer(zmq.DEALER, one.endpoint) as member, Peer(zmq.DEALER, one.endpoint) as other:
        member.socket.send(bytes(CONTROL_FRAME_BYTES + 1))
        assert other.ask(BEAT) == BEAT
        assert len(one.machine.received) == 1
        assert not one.machine.refused


# --------------------------------------------------------------------------------------------- effects


def test_an_effect_that_fails_does_not_end_the_loop_nor_the_effects_behind_it(caplog):
    """A user's callback that raises, say."""
    done: list[Effect] = []

    def perform(effect: Effect) -> None:
        if effect == end("bad"):
            raise ValueError("a callback's mistake")
        done.append(effect)

    with driven(perform=perform) as one:
        one.do(end("bad"), end("good"))
        one.do(end("later"))
        wait_until(lambda: done == [end("good"), end("later")])
        assert one.loop.alive
    assert one.loop.failure is None
    assert "a callback's mistake" in caplog.text


def test_a_member_that_does_not_read_is_dropped_and_others_are_served(caplog):
    """Its queue is full after a thousand messages; the loop does not wait for it, and stops in time."""
    large = View(1, 1, {}, (bytes(32 * 1024),))
    with driven() as one, Peer(zmq.DEALER, one.endpoint, rcvhwm=1) as deaf, Peer(zmq.DEALER, one.endpoint) as other:
        deaf.ask(BEAT)
        ((_, sender),) = one.machine.received
        for _ in range(20):
            one.do(*[Send(sender, large)] * 100)
        wait_until(lambda: "dropped kind=VIEW" in caplog.text, LONG)
        assert other.ask(BEAT) == BEAT


def test_a_message_to_somebody_who_has_gone_is_no_failure():
    """Its connection was lost in the meantime."""
    with driven() as one, Peer(zmq.DEALER, one.endpoint) as other:
        with Peer(zmq.DEALER, one.endpoint) as gone:
            gone.ask(BEAT)
        ((_, sender),) = one.machine.received
        one.do(Send(sender, BEAT), Send(b"never seen", BEAT), end("behind"))
        wait_until(lambda: one.performed == [end("behind")])
        assert other.ask(BEAT) == BEAT


def test_a_message_that_cannot_be_built_is_logged_and_not_sent(caplog):
    """Its fields are over the limit; the loop goes on."""
    with driven() as one, Peer(zmq.DEALER, one.endpoint) as member:
        member.ask(BEAT)
        ((_, sender),) = one.machine.received
        one.do(Send(sender, View(1, 1, {"x": "y" * 70_000})), Send(sender, Lookup(5)))
        assert codec.decode(member.socket.recv_multipart(), RUN) == Lookup(5)
    assert "unsent kind=VIEW" in caplog.text


# -------------------------------------------------------------------------------------------- commands


def test_commands_of_many_threads_run_once_each_in_the_loops_thread():
    """And time does not run backwards between them."""
    threads: set[int] = set()
    times: list[float] = []
    with driven() as one:

        def command(now: float) -> list[Effect]:
            threads.add(threading.get_ident())
            times.append(now)
            return [end("")]

        callers = [threading.Thread(target=lambda: [one.loop.call(command) for _ in range(500)]) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        wait_until(lambda: len(one.performed) == 4000)
    assert len(threads) == 1
    assert times == sorted(times)


def test_commands_handed_in_before_stop_are_run():
    """A GOODBYE is not lost; what comes after the end is harmless and is not run."""
    with driven() as one:
        for number in range(1000):
            one.do(end(str(number)))
        assert one.loop.stop()
        one.do(end("too late"))
    assert one.performed == [end(str(number)) for number in range(1000)]


def test_the_machine_is_woken_at_its_deadline_and_not_all_the_time():
    """Its deadline is kept without anybody sending anything; between deadlines the thread sleeps."""
    with driven(Recorder(0.05)) as one:
        wait_until(lambda: one.machine.ticks and one.machine.ticks[-1] - one.machine.ticks[0] > 0.5)
        ticks = list(one.machine.ticks)
    assert 5 <= len(ticks) <= 30


# ----------------------------------------------------------------------------------------------- the end


def test_a_machine_that_raises_ends_the_loop_with_a_word(caplog):
    """A bug of ours: everything is closed, and whoever asks learns what it was."""

    class Broken(Recorder):
        def receive(self, message: Message, sender: bytes, now: float) -> list[Effect]:
            raise ZeroDivisionError("a bug")

    with driven(Broken()) as one, Peer(zmq.DEALER, one.endpoint) as member:
        member.socket.send_multipart(codec.encode(BEAT, RUN))
        wait_until(lambda: not one.loop.alive)
        assert isinstance(one.loop.failure, ZeroDivisionError)
        assert one.loop.stop()
    assert "a bug" in caplog.text
    with bind_tcp(LOCAL, (int(one.endpoint.rpartition(":")[2]),) * 2):
        pass


def test_stop_from_within_the_loop_ends_it():
    """An effect may ask for the end; it cannot wait for it."""
    with driven(perform=lambda effect: one.loop.stop()) as one:
        one.do(end(""))
        wait_until(lambda: not one.loop.alive)


def test_stop_is_harmless_twice_and_gives_the_port_back():
    """Also from two threads."""
    with driven() as one:
        other = threading.Thread(target=one.loop.stop)
        other.start()
        assert one.loop.stop()
        other.join(LONG)
        assert one.loop.stop()
        with bind_tcp(LOCAL, (int(one.endpoint.rpartition(":")[2]),) * 2):
            pass


def test_stop_of_a_loop_that_was_never_started_closes_everything():
    """No thread could be had, say."""
    assert Driven(Recorder(), None, None).loop.stop()


@pytest.mark.parametrize("peer", ["nobody", "never greets", "greets only"])
def test_the_end_does_not_wait_for_a_dead_coordinator(peer):
    """GOODBYE gets its second; a queue full of messages that nobody takes does not hold up the end."""
    with contextlib.ExitStack() as opened:
        if peer == "nobody":
            with bind_tcp(LOCAL) as gone:
                endpoint = f"tcp://{LOCAL}:{gone.getsockname()[1]}"
        else:
            accepting = opened.enter_context(Acceptor(b"" if peer == "never greets" else b"\xff" + bytes(8) + b"\x7f"))
            endpoint = accepting.endpoint
        with driven(endpoint=endpoint) as one:
            one.do(*[Send(None, BEAT)] * 500)


def test_the_loop_of_a_quiet_cluster_logs_nothing_above_debug(caplog):
    """Ordinary life is no news."""
    caplog.set_level(logging.INFO)
    with driven() as one, Peer(zmq.DEALER, one.endpoint) as member:
        member.ask(BEAT)
    assert not caplog.records
