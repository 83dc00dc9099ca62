"""The source files of the repository as syntax trees: their imports, their functions, their names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["PACKAGE", "ROOT", "Import", "Source", "sources"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "spark_partition_server"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        module: its full name, also where the import is relative. ``from a import b`` gives ``a`` and ``a.b``.
        lazy: within a function, so it happens only when that runs.
        typing: within ``if TYPE_CHECKING``, so it never happens.
    """

    module: str
    line: int
    lazy: bool = False
    typing: bool = False

    @property
    def top(self) -> str:
        """The package it belongs to."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        path: from the root of the repository, with slashes.
    """

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, self.path)

    @property
    def room(self) -> str:
        """Its place in the package: ``wire/codec.py``, ``client.py``."""
        return self.path.removeprefix(f"{PACKAGE}/")

    @property
    def folder(self) -> str:
        """``wire``, ``core``, ``net``, ``spark``, for what lies in folders of theirs too; empty at the top."""
        top, slash, _ = self.room.partition("/")
        return top if slash else ""

    @property
    def module(self) -> str:
        """Its full name as a module."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def imports(self) -> list[Import]:
        """All of them, in order."""
        return list(self._imports(self.tree, lazy=False, typing=False))

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS))

    def at(self, line: int) -> str:
        """A place in it, for a message."""
        return f"{self.path}:{line}"

    def _imports(self, node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, lazy, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = self._base(child)
                yield Import(base, child.lineno, lazy, typing)
                yield from (Import(f"{base}.{alias.name}", child.lineno, lazy, typing) for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from self._imports(ast.Module(child.body, []), lazy, True)
                yield from self._imports(ast.Module(child.orelse, []), lazy, typing)
            else:
                yield from self._imports(child, lazy or isinstance(child, FUNCTIONS), typing)

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        climbed = node.level - self.path.endswith("/__init__.py")
        package = parts[: len(parts) - climbed]
        return ".".join([*package, *([node.module] if node.module else [])])


def sources(*folders: str) -> list[Source]:
    """Every Python file below these folders of the repository, by path."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
