"""Ask a running search cluster from a process that knows nothing of Spark; it imports this library and no other.

    python search_client.py CONNECTION_FILE "temporary directory that is removed" ...

prints the best hits for each question. With `--repeat N` it asks the first question N times and prints, as a JSON
list, how many seconds each time took.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import operator
import time
from typing import Any

from spark_partition_server import Client, connect


def search(client: Client, question: str, k: int = 5) -> list[list[Any]]:
    """The best `k` hits of all partitions, best first: [score, name, summary] each."""
    answers = client.call_all("search", question, k)  # one list a partition, in partition order
    return best(itertools.chain.from_iterable(answers), k)


def best(hits: Any, k: int) -> list[list[Any]]:
    """The `k` hits with the highest scores, highest first."""
    return heapq.nlargest(k, hits, key=operator.itemgetter(0))


def print_answer(question: str, hits: list[list[Any]]) -> None:
    """Show one question and its hits."""
    print(f"\n{question}?")
    for score, name, summary in hits:
        print(f"  {score:5.2f}  {name:44}  {summary}")


def time_calls(client: Client, question: str, repeat: int) -> list[float]:
    """How many seconds each of `repeat` searches takes, after some that warm up both sides."""
    for _ in range(20):
        search(client, question)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        search(client, question)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Read the command line and ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("connection_file", help="the path that the cluster calls cluster.connection_file")
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--repeat", type=int, default=0, help="time the first question instead of answering")
    options = parser.parse_args()
    with connect(options.connection_file) as client:
        if options.repeat:
            print(json.dumps(time_calls(client, options.questions[0], options.repeat)))
            return
        for question in options.questions:
            print_answer(question, search(client, question))


if __name__ == "__main__":
    main()
