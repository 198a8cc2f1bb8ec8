"""Distances between two distributions of which there are samples: rows of vectors, points or features of images.

Start at `frechet_distance`. All take x (N, D) and y (M, D), compute in float64, and are 0 for equal distributions: `kid` and
`mmd` in expectation, the other two only as N and M grow. So they mean nothing without the value that real data have at the same
N, which `score.Score` demands.

    frechet_distance      means and covariances alone; the FID, where the vectors are features of images
    kid                   MMD² with a cubic kernel; unbiased, so that few samples do not make it larger
    mmd                   MMD² with a Gaussian kernel; unbiased
    sliced_wasserstein    W₂² of the projections onto lines, averaged over lines
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..random import Generator

BLOCK = 1000  # rows of a kernel matrix that are in memory at a time

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (N, D), (M, D) -> (N, M)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """|m_x - m_y|² + tr(C_x + C_y - 2 (C_x C_y)^½), the W₂² of two Gaussians with these moments       (Heusel 2017, eq. 6)

    On equal distributions its expectation falls as 1/N.     proved by: truth fid
    tr (C_x C_y)^½ is the sum of the roots of the eigenvalues of C_x^½ C_y C_x^½, which is symmetric and has none below 0, also
    where C_x or C_y is singular: fewer samples than dimensions, or a feature that is never on.
    """
    x, y = _pair(x, y, "frechet_distance")
    shift = x.mean(axis=0) - y.mean(axis=0)
    cx, cy = (np.cov(a, rowvar=False).reshape(a.shape[1], -1) for a in (x, y))  # (D, D)
    values, vectors = np.linalg.eigh(cx)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cy @ root), 0)).sum()
    return float(shift @ shift + np.trace(cx) + np.trace(cy) - 2 * cross)


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """The kernel inception distance: unbiased MMD² with k(a, b) = (a·b/D + 1)³                     (Bińkowski 2018, sec. 4)"""
    x, y = _pair(x, y, "kid")
    return _unbiased_mmd2(x, y, lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3)  # truth mmd


def mmd(x: np.ndarray, y: np.ndarray, width: float) -> float:
    """Unbiased MMD² with k(a, b) = exp(-½ |a - b|²/width²)     (Gretton 2012, eq. 3). For equal x and y, often below 0.

    x, y: (N, D), (M, D).     Raises ValueError for a width of 0 or less, for arrays of other shapes, and fewer than two rows.
    """
    if not width > 0:
        raise ValueError(f"mmd: the kernel's width must be above 0, not {width}")
    x, y = _pair(x, y, "mmd")
    return _unbiased_mmd2(x, y, lambda a, b: np.exp(-0.5 / width**2 * squared_distances(a, b)))  # proved by: truth mmd


def median_distance(x: np.ndarray, most: int = 1000) -> float:
    """The median distance between two of the first `most` rows: the usual width for `mmd`   (Gretton 2012, sec. 8)."""
    first = np.asarray(x[:most], np.float64)
    above = np.triu_indices(len(first), 1)
    return float(np.sqrt(np.median(squared_distances(first, first)[above])))


def sliced_wasserstein(x: np.ndarray, y: np.ndarray, rng: Generator, directions: int = 128) -> float:
    """Mean over directions u of W₂²(u·x, u·y)     (Bonneel 2015, eq. 10). |m|²/D for a shift by m.

    In one dimension W₂ pairs the sorted values, so x and y must have equally many. The directions come in orthonormal sets of
    D, `directions` rounded up to whole sets: each set sees every shift by the same amount.     proved by: truth sliced-w
    Raises ValueError for arrays of unequal or of other shapes than (N, D).
    """
    x, y = _pair(x, y, "sliced_wasserstein")
    if len(x) != len(y):
        raise ValueError(f"sliced_wasserstein: {len(x)} rows against {len(y)}: give equally many")
    d = x.shape[1]
    sets = -(-directions // d)
    total = 0.0
    for _ in range(sets):
        u = np.linalg.qr(rng.normal((d, d), dtype=np.float64))[0]  # (D, D)
        total += float(np.square(np.sort(x @ u, axis=0) - np.sort(y @ u, axis=0)).mean())
    return total / sets


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a_i - b_j|².     (N, D), (M, D) -> (N, M)"""
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0)  # round-off may leave it below


def _unbiased_mmd2(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> float:
    """Mean of k(x_i, x_j) over i ≠ j, plus that of y, minus twice the mean of k(x_i, y_j)          (Gretton 2012, eq. 3)"""
    n, m = len(x), len(y)
    within_x, within_y, between = _total(x, x, kernel, off_diagonal=True), _total(y, y, kernel, True), _total(x, y, kernel)
    return float(within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m))


def _total(x: np.ndarray, y: np.ndarray, kernel: Kernel, off_diagonal: bool = False) -> float:
    """Σ k(x_i, y_j), some rows at a time; over i ≠ j only."""
    total = 0.0
    for start in range(0, len(x), BLOCK):
        values = kernel(x[start : start + BLOCK], y)  # (rows, M)
        total += values.sum() - (np.trace(values, offset=start) if off_diagonal else 0.0)
    return total


def _pair(x: np.ndarray, y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Both as rows of float64. Raises ValueError for other shapes, too few rows, and what is not finite."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"{name}: needs rows (N, D) and (M, D) of one D, N and M at least 2, not {x.shape} and {y.shape}")
    for rows, which in ((x, "first"), (y, "second")):
        if not np.isfinite(rows).all():
            raise ValueError(f"{name}: the {which} array holds NaN or infinities")
    return x, y
