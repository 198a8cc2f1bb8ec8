"""Reductions on the GPU: launches of cuda.cu. Start at `sum_rows`."""

from __future__ import annotations

from typing import Any

from ..cuda import Source, contiguous, empty, result, team

Array = Any

source = Source(__file__)

LENGTH = 128  # rows that a block adds up, at least
CHUNKS = 256  # parts that a sum is cut into, at most


def sum_rows(x: Array, out: Array | None = None) -> Array:
    """Σ over the middle axis.      x: (outer, rows, n) -> (outer, n).      Long sums are made in two steps."""
    (x,) = contiguous(x)
    outer, rows, n = x.shape
    out = result(out, (outer, n), x.dtype)
    chunks = max(1, min(CHUNKS, rows // LENGTH))
    length = -(-rows // chunks)
    parts = out if chunks == 1 else empty((outer, chunks, n), x.dtype)
    for batch in range(0, outer, 65535):  # as many as a grid has along its third axis
        some = slice(batch, batch + 65535)
        _add_up(x[some], parts[some], chunks, length)
    return out if chunks == 1 else sum_rows(parts, out)


def _add_up(x: Array, parts: Array, chunks: int, length: int) -> None:
    outer, rows, n = x.shape
    source.launch("sum_rows_kernel", x.dtype, (-(-n // 32), chunks, outer), (32, 8), rows, n, chunks, length, x, parts)


def logsumexp(x: Array, out: Array | None = None) -> Array:
    """log Σ_j exp(x_j) of each row.      x: (rows, n) -> (rows,)."""
    (x,) = contiguous(x)
    out = result(out, x.shape[:1], x.dtype)
    source.launch("logsumexp_kernel", x.dtype, *team(*x.shape), *x.shape, x, out)
    return out


def logsumexp_vjp(g: Array, x: Array, y: Array, out: Array | None = None) -> Array:
    """From y = logsumexp(x):  g exp(x - y) in each row.      g, y: (rows,)      x: (rows, n) -> (rows, n)."""
    g, x, y = contiguous(g, x, y)
    out = result(out, x.shape, x.dtype)
    source.launch("logsumexp_vjp_kernel", x.dtype, *team(*x.shape), *x.shape, g, x, y, out)
    return out
