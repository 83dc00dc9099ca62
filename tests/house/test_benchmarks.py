"""The benchmarks keep up with the library, and the table of bars tells what was measured from what was not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
MODULES = {"barriers.py", "measuring.py", "members.py", "rates.py", "report.py"}  # which others use


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


@pytest.fixture
def runner(monkeypatch, tmp_path) -> Any:
    """``run.py`` with two benchmarks of its own: one that is done at once, one that hangs and so does its server."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import run

    (tmp_path / "done.py").write_text("import sys; open(sys.argv[2], 'w').write('{}')")
    (tmp_path / "stuck.py").write_text(
        "import subprocess as s, sys\n"
        "server = s.Popen([sys.executable, '-c', 'import threading; threading.Event().wait()'])\n"
        "open(sys.argv[4], 'w').write(str(server.pid))\n"
        "server.wait()\n"
    )
    (tmp_path / "summary.py").write_text("")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "NAMES", ("stuck", "done"))
    yield run
    sys.modules.pop("run")


def test_every_benchmark_is_part_of_make_bench():
    """One that ``make bench`` forgets is one that nobody looks at. Provoked: a script that run.py does not name."""
    names = run("-c", f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import run; print(*run.NAMES)").stdout.split()
    others = {"floor.py", "library.py", "peers.py", "ranks.py", "run.py", "summary.py", "wsgi.py"}
    assert sorted(f"{name}.py" for name in names) == sorted(set(SCRIPTS) - MODULES - others)


def test_a_benchmark_that_hangs_is_ended_with_all_its_processes_and_the_others_are_run(
    runner, monkeypatch, tmp_path, capsys
):
    """Its figures of an earlier run are none of this one. Provoked: a benchmark whose server never ends."""
    out = tmp_path / "results"
    out.mkdir()
    (out / "stuck.json").write_text("{}")
    monkeypatch.setattr(runner, "LONGEST", 5.0)
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(out)])
    assert runner.main() == 1
    assert "failed: stuck: not over after 5 s" in capsys.readouterr().out
    assert (out / "done.json").exists()
    assert not (out / "stuck.json").exists()
    server = int((out / "stuck.png").read_text())
    wait_until(lambda: not alive(server), what="the benchmark's server to end")


def alive(pid: int) -> bool:
    """Neither gone nor dead and not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_there_is_no_time_for_is_named(runner, monkeypatch, tmp_path, capsys):
    """A run has an end, and does not pass for a whole one. Provoked: no time at all."""
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path / "results"), "--minutes", "0"])
    assert runner.main() == 1
    said = capsys.readouterr().out
    assert "failed: stuck: not run: 0 minutes are over" in said
    assert "failed: done: not run: 0 minutes are over" in said


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
