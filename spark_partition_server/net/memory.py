"""Memory for large frames, used again once nobody looks at it.

A page that is touched for the first time costs more than everything else that happens to it: the kernel finds it,
clears it and maps it. So the memory of a long frame is kept, and the next long frame goes into the same pages, if by
then nothing refers to them any more.

Whether something does is asked of the interpreter: an array, a slice of it, a memoryview, an Arrow buffer, each holds
a reference to what it looks at, and through it to the one ``mmap`` at the bottom. An ``mmap`` to which only this file
refers is one that nobody can reach.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
import threading
from collections.abc import Callable

from .clock import monotonic

__all__ = ["Block", "Blocks", "advise_huge"]

KEPT_FROM = 256 * 1024  # octets; below, the allocator of the process keeps pages of its own
HUGE_FROM = 4 << 20  # from here the kernel is asked for huge pages: fewer faults
IDLE = 10.0  # seconds after its last frame after which memory that nobody uses is given back, once somebody looks

_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Block:
    """One mapping.

    Attributes:
        memory: it.
        since: when it was last given out.
    """

    __slots__ = ("memory", "since")

    def __init__(self, memory: mmap.mmap, since: float) -> None:
        self.memory = memory
        self.since = since

    def in_use(self) -> bool:
        """Whether anything but this block refers to the mapping, and so may read or write it."""
        return sys.getrefcount(self.memory) > _ALONE


def _count() -> int:
    """The count of references to a mapping that only its block refers to, counted in the same way as above."""
    block = Block(mmap.mmap(-1, 1), 0.0)
    return sys.getrefcount(block.memory)


_ALONE = _count()


class Blocks:
    """Gives out memory and takes it back by itself. May be shared between threads.

    Args:
        bytes_max: octets kept at most, in use or not. What is asked for beyond is given out once and not kept.
        now: a clock, for tests.

    Attributes:
        blocks: what is kept. Only to be looked at, whether there is any: then ``rest`` is to be called now and then.
    """

    def __init__(self, bytes_max: int, now: Callable[[], float] = monotonic) -> None:
        self._bytes_max = bytes_max if _counts_are_exact() else 0
        self._now = now
        self.blocks: list[Block] = []
        self._lock = threading.Lock()

    @property
    def kept(self) -> int:
        """Octets kept now, in use or not."""
        return sum(len(block.memory) for block in list(self.blocks))

    def allocate(self, size: int) -> memoryview:
        """Writable memory of ``size`` octets, of any contents, which nobody else can reach."""
        if size < KEPT_FROM:
            return memoryview(bytearray(size))
        # Taken: another thread is here, or was when this process was forked. Fresh memory is always right.
        if not self._lock.acquire(blocking=False):
            return memoryview(_mapped(size))[:size]
        try:
            return memoryview(self._take(size).memory)[:size]
        finally:
            self._lock.release()

    def rest(self) -> None:
        """Gives back what nobody uses and no frame has come into for a while. Costs little and waits for nobody."""
        if not self.blocks or not self._lock.acquire(blocking=False):
            return
        try:
            before = self._now() - IDLE
            self.blocks = [block for block in self.blocks if block.since >= before or block.in_use()]
        finally:
            self._lock.release()

    def clear(self) -> None:
        """Gives back what nobody uses, and keeps nothing of the rest."""
        self.blocks = []

    def _take(self, size: int) -> Block:
        now = self._now()
        free = [block for block in self.blocks if not block.in_use()]
        # Up to twice the size: an array must not hold memory much larger than itself.
        fitting = [block for block in free if size <= len(block.memory) <= 2 * size]
        if fitting:
            block = min(fitting, key=lambda one: len(one.memory))
            block.since = now
        else:
            block = Block(_mapped(size), now)
        self._keep(block, [one for one in free if one is not block], now)
        return block

    def _keep(self, block: Block, free: list[Block], now: float) -> None:
        """Keeps ``block``; gives back what has long been free, and what is free and over the limit, oldest first."""
        over = self.kept - self._bytes_max
        if block not in self.blocks:
            over += len(block.memory)
            self.blocks.append(block)
        for one in sorted(free, key=lambda one: one.since):
            if over > 0 or now - one.since > IDLE:
                self.blocks.remove(one)
                over -= len(one.memory)
        if over > 0:
            self.blocks.remove(block)


def advise_huge(memory: mmap.mmap) -> None:
    """Asks the kernel for huge pages, where it has them."""
    if len(memory) >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)


def rounded(size: int) -> int:
    """``size`` and at most an eighth of it more, so that frames of nearly one size fit each other's memory."""
    step = max(1 << (size.bit_length() - 4), mmap.PAGESIZE)
    return -(-size // step) * step


def _mapped(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, rounded(size), flags=_PRIVATE)
    advise_huge(memory)
    return memory


def _counts_are_exact() -> bool:
    """Whether a reference count is one number, changed by one thread at a time: CPython with its lock."""
    locked = getattr(sys, "_is_gil_enabled", None)
    return sys.implementation.name == "cpython" and (locked is None or bool(locked()))
