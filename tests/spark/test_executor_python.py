"""Executors whose Python lacks what the servers need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.servers import lookup_server
from support.spark import spark_application

import spark_partition_server
from spark_partition_server import Cluster, MissingDependency


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A virtual environment with nothing in it; Spark brings its own pyspark."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    return str(folder / "bin" / "python")


def start(python: str, files: list[str]) -> Any:
    with spark_application("local[2]", python=python) as sc:
        for file in files:
            sc.addPyFile(file)
        cluster = Cluster(sc, sc.parallelize([("a", 1)], 1), lookup_server(), verbose=False)
        with pytest.raises(MissingDependency) as caught:
            cluster.start()
        assert not cluster.is_active()
        return caught.value


def test_executor_without_the_library(bare_python: str) -> None:
    """The error names the module and the interpreter that lacks it."""
    error = start(bare_python, [])
    assert error.module in ("spark_partition_server", "msgpack")  # the latter where tests run in the checkout
    assert bare_python in str(error)


def test_executor_without_pyzmq(bare_python: str, tmp_path: Path) -> None:
    """--py-files can bring the library and msgpack's pure Python, but never pyzmq: the error says what can."""
    for package in (spark_partition_server, msgpack):
        folder = Path(package.__file__).parent
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    archive = shutil.make_archive(str(tmp_path.parent / "library"), "zip", tmp_path)
    error = start(bare_python, [archive])
    assert error.module == "zmq"
    assert "--py-files cannot ship compiled packages" in str(error)
