"""wire/PROTOCOL.md as data: its sections, its tables, its numbered rules; and the rules that tests quote."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from spark_partition_server.wire import codec

__all__ = ["PROTOCOL", "demanding", "quoted", "rules", "section", "table"]

PROTOCOL = Path(codec.__file__).with_name("PROTOCOL.md")
TESTS = Path(__file__).resolve().parent.parent
RULE = re.compile(r"^\*\*\[(\d+(?:\.\d+)+)\]\*\* ", re.MULTILINE)
QUOTE = re.compile(r"\[(\d+(?:\.\d+)+)\]")
DEMAND = re.compile(r"\b(MUST|SHALL|REQUIRED)\b")


def section(document: str, title: str) -> str:
    """The text below the heading that begins with ``title``, up to the next heading of the same or a higher level."""
    heading = re.search(rf"^(#+) {re.escape(title)}(?!\d|\.\d).*\n", document, re.MULTILINE)
    assert heading is not None, f"PROTOCOL.md has no section {title!r}"
    rest = document[heading.end() :]
    following = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def table(text: str, first: str) -> list[dict[str, str]]:
    """The rows of the table whose first column is called ``first``, by column. Marks of code are taken off."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if _cells(line)[:1] == [first]), None)
    assert start is not None, f"there is no table of {first!r}"
    names = _cells(lines[start])
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(names, _cells(line), strict=True)))
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.split("|")[1:-1]] if line.startswith("|") else []


def rules(document: str) -> dict[str, str]:
    """The numbered rules: number and text. A list, table or grammar behind it belongs to a rule, a paragraph not."""
    found: dict[str, str] = {}
    for match in RULE.finditer(document):
        rest = document[match.end() :]
        end = re.search(r"^(\*\*\[|#)|(?<=\n\n)[A-Z]", rest, re.MULTILINE)
        assert match[1] not in found, f"there are two rules [{match[1]}]"
        found[match[1]] = rest[: end.start()] if end else rest
    return found


def demanding(text: str) -> bool:
    """Whether a text demands something, in the sense of RFC 2119."""
    return DEMAND.search(text) is not None


def quoted(folder: Path = TESTS) -> dict[str, list[str]]:
    """The rules that tests quote in their docstrings, and the names of these tests."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for number in QUOTE.findall(ast.get_docstring(node) or ""):
                    found.setdefault(number, []).append(f"{path.relative_to(folder)}::{node.name}")
    return found
