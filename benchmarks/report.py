"""What a benchmark leaves behind: a JSON document with the machine and the commit, and a plot."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgpack
import zmq


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "cpu": cpu_name(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "msgpack": ".".join(map(str, msgpack.version)),
    }


def cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return text.partition("model name")[2].partition(":")[2].partition("\n")[0].strip()


def commit() -> str:
    """The commit that was measured, with a + if the tree had changes; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return ""


def skip(skipped: dict[str, str], name: str, reason: str) -> None:
    """Notes and says in one line what is left out."""
    skipped[name] = reason
    print(f"skipped: {name}: {reason}", flush=True)


def document(name: str, **found: Any) -> dict[str, Any]:
    """The figures of one benchmark with all that says where they come from."""
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"benchmark": name, "machine": machine(), "commit": commit(), "when": when, **found}


def report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement: few rounds, small sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there (needs matplotlib)")


def finish(options: argparse.Namespace, found: dict[str, Any], draw: Callable[[Any], None] | None = None) -> None:
    """Writes what the options ask for. ``draw`` gets a matplotlib ``Figure``."""
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if not options.plot or draw is None:
        return
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed (the extra `bench`)")
        return
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    figure.savefig(options.plot, dpi=80)
