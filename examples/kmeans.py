"""Group handwritten digits by k-means, on all partitions of an RDD at once, and compare with scikit-learn.

    python kmeans.py

Every rank keeps the images of its partition; once a round the ranks add up what a new centre needs, by one `Allreduce`
of ten sums and ten counts. The data are the 1,797 images of 8 x 8 pixels that scikit-learn ships.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

K, ROUNDS = 10, 300


def algorithm(comm: Any, rows: Iterator[Any]) -> dict[str, Any]:
    """Lloyd's algorithm until no point changes its centre; the first centres are the first points of rank 0.

    Returns:
        The centres, the inertia of every round, and the centre of each of this rank's points.
    """
    points = np.array(list(rows))
    centres = comm.bcast(points[:K] if comm.rank == 0 else None)
    labels = np.full(len(points), -1)
    inertias: list[float] = []
    for _ in range(ROUNDS):
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, for all pairs at once
        distances = (points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
        nearest = distances.argmin(axis=1)
        mine = np.zeros((K + 1, centres.shape[1] + 1))  # a row for each centre: its points' sum and their number
        np.add.at(mine[:K, :-1], nearest, points)
        mine[:K, -1] = np.bincount(nearest, minlength=K)
        mine[K, 0] = distances.min(axis=1).sum()
        mine[K, 1] = (nearest != labels).sum()
        whole = np.empty_like(mine)
        comm.Allreduce(mine, whole)
        labels = nearest
        inertias.append(float(whole[K, 0]))
        if whole[K, 1] == 0:
            break
        sums, counts = whole[:K, :-1], whole[:K, -1:]
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres)  # a centre without points stays
    return {"centres": centres, "inertias": inertias, "labels": labels}


def read(part: int, parts: int) -> Iterator[Any]:
    """The images of one of `parts` parts, each of 64 pixels."""
    from sklearn.datasets import load_digits

    yield from np.array_split(load_digits().data, parts)[part]


def report(results: list[dict[str, Any]]) -> None:
    """Show the centres, and hold the result against scikit-learn's from the same first centres."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_digits

    digits = load_digits()
    reference = KMeans(K, init=digits.data[:K], n_init=1, max_iter=ROUNDS, tol=0, algorithm="lloyd").fit(digits.data)
    labels = np.concatenate([result["labels"] for result in results])
    centres, inertias = results[0]["centres"], results[0]["inertias"]
    for row in range(0, K, 5):
        show(centres[row : row + 5], [digits.target[labels == label] for label in range(row, row + 5)])
    print(f"{len(labels):,} images on {len(results)} ranks, {len(inertias)} rounds, inertia {inertias[-1]:,.1f}")
    same = float((labels == reference.labels_).mean())
    print(f"scikit-learn from the same centres: inertia {reference.inertia_:,.1f}; {same:.2%} of the images alike")
    assert np.isclose(inertias[-1], reference.inertia_, rtol=1e-6)
    assert np.allclose(centres, reference.cluster_centers_, atol=1e-6)
    print("The check holds.")


def show(centres: Any, targets: list[Any]) -> None:
    """Print centres beside each other, each over the digit that most of its images show."""
    for line in range(8):
        shades = [[2 * " .:-=+*#%@"[int(x * 9.99 / 16)] for x in c[8 * line : 8 * line + 8]] for c in centres]
        print("   ".join(map("".join, shades)).rstrip())
    found = [(np.bincount(target).argmax(), len(target)) for target in targets]
    print("   ".join(f"{count} like {digit}".center(16) for digit, count in found).rstrip() + "\n")


def main() -> None:
    from peers_on_spark import plot, run_ranks, start_spark

    with start_spark("k-means") as sc:
        results = run_ranks(sc, algorithm, read)
    report(results)

    def draw(figure: Any) -> None:
        images, curve = figure.subfigures(1, 2)
        for panel, centre in zip(images.subplots(2, 5).flat, results[0]["centres"], strict=True):
            panel.imshow(centre.reshape(8, 8), cmap="gray_r")
            panel.set_axis_off()
        axes, inertias = curve.subplots(), results[0]["inertias"]
        axes.plot(range(1, len(inertias) + 1), inertias, marker=".")
        axes.set(title="k-means of digits", xlabel="round", ylabel="inertia")

    plot("kmeans", draw)


if __name__ == "__main__":
    main()
