"""Linear algebra in NumPy: the definition that the fast kernels are tested against. Start at `matmul`."""

from __future__ import annotations

import numpy as np

from . import blas  # noqa: F401 - one BLAS thread


@np.errstate(all="ignore")  # infinities and NaN follow IEEE arithmetic, without a warning for each
def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """a (..., M, K) @ b (..., K, N) -> (..., M, N); batch axes broadcast; a vector (K,) is a row on the left, a column
    on the right, without that axis in the result. As `numpy.matmul`."""
    return np.matmul(a, b, out=out)


@np.errstate(all="ignore")
def solve_triangular(a: np.ndarray, b: np.ndarray, lower: bool, unit_diagonal: bool) -> np.ndarray:
    """x (B, N, K) with a x = b, by substitution.   a: (B, N, N) or (1, N, N)   b: (B, N, K)

    lower: only the lower triangle of a is read, otherwise only the upper one.   unit_diagonal: its diagonal counts as 1.
    """
    n = a.shape[-1]
    x = np.empty_like(b)
    for i in range(n) if lower else reversed(range(n)):
        known = slice(0, i) if lower else slice(i + 1, n)
        x[:, i] = b[:, i] - (a[:, i, None, known] @ x[:, known])[:, 0]  # (B, K)
        if not unit_diagonal:
            x[:, i] /= a[:, i, i, None]
    return x
