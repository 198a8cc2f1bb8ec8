"""Scatter-add on the GPU: a launch of cuda.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import backend, dials
from ..cuda import THREADS, Source, contiguous, empty, grid, result

Array = Any

source = Source(__file__)

FEW = 1 << 15  # rows whose places are counted: a thousand million comparisons


def scatter_add(values: Array, rows: Array, size: int, out: Array | None = None) -> Array:
    """out[b, rows[i], k] += values[b, i, k], starting from zeros.   values (B, N, K), rows (N,) -> (B, size, K)

    The rows are sorted, so that each element of the result is added up by one thread, in the order of i. A row outside
    [-size, size) gives NaN everywhere, where the CPU raises IndexError: raising would mean to wait for the device.
    """
    batch, count, columns = values.shape
    out = result(out, (batch, size, columns), values.dtype)
    rows = rows.astype(np.int64, copy=False)
    rows = rows + (rows < 0) * np.int64(size)  # not rows[rows < 0]: how many there are, the device would have to tell
    arrays = (*contiguous(values), *_sorted(rows, values.dtype), out)
    source.launch("scatter_add_kernel", values.dtype, grid(out.size), THREADS, out.size, count, columns, size, *arrays)
    return out


def _sorted(rows: Array, dtype: Any) -> Any:
    """Rows in ascending order, and where they stood, equal ones in order.     dtype: of the text that is compiled already

    Raises ValueError for more than 2^15 of them in a step that is recorded.
    """
    if not dials.own_kernels:
        order = backend.cupy().argsort(rows, kind="stable")
        return contiguous(rows[order], order)
    if rows.size > FEW:
        raise ValueError(f"scatter_add: {rows.size} rows are sorted by a library, which waits; a captured step takes {FEW}")
    found = empty(rows.size, np.int64), empty(rows.size, np.int64)
    source.launch("rank_kernel", dtype, grid(rows.size), THREADS, rows.size, *contiguous(rows), *found)
    return found
