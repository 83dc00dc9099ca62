"""docs/calling.md: its snippets run, as they stand there, one after the other."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

from support.probe import LONG

from spark_partition_server.testing import local_cluster

PAGE = Path(__file__).parents[2] / "docs" / "calling.md"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_snippets_run(capsys):
    """Each with what those before it have made; they print what the page lets one expect."""
    server, *others = SNIPPET.findall(PAGE.read_text())
    assert len(others) >= 4
    # cloudpickle ships what belongs to __main__ by value, as it does for a script or a prompt
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(server, str(PAGE), "exec"), namespace)
    with local_cluster(namespace["Lookup"](), [[("alice", 1)], [("bob", 2)], [("carol", 3)]]) as cluster:
        namespace["client"] = cluster.client(timeout=LONG)
        namespace["path"] = cluster.connection_file
        for text in others:
            code = compile(text, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(eval(code, dict(namespace)))  # its client is another one
            else:
                exec(code, namespace)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == ["1", "1", "1"]
    assert "this was calls[1]" in printed[3]
    assert "put(key, value)" in printed[3]
    assert printed[4] == "bob 2"
    assert set(printed[5:]) == {"5", "None"}
