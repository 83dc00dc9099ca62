"""What reaches a listener from other threads and leaves it later: answers, messages that came another way, ends."""

from __future__ import annotations

import socket
import threading

import pytest
from support.lanes import LONG, echo, serving
from support.octets import message
from support.wait import wait_until

from spark_partition_server.net.connection import Caller
from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.net.listener import Listener


class Elsewhere(Caller):
    """A caller that is no connection."""

    def __init__(self):
        self.sent = []

    def send(self, frames):
        self.sent.append((threading.current_thread().name, list(frames)))


def keep(callers):
    """An answer function that answers nothing, and keeps who asked."""

    def answer(frames, received, caller):
        callers.append((caller, [bytes(frame) for frame in frames]))

    return answer


def test_an_answer_may_come_later_from_any_thread():
    """And any number of them, in the order in which a thread sends them."""
    callers = []
    with serving(keep(callers)) as served, served.raw() as client:
        client.send(b"x")
        wait_until(lambda: callers, LONG)
        for number in range(100):
            callers[0][0].send([b"%d" % number, bytes(number * 100)])
        assert [client.receive()[0] for _ in range(100)] == [b"%d" % number for number in range(100)]


def test_many_threads_hand_over_and_no_answer_is_left_lying():
    """A listener that sleeps beside an answer that was handed in: each thread waits for its own before the next."""
    callers = []
    with serving(keep(callers)) as served:
        clients = [served.raw() for _ in range(4)]
        for client in clients:
            client.send(b"x")
        wait_until(lambda: len(callers) == 4, LONG)

        def exchange(client, caller):
            for _ in range(3000):
                caller.send([b"y"])
                assert client.receive() == [b"y"]

        by_port = {caller.socket.getpeername(): caller for caller, _ in callers}
        failed = []

        def run(client):
            try:
                exchange(client, by_port[client.plain.getsockname()])
            except Exception as error:  # noqa: BLE001 - told by the test
                failed.append(error)

        threads = [threading.Thread(target=run, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        for client in clients:
            client.close()
        assert failed == []


def test_an_answer_for_somebody_who_has_gone_is_dropped():
    """And whoever answers is told, in the thread that serves, once."""
    callers, gone = [], []
    with serving(keep(callers), gone=lambda caller: gone.append((threading.current_thread().name, caller))) as served:
        with served.raw() as client:
            client.send(b"x")
            wait_until(lambda: callers, LONG)
        wait_until(lambda: gone, LONG)
        callers[0][0].send([b"too late"])
        callers[0][0].hold(True)
        with served.raw() as other:
            other.send(b"y")
            wait_until(lambda: len(callers) == 2, LONG)
        wait_until(lambda: len(gone) == 2, LONG)
    assert gone == [("served", caller) for caller, _ in callers]


def test_the_envelope_goes_back_before_an_answer_that_comes_later():
    """[6.6]: a REQ's delimiter; the caller of such messages is another, and goes with the connection."""
    callers, gone = [], []
    with serving(keep(callers), gone=gone.append) as served, served.raw() as client:
        client.send(b"", b"one")
        client.send(b"two")
        client.send(b"", b"three")
        wait_until(lambda: len(callers) == 3, LONG)
        (one, _), (two, _), (three, _) = callers
        assert one is three
        assert one is not two
        assert [frames for _, frames in callers] == [[b"one"], [b"two"], [b"three"]]
        one.send([b"1"])
        two.send([b"2"])
        assert not one.congested
        assert [client.receive(), client.receive()] == [[b"", b"1"], [b"2"]]
        client.close()
        wait_until(lambda: len(gone) == 2, LONG)
        assert set(gone) == {one, two}


def test_a_message_that_came_another_way_is_answered_there():
    """In the thread that serves, like all others; an answer that comes later goes the same way."""
    with serving(lambda frames, received, caller: None if frames == [b"hush"] else frames) as served:
        elsewhere = Elsewhere()
        for frames in ([b"x"], [b"hush"], [b"y", b"z"]):
            served.listener.deliver(elsewhere, frames)
        wait_until(lambda: len(elsewhere.sent) == 2, LONG)
        assert [frames for _, frames in elsewhere.sent] == [[b"x"], [b"y", b"z"]]
    served.listener.deliver(elsewhere, [b"after the end"])


def test_what_is_handed_in_before_a_listener_serves_does_not_stop_it_from_being_woken():
    """A call is relayed as soon as its server has registered, a moment before it serves: those behind it lay there."""
    listener = Listener([bind_tcp("127.0.0.1")], keep([]), 1000)
    early, late = threading.Event(), threading.Event()
    listener.hand(early.set)
    thread = threading.Thread(target=listener.serve)
    thread.start()
    try:
        assert early.wait(LONG)
        wait_until(lambda: not listener._handed and listener._pause() is None)
        listener.hand(late.set)
        assert late.wait(LONG / 4)
    finally:
        listener.stop()
        thread.join(LONG)


class Minded(Caller):
    """Sends nothing, and leaves the rest to the base of all callers."""

    def send(self, frames):
        """Nobody listens."""


def test_a_caller_must_send_and_need_do_nothing_else():
    """Who forgets it hears so when it is made, not at the first answer; the base is never congested, held in vain."""
    with pytest.raises(TypeError, match="send"):
        Caller()
    caller = Minded()
    assert not caller.congested
    caller.hold(True)


def test_a_connection_that_is_held_is_not_read_from():
    """TCP holds back what it sends, until it is released; from another thread as well."""
    callers = []
    with serving(keep(callers)) as served, served.raw(buffer=4096) as client, served.raw() as other:
        client.send(b"first")
        wait_until(lambda: callers, LONG)
        callers[0][0].hold(True)
        other.send(b"other")
        wait_until(lambda: len(callers) == 2, LONG)
        client.send(b"second")
        other.send(b"other")
        wait_until(lambda: len(callers) == 3, LONG)
        assert [frames for _, frames in callers] == [[b"first"], [b"other"], [b"other"]]
        callers[0][0].send([b"answer"])
        assert client.receive() == [b"answer"], "what it is owed leaves all the same"
        callers[0][0].hold(False)
        wait_until(lambda: len(callers) == 4, LONG)


def test_what_has_been_read_of_a_connection_that_is_held_is_kept():
    """Its messages came in one piece: those behind the one that led to the hold wait with it, and are not answered."""
    seen = []

    def answer(frames, received, caller):
        seen.append((bytes(frames[0]), received))
        if frames[0] == b"2":
            caller.hold(True)
            callers.append(caller)

    callers = []
    with serving(answer) as served, served.raw() as client, served.raw() as other:
        client.plain.sendall(b"".join(message([b"%d" % number]) for number in range(6)))
        wait_until(lambda: callers, LONG)
        other.send(b"x")
        wait_until(lambda: len(seen) == 4, LONG)
        callers[0].hold(False)
        wait_until(lambda: len(seen) == 7, LONG)
    assert [name for name, _ in seen] == [b"0", b"1", b"2", b"x", b"3", b"4", b"5"]
    assert seen[0][1] == seen[-1][1], "they were all read at the same time"


def test_a_connection_that_is_held_and_ends_is_noticed():
    """Nothing is read from it, so that its end has to be asked for."""
    callers, gone = [], []
    with serving(keep(callers), gone=gone.append) as served, served.raw() as client:
        client.send(b"x")
        wait_until(lambda: callers, LONG)
        callers[0][0].hold(True)
        wait_until(lambda: served.listener._unwatched, LONG)
        client.send(b"y" * 100)
        client.plain.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: gone, LONG)
        assert not served.listener._unwatched


def test_answers_to_requests_that_were_read_together_leave_together(monkeypatch):
    """A system call for each would cost more than most answers."""
    sends = []
    real = socket.socket.send
    with serving() as served, served.raw() as client, monkeypatch.context() as patch:
        client.ask(b"x")
        patch.setattr(socket.socket, "send", lambda self, data: sends.append(len(data)) or real(self, data))
        client.plain.sendall(message([b"y" * 50]) * 64)
        assert [client.receive() for _ in range(64)] == [[b"y" * 50]] * 64
        assert len(sends) <= 3


def test_work_is_done_between_two_looks_at_the_sockets():
    """As often as it asks for; messages are read and answered in between."""
    left, turns = 1000, []

    def work():
        turns.append(left)
        return 0.0 if len(turns) % 1000 else None

    with serving(work=work) as served, served.raw() as client:
        assert client.ask(b"x") == [b"x"]
        wait_until(lambda: len(turns) >= 1000, LONG)
        assert client.ask(b"y") == [b"y"]


def test_work_that_is_due_later_is_done_then():
    """Not at once, and not only when a message comes."""
    turns = []
    with serving(work=lambda: turns.append(1) or (0.01 if len(turns) < 5 else None)) as served:
        served.listener.hand(lambda: None)
        wait_until(lambda: len(turns) == 5, LONG)


def test_stop_gives_its_grace_to_answers_that_are_still_to_come():
    """[8.4]: what is under way is finished; the connection is not cut before."""
    callers = []
    with serving(keep(callers), busy=lambda: callers != []) as served, served.raw() as client:
        client.send(b"x")
        wait_until(lambda: callers, LONG)
        served.listener.stop(grace=LONG)
        caller, _ = callers[0]
        caller.send([b"answer"])
        assert client.receive() == [b"answer"]
        callers.clear()
        served.listener.hand(lambda: None)
        assert client.read_to_the_end() == 0
        assert served.ended()


def test_what_is_handed_in_before_it_serves_does_not_silence_what_comes_later():
    """A server is registered before it serves: the first relayed call may come between, and there is nobody to wake.
    All that came after it lay until the next connection."""
    ran = []
    listener = Listener([bind_tcp("127.0.0.1")], echo, 1 << 20)
    listener.hand(lambda: ran.append("early"))
    thread = threading.Thread(target=listener.serve)
    thread.start()
    try:
        wait_until(lambda: ran == ["early"], LONG)
        for number in range(100):
            listener.hand(lambda: ran.append("late"))
            wait_until(lambda: len(ran) == number + 2, LONG)  # noqa: B023 - called here
    finally:
        listener.stop()
        thread.join(LONG)
