"""Reductions in NumPy: the readable definitions. Start at `logsumexp`."""

from __future__ import annotations

import numpy as np

from ..softmax.reference import shifted

__all__ = ["logsumexp", "logsumexp_vjp", "sum_rows"]

Out = np.ndarray | None


def sum_rows(x: np.ndarray, out: Out = None) -> np.ndarray:
    """Σ over the middle axis.      x: (outer, rows, n) -> (outer, n)."""
    return np.sum(x, axis=1, out=out)


def logsumexp(x: np.ndarray, out: Out = None) -> np.ndarray:
    """log Σ_j exp(x_j) of each row, as max + log Σ exp(x - max), which cannot overflow.      x: (rows, n) -> (rows,).

    -∞ for a row of -∞ and for one of no elements.
    """
    d, highest = shifted(x)
    with np.errstate(divide="ignore"):
        return np.add(np.log(np.exp(d).sum(1)), highest[:, 0], out=out)


def logsumexp_vjp(g: np.ndarray, x: np.ndarray, y: np.ndarray, out: Out = None) -> np.ndarray:
    """From y = logsumexp(x):  g exp(x - y) in each row.      g, y: (rows,)      x: (rows, n) -> (rows, n).

    The limit: entries of +∞ share g evenly, and a row of -∞ gets 0 (it has no limit, and nothing to pass on).
    """
    y = y[:, None]  # (rows, 1)
    infinite = np.isposinf(y.real) & (x == y)
    share = 1 / np.maximum(infinite.sum(1, keepdims=True), 1).astype(x.real.dtype)
    with np.errstate(invalid="ignore"):
        p = np.where(infinite, share, np.exp(np.where(np.isneginf(y.real), y, x - y)))
    return np.multiply(g[:, None], p, out=out)
