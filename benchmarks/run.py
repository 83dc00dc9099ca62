"""All the benchmarks, one after the other, and the table of bars at the end; what ``make bench`` does.

    python benchmarks/run.py [--out FOLDER] [--only latency arrays ...] [--quick] [--minutes 20] [--disturbed SHARE]

Each leaves ``NAME.json`` and, where matplotlib is installed, ``NAME.png`` in the folder. All take about ten minutes on
two processors that nobody else uses, and at most as many as ``--minutes`` says: what is left then is not run, and said
to be so. ``--quick`` is a look of two minutes, not a measurement.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("latency", "throughput", "batch", "aio", "arrays", "relay", "control", "overload", "coordinator", "startup")
NAMES += ("collectives",)
LONGEST = 300.0  # seconds of one; it is stuck then


def run_one(command: list[str], seconds: float) -> str:
    """Why it has not ended well; empty: it has. Nothing that it started is left behind."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"not over after {seconds:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"exit code {code}" if code else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="default: benchmarks/results")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=" ".join(NAMES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=20.0, help="of all together, at the most; default 20")
    parser.add_argument("--disturbed", help="of a core that processes of others may use during a burst that is kept")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = {}
    until = time.monotonic() + options.minutes * 60
    for name in options.only:
        for ending in ("json", "png"):  # those of an earlier run are none of this one
            (options.out / f"{name}.{ending}").unlink(missing_ok=True)
        began = time.monotonic()
        if began >= until:
            failed[name] = f"not run: {options.minutes:g} minutes are over"
            continue
        print(f"\n=== {name}", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py")]
        command += ["--json", str(options.out / f"{name}.json"), "--plot", str(options.out / f"{name}.png")]
        command += ["--quick"] * options.quick
        if options.disturbed is not None:
            command += ["--disturbed", options.disturbed]
        if trouble := run_one(command, min(LONGEST, until - began)):
            failed[name] = trouble
        print(f"({time.monotonic() - began:.0f} s)", flush=True)
    print("\n=== summary\n", flush=True)
    subprocess.run([sys.executable, str(HERE / "summary.py"), str(options.out)], check=True)
    for name, trouble in failed.items():
        print(f"failed: {name}: {trouble}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
