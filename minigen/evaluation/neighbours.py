"""Fidelity and diversity, told apart by nearest neighbours. Start at `precision_recall`, then `density_coverage`.

Around each vector of a set lies the ball that reaches to its k-th nearest neighbour in that set; the union of the balls stands
for the set's support. `real` is (N, D), `fake` (M, D): points, or features of images. All values depend on N, M and k, so
they are read beside those of other real data in the place of `fake`; see score.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .distances import BLOCK, _pair, squared_distances


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
    """The share of fakes inside the support of the real data, and that of real data inside the support of the fakes.

    (Kynkäänniemi 2019, eqs. 1-2). Precision falls when samples look wrong, recall when kinds of data are missing.
    One outlier has a large ball: `density_coverage` suffers less from that.     proved by: truth neighbours
    """
    real, fake = _pair(real, fake, "precision_recall")
    precision = _counts(fake, real, radii(real, k)) > 0  # (M,)
    recall = _counts(real, fake, radii(fake, k)) > 0  # (N,)
    return float(precision.mean()), float(recall.mean())


def density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> tuple[float, float]:
    """How many balls of real data a fake lies in, on average and over k; and the share of balls that hold a fake.

    (Naeem 2020, eqs. 2-3). For equal distributions the density is 1 in expectation, whatever they are, and the coverage

        1 - Π_{i=1..k} (N - i)/(N + M - i)              (Naeem 2020, lemma 2)     proved by: truth neighbours
    """
    real, fake = _pair(real, fake, "density_coverage")
    reach = radii(real, k)
    density = _counts(fake, real, reach).sum() / (k * len(fake))
    held = np.zeros(len(real), bool)
    for _, squares in _rows_of_distances(fake, real):
        held |= (squares <= reach).any(axis=0)
    return float(density), float(held.mean())


def radii(x: np.ndarray, k: int) -> np.ndarray:
    """The squared distance from each row to its k-th nearest other row.     (N, D) -> (N,)

    Raises ValueError for k below 1, or of as many as there are rows.
    """
    if not 1 <= k < len(x):
        raise ValueError(f"k = {k} neighbours among {len(x)} rows: choose k from 1 to {len(x) - 1}")
    found = np.empty(len(x))
    for rows, squares in _rows_of_distances(x, x):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = -1.0  # itself comes first, also among copies
        found[rows] = np.partition(squares, k, axis=1)[:, k]
    return found


def _counts(x: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """In how many balls each row of x lies.     (N, D), (M, D), (M,) squared -> (N,)"""
    counts = np.empty(len(x), np.int64)
    for rows, squares in _rows_of_distances(x, centres):
        counts[rows] = (squares <= reach).sum(axis=1)
    return counts


def _rows_of_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The matrix of squared distances, some rows at a time.     -> which rows, (rows, M)"""
    for start in range(0, len(x), BLOCK):
        rows = slice(start, min(start + BLOCK, len(x)))
        yield rows, squared_distances(x[rows], y)
