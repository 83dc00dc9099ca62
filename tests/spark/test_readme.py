"""The README's snippets run, as they stand there, one after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.spark import spark_application

from spark_partition_server import Cluster

README = Path(__file__).parents[2] / "README.md"
SNIPPET = re.compile(r"^```python( client)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def sc() -> Any:
    with spark_application("local[2]") as context:
        yield context


def snippets(client: bool) -> list[str]:
    return [text for kind, text in SNIPPET.findall(README.read_text()) if bool(kind) is client]


def test_snippets(sc: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Each snippet builds on those before it; their output is what they promise."""
    found = snippets(client=False)
    assert len(found) >= 4
    # cloudpickle ships what belongs to __main__ by value, as it does for a script or a prompt
    namespace = {"__name__": "__main__", "sc": sc}
    for text in found:
        exec(compile(text, str(README), "exec"), namespace)
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["[(0, 1), (1, 2)]", "5,6,7,8,9"]

    lookup = namespace["Lookup"]
    with Cluster(sc, namespace["pairs"], lookup(), verbose=False) as cluster:  # type: ignore[operator]
        for text in snippets(client=True):
            code = f"path = {cluster.connection_file!r}\n{text}\nimport sys\nassert 'pyspark' not in sys.modules\n"
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
