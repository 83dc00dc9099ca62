"""The examples run, as a user would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, folder: Path) -> str:
    """What it prints."""
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_search_stdlib(tmp_path: Path) -> None:
    """The demo answers three questions from the documentation of this Python, and compares itself with a Spark job."""
    said = run_example("search_stdlib.py", tmp_path)
    documents = re.search(r"([\d,]+) documents in 4 partitions", said)
    assert documents, said
    assert int(documents.group(1).replace(",", "")) > 3000
    for expected in ("argparse", "tempfile.TemporaryDirectory", "decompress"):
        assert expected in said
    assert re.search(r"the cluster, asked by a client process +\d+ +[\d.]+ +[\d.]+", said)
    assert re.search(r"a Spark job .* +\d+ +[\d.]+ +[\d.]+", said)
    assert "have stopped" in said


@pytest.mark.parametrize("name", ["kmeans", "pagerank", "logistic_regression", "distributed_sort"])
def test_an_example_of_ranks_that_compute_together(name: str, tmp_path: Path) -> None:
    """What four ranks compute together is what a library or `sorted` computes in one process. Provoked: the check that
    each of them ends in, on real data."""
    pytest.importorskip("sklearn")
    pytest.importorskip("networkx")
    said = run_example(f"{name}.py", tmp_path)
    assert "4 ranks" in said
    assert "The check holds." in said
