"""Scatter-add in NumPy: the definition that the fast kernel is tested against."""

from __future__ import annotations

import numpy as np


def scatter_add(values: np.ndarray, rows: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """out[b, rows[i], k] += values[b, i, k], starting from zeros.   values (B, N, K), rows (N,) -> (B, size, K)

    Rows that occur often are summed in the order in which they come. Negative rows count from the end. Raises
    IndexError for a row outside [-size, size).
    """
    check_rows(rows, size)
    out = np.empty((values.shape[0], size, values.shape[2]), values.dtype) if out is None else out
    out[...] = 0
    for target, source in zip(out, values, strict=True):
        np.add.at(target, rows, source)
    return out


def check_rows(rows: np.ndarray, size: int) -> None:
    """Raise IndexError for the first row outside [-size, size)."""
    if rows.size and (rows.min() < -size or rows.max() >= size):
        wrong = rows[(rows < -size) | (rows >= size)][0]
        raise IndexError(f"scatter_add: index {wrong} is out of bounds for an axis of size {size}")
