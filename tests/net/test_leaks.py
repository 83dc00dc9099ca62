"""The watch over what tests leave behind: it sees each kind of leak, and nothing where there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator

import pytest
from support import leaks


@pytest.fixture
def tidy(monkeypatch) -> Iterator[list[Callable[[], object]]]:
    """What has to be done after the test, so that it leaves nothing behind itself."""
    monkeypatch.setattr(leaks, "PATIENCE", 0.1)
    calls: list[Callable[[], object]] = []
    yield calls
    for call in calls:
        call()


def leak_a_thread(tidy: list[Callable[[], object]]) -> str:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="forgotten")
    thread.start()
    tidy += [over.set, thread.join]
    return r"(?s)thread 'forgotten'.*threading\.py"


def leak_a_process(tidy: list[Callable[[], object]]) -> str:
    child = subprocess.Popen(["sleep", "1000"])
    tidy += [child.kill, child.wait]
    return f"child process {child.pid}"


def leak_an_ended_process(tidy: list[Callable[[], object]]) -> str:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    tidy.append(child.wait)
    return f"child process {child.pid}"


def leak_a_socket(tidy: list[Callable[[], object]]) -> str:
    tidy.append(socket.socket().close)
    return "1 more of descriptor socket:"


def leak_a_pipe(tidy: list[Callable[[], object]]) -> str:
    for end in os.pipe():
        tidy.append(lambda end=end: os.close(end))
    return "2 more of descriptor pipe:"


def leak_a_folder(tidy: list[Callable[[], object]]) -> str:
    folder = tempfile.mkdtemp(prefix="spark-partition-server-")
    tidy.append(lambda: os.rmdir(folder))
    return f"the file {folder}"


LEAKS = [leak_a_thread, leak_a_process, leak_an_ended_process, leak_a_socket, leak_a_pipe, leak_a_folder]


@pytest.mark.parametrize("leak", LEAKS)
def test_each_kind_of_leak_is_seen_and_named(leak, tidy):
    """One thing too many after the block than before it."""
    names: list[str] = []
    watched = leaks.no_leaks()
    watched.__enter__()
    names.append(leak(tidy))
    with pytest.raises(pytest.fail.Exception, match=names[0]):
        watched.__exit__(None, None, None)


def test_what_ends_soon_is_no_leak():
    """A thread and a socket that were told to end and need a moment."""
    with leaks.no_leaks():
        one, other = socket.socketpair()

        def end() -> None:
            other.recv(1)
            other.close()

        threading.Thread(target=end).start()
        one.close()
