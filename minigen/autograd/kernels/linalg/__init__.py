"""Matrix products and triangular systems. Start at `matmul` of multiply.py; product.py says how one is made.

    matmul(a, b, out=None)                          (..., M, K) @ (..., K, N) -> (..., M, N), as `numpy.matmul`
    solve_triangular(a, b, lower, unit_diagonal)    x (B, N, K) with a x = b; a (B, N, N) or (1, N, N), b (B, N, K)

Arrays may have any strides. Importing this package makes every loaded BLAS single-threaded.
"""

from __future__ import annotations

import math

import numpy as np

from ...backend import Card, Kernel
from . import blas, reference

__all__ = ["blas", "matmul", "solve_triangular"]

FAMILY = "minigen.autograd.kernels.linalg"

PRODUCTS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 1), (1, 1)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((3,), (3,)),
    ((0,), (0,)),
    ((4, 3), (3,)),
    ((3,), (3, 5)),
    ((3, 17), (17, 5)),
    ((0, 2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((2, 5, 3, 4), (4, 3)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((100, 784), (784, 200)),  # two chunks of columns
    ((130, 300), (300, 520)),
    ((513, 2100), (2100, 3)),  # three blocks of terms
    ((1, 200, 200), (3, 1, 200, 200)),  # one matrix for the whole batch
    ((4, 64, 200), (200, 300)),  # a batch that is one tall matrix
]
SYSTEMS: list[tuple[int, int, int, int]] = [  # matrices of a, of b, N, K
    (1, 1, 1, 1),
    (0, 0, 3, 2),
    (1, 2, 0, 3),
    (1, 3, 4, 0),
    (3, 3, 5, 2),
    (1, 4, 7, 1),
    (2, 2, 150, 9),  # halved twice
]


def _product_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    return [((rng.standard_normal(a).astype(dtype), rng.standard_normal(b).astype(dtype)), {}) for a, b in PRODUCTS]


def _system_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    """Well-conditioned triangles, with NaN on the other side of the diagonal, which is never read."""
    calls: list[tuple[tuple, dict]] = []
    for i, (matrices, batch, n, k) in enumerate(SYSTEMS * 2):
        lower, unit = i % 2 == 0, i % 3 == 0
        a = rng.standard_normal((matrices, n, n)) / (1 + n) + np.eye(n) * (2 + rng.random(n))
        a = np.where(np.tri(n, dtype=bool) if lower else np.tri(n, dtype=bool).T, a, np.nan)
        calls.append(((a.astype(dtype), rng.standard_normal((batch, n, k)).astype(dtype), lower, unit), {}))
    return calls


def _product_flops(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> int:
    return 2 * a.shape[-1] * _product_size(a, b)


def _product_bytes(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> int:
    return a.nbytes + b.nbytes + _product_size(a, b) * a.itemsize


def _product_size(a: np.ndarray, b: np.ndarray) -> int:
    """How many numbers the product has."""
    left = a.shape[:-1]  # (..., M)
    right = b.shape[-1:] if b.ndim > 1 else ()  # (N,)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return math.prod((*batch, *left[-1:], *right))


def _system_scale(a: np.ndarray, b: np.ndarray, lower: bool, unit_diagonal: bool) -> np.ndarray:
    """The solution with the comparison matrix, |diagonal| - |rest| (Higham 2002, theorem 8.9: the error is within
    (N + 1) units of rounding of it)."""
    magnitude = np.abs(a)
    diagonal = magnitude * np.eye(a.shape[-1])
    diagonal[np.isnan(diagonal)] = 0
    return reference.solve_triangular(2 * diagonal - magnitude, np.abs(b), lower, unit_diagonal)


matmul = Kernel(
    "matmul",
    FAMILY,
    Card(
        cases=_product_cases,
        flops=_product_flops,
        bytes=_product_bytes,
        ulp=8,
        scale=lambda a, b: reference.matmul(np.abs(a), np.abs(b)),
        note="Sums in the dtype of the arrays, term after term, in blocks of at most 1,024.",
    ),
)
solve_triangular = Kernel(
    "solve_triangular",
    FAMILY,
    Card(
        cases=_system_cases,
        flops=lambda a, b, lower, unit_diagonal: b.size * b.shape[1],
        bytes=lambda a, b, lower, unit_diagonal: a.nbytes // 2 + 2 * b.nbytes,
        ulp=8,
        scale=_system_scale,
        note="Substitution row by row; systems of more than 64 rows are halved, with a matrix product between.",
    ),
)
