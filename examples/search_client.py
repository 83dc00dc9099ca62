"""Ask a running search cluster from a process that knows nothing of Spark.

    python search_client.py CONNECTION_FILE "temporary directory that is removed" ...

prints the best hits for each question. With `--repeat N` it asks the first question N times instead and prints, as a
JSON list, how many seconds each time took.
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
    return heapq.nlargest(k, itertools.chain.from_iterable(answers), key=operator.itemgetter(0))


def time_calls(client: Client, question: str, repeat: int) -> list[float]:
    """How many seconds each of `repeat` searches takes, once both sides are warm."""
    seconds = []
    for _ in range(20 + repeat):
        start = time.perf_counter()
        search(client, question)
        seconds.append(time.perf_counter() - start)
    return seconds[20:]


def main() -> None:
    parser = argparse.ArgumentParser(description="ask a running search cluster")
    parser.add_argument("connection_file", help="the path that the cluster calls cluster.connection_file")
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--repeat", type=int, default=0, help="time the first question instead")
    options = parser.parse_args()
    with connect(options.connection_file) as client:
        if options.repeat:
            print(json.dumps(time_calls(client, options.questions.pop(0), options.repeat)))
        for question in options.questions:
            print(f"\n{question}?")
            for score, name, summary in search(client, question):
                print(f"  {score:5.2f}  {name:42}  {summary}")


if __name__ == "__main__":
    main()
