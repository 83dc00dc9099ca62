"""The start-up bar: on a terminal, and nowhere else."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios

import pytest

SCRIPT = """
import sys
from spark_partition_server.progress import Progress
with Progress(3, sys.argv[1] == "shown") as progress:
    progress.update(1)
    progress.update(3, "all there")
"""


def drawn(argument: str) -> str:
    """What a process with a terminal as its standard error writes there."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        subprocess.run([sys.executable, "-c", SCRIPT, argument], stderr=slave, check=True, timeout=30)
        os.set_blocking(master, False)
        return os.read(master, 65536).decode()
    except BlockingIOError:
        return ""
    finally:
        os.close(master)
        os.close(slave)


def test_a_bar_on_a_terminal() -> None:
    """It counts partitions and comes to its end."""
    text = drawn("shown")
    assert "partition servers" in text
    assert "3/3" in text


def test_no_bar_when_it_is_not_wanted() -> None:
    """verbose=False."""
    assert drawn("hidden") == ""


def test_no_bar_in_a_file(tmp_path: os.PathLike[str]) -> None:
    """A log file is no place for carriage returns."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "shown"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""


@pytest.mark.parametrize("missing", ["tqdm", "tqdm.auto"])
def test_no_bar_without_tqdm(missing: str) -> None:
    """tqdm is an extra: without it a start is silent, not an error."""
    script = f"import sys\nsys.modules[{missing!r}] = None\n{SCRIPT}"
    master, slave = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", script, "shown"], stderr=slave, check=True, timeout=30)
    finally:
        os.close(master)
        os.close(slave)
