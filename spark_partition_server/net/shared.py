"""Memory that two processes on one host share: large frames are written into it by one and looked at by the other.

It is made with memfd_create, so it has no name and no file, and handed over as a descriptor on the Unix socket of the
connection: when both processes have gone, however, it has gone. Slots are used again, so that after the first few
messages a large frame costs one copy and no new page.

A slot belongs to the side that made it. It writes a frame into a slot that is free, and lends it; the other side looks
at it for as long as something there refers to it, and returns it with the next message it sends (``wire.lending`` has
the octets).
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import mmap
import os
import socket
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..errors import RemoteProtocolError
from ..wire import lending
from ..wire.codes import Code
from ..wire.framing import Frame, Pieces
from ..wire.lending import SLOTS_MAX, Place
from .clock import monotonic
from .memory import IDLE, Block, advise_huge, rounded

__all__ = ["LENT_FROM", "Budget", "Forks", "Lent", "SharedMemory", "close_all"]

LENT_FROM = 256 * 1024  # octets of a frame; below, the socket is as fast
ALIGNED = 64  # octets; what numpy and Arrow like best
DESCRIPTORS = 4  # that one system call takes at most; a message brings one
_ANCILLARY = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)
SEALS = getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_GROW", 0)

# Octets to be sent before the message, the frames of the message, and descriptors to go with the first octet.
Lent = tuple[bytes, "list[Frame]", "list[int]"]


class Budget:
    """How much memory the connections of one thread may take together.

    Attributes:
        bytes_max: octets at most.
        used: octets taken now.
    """

    __slots__ = ("bytes_max", "used")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0

    @property
    def left(self) -> int:
        return self.bytes_max - self.used


class Forks:
    """Counts the forks of this process, from the first time somebody asks.

    A child has inherited the views of its parent, and nobody here can know when it has done with them: what was looked
    at while the process forked is never returned. (Memory that is not shared is the child's own after a fork.)
    """

    __slots__ = ("__weakref__", "_count", "_counts")

    def __init__(self) -> None:
        self._count = 0
        self._counts = False

    @property
    def count(self) -> int:
        if not self._counts:
            self._counts = True
            os.register_at_fork(after_in_parent=partial(_count, weakref.ref(self)))
        return self._count


def _count(forks: weakref.ref[Forks]) -> None:
    counting = forks()
    if counting is not None:
        counting._count += 1


class _Slot:
    """One piece of our memory: who has it, and whether it holds pages."""

    __slots__ = ("lent", "memory", "number", "paged", "since", "size")

    def __init__(self, number: int, memory: mmap.mmap, now: float) -> None:
        self.number = number
        self.memory = memory
        self.size = len(memory)
        self.since = now
        self.lent = False
        self.paged = True

    def __len__(self) -> int:
        return self.size


class SharedMemory:
    """The memory of one connection, both ways. Used by the thread that the connection belongs to.

    Args:
        bytes_max: octets of the other side's memory that are mapped at most.
        budget: for our own.
        forks: of this process.
        now: a clock, for tests.

    Attributes:
        borrowed: slots of the other side that have not been returned, with how often this process had forked before.
    """

    def __init__(
        self, bytes_max: int, budget: Budget, forks: Forks, now: Callable[[], float] = monotonic
    ) -> None:
        self.bytes_max = bytes_max
        self._forks = forks
        self._budget = budget
        self._now = now
        self._numbers = 0
        self._slots: dict[int, _Slot] = {}  # ours
        self._known: dict[int, Block] = {}  # the other side's
        self.borrowed: dict[int, int] = {}
        self._descriptors: deque[int] = deque()  # have come, and wait for the command that names them

    @staticmethod
    def possible() -> bool:
        """Whether this system has what it takes."""
        return hasattr(os, "memfd_create") and hasattr(socket, "SCM_RIGHTS") and SEALS != 0

    # ------------------------------------------------------------------------------------------- receiving

    def recv(self, connected: socket.socket, size: int, flags: int = 0) -> bytes:
        """As ``socket.recv``, and keeps the descriptors that come along."""
        octets, ancillary, told, _ = connected.recvmsg(size, _ANCILLARY, flags)
        if ancillary:
            self._keep(ancillary, told)
        return octets

    def recv_into(self, connected: socket.socket, room: memoryview, flags: int = 0) -> int:
        """As ``socket.recv_into``, and keeps the descriptors that come along."""
        count, ancillary, told, _ = connected.recvmsg_into([room], _ANCILLARY, flags)
        if ancillary:
            self._keep(ancillary, told)
        return count

    def _keep(self, ancillary: Sequence[tuple[int, int, bytes]], told: int) -> None:
        for level, kind, octets in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(octets[: len(octets) - len(octets) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if len(self._descriptors) > DESCRIPTORS or told & socket.MSG_CTRUNC:
            raise _wrong("descriptors that no message needs")

    def borrow(self, slot: int, size: int) -> memoryview:
        """The whole of a slot of the other side, which it lends us now."""
        if slot in self.borrowed:
            raise _wrong(f"slot {slot} twice, which has not been returned")
        block = self._known.get(slot)
        if block is None:
            block = self._known[slot] = Block(self._mapped(size), 0.0)
        try:
            if len(block.memory) != size:
                raise _wrong(f"slot {slot} with {size} octets, which has {len(block.memory)}")
            self.borrowed[slot] = self._forks.count
            return memoryview(block.memory)
        except ValueError:
            raise ConnectionAbortedError("this side has closed the connection") from None

    def _mapped(self, size: int) -> mmap.mmap:
        if not self._descriptors:
            raise _wrong("a slot without a descriptor")
        descriptor = self._descriptors.popleft()
        try:
            mapped = sum(len(block.memory) for block in self._known.values())
            if len(self._known) >= SLOTS_MAX or mapped + size > self.bytes_max:
                raise RemoteProtocolError(f"more shared memory than {self.bytes_max} octets", Code.TOO_LARGE)
            # Sealed: nobody can cut it off, which would end whoever reads behind its end with SIGBUS.
            sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
            if not sealed or os.fstat(descriptor).st_size != size:
                raise _wrong(f"a slot that is not sealed memory of {size} octets")
            memory = _map(descriptor, size)
        except OSError as error:
            raise _wrong(f"a slot that cannot be mapped ({error})") from error
        finally:
            os.close(descriptor)
        advise_huge(memory)
        return memory

    def due(self) -> bytes:
        """The octets that return what nothing here looks at any more; they go before the next message."""
        if not self.borrowed:
            return b""
        forks = self._forks.count
        over = [slot for slot, then in self.borrowed.items() if then == forks and not self._known[slot].in_use()]
        for slot in over:
            del self.borrowed[slot]
        return lending.release_octets(over) if over else b""

    def forget(self, slots: Sequence[int]) -> None:
        """The other side has given up these slots."""
        for slot in slots:
            if slot in self.borrowed:
                raise _wrong(f"slot {slot} given up, which has not been returned")
            self._known.pop(slot, None)

    # --------------------------------------------------------------------------------------------- sending

    def returned(self, slots: Sequence[int]) -> None:
        """The other side looks at these slots no longer."""
        now = self._now()
        for number in slots:
            slot = self._slots.get(number)
            if slot is None or not slot.lent:
                raise _wrong(f"slot {number} returned, which was not lent")
            slot.lent, slot.since = False, now

    def lend(self, frames: Sequence[Frame | Pieces], bytes_max: int) -> Lent | None:
        """Writes the large frames of a message into a slot.

        Args:
            frames: of the message.
            bytes_max: octets that the other side is ready to map.

        Returns:
            What to send instead, or None: nothing is large, or there is no memory for it. The descriptors are the
            caller's to close.
        """
        size = sum(-(-len(frame) // ALIGNED) * ALIGNED for frame in frames if len(frame) >= LENT_FROM)
        if not size or size > bytes_max:
            return None
        now = self._now()
        self._rest(now)
        head, descriptors = b"", []
        slot = self._free(size)
        if slot is None:
            given_up = self._make_room(rounded(size), bytes_max)
            if given_up:
                head = lending.forget_octets(given_up)
            descriptor = self._open(rounded(size), bytes_max, now)
            if descriptor is None:
                return (head, list(frames), []) if head else None  # type: ignore[arg-type]  # a list of frames is one of pieces
            slot = self._slots[self._numbers]
            descriptors.append(descriptor)
        slot.lent, slot.since = True, now
        places: list[Place] = []
        try:
            rest = list(_written(frames, memoryview(slot.memory), places))
        except ValueError:
            close_all(descriptors)
            return None  # another thread has closed the connection
        return head + lending.memory_octets(slot.number, len(slot), places), rest, descriptors

    def _free(self, size: int) -> _Slot | None:
        """A slot of ours to be used again, up to twice the size: who looks at a frame keeps the whole slot."""
        fitting = [slot for slot in self._slots.values() if not slot.lent and size <= len(slot) <= 2 * size]
        for slot in sorted(fitting, key=lambda one: (not one.paged, len(one))):
            if slot.paged:
                return slot
            if self._afford(len(slot), slot):
                slot.paged = True
                self._budget.used += len(slot)
                return slot
        return None

    def _afford(self, size: int, wanted: _Slot | None = None) -> bool:
        """Whether the budget has ``size`` octets left, after free slots have given theirs back, oldest first."""
        free = [slot for slot in self._slots.values() if slot.paged and not slot.lent and slot is not wanted]
        for slot in sorted(free, key=lambda one: one.since):
            if self._budget.left >= size:
                break
            self._unpage(slot)
        return self._budget.left >= size

    def _make_room(self, size: int, bytes_max: int) -> list[int]:
        """Gives up free slots, oldest first, until the other side can map one more of ``size`` octets."""
        free = sorted((slot for slot in self._slots.values() if not slot.lent), key=lambda one: one.since)
        mapped = sum(map(len, self._slots.values()))
        given_up = []
        for slot in free:
            if len(self._slots) < SLOTS_MAX and mapped + size <= bytes_max:
                break
            mapped -= len(slot)
            given_up.append(slot.number)
            self._drop(slot)
        return given_up

    def _open(self, size: int, bytes_max: int, now: float) -> int | None:
        """Makes a slot and returns its descriptor; None: that would be too much, or the system has refused."""
        mapped = sum(map(len, self._slots.values()))
        if len(self._slots) >= SLOTS_MAX or mapped + size > bytes_max or not self._afford(size):
            return None
        descriptor = -1
        try:
            descriptor = os.memfd_create("spark-partition-server", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS | fcntl.F_SEAL_SEAL)
            memory = _map(descriptor, size)
        except OSError:
            if descriptor >= 0:
                os.close(descriptor)
            return None
        advise_huge(memory)
        self._numbers += 1
        self._slots[self._numbers] = _Slot(self._numbers, memory, now)
        self._budget.used += size
        return descriptor

    # ------------------------------------------------------------------------------------------ giving back

    def idle(self) -> bool:
        """Gives back the pages of slots that have long been free. Returns whether there are others, for later."""
        self._rest(self._now())
        return any(slot.paged for slot in self._slots.values())

    def _rest(self, now: float) -> None:
        for slot in self._slots.values():
            if slot.paged and not slot.lent and now - slot.since > IDLE:
                self._unpage(slot)

    def _unpage(self, slot: _Slot) -> None:
        """The pages go, of both sides; the slot stays."""
        try:
            slot.memory.madvise(mmap.MADV_REMOVE)
        except OSError:  # then they stay as well, and are counted
            return
        slot.paged = False
        self._budget.used -= len(slot)

    def _drop(self, slot: _Slot) -> None:
        del self._slots[slot.number]
        if slot.paged:
            self._budget.used -= len(slot)
        slot.memory.close()

    def close(self) -> None:
        """The connection has ended. What is looked at here or there stays until nobody does. From any thread."""
        for slot in list(self._slots.values()):
            if slot.paged:
                slot.paged = False
                self._budget.used -= len(slot)
        mapped = [slot.memory for slot in list(self._slots.values())]
        mapped += [block.memory for block in list(self._known.values())]
        for memory in mapped:
            with contextlib.suppress(BufferError):  # somebody looks at it: it goes with the last of them
                memory.close()
        close_all(self._descriptors)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.close()


def _map(descriptor: int, size: int) -> mmap.mmap:
    """A mapping that keeps no descriptor of its own, where Python can do that."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, trackfd=False)
    return mmap.mmap(descriptor, size)


def close_all(descriptors: deque[int] | list[int]) -> None:
    """Closes descriptors, and empties the list of them."""
    while descriptors:
        try:
            os.close(descriptors.pop())
        except OSError as error:
            if error.errno != errno.EBADF:
                raise


def _written(frames: Sequence[Frame | Pieces], memory: memoryview, places: list[Place]) -> Iterator[Frame]:
    """The frames, large ones empty: their octets are in ``memory``, where ``places`` says."""
    start = 0
    for index, frame in enumerate(frames):
        if len(frame) < LENT_FROM:
            yield frame  # type: ignore[misc]  # pieces are never small
            continue
        places.append((index, start, len(frame)))
        for piece in frame.pieces if isinstance(frame, Pieces) else (frame,):
            end = start + len(piece)
            memory[start:end] = memoryview(piece).cast("B")
            start = end
        start = -(-start // ALIGNED) * ALIGNED
        yield b""


def _wrong(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"shared memory: {text}", Code.MALFORMED)
