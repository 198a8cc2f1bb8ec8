"""Matrix products on the CPU: what comes before `products`, and how they are spread over threads. Start at `matmul`.

A number of a product has the same bits whatever the other rows, columns and matrices are, and so for any way to spread them
over threads: product.py says why. BLAS is left with integers and complex numbers.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import prod

import numpy as np

from ..arrays import buffer, contiguous
from ..jit import get_num_threads
from ..threads import run
from ..tile import ROWS
from . import blas  # noqa: F401 - one BLAS thread
from .product import FEW, products

Laid = tuple[np.ndarray, int, int, int]  # an operand in C order, and how far it is to the next matrix, row and column

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
PARALLEL_TERMS = 6_000_000  # multiplications of a chunk, at least: .15 ms, several times what it costs to wake a thread
MAX_CHUNKS = 16
CHUNK_COLUMNS = 32  # chunks of columns begin at multiples of a panel


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """a (..., M, K) @ b (..., K, N) -> (..., M, N), with the vectors and broadcasting of `numpy.matmul`.

    Transposed operands are read in place, those with other strides are copied.
    """
    if out is not None and (np.may_share_memory(out, a) or np.may_share_memory(out, b)):
        out[...] = matmul(a, b)  # the operands are read to the end before the result is written
        return out
    if not isinstance(b, np.ndarray):  # of another device: remedies.py says which op, and what to do
        raise TypeError(f"matmul: {type(a).__name__} and {type(b).__name__} do not go together")
    if a.dtype is not b.dtype or a.dtype not in FLOATS:
        return _converted(a, b, out)
    if a.ndim != 2 or b.ndim != 2:
        return _vectors(a, b, out) if a.ndim == 1 or b.ndim == 1 else _batched(a, b, out)
    rows, depth = a.shape
    columns = b.shape[1]
    if b.shape[0] != depth:
        raise _unfit(a, b)
    out = np.empty((rows, columns), a.dtype) if out is None else buffer(out, (rows, columns), a.dtype)
    a_row, a_k, b_k, b_column = depth, 1, columns, 1
    if not a.flags.carray:
        if columns <= FEW < rows:  # the same sums as those of few rows
            out[...] = matmul(b.T, a.T).T
            return out
        a, _, a_row, a_k = _laid_out(a)
    if not b.flags.carray:
        b, _, b_k, b_column = _laid_out(b)
    if 0 < rows * depth * columns < PARALLEL_TERMS:  # most products: the shortest way
        products(a, 0, a_row, a_k, b, 0, b_k, b_column, out, 0, columns, 1, rows, depth, columns)
    else:
        _spread((a, 0, a_row, a_k), (b, 0, b_k, b_column), out, 1, rows, depth, columns)
    return out


def _laid_out(x: np.ndarray) -> Laid:
    """Matrices (..., rows, columns) in C order, or their transposes if these are; else a copy. To the next matrix it is 0 if
    there is only one.
    """
    rows, columns = x.shape[-2:]
    following = rows * columns if x.ndim == 3 and len(x) > 1 else 0
    if x.flags.carray:
        return x, following, columns, 1
    turned = x.mT
    if turned.flags.carray:
        return turned, following, 1, rows
    return contiguous(x), following, columns, 1


def _spread(left: Laid, right: Laid, out: np.ndarray, matrices: int, rows: int, depth: int, columns: int) -> None:
    """`products` into out (matrices, rows, columns) in C order, on as many threads as it is worth."""
    (a, a_next, a_row, a_k), (b, b_next, b_k, b_column) = left, right
    out_next, out_row = rows * columns, columns
    if depth == 0 or out.size == 0:
        out[...] = 0
        return
    chunks = min(MAX_CHUNKS, matrices * rows * depth * columns // max(PARALLEL_TERMS, 1))
    if chunks < 2 or get_num_threads() == 1:
        products(a, a_next, a_row, a_k, b, b_next, b_k, b_column, out, out_next, out_row, matrices, rows, depth, columns)
        return
    chunks = 1 << chunks.bit_length() - 1  # a power of two divides evenly among two, four or eight threads

    def part(first: int, last: int, axis: int) -> partial:
        """The product of some of the matrices, rows or columns."""
        counts = [matrices, rows, columns]
        counts[axis] = last - first
        return partial(
            products,
            _from(a, first * (a_next, a_row, 0)[axis]), a_next, a_row, a_k,
            _from(b, first * (b_next, 0, b_column)[axis]), b_next, b_k, b_column,
            _from(out, first * (out_next, out_row, 1)[axis]), out_next, out_row,
            counts[0], counts[1], depth, counts[2],
        )  # fmt: skip

    axis = 0 if matrices >= chunks else 1 if rows >= columns else 2
    size, unit = ((matrices, 1), (rows, ROWS), (columns, CHUNK_COLUMNS))[axis]
    cuts = sorted({size * i // chunks // unit * unit for i in range(chunks)} | {size})
    run([part(*cut, axis) for cut in pairwise(cuts)])


def _from(x: np.ndarray, start: int) -> np.ndarray:
    """The numbers of x from `start` on, as the one row of a matrix, which is what `products` is compiled for."""
    return x.reshape(1, -1)[:, start:]


def _batched(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """A product with batch axes."""
    rows, depth = a.shape[-2:]
    columns = b.shape[-1]
    if b.shape[-2] != depth:
        raise _unfit(a, b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = buffer(out, (*batch, rows, columns), a.dtype)
    if b.ndim == 2:  # one matrix for the whole batch: its rows are one tall matrix
        tall = prod(batch) * rows
        matmul(a.reshape(tall, depth), b, out.reshape(tall, columns))
        return out
    a, a_next, a_row, a_k = _laid_out(_stack(a, batch))
    b, b_next, b_k, b_column = _laid_out(_stack(b, batch))
    left, right = (_from(a, 0), a_next, a_row, a_k), (_from(b, 0), b_next, b_k, b_column)
    _spread(left, right, _from(out, 0), prod(batch), rows, depth, columns)
    return out


def _stack(x: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
    """The matrices of x, one for each of the batch, or a single one, as (matrices, rows, columns)."""
    matrices = prod(x.shape[:-2])
    if matrices != 1 and x.shape[:-2] != batch:
        x, matrices = np.broadcast_to(x, (*batch, *x.shape[-2:])), prod(batch)
    return x.reshape(matrices, *x.shape[-2:])


def _vectors(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """A vector on the left is a row, and on the right a column, without that axis in the result."""
    product = matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
    gone = [axis for axis, x in ((-2, a), (-1, b)) if x.ndim == 1]
    product = product.squeeze(tuple(gone))
    if out is None:
        return product if product.ndim else product[()]
    out = buffer(out, product.shape, product.dtype)
    out[...] = product
    return out


@np.errstate(all="ignore")  # infinities and NaN follow IEEE arithmetic, without a warning for each
def _converted(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """A product of two dtypes, or of one that the kernel is not made for, which NumPy takes."""
    dtype = np.result_type(a, b)
    if dtype in FLOATS:
        return matmul(a.astype(dtype, copy=False), b.astype(dtype, copy=False), out)
    return np.matmul(a, b, out=out)


def _unfit(a: np.ndarray, b: np.ndarray) -> ValueError:
    return ValueError(f"matmul: {a.shape} and {b.shape} do not fit: (..., M, K) and (..., K, N) do")
