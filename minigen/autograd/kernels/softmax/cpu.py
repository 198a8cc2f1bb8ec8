"""Softmax and its logarithm compiled by Numba. Start at `_softmax`; `reference.py` has the formulas.

Rows may be short (ten classes), too short for vector instructions. So the exponentials of a whole tile of rows, contiguous
in memory, run in one long loop, and only maxima and sums go row by row. Sums are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from minigen.autograd.kernels.arrays import buffer, flat
from minigen.autograd.kernels.elementwise.polynomial import exp
from minigen.autograd.kernels.jit import jit
from minigen.autograd.kernels.softmax.rows import row_dot, row_max, row_sum
from minigen.autograd.kernels.threads import spread

__all__ = ["exp_in_place", "log_softmax", "log_softmax_vjp", "shift", "softmax", "softmax_vjp", "tile_rows"]

TILE = 1 << 12  # numbers in a tile, about: what stays in the first-level cache


def softmax(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return _run(_softmax, out, x)


def softmax_vjp(g: np.ndarray, p: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return _run(_softmax_vjp, out, g, p)


def log_softmax(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return _run(_log_softmax, out, x)


def log_softmax_vjp(g: np.ndarray, log_p: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return _run(_log_softmax_vjp, out, g, log_p)


def _run(loop: Callable, out: np.ndarray | None, *arrays: np.ndarray) -> np.ndarray:
    rows, n = arrays[0].shape
    out = buffer(out, (rows, n), arrays[0].dtype)
    if out.size:
        spread(partial(loop, *(flat(a) for a in arrays), flat(out), n), rows, out.size)
    return out


# Below, arrays are flat: row r is [r n : (r + 1) n]. Each function does rows first … stop - 1. Inner loops run from 0 over
# slices: where an index might be negative, Numba adds a choice to every access, and the loop is no longer vectorised.


@jit()
def _softmax(x, out, n, first, stop):
    one = x.dtype.type(1)
    rows = tile_rows(n)
    for start in range(first, stop, rows):
        end = min(start + rows, stop)
        for r in range(start, end):
            shift(x[r * n : (r + 1) * n], out[r * n : (r + 1) * n])
        exp_in_place(out[start * n : end * n])
        for r in range(start, end):
            p = out[r * n : (r + 1) * n]
            total = x.dtype.type(row_sum(p))
            inverse = one / (one if total == 0 else total)
            for i in range(n):
                p[i] *= inverse


@jit()
def tile_rows(n):
    """How many rows of n numbers make a tile."""
    return max(1, TILE // n)


@jit()
def exp_in_place(x):
    for i in range(x.size):
        x[i] = exp(x[i])


@jit()
def shift(x, out):
    """out <- x - max, 0 where x is the max (even an infinite one). Returns the max, 0 for a row of -∞."""
    zero, highest = x.dtype.type(0), row_max(x)
    highest = zero if highest == -np.inf else highest
    for i in range(x.size):
        out[i] = zero if x[i] == highest else x[i] - highest
    return highest


@jit(contract=True)
def _softmax_vjp(g, p, out, n, first, stop):
    for r in range(first, stop):
        at = slice(r * n, (r + 1) * n)
        g_row, p_row, result = g[at], p[at], out[at]
        mean = g.dtype.type(row_dot(g_row, p_row))
        for i in range(n):
            result[i] = p_row[i] * (g_row[i] - mean)


@jit()
def _log_softmax(x, out, n, first, stop):
    rows = tile_rows(n)
    e = np.empty(rows * n, x.dtype)
    for start in range(first, stop, rows):
        end = min(start + rows, stop)
        for r in range(start, end):
            shift(x[r * n : (r + 1) * n], out[r * n : (r + 1) * n])
        tile = out[start * n : end * n]
        for i in range(tile.size):
            e[i] = exp(tile[i])
        for r in range(start, end):
            total = row_sum(e[(r - start) * n : (r - start + 1) * n])
            normaliser = x.dtype.type(np.log(1.0 if total == 0 else total))
            log_p = out[r * n : (r + 1) * n]
            for i in range(n):
                log_p[i] -= normaliser


@jit(contract=True)
def _log_softmax_vjp(g, log_p, out, n, first, stop):
    rows = tile_rows(n)
    for start in range(first, stop, rows):
        end = min(start + rows, stop)
        tile, e = log_p[start * n : end * n], out[start * n : end * n]
        for i in range(tile.size):
            e[i] = exp(tile[i])
        for r in range(start, end):
            g_row, p = g[r * n : (r + 1) * n], out[r * n : (r + 1) * n]
            total = g.dtype.type(row_sum(g_row))
            for i in range(n):
                p[i] = g_row[i] - p[i] * total
