"""Reductions compiled by Numba. Start at `_sum_rows`; `reference.py` has the formulas."""

from __future__ import annotations

import numpy as np

from ..elementwise.polynomial import exp
from ..jit import jit
from ..softmax.cpu import shift, tile_rows
from ..softmax.rows import row_sum

__all__ = ["logsumexp", "logsumexp_vjp", "sum_rows"]

WIDTH = 64  # columns from which on the loop over columns is worth its start
BLOCK = 128  # rows that are summed in the array's own precision

Out = np.ndarray | None


def sum_rows(x: np.ndarray, out: Out = None) -> np.ndarray:
    outer, rows, n = x.shape
    fold = 1
    while fold * n < WIDTH and rows % 2 == 0 and rows > 0:  # (outer, rows, n) as (outer, rows / fold, fold n)
        rows, fold = rows // 2, fold * 2
    totals = np.empty((outer, fold * n))
    _sum_rows(np.ascontiguousarray(x).reshape(outer, rows, fold * n), totals)
    return np.sum(totals.reshape(outer, fold, n), axis=1, out=out, dtype=x.dtype)


@jit()
def _sum_rows(x, totals):
    """x: (outer, rows, n) -> totals (outer, n), float64: blocks of rows one after another, four rows at a time."""
    _, rows, n = x.shape
    block = np.empty(n, x.dtype)
    for o in range(x.shape[0]):
        totals[o] = 0
        for start in range(0, rows, BLOCK):
            stop = min(start + BLOCK, rows)
            fours = stop - (stop - start) % 4
            block[:] = 0
            for r in range(start, fours, 4):
                a, b, c, d = x[o, r], x[o, r + 1], x[o, r + 2], x[o, r + 3]
                for j in range(n):
                    block[j] += (a[j] + b[j]) + (c[j] + d[j])
            for r in range(fours, stop):
                a = x[o, r]
                for j in range(n):
                    block[j] += a[j]
            for j in range(n):
                totals[o, j] += block[j]


def logsumexp(x: np.ndarray, out: Out = None) -> np.ndarray:
    out = np.empty(x.shape[0], x.dtype) if out is None else out
    _logsumexp(np.ascontiguousarray(x), out)
    return out


@jit()
def _logsumexp(x, out):
    rows, n = x.shape
    step = tile_rows(n)
    highest, e = np.empty(step, x.dtype), np.empty(step * n, x.dtype)
    for start in range(0, rows, step):
        count = min(step, rows - start)
        for r in range(count):
            highest[r] = shift(x[start + r], e[r * n : (r + 1) * n])
        for i in range(count * n):  # short rows leave the vector units idle, a tile of them does not
            e[i] = exp(e[i])
        for r in range(count):
            out[start + r] = np.log(row_sum(e[r * n : (r + 1) * n])) + highest[r]


def logsumexp_vjp(g: np.ndarray, x: np.ndarray, y: np.ndarray, out: Out = None) -> np.ndarray:
    out = np.empty(x.shape, x.dtype) if out is None else out
    _logsumexp_vjp(np.ascontiguousarray(g), np.ascontiguousarray(x), np.ascontiguousarray(y), out)
    return out


@jit()
def _logsumexp_vjp(g, x, y, out):
    rows, n = x.shape
    step = tile_rows(n)
    zero, one, infinity = x.dtype.type(0), x.dtype.type(1), x.dtype.type(np.inf)
    d = np.empty(step * n, x.dtype)
    share = np.empty(step, x.dtype)
    for start in range(0, rows, step):
        count = min(step, rows - start)
        for r in range(count):
            row, diff, at = x[start + r], d[r * n : (r + 1) * n], y[start + r]
            share[r] = g[start + r]
            if at == infinity:
                infinite = zero
                for i in range(n):
                    infinite += one if row[i] == infinity else zero
                share[r] /= infinite
            for i in range(n):
                diff[i] = zero if row[i] == infinity else (row[i] - at if at != -infinity else at)
        for i in range(count * n):
            d[i] = exp(d[i])
        for r in range(count):
            for i in range(n):
                out[start + r, i] = share[r] * d[r * n + i]
