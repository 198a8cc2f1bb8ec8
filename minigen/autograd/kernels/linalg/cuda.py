"""Linear algebra on the GPU: cuBLAS for products, cuda.cu for triangular systems."""

from __future__ import annotations

from typing import Any

from ... import backend
from ..cuda import THREADS, Source, contiguous, grid, result

Array = Any

source = Source(__file__)


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a (..., M, K) @ b (..., K, N) -> (..., M, N), as `numpy.matmul`, by cuBLAS: float32 products are true float32."""
    product = backend.cupy().matmul(a, b)
    if out is None:
        return product
    out[...] = product
    return out


def solve_triangular(a: Array, b: Array, lower: bool, unit_diagonal: bool) -> Array:
    """x (B, N, K) with a x = b.   a: (B, N, N) or (1, N, N), of which one triangle is read   b: (B, N, K)"""
    x = result(None, b.shape, b.dtype)
    systems, n, columns = b.shape
    total = systems * columns if n else 0
    arguments = (total, n, columns, len(a), *contiguous(a, b), bool(lower), bool(unit_diagonal), x)
    source.launch("solve_triangular_kernel", b.dtype, grid(total), THREADS, *arguments)
    return x
