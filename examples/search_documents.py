"""The documents of the search demo, and the ranking of one partition of them.

A document is one module, class, function or method of the Python standard library: its qualified name, its kind, its
signature and its docstring, read from the installed source files without importing any of them (importing all of the
standard library opens a browser, among other things).
"""

from __future__ import annotations

import ast
import math
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# BM25's usual constants: how soon the repetition of a word stops counting, and how much a long document is held back.
K1, B = 1.5, 0.75
# What is installed with the library but is no part of it (packages, tests), or nothing to program with (an editor).
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "distutils", "ensurepip"}
STOP_WORDS = {"a", "an", "and", "are", "as", "be", "by", "for", "from", "if", "in", "is", "it", "of", "on", "or"}
STOP_WORDS |= {"self", "that", "the", "this", "to", "with"}


class Document(NamedTuple):
    """One thing that the standard library documents."""

    name: str  # argparse.ArgumentParser.parse_args
    kind: str  # module, class, function or method
    signature: str  # parse_args(self, args=None, namespace=None); for a module, its file's name
    text: str  # the docstring


def library_files() -> list[str]:
    """The source files of the standard library of the running Python, in alphabetical order."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(str(path) for path in root.rglob("*.py") if _is_public(path.relative_to(root)))


def _is_public(path: Path) -> bool:
    private = any(part.startswith("_") and part != "__init__.py" for part in path.parts)
    return not private and not SKIPPED_FOLDERS.intersection(path.parts)


def read_documents(file: str) -> Iterator[Document]:
    """The documents of one source file; none where Python cannot parse it (some files are templates)."""
    path = Path(file).relative_to(sysconfig.get_path("stdlib")).with_suffix("")
    module = ".".join(path.parts).removesuffix(".__init__")
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError):
        return
    if text := ast.get_docstring(tree):
        yield Document(module, "module", Path(file).name, text)
    yield from _members(tree, module, "function")


def _members(parent: ast.AST, prefix: str, function_kind: str) -> Iterator[Document]:
    """The public, documented classes, functions and methods below `parent`, nested classes included."""
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        is_class = isinstance(node, ast.ClassDef)
        if text := ast.get_docstring(node):
            kind = "class" if is_class else function_kind
            yield Document(name, kind, _signature(node), text)
        if is_class:
            yield from _members(node, name, "method")


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"{node.name}({', '.join(map(ast.unparse, node.bases))})"
    return f"{node.name}({ast.unparse(node.args)})"


def words(text: str) -> list[str]:
    """The stems of the words of `text`: "parsing_CommandLine" gives pars, command, lin; "parse commands" matches it."""
    found = (word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text))
    return [re.sub(r"(?<=...)(ions?|ing|ed|es|s|e)$", "", word) for word in found if word not in STOP_WORDS]


def document_words(document: Document) -> list[str]:
    """What the index knows of a document. Its name counts twice, because names are chosen with care."""
    return words(document.name) + words(document.signature) + words(document.text)


class Statistics(NamedTuple):
    """What BM25 must know of *all* documents to score one of them."""

    documents: int
    words: int
    frequencies: Counter[str]  # word -> how many documents hold it

    @staticmethod
    def of(documents: Iterable[Document]) -> Statistics:
        """The statistics of some documents; those of several partitions add up with `plus`."""
        bags = [document_words(document) for document in documents]
        return Statistics(len(bags), sum(map(len, bags)), Counter(word for bag in bags for word in set(bag)))

    def plus(self, other: Statistics) -> Statistics:
        """The statistics of both sets of documents together."""
        return Statistics(
            self.documents + other.documents, self.words + other.words, self.frequencies + other.frequencies
        )

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
        import bm25s  # here, not above: only the processes that build an index need it
        import numpy

        self.documents = list(documents)
        bags = [document_words(document) for document in self.documents]
        here = Statistics.of(self.documents)
        # bm25s knows the partition's own documents only. BM25 divides a document's length by the average length and
        # multiplies by a word's rarity; so the average of the whole comes in through the two constants, exactly:
        stretch = K1 * B * (here.words / here.documents) / (whole.words / whole.documents)
        flat = K1 * (1 - B)
        self.bm25 = bm25s.BM25(k1=flat + stretch, b=stretch / (flat + stretch), method="lucene")
        self.bm25.index(bags, show_progress=False)
        # ... and the rarities of the whole by scaling each word's column of the score matrix.
        scores, vocabulary = self.bm25.scores, list(self.bm25.vocab_dict)
        columns = numpy.diff(scores["indptr"])
        ratios = [whole.rarity(word) / here.rarity(word) for word in vocabulary[: len(columns)]]
        scores["data"] *= numpy.repeat(numpy.array(ratios, dtype=scores["data"].dtype), columns)

    def search(self, query: str, k: int) -> list[list[Any]]:
        """The best `k` documents for the words of `query`: [score, name, summary] each, best first."""
        found = self.bm25.retrieve([words(query)], k=min(k, len(self.documents)), show_progress=False)
        hits = zip(found.scores[0].tolist(), (self.documents[i] for i in found.documents[0]), strict=True)
        return [[score, f"{hit.kind} {hit.name}", hit.text.splitlines()[0]] for score, hit in hits if score > 0]
