"""Linear algebra on the GPU: cuBLAS for products, cuda.cu for triangular systems. Start at `matmul`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import backend, dials
from ..cuda import THREADS, Source, contiguous, grid, result

Array = Any

source = Source(__file__)

TILE = 32  # as in cuda.cu


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a (..., M, K) @ b (..., K, N) -> (..., M, N), as `numpy.matmul`, by cuBLAS: float32 products are true float32.

    In a step that is recorded, by a kernel of our own: CuPy does not let cuBLAS be recorded.
    """
    if dials.own_kernels:
        return _tiled(a, b, out)
    product = backend.cupy().matmul(a, b)
    if out is None:
        return product
    out[...] = product
    return out


def _tiled(a: Array, b: Array, out: Array | None) -> Array:
    """The product by `matmul_kernel`."""
    vectors = a.ndim == 1, b.ndim == 1
    a, b = a[None] if vectors[0] else a, b[:, None] if vectors[1] else b
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (rows, depth), columns = a.shape[-2:], b.shape[-1]
    shape = (*batch, *(() if vectors[0] else (rows,)), *(() if vectors[1] else (columns,)))
    out = result(out, shape, a.dtype)
    count = math.prod(batch)
    (a, steps), (b, others) = (_matrices(x, batch, count) for x in (a, b))
    grid = (-(-columns // TILE), -(-rows // TILE), count)
    source.launch("matmul_kernel", out.dtype, grid, (TILE, 8), rows, depth, columns, *steps, *others, a, b, out)
    return out


def _matrices(x: Array, batch: tuple[int, ...], count: int) -> tuple[Array, tuple[int, int, int]]:
    """An array in C order with the numbers of x, and its steps from matrix to matrix, row to row and column to column.

    A matrix that lies transposed is not copied, and one for the whole batch is not repeated.
    """
    one = math.prod(x.shape[:-2]) == 1
    x = x.reshape(x.shape[-2:])[None] if one else np.broadcast_to(x, (*batch, *x.shape[-2:])).reshape(count, *x.shape[-2:])
    rows, columns = x.shape[-2:]
    step = 0 if one else rows * columns
    if x.mT.flags.c_contiguous and not x.flags.c_contiguous:
        return x.mT, (step, 1, rows)
    return contiguous(x)[0], (step, columns, 1)


def solve_triangular(a: Array, b: Array, lower: bool, unit_diagonal: bool) -> Array:
    """x (B, N, K) with a x = b.   a: (B, N, N) or (1, N, N), of which one triangle is read   b: (B, N, K)"""
    x = result(None, b.shape, b.dtype)
    systems, n, columns = b.shape
    total = systems * columns if n else 0
    arguments = (total, n, columns, len(a), *contiguous(a, b), bool(lower), bool(unit_diagonal), x)
    source.launch("solve_triangular_kernel", b.dtype, grid(total), THREADS, *arguments)
    return x
