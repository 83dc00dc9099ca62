"""The documents' links lead somewhere: to a file of this repository, and to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.source import PACKAGE, ROOT

FOLDERS = (ROOT, ROOT / "docs", ROOT / "benchmarks", ROOT / PACKAGE / "wire")
DOCUMENTS = sorted(path for folder in FOLDERS for path in folder.glob("*.md"))
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(document: str) -> set[str]:
    """The headings as links name them: small letters, words joined by hyphens, no other marks."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(CODE.sub("", document)))
    return {heading.replace(" ", "-") for heading in plain}


def broken(path: Path, document: str) -> list[str]:
    """The links that lead nowhere; those to other sites are not looked at."""
    found = []
    for link in LINK.findall(CODE.sub("", document)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            found.append(link)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    """A page that was moved or a heading that was changed takes its readers along."""
    assert broken(path, path.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found(tmp_path):
    """The counter-proof: a file that is not there, a heading that is not."""
    (tmp_path / "other.md").write_text("# One `name`, and more\n")
    good = "# Here\n[a](other.md) [b](other.md#one-name-and-more) [c](#here) [d](https://x.org)\n"
    text = good + "[e](gone.md) [f](#gone)\n"
    (tmp_path / "this.md").write_text(text)
    assert broken(tmp_path / "this.md", text) == ["gone.md", "#gone"]
