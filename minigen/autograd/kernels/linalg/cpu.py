"""Linear algebra on the CPU. Start at `matmul`, in multiply.py; triangular systems are solved here."""

from __future__ import annotations

import numpy as np

from ..arrays import contiguous
from ..jit import jit
from .multiply import matmul

__all__ = ["matmul", "solve_triangular"]

BLOCK = 64  # rows of a triangular system that are solved by substitution


def solve_triangular(a: np.ndarray, b: np.ndarray, lower: bool, unit_diagonal: bool) -> np.ndarray:
    """x (B, N, K) with a x = b.   a: (B, N, N) or (1, N, N), of which one triangle is read   b: (B, N, K)

    Large systems are halved: solve for one half of x, take its part out of b with a product, solve for the other.
    """
    n = a.shape[-1]
    if n <= BLOCK:
        x = np.array(b, order="C")
        _substitute(contiguous(a), x, lower, unit_diagonal)
        return x
    half = n // 2
    first, second = (slice(0, half), slice(half, n)) if lower else (slice(half, n), slice(0, half))
    x = np.empty_like(b)
    x[:, first] = solve_triangular(a[:, first, first], b[:, first], lower, unit_diagonal)
    rest = b[:, second] - matmul(a[:, second, first], x[:, first])
    x[:, second] = solve_triangular(a[:, second, second], rest, lower, unit_diagonal)
    return x


@jit()
def _substitute(a, x, lower, unit_diagonal):
    """Solve in place: x holds b at first. Rows of x are subtracted whole, so the inner loop is over its K columns."""
    batch, n, columns = x.shape
    for m in range(batch):
        matrix = a[m if len(a) > 1 else 0]
        for step in range(n):
            i = step if lower else n - 1 - step
            for known in range(step):
                j = known if lower else n - 1 - known
                factor = matrix[i, j]
                for k in range(columns):
                    x[m, i, k] -= factor * x[m, j, k]
            if not unit_diagonal:
                for k in range(columns):
                    x[m, i, k] /= matrix[i, i]
