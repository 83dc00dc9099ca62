"""A file over 400 lines or a function over 60 asks to be split."""

from __future__ import annotations

import pytest
from support.source import PACKAGE, Source, sources

FILE_LINES = 400
FUNCTION_LINES = 60
FOLDERS = (PACKAGE, "tests", "examples", "benchmarks")


def long_files(source: Source) -> list[str]:
    """The file, if it has 400 lines or more."""
    lines = len(source.text.splitlines())
    return [f"{source.path} has {lines} lines"] if lines >= FILE_LINES else []


def long_functions(source: Source) -> list[str]:
    """Functions of 60 lines or more, docstring and decorators included."""
    sizes = ((function, _lines(function)) for function in source.functions())
    return [f"{source.at(it.lineno)} {it.name} has {lines} lines" for it, lines in sizes if lines >= FUNCTION_LINES]


def _lines(function: object) -> int:
    first = min([function.lineno, *(one.lineno for one in function.decorator_list)])  # type: ignore[attr-defined]
    return int(function.end_lineno - first + 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("rule", [long_files, long_functions])
def test_nothing_is_too_long(folder, rule):
    """What does not fit on a few screens is not read."""
    assert [breach for source in sources(folder) for breach in rule(source)] == []


def test_too_long_a_file_and_function_are_found():
    """The counter-proof, at the limit and just below."""
    body = "    pass\n" * 58
    assert long_functions(Source("x.py", f"def f():\n{body}")) == []
    assert long_functions(Source("x.py", f"def f():\n    pass\n{body}")) == ["x.py:1 f has 60 lines"]
    assert long_functions(Source("x.py", f"class C:\n @property\n def f(self):\n{body}"))
    assert long_files(Source("x.py", "1\n" * 399)) == []
    assert long_files(Source("x.py", "1\n" * 400)) == ["x.py has 400 lines"]
