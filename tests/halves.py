"""Runs all the tests in two processes side by side: those on Spark, which mostly wait for the JVM, and the rest.

The rest is shown as it runs, the Spark half in one piece once both have ended; last come the summary of each half that
failed and a line for each. The exit code is 0 only if both passed; a half without a single test has failed. Arguments
go to both.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

SUMMARY = "short test summary info"
GRACE = 20.0  # seconds that a half has to end after it was asked to


def start(marker: str, arguments: Sequence[str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """One half: pytest on the tests with that marker, unbuffered so that its lines arrive when they are written."""
    colour = "yes" if sys.stdout.isatty() else "no"
    command = [sys.executable, "-u", "-m", "pytest", f"--color={colour}", "-m", marker, *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def await_end(halves: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + GRACE
    for half in halves:
        with contextlib.suppress(subprocess.TimeoutExpired):
            half.wait(max(0.0, deadline - time.monotonic()))


def end(halves: Sequence[subprocess.Popen[bytes]]) -> None:
    """Asks what still runs to end, as Ctrl-C does, so that no JVM and no server stays; then insists."""
    running = [half for half in halves if half.poll() is None]
    for half in running:
        half.send_signal(signal.SIGINT)
    await_end(running)
    for half in running:
        half.kill()  # nothing happens to one that has ended
        half.wait()


def show(line: bytes) -> None:
    sys.stdout.write(line.decode("utf-8", "replace"))
    sys.stdout.flush()


def conclude(name: str, code: int, lines: Sequence[bytes]) -> None:
    """Shows again what failed, which may be far above by now, and the half's last line."""
    start_of_summary = [number for number, line in enumerate(lines) if SUMMARY.encode() in line]
    if code and start_of_summary:
        for line in lines[start_of_summary[-1] : -1]:
            show(line)
    outcome = f"FAILED with exit code {code}" if code else "passed"
    last = lines[-1].decode("utf-8", "replace").strip().strip("= ") if lines else "no output"
    print(f"The tests {name} {outcome}: {last}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Runs both halves to their ends, whatever the other's outcome; the exit code."""
    with tempfile.TemporaryFile() as kept:
        spark = start("spark", arguments, kept)
        rest = start("not spark", arguments, subprocess.PIPE)
        try:
            lines = []
            assert rest.stdout is not None
            for line in rest.stdout:
                lines.append(line)
                show(line)
            rest.wait()
            print("The tests on Spark, which ran beside these:", flush=True)
            spark.wait()
        except KeyboardInterrupt:
            await_end([spark, rest])  # the terminal has told them too, and a second time would cut their tidying short
            raise
        finally:
            end([spark, rest])
        kept.seek(0)
        on_spark = kept.readlines()
    for line in on_spark:
        show(line)
    conclude("without Spark", rest.returncode, lines)
    conclude("on Spark", spark.returncode, on_spark)
    return 1 if rest.returncode or spark.returncode else 0


def terminated(number: int, frame: Any) -> None:
    sys.exit("terminated")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminated)  # how the runner of a CI ends a run
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it; so would ours
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted")
