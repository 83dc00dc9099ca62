"""The same functions under mpi4py instead of Spark:

    mpiexec -n 4 python under_mpi.py kmeans        or pagerank, logistic_regression, distributed_sort

Nothing in them knows which of both it runs on.
"""

from __future__ import annotations

import importlib
import sys

from mpi4py import MPI


def main() -> None:
    example = importlib.import_module(sys.argv[1])
    comm = MPI.COMM_WORLD
    results = comm.gather(example.algorithm(comm, example.read(comm.rank, comm.size)))
    if comm.rank == 0:
        example.report(results)


if __name__ == "__main__":
    main()
