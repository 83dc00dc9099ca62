"""Which modules are leant on most? PageRank of the import graph of the installed Python packages, against networkx.

    python pagerank.py

A module's vote goes to the modules that it imports. Spark reads the source files, each partition its own; every rank
keeps the imports of its modules, and the votes of a round are added up by one `Allreduce`.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DAMPING, ENOUGH, ROUNDS = 0.85, 1e-12, 500
# Neither tests nor what is installed with a library but is no part of it; tables that programs have written are long.
SKIPPED = re.compile(r"/(site-packages|dist-packages|testing|tests?|idlelib|lib2to3|_?vendor(ed)?)/|-")
LONGEST = 400_000  # octets of a file
# Sooner than to parse the whole file, which takes most of a minute for all of them.
IMPORT = re.compile(r"^[ \t]*((?:from|import)[ \t](?:\\\n|[^\n(])*(?:\([^)]*\))?)", re.MULTILINE)


def algorithm(comm: Any, rows: Iterator[tuple[str, list[str]]]) -> dict[str, Any]:
    """Power iteration over modules and what they import; an import of what is no row of any rank does not count.

    Returns:
        This rank's modules, their scores, the links from them (each two numbers of modules, counted over all ranks) and
        how much the scores of all changed in each round.
    """
    mine = list(rows)
    parts = comm.allgather([name for name, _ in mine])
    first = sum(map(len, parts[: comm.rank]))  # the number of our first module
    number = {name: i for i, name in enumerate(name for part in parts for name in part)}
    count = len(number)
    links = [(i, number[name]) for i, (_, imported) in enumerate(mine) for name in imported if name in number]
    sources, targets = np.array(links, dtype=np.int64).reshape(-1, 2).T
    fan = np.bincount(sources, minlength=len(mine))
    scores = np.full(count, 1 / count)
    changes: list[float] = []
    while len(changes) < ROUNDS:
        ours = scores[first : first + len(mine)]
        given = np.empty(count + 1)  # the votes for every module, and those of the modules that import nothing
        given[:count] = np.bincount(targets, weights=(ours / np.maximum(fan, 1))[sources], minlength=count)
        given[count] = ours[fan == 0].sum()
        whole = np.empty_like(given)
        comm.Allreduce(given, whole)
        before, scores = scores, (1 - DAMPING) / count + DAMPING * (whole[:count] + whole[count] / count)
        changes.append(float(np.abs(scores - before).sum()))
        if changes[-1] < ENOUGH:
            break
    ours = scores[first : first + len(mine)]
    links_of_all = np.stack([sources + first, targets])
    return {"names": parts[comm.rank], "scores": ours, "links": links_of_all, "changes": changes}


def read(part: int, parts: int) -> Iterator[tuple[str, list[str]]]:
    """The modules of one of `parts` parts, each with the modules that it imports."""
    files = source_files()
    for name in sorted(files)[part::parts]:
        yield name, sorted(imports(name, files[name], files))


def source_files() -> dict[str, Path]:
    """The standard library's and the installed packages' modules, by name."""
    found = {}
    for root in {Path(sysconfig.get_path(which)) for which in ("stdlib", "purelib", "platlib")}:
        for path in root.rglob("*.py"):
            relative = path.relative_to(root)
            if not SKIPPED.search(f"/{relative}") and path.stat().st_size <= LONGEST:
                found[".".join(relative.with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path, known: Container[str]) -> set[str]:
    """The known modules that a module imports anywhere: by a line that begins so and is Python."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for text in IMPORT.findall(path.read_text(encoding="utf-8", errors="replace")):
        try:
            statement = ast.parse(text).body[0]
        except SyntaxError:  # prose
            continue
        if isinstance(statement, ast.Import):
            found.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            parents = package[: len(package) - statement.level + 1] if statement.level else []
            base = ".".join([*parents, *([statement.module] if statement.module else [])])
            # what is imported from a package may be a module of it
            inner = (f"{base}.{alias.name}" for alias in statement.names)
            found.update(one if one in known else base for one in inner)
    return {one for one in found if one in known and one != name}


def report(results: list[dict[str, Any]]) -> None:
    """Print the modules with the highest scores, and hold all scores against networkx's."""
    import networkx

    names = [name for result in results for name in result["names"]]
    scores = np.concatenate([result["scores"] for result in results])
    links = np.concatenate([result["links"] for result in results], axis=1)
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(names)))
    graph.add_edges_from(links.T.tolist())
    print("place  score, %  imported by  module")
    for place, number in enumerate(np.argsort(-scores)[:15], 1):
        print(f"{place:5}  {100 * scores[number]:8.3f}  {graph.in_degree(int(number)):11,}  {names[number]}")
    rounds = len(results[0]["changes"])
    print(f"{len(names):,} modules, {graph.number_of_edges():,} imports, {len(results)} ranks, {rounds} rounds")
    reference = networkx.pagerank(graph, DAMPING, max_iter=ROUNDS, tol=ENOUGH / len(names))
    apart = float(np.abs(scores - [reference[number] for number in range(len(names))]).sum())
    print(f"all scores together differ from networkx's by {apart:.1e}")
    assert apart < 1e-10
    print("The check holds.")


def main() -> None:
    from peers_on_spark import plot, run_ranks, start_spark

    with start_spark("PageRank") as sc:
        results = run_ranks(sc, algorithm, read)
    report(results)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        names = [name for result in results for name in result["names"]]
        scores = np.concatenate([result["scores"] for result in results])
        best = np.argsort(-scores)[:15][::-1]
        left.barh([names[number] for number in best], 100 * scores[best])
        left.set(title="PageRank of the import graph", xlabel="score, %")
        right.semilogy(range(1, len(results[0]["changes"]) + 1), results[0]["changes"])
        right.set(title="convergence", xlabel="round", ylabel="change of all scores")

    plot("pagerank", draw)


if __name__ == "__main__":
    main()
