"""Reductions that NumPy does slowly, or not at all.

    sum_rows(x, out=None)                (outer, rows, n) -> (outer, n): the gradient of what was broadcast, a bias say
    logsumexp(x, out=None)               (rows, n) -> (rows,): log Σ exp of each row
    logsumexp_vjp(g, x, y, out=None)     g, y (rows,), x (rows, n) -> (rows, n): its gradient, y being its result

Arrays are float32 or float64, all of one call alike. `reference.py` has the formulas, and what infinities give.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd.backend import Card, Kernel

__all__ = ["logsumexp", "logsumexp_vjp", "sum_rows"]

ROWS = ((0, 3), (2, 0), (1, 1), (3, 2), (5, 7), (33, 10), (3, 1025), (700, 9))


def _sum_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    shapes = ((0, 2, 2), (2, 0, 3), (2, 3, 0), (1, 1, 1), (2, 3, 5), (1, 7, 33), (3, 130, 2), (1, 1000, 3), (2, 64, 100))
    return [((rng.standard_normal(shape).astype(dtype),), {}) for shape in shapes]


def _logsumexp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    return [((rng.normal(0, 5, shape).astype(dtype),), {}) for shape in ROWS if shape[1]]  # of nothing: -inf, no ulp


def _vjp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    rows: list[np.ndarray] = [rng.normal(0, 5, shape).astype(dtype) for shape in ROWS]
    return [((rng.standard_normal(len(x)).astype(dtype), x, _logsumexp(x).astype(dtype)), {}) for x in rows]


def _logsumexp(x: Any) -> Any:
    return np.logaddexp.reduce(x.astype(np.float64), axis=1)


sum_rows = Kernel(
    "sum_rows",
    __name__,
    Card(
        cases=_sum_cases,
        flops=lambda x, **out: x.size,
        bytes=lambda x, **out: x.nbytes + x.shape[0] * x.shape[2] * x.itemsize,
        ulp=2.0,
        scale=lambda x, **out: np.abs(x).sum(1),
        note="Blocks of 128 rows in the array's dtype, the sum of blocks in float64.",
    ),
)

logsumexp = Kernel(
    "logsumexp",
    __name__,
    Card(
        cases=_logsumexp_cases,
        flops=lambda x, **out: 20 * x.size,
        bytes=lambda x, **out: x.nbytes + x.shape[0] * x.itemsize,
        ulp=3.0,
        scale=lambda x, **out: np.abs(x).max(1, initial=0) + abs(_logsumexp(x)),
        note="The sum of exponentials is float64. Its logarithm and the maximum may cancel, hence their magnitudes.",
    ),
)

logsumexp_vjp = Kernel(
    "logsumexp_vjp",
    __name__,
    Card(
        cases=_vjp_cases,
        flops=lambda g, x, y, **out: 20 * x.size,
        bytes=lambda g, x, y, **out: 2 * x.nbytes + g.nbytes + y.nbytes,
        ulp=3.0,
        scale=lambda g, x, y, **out: np.abs(g[:, None] * np.exp(x - y[:, None])) * (1 + np.abs(x - y[:, None])),
        note="The exponent x - y is rounded, which the exponential multiplies by |x - y|.",
    ),
)
