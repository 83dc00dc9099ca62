"""The documents of the search demo, and the ranking of one partition of them.

A document is one module, class, function or method of the Python standard library, read from the installed source files
without importing any of them: some of the standard library does things when it is imported.
"""

from __future__ import annotations

import ast
import math
import re
import sysconfig
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# BM25's usual constants: how soon the repetition of a word stops counting, and how much a long document is held back.
K1, B = 1.5, 0.75
# What is installed with the library but is no part of it, is private, or is nothing to program with (an editor).
SKIPPED = re.compile(r"/(site-packages|dist-packages|tests?|idlelib|lib2to3|distutils|ensurepip)/|/_(?!_init__\.py)")
STOP_WORDS = {"a", "an", "and", "are", "as", "be", "by", "for", "from", "if", "in", "is", "it", "of", "on", "or"}
STOP_WORDS |= {"self", "that", "the", "this", "to", "with"}


class Document(NamedTuple):
    """One thing that the standard library documents."""

    name: str  # argparse.ArgumentParser.parse_args
    kind: str  # module, class, function or method
    signature: str  # (self, args=None, namespace=None); empty for modules and classes
    text: str  # the docstring

    def words(self) -> list[str]:
        """What an index knows of the document."""
        return words(self.name) + words(self.signature) + words(self.text)

    def summary(self) -> str:
        """The beginning of the docstring, on one line."""
        return textwrap.shorten(self.text.partition("\n\n")[0], width=70, placeholder="...")


def words(text: str) -> list[str]:
    """The stems of the words of `text`: parse_commandLine, "Parsing commands" and "parser, line" share some."""
    found = (word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text))
    return [re.sub(r"(?<=...)(ions?|ing|ers?|ed|es|s|e)$", "", word) for word in found if word not in STOP_WORDS]


def library_files() -> list[str]:
    """The source files of the public modules of the running Python's standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(str(path) for path in root.rglob("*.py") if not SKIPPED.search(f"/{path.relative_to(root)}"))


def read_documents(file: str) -> Iterator[Document]:
    """The documents of one source file; none where Python cannot parse it (some files are templates)."""
    path = Path(file).relative_to(sysconfig.get_path("stdlib")).with_suffix("")
    module = ".".join(path.parts).removesuffix(".__init__")
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError):
        return
    if text := ast.get_docstring(tree):
        yield Document(module, "module", "", text)
    yield from read_members(tree, module, "function")


def read_members(parent: ast.AST, prefix: str, function_kind: str) -> Iterator[Document]:
    """The public classes, functions and methods with a docstring directly in `parent`, and those in its classes."""
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        name, text = f"{prefix}.{node.name}", ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            if text:
                yield Document(name, "class", "", text)
            yield from read_members(node, name, "method")
        elif text:
            yield Document(name, function_kind, f"({ast.unparse(node.args)})", text)


class Statistics(NamedTuple):
    """What BM25 must know of *all* documents to score one of them."""

    documents: int
    words: int
    frequencies: Counter[str]  # word -> how many documents hold it

    @staticmethod
    def of(documents: Iterable[Document]) -> Statistics:
        """The statistics of some documents."""
        bags = [document.words() for document in documents]
        return Statistics(len(bags), sum(map(len, bags)), Counter(word for bag in bags for word in set(bag)))

    def plus(self, other: Statistics) -> Statistics:
        """The statistics of both sets of documents together."""
        return Statistics(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def rarity(self, word: str) -> float:
        """BM25's inverse document frequency (Lucene's form, which is never negative)."""
        frequency = self.frequencies[word]
        return math.log(1 + (self.documents - frequency + 0.5) / (frequency + 0.5))


class Index:
    """A BM25 index of one partition, whose scores may be compared with those of every other partition.

    Of the two well-known libraries for BM25 in Python, `bm25s` and `rank-bm25`, this uses bm25s: it is still released
    every few months where rank-bm25 has rested since 2022; both need numpy alone; and it answers several times sooner,
    by adding up a few entries of a sparse matrix where rank-bm25 looks each word up in every document.
    """

    def __init__(self, documents: Iterable[Document], whole: Statistics) -> None:
        import bm25s  # here, not above: only the processes that build an index need these
        import numpy

        self.documents = list(documents)
        here = Statistics.of(self.documents)
        # bm25s knows the documents of this partition only. BM25 divides a document's length by the average length and
        # multiplies by a word's rarity; so the average of the whole comes in through the two constants, exactly,
        flat, stretch = K1 * (1 - B), K1 * B * (here.words / here.documents) / (whole.words / whole.documents)
        self.bm25 = bm25s.BM25(k1=flat + stretch, b=stretch / (flat + stretch), method="lucene")
        self.bm25.index([document.words() for document in self.documents], show_progress=False)
        # and the rarities of the whole by scaling each word's column of the score matrix.
        scores, vocabulary = self.bm25.scores, list(self.bm25.vocab_dict)
        columns = numpy.diff(scores["indptr"])
        ratios = [whole.rarity(word) / here.rarity(word) for word in vocabulary[: len(columns)]]
        scores["data"] *= numpy.repeat(numpy.array(ratios, dtype=scores["data"].dtype), columns)

    def search(self, query: str, k: int) -> list[list[Any]]:
        """The best `k` documents for the words of `query`: [score, name, summary] each, best first."""
        found = self.bm25.retrieve([words(query)], k=min(k, len(self.documents)), show_progress=False)
        hits = zip(found.scores[0].tolist(), (self.documents[i] for i in found.documents[0]), strict=True)
        return [[score, f"{hit.kind} {hit.name}", hit.summary()] for score, hit in hits if score > 0]
