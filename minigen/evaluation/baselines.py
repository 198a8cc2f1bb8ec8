"""Trivial models: what a likelihood must beat before it means anything. Start at `independent_bernoulli`.

Three for binary images, given as grey images x in [0, 1] whose pixels are white with probability x, independently (dynamic
binarisation), and one for images of integer grey levels. All are exact likelihoods: for the first two the average over the
binarisation has a closed form, the third draws one. On MNIST (truth baselines):

    independent_bernoulli    205.80 nats         bernoulli_mixture of 200    131.4 nats
    chow_liu_tree            134.91 nats         histogram_bits_per_dim        1.690 bits/dim
"""

from __future__ import annotations

import math

import numpy as np

from ..random import Generator


def independent_bernoulli(train: np.ndarray, test: np.ndarray) -> float:
    """Each pixel on its own, with its mean over the training set (Laplace-smoothed).     (N, H, W, C) in [0, 1] -> nats"""
    p = (_rows(train).sum(axis=0, dtype=np.float64) + 1) / (len(train) + 2)  # (D,)
    x = _rows(test).mean(axis=0, dtype=np.float64)  # (D,)
    return float(-(x * np.log(p) + (1 - x) * np.log1p(-p)).sum())


def chow_liu_tree(train: np.ndarray, test: np.ndarray) -> float:
    """The best tree of pairwise dependencies   (Chow & Liu 1968): a maximum spanning tree of mutual information.

    (N, H, W, C) in [0, 1] -> nats. Each pixel depends on one other; the four joint probabilities of a pair are smoothed.
    """
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    one, both = _pair_counts(train)  # (D,) P(x_i = 1), (D, D) P(x_i = 1, x_j = 1)
    information = np.zeros_like(both)
    for a, b, joint in _cells(one, both):
        information += joint * np.log(joint / np.outer(a, b))
    weights = information.max() + 1 - information  # the least tree of these is the greatest of information
    np.fill_diagonal(weights, 0)
    order, parent = breadth_first_order(minimum_spanning_tree(weights), 0, directed=False)
    child = order[1:]
    mother = parent[child]
    test_one, test_both = _pair_counts(test, smooth=False)
    nll = -(test_one[0] * math.log(one[0]) + (1 - test_one[0]) * math.log1p(-one[0]))  # of the root
    for (_, b, joint), (_, _, seen) in zip(_cells(one, both), _cells(test_one, test_both), strict=True):
        nll -= (seen[child, mother] * np.log(joint[child, mother] / b[mother])).sum()
    return float(nll)


def bernoulli_mixture(
    train: np.ndarray, test: np.ndarray, components: int, seed: int, iterations: int = 25, pseudo_count: float = 0.1
) -> float:
    """A mixture of independent Bernoullis, fitted by EM to one binarisation, evaluated on another.     -> nats

    The components start at images from the training set, halfway to grey   (Bishop 2006, sec. 9.3.3).
    pseudo_count: black and white images, each, that every component has seen besides its own, so that nothing is impossible.
    Raises ValueError for more components than training images.
    """
    if not 1 <= components <= len(train):
        raise ValueError(f"bernoulli_mixture: {components} components for {len(train)} images: 1 to as many as there are")
    rng = Generator(seed)
    x = rng.bernoulli(_rows(train))  # (N, D)
    p = 0.25 + 0.5 * x[rng.permutation(len(x))[:components]]  # (K, D)
    weight = np.full(components, 1 / components)  # (K,)
    for _ in range(iterations):
        log_joint = _log_joint(x, p, weight)  # (N, K)
        responsibility = np.exp(log_joint - _log_sum_exp(log_joint)[:, None])
        counts = responsibility.sum(axis=0, dtype=np.float64)  # (K,)
        p = (responsibility.T @ x + pseudo_count) / (counts[:, None] + 2 * pseudo_count)
        weight = (counts + pseudo_count) / (len(x) + components * pseudo_count)
    return float(-_log_sum_exp(_log_joint(rng.bernoulli(_rows(test)), p, weight)).mean(dtype=np.float64))


def histogram_bits_per_dim(train: np.ndarray, test: np.ndarray, levels: int) -> float:
    """Each pixel on its own, with a histogram of its grey levels (Laplace-smoothed).     integers 0..levels-1 -> bits/dim"""
    train, test = _rows(train).astype(np.int64), _rows(test).astype(np.int64)
    total = 0.0
    for d in range(train.shape[1]):
        p = (np.bincount(train[:, d], minlength=levels) + 1) / (len(train) + levels)  # (levels,)
        total -= np.log2(p[test[:, d]]).mean()
    return float(total / train.shape[1])


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _log_joint(x: np.ndarray, p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """log weight_k + log p_k(x).     (N, D), (K, D), (K,) -> (N, K)     in float32, for the matrix product is the cost"""
    logits, black = np.log(p) - np.log1p(-p), np.log1p(-p).sum(axis=1)  # (K, D), (K,)
    return x @ logits.T.astype(np.float32) + (black + np.log(weight)).astype(np.float32)


def _log_sum_exp(a: np.ndarray) -> np.ndarray:
    """Over the last axis.     (N, K) -> (N,)"""
    highest = a.max(axis=1)
    return highest + np.log(np.exp(a - highest[:, None]).sum(axis=1))


def _pair_counts(x: np.ndarray, smooth: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that one pixel is white, and that two are, over images and their independent binarisation.

    smooth: with one more sample spread over the four cells of every pair.
    """
    rows, n = _rows(x), len(x)
    both = (rows.T @ rows).astype(np.float64) / n
    one = rows.mean(axis=0, dtype=np.float64)
    np.fill_diagonal(both, one)  # a pixel is always equal to itself
    if smooth:
        both = (both * n + 0.25 + 0.25 * np.eye(len(both))) / (n + 1)
        one = (one * n + 0.5) / (n + 1)
    return one, both


def _cells(one: np.ndarray, both: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(P(x_i), P(x_j), P(x_i, x_j)) for the four combinations of values."""
    zero = 1 - one
    only_i = np.maximum(one[:, None] - both, 1e-12)  # float32 products round: differences of equal numbers may be below 0
    only_j = np.maximum(one[None, :] - both, 1e-12)
    neither = np.maximum(1 - one[:, None] - one[None, :] + both, 1e-12)
    return [(one, one, both), (one, zero, only_i), (zero, one, only_j), (zero, zero, neither)]
