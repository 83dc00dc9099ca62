"""The Makefile says in one line what the machine lacks, before it starts the slow set-up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("make", "sh", "sed", "awk", "touch", "rm", "find", "cat")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make` reads, so that a set-up that starts in spite of all is not made in the real checkout."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "setup.cfg", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH: the tools a Makefile may count on, and neither Java nor Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    return folder


def run_make(checkout: Path, tools: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make with nothing in its environment but PATH, the Python that runs the tests, and `environment`."""
    make = os.fspath(tools / "make")
    return subprocess.run(
        [make, *arguments],
        cwd=checkout,
        env={"PATH": os.fspath(tools), "PYTHON": sys.executable, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(path: Path, script: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def java(path: Path, version: str) -> Path:
    """A program that answers `-version` as a Java of that version does, on the standard error stream."""
    return program(path, f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")


def assert_one_line(result: subprocess.CompletedProcess[str], naming: str) -> None:
    lines = (result.stdout + result.stderr).splitlines()
    assert result.returncode != 0
    assert len(lines) == 1, lines
    assert naming in lines[0]


@pytest.mark.parametrize("target", ["demo", "test", "test-spark4", "lint"])
def test_without_java_one_line_names_java_17(target: str, checkout: Path, tools: Path) -> None:
    """Promise: no slow set-up and no traceback where Java is missing. Provoked: a PATH without `java`."""
    assert_one_line(run_make(checkout, tools, target), "Java 17")
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("version", ["1.8.0_412", "11.0.25", "16.0.2"])
@pytest.mark.parametrize("target", ["demo", "test"])
def test_an_old_java_is_refused(target: str, version: str, checkout: Path, tools: Path) -> None:
    """Promise: a Java that Spark cannot run on counts as missing. Provoked: Java 8, 11 and 16."""
    java(tools / "java", version)
    assert_one_line(run_make(checkout, tools, target), "Java 17")


def test_java_home_goes_before_the_path(checkout: Path, tools: Path, tmp_path: Path) -> None:
    """Promise: the Java that is checked is the one that Spark takes. Provoked: an old JAVA_HOME, a new PATH."""
    java(tools / "java", "21.0.5")
    java(tmp_path / "jdk" / "bin" / "java", "11.0.25")
    assert_one_line(run_make(checkout, tools, "demo", JAVA_HOME=os.fspath(tmp_path / "jdk")), "Java 17")


@pytest.mark.parametrize("version", ["17", "17.0.15", "21.0.5", "24-ea"])
def test_a_new_java_is_accepted(version: str, checkout: Path, tools: Path, tmp_path: Path) -> None:
    """Promise: Java 17 and newer will do, by JAVA_HOME alone. Provoked: every way to write such a version."""
    java(tmp_path / "jdk" / "bin" / "java", version)
    # -n: the checks happen as make expands the recipes; the recipes themselves, the slow set-up, do not run.
    result = run_make(checkout, tools, "-n", "demo", JAVA_HOME=os.fspath(tmp_path / "jdk"))
    assert result.returncode == 0, result.stderr
    assert "examples/search_stdlib.py" in result.stdout


@pytest.mark.parametrize("target", ["demo", "test"])
def test_an_old_python_is_refused(target: str, checkout: Path, tools: Path, tmp_path: Path) -> None:
    """Promise: one line names Python 3.10. Provoked: a Python that fails every question about its version."""
    java(tools / "java", "17.0.15")
    old = program(tmp_path / "python", 'case "$2" in *version_info*) exit 1;; esac')
    assert_one_line(run_make(checkout, tools, target, PYTHON=os.fspath(old)), "Python 3.10")


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_python_without_venv_is_refused(target: str, checkout: Path, tools: Path, tmp_path: Path) -> None:
    """Promise: one line names the missing module. Provoked: Debian's Python without the package python3-venv."""
    java(tools / "java", "17.0.15")
    bare = program(tmp_path / "python", 'case "$2" in *ensurepip*) exit 1;; esac')
    assert_one_line(run_make(checkout, tools, target, PYTHON=os.fspath(bare)), "venv")


def test_help_names_every_public_target(checkout: Path, tools: Path) -> None:
    """Promise: `make help` is the list of what can be made. Provoked: a target without its `##` line."""
    listed = {line.split()[1] for line in run_make(checkout, tools, "help").stdout.splitlines()}
    assert listed == {"demo", "test", "test-spark4", "test-spark35", "lint", "bench", "clean", "help"}
