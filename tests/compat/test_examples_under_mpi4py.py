"""The examples' functions run under mpi4py as they run on Spark: whoever knows the one knows the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mpi4py")
pytest.importorskip("sklearn")
pytest.importorskip("networkx")

EXAMPLES = Path(__file__).parents[2] / "examples"
# Open MPI's words for more ranks than processors, and for a user who is root; others do not look at them.
ENVIRONMENT = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="no mpiexec")
@pytest.mark.parametrize("example", ["kmeans", "pagerank", "logistic_regression", "distributed_sort"])
def test_an_example_runs_unchanged_under_mpi4py(example, tmp_path):
    """Names, arguments and results are mpi4py's. Provoked: the very function, on three ranks of mpi4py's own."""
    done = subprocess.run(
        ["mpiexec", "-n", "3", sys.executable, str(EXAMPLES / "under_mpi.py"), example],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": ""},  # nothing of ours but the example
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 ranks" in done.stdout
    assert "The check holds." in done.stdout
