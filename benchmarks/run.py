"""All the benchmarks, one after the other, and the table of bars at the end; what ``make bench`` does.

    python benchmarks/run.py [--out FOLDER] [--only latency arrays ...] [--quick] [--disturbed SHARE]

Each leaves ``NAME.json`` and, where matplotlib is installed, ``NAME.png`` in the folder. All take about ten minutes on
two processors; ``--quick`` is a look of two minutes, not a measurement.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("latency", "throughput", "batch", "aio", "arrays", "relay", "overload", "coordinator", "startup")
LONGEST = 600.0  # seconds of one; it is stuck then


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="default: benchmarks/results")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=" ".join(NAMES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--disturbed", help="of a core that processes of others may use during a burst that is kept")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only:
        began = time.monotonic()
        print(f"\n=== {name}", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py")]
        command += ["--json", str(options.out / f"{name}.json"), "--plot", str(options.out / f"{name}.png")]
        command += ["--quick"] * options.quick
        if options.disturbed is not None:
            command += ["--disturbed", options.disturbed]
        done = subprocess.run(command, timeout=LONGEST, check=False)
        print(f"({time.monotonic() - began:.0f} s)", flush=True)
        if done.returncode:
            failed.append(name)
    print("\n=== summary\n", flush=True)
    subprocess.run([sys.executable, str(HERE / "summary.py"), str(options.out)], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
