"""The benchmarks keep up with the library, and the table of bars tells what was measured from what was not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
MODULES = {"measuring.py", "members.py", "rates.py", "report.py"}  # which others use


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("script", sorted(set(SCRIPTS) - MODULES))
def test_every_benchmark_finds_what_it_uses_of_the_library(script):
    """A name of the library that changes must not leave a benchmark behind. Provoked: each one asked for its help."""
    if script == "wsgi.py":
        pytest.importorskip("cheroot")
    done = run(str(FOLDER / script), "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


@pytest.fixture
def summary(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import summary

    yield summary
    sys.modules.pop("summary")


def test_a_bar_that_is_not_met_is_told_from_one_that_was_not_measured(summary):
    """A benchmark that was skipped must not look like one that has passed."""
    row = {"ratio": 0.36, "ratio_p10": 0.3, "ratio_p90": 0.4, "bursts": 5, "rounds": 6}
    documents = {"latency": {"regimes": {summary.FREE: {summary.TCP: row}}}}
    lines, all_hold = summary.table(documents)
    assert lines[2] == (
        "| client.call p50, tcp, free placement | <= 0.35 x | 0.36 x | **no** | 5 of 6 bursts, 0.30..0.40 |"
    )
    assert lines[3] == "| client.call p50, tcp, different cores | <= 0.85 x | | not measured | |"
    assert not all_hold
    row["ratio"] = 0.35
    lines, all_hold = summary.table(documents)
    assert "| yes |" in lines[2]
    assert all_hold


def test_a_figure_against_another_one_needs_both(summary):
    """Redis that is not installed is not a Redis that is slower."""
    rows = {summary.TCP: {"p50_us": 50.0, "bursts": 1, "rounds": 1}}
    documents = {"latency": {"regimes": {summary.FREE: rows}}}
    (redis,) = (bar for bar in summary.BARS if bar.figure == "tcp p50 / Redis GET, free")
    assert redis.find(documents) is None
    rows["redis GET tcp"] = {"p50_us": 100.0}
    assert redis.find(documents) == (0.5, "1 of 1 bursts")
