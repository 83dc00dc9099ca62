"""What a test leaves behind: threads, child processes, open descriptors, files of ours in the temporary folder."""

from __future__ import annotations

import contextlib
import gc
import glob
import os
import shutil
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Iterator

import pytest
import zmq

from .wait import wait_until

__all__ = ["leaves_nothing", "no_leaks"]

PATIENCE = 2.0  # seconds; an end that was asked for may take a moment to arrive
FILES = "spark-partition-server-*"

# pyzmq keeps one thread for all messages sent without a copy; it starts with the first of them and stays.
zmq.Frame(bytes(1 << 17), copy=False)


@pytest.fixture(autouse=True)
def leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails a test that leaves something behind. The test gets a temporary folder that nobody else writes to."""
    tmp_path_factory.getbasetemp()  # chosen at its first use, which must not be within that folder
    folder = tempfile.mkdtemp(prefix="t")  # a short name: the path of a Unix socket has 107 octets at the most
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    try:
        with no_leaks():
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def no_leaks() -> Iterator[None]:
    """Fails when the block leaves a thread, a child process, a descriptor, or a file of ours."""
    threads, children, descriptors, files = set(threading.enumerate()), _children(), _descriptors(), _files()

    def left() -> list[str]:
        found = [_described(thread) for thread in threading.enumerate() if thread not in threads]
        found += [f"the child process {child}" for child in sorted(_children() - children)]
        found += [f"{count} more of descriptor {name}" for name, count in (_descriptors() - descriptors).items()]
        return found + [f"the file {name}" for name in sorted(_files() - files)]

    yield
    if not left():
        return
    gc.collect()  # an exception that the test looked at holds the frames it went through, and they hold sockets
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not left(), PATIENCE)
    remains = left()
    if remains:
        pytest.fail("the test leaves behind:\n" + "\n".join(remains), pytrace=False)


def _described(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (it has just ended)\n"
    return f"the thread {thread.name!r}, which is here:\n{stack}"


def _children() -> set[int]:
    """The processes whose parent is this one, the dead that nobody waited for included."""
    try:  # the kernel says in one call that there are none, as after nearly every test; it reaps nobody
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    found, own = set(), str(os.getpid()).encode()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as status:  # it may have ended meanwhile
            after_name = status.read().rpartition(b")")[2].split()
            if after_name[1] == own:
                found.add(int(name))
    return found


def _descriptors() -> Counter[str]:
    """The open descriptors of this process, as the kernel names them."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            found[os.readlink(f"/proc/self/fd/{name}")] += 1
    return found


def _files() -> set[str]:
    return set(glob.glob(os.path.join(tempfile.gettempdir(), FILES)))
