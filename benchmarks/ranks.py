"""One rank of a group of processes that ``collectives.py`` measures: each of the libraries, and what it calls there.

    python benchmarks/ranks.py --library gloo --rank 0 --size 2 --port PORT --driver SOCKET

The driver listens on a Unix socket. A rank connects, says who it is, and then does what one line of JSON after the
other asks for: ``{"operation": "allreduce", "octets": 4096, "calls": 100}`` is answered by the seconds of one call; no
calls mean one whose result is looked at. Between bursts it waits in ``recv`` there, so that no library's own waiting
takes a processor from the others.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LARGEST = 64 << 20  # octets
WARM_UP = 3  # calls before those that are timed, if so many are timed
FLOAT = 0.5

Call = Callable[[], Any]


class Unsupported(Exception):
    """The library has no such operation."""


class Library:
    """A rank's end of one library.

    Attributes:
        rank: ours.
        size: of the group.
        mine: as many float32 as the largest message has, zeros but for checks.
        whole: as many, for results: an allgather's parts are that much smaller.
        in_place: whether ``allreduce`` leaves its result in ``mine``.
    """

    in_place = False

    def __init__(self, rank: int, size: int, port: int) -> None:
        self.rank, self.size, self.port = rank, size, port
        self.mine = np.zeros(LARGEST // 4, np.float32)
        self.whole = np.zeros(LARGEST // 4, np.float32)

    def prepare(self, operation: str, octets: int) -> Call:
        """A function that does it once. ``octets`` are what each rank contributes: the message of bcast and sendrecv,
        one rank's part of allgather, all blocks of alltoall together."""
        maker = getattr(self, operation, None)
        if maker is None:
            raise Unsupported(operation)
        call: Call = maker(octets // 4)
        return call

    def barrier(self, items: int = 0) -> Call:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to close, unless a library says so."""


class Mpi(Library):
    """A communicator with mpi4py's names: mpi4py's own, or the one given."""

    def __init__(self, rank: int, size: int, port: int, comm: Any = None) -> None:
        super().__init__(rank, size, port)
        if comm is None:
            from mpi4py import MPI

            comm = MPI.COMM_WORLD
        self.comm = comm

    def barrier(self, items: int = 0) -> Call:
        return self.comm.barrier

    def allreduce_float(self, items: int) -> Call:
        return lambda: self.comm.allreduce(FLOAT)

    def allreduce(self, items: int) -> Call:
        mine, whole = self.mine[:items], self.whole[:items]
        return lambda: self.comm.Allreduce(mine, whole)

    def bcast(self, items: int) -> Call:
        mine = self.mine[:items]
        return lambda: self.comm.Bcast(mine)

    def allgather(self, items: int) -> Call:
        mine, whole = self.mine[:items], self.whole[: items * self.size]
        return lambda: self.comm.Allgather(mine, whole)

    def alltoall(self, items: int) -> Call:
        mine, whole = self.mine[:items], self.whole[:items]
        return lambda: self.comm.Alltoall(mine, whole)

    def sendrecv(self, items: int) -> Call:
        """There and back: the driver halves it."""
        comm, mine, whole = self.comm, self.mine[:items], self.whole[:items]

        def first() -> None:
            comm.Send(mine, dest=1)
            comm.Recv(whole, source=1)

        def second() -> None:
            comm.Recv(whole, source=0)
            comm.Send(mine, dest=0)

        return first if self.rank == 0 else second


class Gloo(Library):
    """torch.distributed over tcp."""

    in_place = True

    def __init__(self, rank: int, size: int, port: int) -> None:
        super().__init__(rank, size, port)
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        import torch
        import torch.distributed

        torch.set_num_threads(1)  # a processor for each rank is more than there is
        self.torch, self.comm = torch, torch.distributed
        self.comm.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)

    def barrier(self, items: int = 0) -> Call:
        call: Call = self.comm.barrier
        return call

    def allreduce_float(self, items: int) -> Call:
        def call() -> float:
            value = self.torch.tensor([FLOAT], dtype=self.torch.float64)
            self.comm.all_reduce(value)
            return float(value.item())

        return call

    def allreduce(self, items: int) -> Call:
        """In place, which is all that gloo offers; zeros stay zeros."""
        mine = self.torch.from_numpy(self.mine[:items])
        return lambda: self.comm.all_reduce(mine)

    def bcast(self, items: int) -> Call:
        mine = self.torch.from_numpy(self.mine[:items])
        return lambda: self.comm.broadcast(mine, 0)

    def allgather(self, items: int) -> Call:
        mine = self.torch.from_numpy(self.mine[:items])
        whole = list(self.torch.from_numpy(self.whole[: items * self.size]).chunk(self.size))
        return lambda: self.comm.all_gather(whole, mine)

    def alltoall(self, items: int) -> Call:
        mine, whole = (self.torch.from_numpy(array[:items]) for array in (self.mine, self.whole))
        return lambda: self.comm.all_to_all_single(whole, mine)

    def sendrecv(self, items: int) -> Call:
        mine, whole = (self.torch.from_numpy(array[:items]) for array in (self.mine, self.whole))

        def first() -> None:
            self.comm.send(mine, 1)
            self.comm.recv(whole, 1)

        def second() -> None:
            self.comm.recv(whole, 0)
            self.comm.send(mine, 0)

        return first if self.rank == 0 else second

    def close(self) -> None:
        self.comm.destroy_process_group()


class Star(Library):
    """What one writes by hand with pyzmq and msgpack: everybody sends to rank 0, a ROUTER, which answers everybody."""

    def __init__(self, rank: int, size: int, port: int) -> None:
        super().__init__(rank, size, port)
        import msgpack
        import zmq

        self.pack, self.unpack = msgpack.packb, msgpack.unpackb
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER if rank else zmq.ROUTER)
        if rank:
            self.socket.connect(f"tcp://127.0.0.1:{port}")
        else:
            self.socket.bind(f"tcp://127.0.0.1:{port}")

    def barrier(self, items: int = 0) -> Call:
        return self.star(lambda: b"", lambda body: None, lambda: b"", lambda body: None)

    def allreduce_float(self, items: int) -> Call:
        total = [0.0]

        def add(body: bytes) -> None:
            total[0] += self.unpack(body)

        def answer() -> bytes:
            found, total[0] = total[0] + FLOAT, 0.0
            return bytes(self.pack(found))

        return self.star(lambda: self.pack(FLOAT), add, answer, self.unpack)

    def allreduce(self, items: int) -> Call:
        mine, whole = self.mine[:items], self.whole[:items]
        first = [True]

        def add(body: bytes) -> None:
            np.add(mine if first[0] else whole, np.frombuffer(body, np.float32), whole)
            first[0] = False

        def answer() -> Any:
            first[0] = True
            return whole

        def store(body: Any) -> None:
            if self.rank:
                whole[:] = np.frombuffer(body, np.float32)

        return self.star(lambda: mine, add, answer, store)

    def star(self, ask: Call, add: Callable[[Any], Any], answer: Call, take: Callable[[Any], Any]) -> Call:
        """One call: ``ask`` and ``take`` at the points, ``add`` and ``answer`` in the middle."""
        own, others = self.socket, self.size - 1

        def point() -> Any:
            own.send(ask())
            return take(own.recv())

        def middle() -> Any:
            waiting = []
            for _ in range(others):
                who, body = own.recv_multipart()
                add(body)
                waiting.append(who)
            body = answer()
            for who in waiting:
                own.send_multipart([who, body])
            return take(body)

        return point if self.rank else middle

    def close(self) -> None:
        self.context.destroy(linger=0)


class RawTcp(Library):
    """Two PAIR sockets of pyzmq over tcp, without a copy on either side."""

    def __init__(self, rank: int, size: int, port: int) -> None:
        super().__init__(rank, size, port)
        import zmq

        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PAIR)
        if rank:
            self.socket.connect(f"tcp://127.0.0.1:{port}")
        else:
            self.socket.bind(f"tcp://127.0.0.1:{port}")

    def barrier(self, items: int = 0) -> Call:
        def call() -> None:
            self.socket.send(b"")
            self.socket.recv()

        return call

    def sendrecv(self, items: int) -> Call:
        own, mine = self.socket, self.mine[:items]

        def first() -> None:
            own.send(mine, copy=False)
            np.frombuffer(own.recv(copy=False), np.float32)

        def second() -> None:
            np.frombuffer(own.recv(copy=False), np.float32)
            own.send(mine, copy=False)

        return second if self.rank else first

    def close(self) -> None:
        self.context.destroy(linger=0)


LIBRARIES: dict[str, type[Library]] = {"gloo": Gloo, "openmpi": Mpi, "star": Star, "zmq tcp": RawTcp}


def check(library: Library, operation: str, octets: int) -> None:
    """Do it once with numbers that tell the ranks apart, and look at what it has made of them."""
    call, items, size = library.prepare(operation, octets), octets // 4, library.size
    library.mine[:items] = library.rank + 1
    value = call()
    total = size * (size + 1) / 2
    mine, whole = library.mine[:items], library.whole[:items]
    if operation == "allreduce_float":
        assert value == FLOAT * size, (library, value)
    elif operation == "allreduce":
        assert ((mine if library.in_place else whole) == total).all(), (library, mine, whole)
    elif operation == "bcast":
        assert (mine == 1).all(), (library, mine)
    elif operation == "allgather":
        blocks = library.whole[: items * size].reshape(size, items)
        assert (blocks == np.arange(1, size + 1)[:, None]).all(), (library, blocks)
    elif operation == "alltoall":
        blocks = whole.reshape(size, items // size)
        assert (blocks == np.arange(1, size + 1)[:, None]).all(), (library, blocks)
    mine[:] = 0


def burst(library: Library, operation: str, octets: int, calls: int) -> float:
    """The seconds of one call, from when all ranks are there; the rank that took longest counts."""
    call, barrier = library.prepare(operation, octets), library.barrier()
    for _ in range(min(WARM_UP, calls)):
        call()
    barrier()
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def obey(library: Library, driver: socket.socket) -> None:
    """Until the driver hangs up."""
    with driver.makefile("r") as lines:
        for line in lines:
            asked = json.loads(line)
            try:
                if asked["calls"]:
                    answer: dict[str, Any] = {"seconds": burst(library, **asked)}
                else:
                    check(library, asked["operation"], asked["octets"])
                    answer = {"checked": True}
            except Unsupported:
                answer = {"unsupported": True}
            driver.sendall(json.dumps(answer).encode() + b"\n")


def serve(library: Library, path: str) -> None:
    """Do what the driver says that listens there."""
    with socket.socket(socket.AF_UNIX) as driver:
        driver.connect(path)
        driver.sendall(json.dumps({"rank": library.rank}).encode() + b"\n")
        obey(library, driver)
    library.close()


def serve_ours(rank: int, size: int, meet: dict[str, str], path: str) -> None:
    """As a partition's server that no Spark has started; the coordinator is the driver's."""
    from spark_partition_server import PeerServer
    from spark_partition_server.spark.task import Identity

    class Measured(PeerServer):
        def run(self, comm: Any) -> None:
            serve(Mpi(rank, size, 0, comm), path)

    server = Measured()
    server.set_coordinator_url(meet["url"])
    server.set_token(bytes.fromhex(meet["token"]))
    server.set_run(bytes.fromhex(meet["run"]), None)
    list(server(rank, iter(()), Identity(rank, 0, rank + 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=["ours", *LIBRARIES], required=True)
    parser.add_argument("--rank", type=int, help="openmpi knows by itself")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--port", type=int, default=0, help="where the group meets, on 127.0.0.1")
    parser.add_argument("--meet", type=json.loads, default={}, help="where ours does: url, run and token, as JSON")
    parser.add_argument("--driver", required=True, help="the path of a Unix socket")
    options = parser.parse_args()
    rank = options.rank
    if rank is None:
        from mpi4py import MPI

        rank = MPI.COMM_WORLD.rank
    if options.library == "ours":
        serve_ours(rank, options.size, options.meet, options.driver)
    else:
        serve(LIBRARIES[options.library](rank, options.size, options.port), options.driver)


if __name__ == "__main__":
    main()
