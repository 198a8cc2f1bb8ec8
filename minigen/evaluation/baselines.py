"""Trivial models: what a likelihood must beat before it means anything. Start at `independent_bernoulli`.

All give exact negative log-likelihoods in nats per sample, averaged over the binarisation of grey test images x: a pixel of
value x is white with probability x, independently, so E[-log p] has a closed form for the first two.
"""

from __future__ import annotations

import math

import numpy as np


def independent_bernoulli(train: np.ndarray, test: np.ndarray) -> float:
    """Each pixel on its own, with its mean over the training set (Laplace-smoothed).     (N, H, W, C) in [0, 1] -> nats"""
    p = (_rows(train).sum(axis=0) + 1) / (len(train) + 2)  # (D,)
    x = _rows(test).mean(axis=0)  # (D,)
    return float(-(x * np.log(p) + (1 - x) * np.log1p(-p)).sum())


def chow_liu_tree(train: np.ndarray, test: np.ndarray) -> float:
    """The best tree of pairwise dependencies   (Chow & Liu 1968): a maximum spanning tree of mutual information."""
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    one, both = _pair_counts(train)  # (D,) P(x_i = 1), (D, D) P(x_i = 1, x_j = 1), smoothed
    information = np.zeros_like(both)
    for a, b, joint in _cells(one, both):
        information += joint * np.log(joint / np.outer(a, b))
    weights = information.max() + 1 - information  # the least tree of these is the greatest of information
    np.fill_diagonal(weights, 0)
    order, parent = breadth_first_order(minimum_spanning_tree(weights), 0, directed=False)
    child = order[1:]
    mother = parent[child]
    test_one, test_both = _pair_counts(test, smooth=False)
    nll = -(test_one[0] * math.log(one[0]) + (1 - test_one[0]) * math.log1p(-one[0]))
    for (_, b, joint), (_, _, seen) in zip(_cells(one, both), _cells(test_one, test_both), strict=True):
        nll -= (seen[child, mother] * np.log(joint[child, mother] / b[mother])).sum()
    return float(nll)


def bernoulli_mixture(
    train: np.ndarray, test: np.ndarray, components: int, seed: int, iterations: int = 40
) -> float:
    """A mixture of independent Bernoullis, fitted by EM to one binarisation, evaluated on another.     -> nats"""
    rng = np.random.default_rng(seed)
    x = (rng.random(_rows(train).shape) < _rows(train)).astype(np.float32)  # (N, D)
    responsibility = rng.dirichlet(np.ones(components), len(x)).astype(np.float32)  # (N, K)
    for _ in range(iterations):
        counts = responsibility.sum(axis=0, dtype=np.float64)  # (K,)
        p = (responsibility.T @ x + 1) / (counts[:, None] + 2)  # (K, D)   Laplace-smoothed, as are the weights
        weight = (counts + 1) / (len(x) + components)
        log_joint = _log_joint(x, p, weight)  # (N, K)
        responsibility = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))
    y = (rng.random(_rows(test).shape) < _rows(test)).astype(np.float32)
    return float(-np.logaddexp.reduce(_log_joint(y, p, weight), axis=1).mean())


def histogram_bits_per_dim(train: np.ndarray, test: np.ndarray, levels: int) -> float:
    """Each pixel on its own, with a histogram of its grey levels (Laplace-smoothed).     integers 0..levels-1 -> bits/dim"""
    train, test = _rows(train).astype(np.int64), _rows(test).astype(np.int64)
    total = 0.0
    for d in range(train.shape[1]):
        p = (np.bincount(train[:, d], minlength=levels) + 1) / (len(train) + levels)
        total -= np.log2(p[test[:, d]]).mean()
    return float(total / train.shape[1])


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _log_joint(x: np.ndarray, p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x @ np.log(p).T + (1 - x) @ np.log1p(-p).T + np.log(weight)


def _pair_counts(x: np.ndarray, smooth: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that one pixel is white, and that two are, over images and their independent binarisation."""
    rows = _rows(x).astype(np.float32)
    n = len(rows)
    both = (rows.T @ rows).astype(np.float64) / n
    one = rows.mean(axis=0, dtype=np.float64)
    np.fill_diagonal(both, one)  # a pixel is always equal to itself
    if smooth:  # one more sample spread over the four cells of every pair
        both = (both * n + 0.25 + 0.25 * np.eye(len(both))) / (n + 1)
        one = (one * n + 0.5) / (n + 1)
    return one, both


def _cells(one: np.ndarray, both: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(P(x_i), P(x_j), P(x_i, x_j)) for the four combinations of values."""
    zero = 1 - one
    only_i = np.maximum(one[:, None] - both, 1e-12)
    only_j = np.maximum(one[None, :] - both, 1e-12)
    neither = np.maximum(1 - one[:, None] - one[None, :] + both, 1e-12)
    return [(one, one, both), (one, zero, only_i), (zero, one, only_j), (zero, zero, neither)]
