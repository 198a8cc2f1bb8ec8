"""Scatter-add on the GPU: a launch of cuda.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import backend
from ..cuda import THREADS, Source, contiguous, grid, result

Array = Any

source = Source(__file__)


def scatter_add(values: Array, rows: Array, size: int, out: Array | None = None) -> Array:
    """out[b, rows[i], k] += values[b, i, k], starting from zeros.   values (B, N, K), rows (N,) -> (B, size, K)

    The rows are sorted, so that each element of the result is added up by one thread, in the order of i. A row outside
    [-size, size) gives NaN everywhere, where the CPU raises IndexError: raising would mean to wait for the device.
    """
    batch, count, columns = values.shape
    out = result(out, (batch, size, columns), values.dtype)
    rows = rows.astype(np.int64, copy=False)
    rows = rows + (rows < 0) * np.int64(size)  # not rows[rows < 0]: how many there are, the device would have to tell
    order = backend.cupy().argsort(rows, kind="stable")
    arrays = (*contiguous(values, rows[order], order), out)
    source.launch("scatter_add_kernel", values.dtype, grid(out.size), THREADS, out.size, count, columns, size, *arrays)
    return out
