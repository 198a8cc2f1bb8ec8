"""Linear algebra on the CPU: BLAS in chunks, and substitution in Numba. Start at `matmul`.

Every choice below (which BLAS call, how many chunks) depends on shapes only, never on the number of threads, so results
are the same bits for any number. blas.py says why BLAS' own threads are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import prod

import numpy as np

from ..arrays import contiguous
from ..jit import jit
from ..threads import run
from . import blas  # noqa: F401 - one BLAS thread

CHUNK_FLOPS = 12e6  # of a chunk, at least: about .1 ms, several times what it costs to wake a thread
CHUNK_SIDE = 96  # rows or columns of a chunk, at least: thinner products run at a lower rate
MAX_CHUNKS = 16
ALIGNMENT = 16  # chunks begin at multiples of a vector
BLOCK = 64  # rows of a triangular system that are solved by substitution


@np.errstate(all="ignore")  # infinities and NaN follow IEEE arithmetic, without a warning for each
def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """a (..., M, K) @ b (..., K, N) -> (..., M, N), with the vectors and broadcasting of `numpy.matmul`.

    Transposed operands are not copied: BLAS reads either order. A product with one large result is cut along the longer
    side of the result; measured, that costs up to a tenth on one thread.
    """
    if b.ndim > 2 or a.ndim > 2:
        return _batched(a, b, out)
    if a.ndim + b.ndim == 4 and a.size * b.shape[1] >= CHUNK_FLOPS:
        return _chunked(a, b, out)
    product = a.dot(b, out)  # the same product as numpy.matmul's, with half of its overhead
    return product if out is None else out  # of two vectors NumPy returns a scalar


def _chunked(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """The product of two large matrices."""
    (rows, depth), columns = a.shape, b.shape[1]
    longer = max(rows, columns)
    chunks = min(MAX_CHUNKS, int(2 * rows * depth * columns / CHUNK_FLOPS), longer // CHUNK_SIDE)
    if chunks < 2:
        return a.dot(b, out)
    chunks = 1 << chunks.bit_length() - 1  # a power of two divides evenly among two, four or eight threads
    cuts = [longer * i // chunks // ALIGNMENT * ALIGNMENT for i in range(chunks)] + [longer]
    parts = [slice(*cut) for cut in pairwise(cuts)]
    out = np.empty((rows, columns), np.result_type(a, b)) if out is None else out
    if rows >= columns:
        products = [(a[part], b, out[part]) for part in parts]
    else:
        products = [(a, b[:, part], out[:, part]) for part in parts]
    _spread(products)
    return out


def _batched(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """A product with batch axes. Each of its matrices is one BLAS call, so how they are spread does not change a bit."""
    if b.ndim <= 2:  # one matrix for the whole batch: its rows are one tall matrix
        rows = prod(a.shape[:-1])
        flat = matmul(a.reshape(rows, a.shape[-1]), b, out if out is None else out.reshape(rows, *b.shape[1:]))
        return flat.reshape(*a.shape[:-1], *b.shape[1:])
    if a.ndim == 1 or a.size * b.shape[-1] < CHUNK_FLOPS:
        return np.matmul(a, b, out=out)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    if prod(batch) == 1:
        a, b = a.reshape(a.shape[-2:]), b.reshape(b.shape[-2:])
        return matmul(a, b, out if out is None else out.reshape(shape[-2:])).reshape(shape)
    out = np.empty(shape, np.result_type(a, b)) if out is None else out
    axis = int(np.argmax(batch)) - len(shape)  # counted from the end, since an operand may have fewer batch axes
    count = min(shape[axis], MAX_CHUNKS)
    cuts = [shape[axis] * i // count for i in range(count + 1)]
    _spread([tuple(_part(x, axis, *cut) for x in (a, b, out)) for cut in pairwise(cuts)])
    return out


def _part(x: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    """x[start:stop] along a batch axis (negative), or all of x where it is broadcast along that axis."""
    if x.ndim < -axis or x.shape[axis] == 1:
        return x
    return np.moveaxis(np.moveaxis(x, axis, 0)[start:stop], 0, axis)


def _spread(products: Sequence[tuple[np.ndarray, ...]]) -> None:
    """out[...] = a @ b for each (a, b, out)."""
    run([partial(_product, *arrays) for arrays in products])


@np.errstate(all="ignore")  # a setting of each thread
def _product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    np.matmul(a, b, out=out)


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
