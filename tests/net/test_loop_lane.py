"""The direct lane on an asyncio loop: connecting, long frames, a side that reads slowly, and who says what when."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import pytest
from support.lanes import LONG, WIDE, Acceptor, echo, patterned, serving
from support.loops import beside, run
from support.octets import command, handshake, message

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.net.endpoints import bind_unix
from spark_partition_server.net.loop_lane import HEAD_BYTES_MAX, SLICE_BYTES, LoopLane
from spark_partition_server.wire.zmtp import Engine, Frames

__all__ = ["run"]

LIMIT = 1 << 30


class Listening(LoopLane):
    """Keeps what comes; sends what is ``hidden`` from it no more."""

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__(asyncio.get_running_loop(), "the server", limit, memoryview(bytearray(65536)))
        self.messages: asyncio.Queue[Frames] = asyncio.Queue()
        self.ends: list[Exception] = []
        self.hidden: set[int] = set()

    def take(self, messages: list[Frames]) -> None:
        for frames in messages:
            self.messages.put_nowait([bytes(frame) for frame in frames])

    def ended(self, error: Exception) -> None:
        self.ends.append(error)

    def wanted(self, call_id: int) -> bool:
        return call_id not in self.hidden

    async def next(self) -> Frames:
        return await asyncio.wait_for(self.messages.get(), LONG)

    async def leave(self) -> None:
        self.close(ConnectionAbortedError("the test is over"))
        if self.gone is not None:
            await self.gone


@contextlib.asynccontextmanager
async def lane_to(endpoint: str, limit: int = LIMIT) -> Any:
    lane = Listening(limit)
    try:
        await asyncio.wait_for(lane.open(endpoint), LONG)
        yield lane
    finally:
        await lane.leave()


# ------------------------------------------------------------------------------------------ connecting


def test_messages_go_both_ways(run, tmp_path):
    """Over tcp, over a Unix socket, by name: small ones of one turn together, large ones by themselves."""
    tmp_path.chmod(0o700)
    unix = bind_unix(tmp_path / "s")

    async def main(endpoint: str) -> None:
        async with lane_to(endpoint) as lane:
            sent = [[b"%d" % number, patterned(size)] for number, size in enumerate([0, 9, 300, 40_000, 5 << 20, 1])]
            for frames in sent:
                lane.send(frames)
            assert [await lane.next() for _ in sent] == sent

    with serving(echo) as tcp, serving(echo, [unix]):
        for endpoint in (
            f"tcp://127.0.0.1:{tcp.address[1]}",
            f"tcp://localhost:{tcp.address[1]}",
            f"ipc://{tmp_path}/s",
        ):
            run(main(endpoint))


def test_nobody_listens(run):
    """The server has gone and its port is closed: known at once, and the error says so."""
    with Acceptor() as gone:
        pass

    async def main(endpoint: str) -> None:
        lane = Listening()
        with pytest.raises(OSError, match=r"refused|No such file"):
            await lane.open(endpoint)
        assert lane.lost is not None
        assert not lane.ends

    for endpoint in (gone.endpoint, "ipc:///nowhere/at/all"):
        run(main(endpoint))


@pytest.mark.parametrize("opening", [b"", handshake(b"ROUTER")[:40], handshake(b"ROUTER")[:70]], ids=range(3))
def test_a_server_that_never_finishes_the_handshake(run, opening):
    """Whoever waits sets the deadline; nothing is left behind."""

    async def main(endpoint: str) -> None:
        lane = Listening()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(lane.open(endpoint), 0.1)
        assert lane.gone is not None
        await asyncio.wait_for(lane.gone, LONG)

    with Acceptor(opening) as server:
        run(main(server.endpoint))


@pytest.mark.parametrize(
    "opening", [b"HTTP/1.1 400 Bad Request\r\n\r\n", handshake(b"PUB"), handshake(b"ROUTER") + message([b"a"])]
)
def test_a_server_of_another_kind(run, opening):
    """A web server, a socket that publishes, one that talks before it is asked."""

    async def main(endpoint: str) -> None:
        with pytest.raises(RemoteProtocolError):
            async with lane_to(endpoint):
                pass

    with Acceptor(opening) as server:
        run(main(server.endpoint))


def test_a_server_that_hangs_up_during_the_handshake(run):
    """Its own error, not a timeout."""

    async def main(server: Acceptor) -> None:
        lane = Listening()
        opening = asyncio.ensure_future(lane.open(server.endpoint))
        (await beside(server.accepted)).shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(opening, LONG)
        await lane.leave()

    with Acceptor(b"") as server:
        run(main(server))


# -------------------------------------------------------------------------------------------- traffic


def test_a_side_that_reads_slowly_gets_everything_in_order(run):
    """Fifty messages of all sizes against a side that reads a little at a time; PINGs of it are answered between."""
    sent = [[b"%d" % number, patterned(size)] for number in range(10) for size in (3, 200, 9000, SLICE_BYTES, 1 << 20)]
    got: list[Any] = []
    engine = Engine(b"ROUTER", WIDE)

    def read(other: socket.socket) -> None:
        count = 0
        while len(got) < len(sent) or len(engine.pongs) < 10:
            data = other.recv(100_000)
            assert data, "it hung up"
            got.extend([bytes(frame) for frame in frames] for frames in engine.receive(data))
            if count < 10:
                other.sendall(command(b"PING", b"\0\0%d" % count))
                count += 1

    async def main(server: Acceptor) -> None:
        async with lane_to(server.endpoint) as lane:
            other = await beside(server.accepted)
            for number, frames in enumerate(sent):
                lane.send(frames, number + 1)
            assert lane.waiting()
            await beside(read, other)
            assert not lane.waiting()

    with Acceptor() as server:
        run(main(server))
    assert got == sent
    assert engine.pongs == [b"%d" % number for number in range(10)]


def test_bursts_of_messages_arrive_in_order(run):
    """Turns of the loop with one message, with many, and with a long one among them: each begins to leave in its turn,
    or at the end of it."""

    async def main(endpoint: str) -> None:
        async with lane_to(endpoint) as lane:
            count = 0
            for burst in (1, 2, 40, 1, 40, 40, 1, 1):
                for number in range(burst):
                    lane.send([b"%d" % (count + number), patterned(1 << 20) if number == 20 else b"small"])
                count += burst
                await asyncio.sleep(0)
            assert [(await lane.next())[0] for _ in range(count)] == [b"%d" % number for number in range(count)]

    with serving(echo) as server:
        run(main(f"tcp://127.0.0.1:{server.address[1]}"))


def test_what_is_not_wanted_any_more_does_not_leave(run):
    """A call that was given up while its request waited: the others arrive whole."""
    large = patterned(8 << 20)

    async def main(server: Acceptor) -> None:
        async with lane_to(server.endpoint) as lane:
            other = await beside(server.accepted)
            lane.send([b"first", large], 1)
            lane.send([b"second", large], 2)
            lane.send([b"third"], 3)
            lane.send([b"fourth"], 4)
            assert lane.waiting() >= {2, 3, 4}
            assert 1 not in lane.waiting()
            lane.hidden = {2, 3}
            engine = Engine(b"ROUTER", WIDE)
            got: list[Any] = []

            def read() -> None:
                while len(got) < 2:
                    got.extend(engine.receive(other.recv(1 << 20)))

            await beside(read)
            assert [bytes(frames[0]) for frames in got] == [b"first", b"fourth"]

    with Acceptor() as server:
        run(main(server))


def test_the_end_is_told_once(run):
    """By the other side; what is sent after it goes nowhere, and is no error."""

    async def main(server: Acceptor) -> None:
        async with lane_to(server.endpoint) as lane:
            (await beside(server.accepted)).shutdown(socket.SHUT_RDWR)
            await asyncio.wait_for(lane.gone, LONG)
            lane.send([b"a"])
            lane.send([b"b"])
            lane.send([patterned(1 << 20)])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            lane.close(ValueError("again"))
            assert [type(end) for end in lane.ends] == [ConnectionResetError]
            assert lane.lost is lane.ends[0]

    with Acceptor() as server:
        run(main(server))


@pytest.mark.parametrize("octets", [message([b"x" * 2000]), b"\xff" * 9, b"\x04\x00"], ids=["size", "flags", "command"])
def test_a_breach_of_the_protocol_ends_the_connection(run, octets):
    """A message over the limit, before its memory is spent; octets that mean nothing."""

    async def main(server: Acceptor) -> None:
        lane = Listening(1500 - HEAD_BYTES_MAX)
        with contextlib.suppress(RemoteProtocolError):
            await lane.open(server.endpoint)
            (await beside(server.accepted)).sendall(octets)
            await asyncio.wait_for(lane.gone, LONG)
        assert isinstance(lane.lost, RemoteProtocolError)
        await lane.leave()

    with Acceptor() as server:
        run(main(server))


def test_a_side_that_pings_and_never_reads_is_cut_off(run):
    """The answers that wait for it are bounded."""

    async def main(server: Acceptor) -> None:
        async with lane_to(server.endpoint) as lane:
            other = await beside(server.accepted)
            other.settimeout(LONG)
            ping = command(b"PING", b"\0\0" + bytes(16)) * 2000
            stop = threading.Event()

            def flood() -> None:
                with contextlib.suppress(OSError):
                    while not stop.is_set():
                        other.sendall(ping)

            flooding = asyncio.ensure_future(beside(flood))
            try:
                await asyncio.wait_for(lane.gone, LONG)
            finally:
                stop.set()
                await flooding
            assert isinstance(lane.lost, RemoteProtocolError)

    with Acceptor() as server:
        run(main(server))
