"""Softmax and its logarithm in NumPy: the formulas. Start at `softmax`."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["into", "log_softmax", "log_softmax_vjp", "shifted", "softmax", "softmax_vjp"]


def softmax(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """p_i = exp(x_i) / Σ_j exp(x_j) in each row.      x: (rows, n).

    Infinite entries get the limit: -∞ has probability 0, and entries of +∞ share it evenly. A row that is -∞ throughout
    has no limit; it gives zeros, so that where everything is masked nothing is passed on.
    """
    e = np.exp(shifted(x)[0])
    total = e.sum(1, keepdims=True)
    return np.divide(e, np.where(total == 0, 1, total), out=out)


def softmax_vjp(g: np.ndarray, p: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """p (g - <g, p>) in each row: the gradient of p = softmax(x).      g, p: (rows, n)."""
    return np.multiply(p, g - (g * p).sum(1, keepdims=True), out=out)


def log_softmax(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """log p_i = x_i - log Σ_j exp(x_j) in each row, -∞ throughout for a row of -∞.      x: (rows, n)."""
    d = shifted(x)[0]
    total = np.exp(d).sum(1, keepdims=True)
    return np.subtract(d, np.log(np.where(total == 0, 1, total)), out=out)


def log_softmax_vjp(g: np.ndarray, log_p: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """g - p Σ g in each row: the gradient of log p = log_softmax(x).      g, log_p: (rows, n)."""
    return np.subtract(g, np.exp(log_p) * g.sum(1, keepdims=True), out=out)


def shifted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x - max, so that no exponential overflows, and the max (rows, 1), with 0 for that of a row of -∞."""
    highest = np.fmax.reduce(x.real, axis=1, initial=-np.inf, keepdims=True)
    highest = np.where(highest == -np.inf, 0, highest).astype(x.real.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # max - (-max) is infinite; ∞ - ∞ is replaced
        return np.where(x == highest, 0, x - highest), highest


def into(out: tuple | None, dtype: np.dtype, *results: np.ndarray) -> Any:
    """The results of a kernel that has several, rounded to `dtype`, in the arrays of `out` if given."""
    out = tuple(np.empty(r.shape, dtype) for r in results) if out is None else tuple(out)
    for o, r in zip(out, results, strict=True):
        o[...] = r
    return out
