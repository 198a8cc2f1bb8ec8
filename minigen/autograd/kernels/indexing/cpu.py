"""Scatter-add on the CPU with Numba. Start at `scatter_add`."""

from __future__ import annotations

import numpy as np

from ..arrays import contiguous
from ..jit import get_num_threads, jit, prange
from .reference import check_rows

PARALLEL_ELEMENTS = 1 << 17  # below this a parallel loop costs more than it saves
STRIP = 32  # columns of a unit of work: whole cache lines, so that threads do not share one


def scatter_add(values: np.ndarray, rows: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """out[b, rows[i], k] += values[b, i, k], starting from zeros.   values (B, N, K), rows (N,) -> (B, size, K)

    Threads share the columns k and the batch b among them, never the rows: each element of the result has one owner,
    which adds to it in the order of i, as a single thread does.
    """
    check_rows(rows, size)
    out = np.empty((values.shape[0], size, values.shape[2]), values.dtype) if out is None else out
    values, rows = contiguous(values), contiguous(rows.astype(np.int64, copy=False))
    run = _parallel if values.size >= PARALLEL_ELEMENTS and get_num_threads() > 1 else _serial
    run(values, rows, out)
    return out


@jit()
def _serial(values, rows, out):
    for b in range(len(out)):
        _strip(values[b], rows, out[b], 0, values.shape[2])


@jit(parallel=True)
def _parallel(values, rows, out):
    strips = (values.shape[2] + STRIP - 1) // STRIP
    for unit in prange(len(out) * strips):
        b, first = unit // strips, unit % strips * STRIP
        _strip(values[b], rows, out[b], first, min(first + STRIP, values.shape[2]))


@jit()
def _strip(values, rows, out, first, last):
    """Columns first to last of one matrix of the batch."""
    for row in range(len(out)):
        for k in range(first, last):
            out[row, k] = 0
    for i in range(len(rows)):
        row = rows[i] if rows[i] >= 0 else rows[i] + len(out)
        for k in range(first, last):
            out[row, k] += values[i, k]
