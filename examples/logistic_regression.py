"""Logistic regression in two ways, on all partitions of an RDD at once, against scikit-learn.

    python logistic_regression.py

Synchronous: every rank computes the gradient of its rows, an `Allreduce` adds them up, all take the same step.
Asynchronous: rank 0 is a parameter server. It takes the gradient of whichever worker is ready first (`recv` from any
source), makes a step with the last one it has of each, and sends that worker the new weights; nobody waits for the
slowest. The data are the 569 tumours, 30 features each, that scikit-learn ships.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

PENALTY = 10.0  # half of this times the squared weights, but for the intercept's; scikit-learn's C = 1 / PENALTY
ENOUGH = 1e-4  # the length of the gradient at which either way stops
UPDATES = 60_000


def algorithm(comm: Any, rows: Iterator[Any]) -> dict[str, Any]:
    """Fit both ways.

    Returns:
        For each way the weights, the intercept last, and (seconds, loss) of each update; of the asynchronous one only
        rank 0 has them.
    """
    features, classes = standardise(comm, np.array(list(rows)))
    # The curvature is at most this everywhere, so that this step never overshoots.
    curvature = np.linalg.eigvalsh(comm.allreduce(features.T @ features))[-1] / 4 + PENALTY
    return {
        "synchronous": synchronous(comm, features, classes, 1 / curvature),
        "asynchronous": asynchronous(comm, features, classes, 1 / curvature),
    }


def standardise(comm: Any, rows: Any) -> tuple[Any, Any]:
    """The features less their mean, divided by their deviation, of all ranks, and a column of ones; the classes."""
    features, classes = rows[:, :-1], rows[:, -1]
    count = comm.allreduce(len(rows))
    mean = comm.allreduce(features.sum(axis=0)) / count
    deviation = np.sqrt(comm.allreduce(((features - mean) ** 2).sum(axis=0)) / count)
    return np.column_stack([(features - mean) / deviation, np.ones(len(rows))]), classes


def slope(weights: Any, features: Any, classes: Any) -> Any:
    """The gradient of the loss of these rows, with the loss itself behind it."""
    margin = features @ weights
    gradient = features.T @ (1 / (1 + np.exp(-margin)) - classes)
    return np.append(gradient, np.logaddexp(0, margin).sum() - classes @ margin)


def with_penalty(weights: Any, total: Any) -> tuple[Any, float]:
    """The gradient and the loss of all rows, with the penalty."""
    penalised = np.append(weights[:-1], 0)
    return total[:-1] + PENALTY * penalised, float(total[-1] + PENALTY / 2 * penalised @ penalised)


def synchronous(comm: Any, features: Any, classes: Any, step: float) -> dict[str, Any]:
    """Gradient descent in lockstep."""
    began, history = time.perf_counter(), []
    weights = np.zeros(features.shape[1])
    total = np.empty(len(weights) + 1)
    while len(history) < UPDATES:
        comm.Allreduce(slope(weights, features, classes), total)
        gradient, loss = with_penalty(weights, total)
        history.append((time.perf_counter() - began, loss))
        if np.linalg.norm(gradient) < ENOUGH:
            break
        weights = weights - step * gradient
    return {"weights": weights, "history": history}


def asynchronous(comm: Any, features: Any, classes: Any, step: float) -> dict[str, Any] | None:
    """Gradient descent at each worker's own pace."""
    if comm.size == 1:
        raise ValueError("a parameter server needs a worker: run this on two ranks or more")
    # The server computes no gradients: the workers share its rows.
    more_features, more_classes = comm.bcast((features, classes) if comm.rank == 0 else None)
    if comm.rank == 0:
        return serve(comm, features.shape[1], step)
    share = slice(comm.rank - 1, None, comm.size - 1)
    work(comm, np.concatenate([features, more_features[share]]), np.concatenate([classes, more_classes[share]]))
    return None


def work(comm: Any, features: Any, classes: Any) -> None:
    """Answer weights with a gradient until there are none."""
    while (weights := comm.recv(source=0)) is not None:
        comm.send((comm.rank, slope(weights, features, classes)), dest=0)


def serve(comm: Any, count: int, step: float) -> dict[str, Any]:
    """Steps with the last gradient of each worker, however old; so the step is smaller."""
    began, history = time.perf_counter(), []
    weights = np.zeros(count)
    last: dict[int, Any] = {}
    working = set(range(1, comm.size))
    for worker in working:
        comm.send(weights, dest=worker)
    enough = False
    while working:
        worker, found = comm.recv()  # from any source, which is mpi4py's default
        last[worker] = found
        if len(last) == comm.size - 1 and not enough:
            gradient, loss = with_penalty(weights, sum(last.values()))
            history.append((time.perf_counter() - began, loss))
            enough = bool(np.linalg.norm(gradient) < ENOUGH) or len(history) == UPDATES
            weights = weights - step / comm.size * gradient
        comm.send(None if enough else weights, dest=worker)
        if enough:
            working.remove(worker)
    return {"weights": weights, "history": history}


def read(part: int, parts: int) -> Iterator[Any]:
    """The tumours of one of `parts` parts: 30 features, and 1 for a benign one."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    yield from np.column_stack([data.data, data.target])[part::parts]


def report(results: list[dict[str, Any]]) -> None:
    """Print what either way has taken and found, and hold the weights against scikit-learn's."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer()
    features = StandardScaler().fit_transform(data.data)
    reference = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=10_000).fit(features, data.target)
    weights = np.append(reference.coef_[0], reference.intercept_)
    print(f"{len(data.target)} tumours, {len(weights) - 1} features, {len(results)} ranks\n")
    print("                updates  seconds     loss  right, %  from scikit-learn's weights")
    for way in ("synchronous", "asynchronous"):
        found = results[0][way]
        seconds, loss = found["history"][-1]
        right = 100 * np.mean((features @ found["weights"][:-1] + found["weights"][-1] > 0) == data.target)
        apart = float(np.abs(found["weights"] - weights).max())
        print(f"{way:12} {len(found['history']):10,} {seconds:8.2f} {loss:8.3f} {right:9.2f}  {apart:.1e}")
        assert apart < 1e-4, way
    print(f"{'scikit-learn':41} {100 * reference.score(features, data.target):9.2f}")
    print("The check holds.")


def main() -> None:
    from peers_on_spark import plot, run_ranks, start_spark

    with start_spark("logistic regression") as sc:
        results = run_ranks(sc, algorithm, read)
    report(results)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        best = min(results[0][way]["history"][-1][1] for way in ("synchronous", "asynchronous"))
        for way in ("synchronous", "asynchronous"):
            seconds, losses = np.array(results[0][way]["history"]).T
            axes.plot(seconds, losses - best + 1e-9, label=way)
        axes.set(title="logistic regression", xlabel="seconds", ylabel="loss above the best", yscale="log")
        axes.legend()

    plot("logistic_regression", draw)


if __name__ == "__main__":
    main()
