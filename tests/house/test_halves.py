"""The two processes that `make test` runs the tests in: neither half's failure is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.wait import wait_until

HALVES = Path(__file__).resolve().parents[1] / "halves.py"
ON_SPARK = "import pytest\npytestmark = pytest.mark.spark\n"
PASSES, FAILS = "def test_that_passes(): pass\n", "def test_that_fails(): assert 1 == 2\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project of two tests, one for each half."""
    (tmp_path / "setup.cfg").write_text("[tool:pytest]\naddopts = -ra\nmarkers =\n    spark: on Spark\n")
    (tmp_path / "test_spark.py").write_text(ON_SPARK + PASSES)
    (tmp_path / "test_rest.py").write_text(PASSES)
    return tmp_path


def start(checkout: Path) -> subprocess.Popen[str]:
    command = [sys.executable, os.fspath(HALVES), "-p", "no:cacheprovider"]
    return subprocess.Popen(
        command, cwd=checkout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(checkout: Path) -> tuple[int, list[str]]:
    """The exit code and the lines."""
    with start(checkout) as process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output.splitlines()


def test_both_halves_run_and_pass(checkout: Path) -> None:
    """Promise: every test runs in one half or the other. Provoked: one test for each."""
    code, lines = run(checkout)
    assert code == 0, lines
    assert lines[-2].startswith("The tests without Spark passed: 1 passed, 1 deselected")
    assert lines[-1].startswith("The tests on Spark passed: 1 passed, 1 deselected")


@pytest.mark.parametrize("half", ["spark", "rest"])
def test_a_failure_in_either_half_fails_the_run_and_is_named_at_the_end(checkout: Path, half: str) -> None:
    """Promise: a failure is neither lost nor buried. Provoked: one failing test, in each half in turn."""
    path = checkout / f"test_{half}.py"
    path.write_text(path.read_text() + FAILS)
    code, lines = run(checkout)
    assert code == 1, lines
    assert any(line.startswith(f"FAILED test_{half}.py::test_that_fails") for line in lines[-4:]), lines
    assert sum("FAILED with exit code 1" in line for line in lines[-4:]) == 1, lines


@pytest.mark.parametrize("half", ["spark", "rest"])
def test_a_half_without_tests_fails_the_run(checkout: Path, half: str) -> None:
    """Promise: a half that is lost by mistake is noticed. Provoked: a project without the tests of one half."""
    (checkout / f"test_{half}.py").unlink()
    code, lines = run(checkout)
    assert code == 1, lines
    assert sum("FAILED with exit code 5" in line for line in lines[-2:]) == 1, lines


def test_who_ends_the_run_ends_both_halves(checkout: Path) -> None:
    """Promise: nothing goes on in the background. Provoked: SIGTERM while both halves are in a test that waits."""
    waits = "import threading, pathlib\ndef test_that_waits():\n    pathlib.Path('{}').touch()\n"
    for half, head in (("spark", ON_SPARK), ("rest", "")):
        text = waits.format(f"{half}.runs") + "    threading.Event().wait(60)\n"
        (checkout / f"test_{half}.py").write_text(head + text)
    with start(checkout) as process:
        wait_until(lambda: len(list(checkout.glob("*.runs"))) == 2, 60, "both halves to be in their tests")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(children) == 2
    assert not [child for child in children if child.is_running()]
