"""A connection that many calls share: what is collected leaves in order, and what may have left counts as sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from support.lanes import LONG, Acceptor, lane_to, patterned, serving
from support.octets import message

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.net.channel import READ, WRITE, Channel, Watch
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Kind
from spark_partition_server.wire.zmtp import Frames


@pytest.fixture
def acceptor() -> Iterator[Acceptor]:
    with Acceptor() as made:
        yield made


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    made.close()


def channel_to(endpoint: str, limit: int = 1 << 30) -> Channel:
    return Channel(lane_to(endpoint, limit), None)


def send(channel: Channel) -> bool:
    """Sends what is to be sent; whether all of it has gone."""
    rest = channel.send(channel.collect())
    channel.put_back(rest)
    return not rest


def take(channel: Channel, count: int) -> list[Frames]:
    """The next ``count`` messages, or more."""
    found: list[Frames] = []
    while len(found) < count:
        messages = channel.take()
        if messages is None:
            channel.wait(LONG)
        found += messages or []
    return found


def test_messages_leave_together_and_in_order() -> None:
    """Small and large ones, added one by one, while the other side is slow to read: nothing is lost or moved."""
    with serving() as served:
        channel = channel_to(f"tcp://127.0.0.1:{served.address[1]}")
        sent = [[b"%05d" % number, patterned(1 << (number % 21))] for number in range(200)]
        for number, frames in enumerate(sent):
            before = channel.added
            assert channel.add(frames) == channel.added > before
            assert channel.count == number % 50 + 1
            if number % 50 == 49:
                send(channel)
        found: list[Frames] = []
        while len(found) < len(sent):
            found += channel.take() or []
            send(channel)
            channel.wait(0.01)
        assert [[bytes(frame) for frame in frames] for frames in found] == sent
        assert channel.waiting == 0
        assert channel.handed == channel.sent == channel.added
        channel.close()


def test_what_is_being_sent_may_have_arrived(acceptor: Acceptor) -> None:
    """From ``collect`` on, until the kernel has said how much it took: a call is never called unsent too early."""
    channel = channel_to(acceptor.endpoint)
    mark = channel.add_small(message([b"first"]))
    assert channel.handed < mark
    pieces = channel.collect()
    assert channel.handed >= mark
    later = channel.add([b"second"])
    assert channel.handed < later
    channel.put_back(pieces)  # the kernel has taken nothing
    assert channel.handed < mark
    assert channel.collect() == [message([b"first"]), message([b"second"])]
    channel.close()


def test_a_kernel_that_takes_no_more_keeps_nobody(acceptor: Acceptor, watch: Watch) -> None:
    """The rest stays; the watch says when there is room again."""
    channel = channel_to(acceptor.endpoint)
    channel.add([bytes(64 << 20)])
    assert not send(channel)
    assert 0 < channel.waiting < channel.added
    watch.follow({channel: WRITE})
    assert watch.wait(0.05) == []
    other = acceptor.accepted()

    def read() -> None:
        left = channel.added
        while left > 0:
            left -= len(other.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + LONG
    while channel.waiting and time.monotonic() < deadline:
        if watch.wait(LONG) == [channel]:
            send(channel)
    assert channel.waiting == 0
    reader.join(LONG)
    assert not reader.is_alive()
    channel.close()


def test_nothing_has_come_and_the_end_has(acceptor: Acceptor) -> None:
    """Two different things; the end is told as often as it is asked for."""
    channel = channel_to(acceptor.endpoint)
    other = acceptor.accepted()
    assert channel.take() is None
    assert not channel.lost()
    began = time.monotonic()
    channel.wait(0.05)
    assert time.monotonic() - began >= 0.04
    other.sendall(message([b"a", b"b"]))
    assert take(channel, 1) == [[b"a", b"b"]]
    other.close()
    channel.wait(LONG)
    assert channel.lost()
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            channel.take()
    channel.close()
    channel.close()


def test_whose_reply_was_too_large(acceptor: Acceptor) -> None:
    """The call's number has come before the frame that goes over the limit; not so with a stranger's message."""
    opening = codec.preamble(Kind.REPLY, b"the run!")
    for frames, culprit in (
        ([opening, codec.field_packer()((77,)), bytes(200_000)], 77),
        ([opening, b"\xc1", bytes(200_000)], None),
        ([bytes(200_000)], None),
    ):
        channel = channel_to(acceptor.endpoint, 1000)
        acceptor.accepted().sendall(message(frames))
        with pytest.raises(RemoteProtocolError) as caught:
            take(channel, 1)
        assert caught.value.code == Code.TOO_LARGE
        assert channel.culprit() == culprit
        channel.close()


def test_an_abort_wakes_whoever_waits(acceptor: Acceptor, watch: Watch) -> None:
    """In ``wait`` and in the watch."""
    channel = channel_to(acceptor.endpoint)
    waiting = threading.Thread(target=channel.wait, args=(LONG,))
    waiting.start()
    watch.follow({channel: READ})
    channel.abort()
    waiting.join(LONG / 2)
    assert not waiting.is_alive()
    assert watch.wait(LONG) == [channel]
    with pytest.raises(ConnectionResetError):
        channel.take()
    channel.close()
    watch.follow({})
    assert watch.wait(0) == []


def test_a_watch_is_woken_now_and_beforehand(watch: Watch) -> None:
    """Many wakes are one; after the end a wake is harmless."""
    for _ in range(1000):
        watch.wake()
    began = time.monotonic()
    assert watch.wait(LONG) == []
    assert watch.wait(0.01) == []
    threading.Timer(0.05, watch.wake).start()
    assert watch.wait(LONG) == []
    assert time.monotonic() - began < LONG / 2
    watch.close()
    watch.wake()
