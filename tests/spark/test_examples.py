"""The examples run, as a user would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_search_stdlib() -> None:
    """The demo answers three questions from the documentation of this Python, and compares itself with a Spark job."""
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "search_stdlib.py")],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    documents = re.search(r"([\d,]+) documents in 4 partitions", done.stdout)
    assert documents, done.stdout
    assert int(documents.group(1).replace(",", "")) > 3000
    for expected in ("argparse", "tempfile.TemporaryDirectory", "decompress"):
        assert expected in done.stdout
    assert re.search(r"the cluster, asked by a client process +\d+ +[\d.]+ +[\d.]+", done.stdout)
    assert re.search(r"a Spark job .* +\d+ +[\d.]+ +[\d.]+", done.stdout)
    assert "have stopped" in done.stdout
