"""Losses compiled by Numba. Start at `_cross_entropy`; `reference.py` has the formulas.

As in softmax/cpu.py, the exponentials of a tile of rows run in one loop, since rows of few classes are too short for
vector instructions.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from minigen.autograd.kernels.arrays import buffer, buffers, flat
from minigen.autograd.kernels.elementwise.polynomial import decay, log1p
from minigen.autograd.kernels.jit import jit
from minigen.autograd.kernels.softmax.cpu import exp_in_place, shift, tile_rows
from minigen.autograd.kernels.softmax.rows import row_sum
from minigen.autograd.kernels.threads import spread

__all__ = ["bce_with_logits", "bce_with_logits_vjp", "cross_entropy", "cross_entropy_vjp"]


def cross_entropy(
    x: np.ndarray, target: np.ndarray, smoothing: float = 0.0, out: tuple | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, n = x.shape
    results = buffers(out, x.dtype, (rows,), (rows,), (rows,))
    if x.size:
        target = np.ascontiguousarray(target, np.int64)
        spread(partial(_cross_entropy, flat(x), target, float(smoothing), *results, n), rows, x.size)
    return results


def cross_entropy_vjp(
    g: np.ndarray, x: np.ndarray, target: np.ndarray, highest: np.ndarray, inverse: np.ndarray, smoothing: float = 0.0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    rows, n = x.shape
    out = buffer(out, (rows, n), x.dtype)
    if x.size:
        target = np.ascontiguousarray(target, np.int64)
        arrays = (np.ascontiguousarray(a) for a in (g, highest, inverse))
        spread(partial(_cross_entropy_vjp, flat(x), target, *arrays, float(smoothing), flat(out), n), rows, x.size)
    return out


def bce_with_logits(x: np.ndarray, target: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    out = buffer(out, x.shape, x.dtype)
    spread(partial(_bce_with_logits, flat(x), flat(target), flat(out)), x.size, x.size)
    return out


def bce_with_logits_vjp(g: np.ndarray, x: np.ndarray, target: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    out = buffer(out, x.shape, x.dtype)
    single = not any(g.strides) and g.size > 0  # one number, or one repeated by broadcasting: the gradient of a mean
    g = np.ascontiguousarray(g[(0,) * g.ndim]).reshape(1) if single else flat(g)
    spread(partial(_bce_with_logits_vjp, g, flat(x), flat(target), flat(out)), x.size, x.size)
    return out


# Below, arrays are flat.


@jit(contract=True)
def _cross_entropy(x, target, smoothing, loss, highest, inverse, n, first, stop):
    """Rows first … stop - 1."""
    rows = tile_rows(n)
    tile = np.empty(rows * n, x.dtype)
    for start in range(first, stop, rows):
        end = min(start + rows, stop)
        for r in range(start, end):
            d = tile[(r - start) * n : (r - start + 1) * n]
            highest[r] = shift(x[r * n : (r + 1) * n], d)
            loss[r] = -d[target[r]]
            if smoothing:
                loss[r] = (1 - smoothing) * loss[r] - smoothing * (row_sum(d) / n)
        exp_in_place(tile[: (end - start) * n])
        for r in range(start, end):
            total = row_sum(tile[(r - start) * n : (r - start + 1) * n])
            total = 1.0 if total == 0 else total
            loss[r] += np.log(total)
            inverse[r] = 1 / total


@jit(contract=True)
def _cross_entropy_vjp(x, target, g, highest, inverse, smoothing, out, n, first, stop):
    """Rows first … stop - 1."""
    real = x.dtype.type
    zero, hit, miss = real(0), real(1 - smoothing + smoothing / n), real(smoothing / n)
    rows = tile_rows(n)
    for start in range(first, stop, rows):
        end = min(start + rows, stop)
        for r in range(start, end):
            row, d, top = x[r * n : (r + 1) * n], out[r * n : (r + 1) * n], highest[r]
            for i in range(n):
                d[i] = zero if row[i] == top else row[i] - top
        exp_in_place(out[start * n : end * n])
        for r in range(start, end):
            p, scale, factor = out[r * n : (r + 1) * n], inverse[r], g[r]
            chosen = p[target[r]] * scale
            for i in range(n):
                p[i] = factor * (p[i] * scale - miss)
            p[target[r]] = factor * (chosen - hit)


@jit(contract=True)
def _bce_with_logits(x, target, out, first, stop):
    """Elements first … stop - 1."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    x, target, out = x[first:stop], target[first:stop], out[first:stop]
    for i in range(out.size):
        a = abs(x[i])
        w = one - target[i] if x[i] > zero else target[i]
        out[i] = (zero if w == zero else a * w) + log1p(decay(a))


@jit(contract=True)
def _bce_with_logits_vjp(g, x, target, out, first, stop):
    """Elements first … stop - 1."""
    one = x.dtype.type(1)
    x, target, out = x[first:stop], target[first:stop], out[first:stop]
    if g.size == 1:
        factor = g[0]
        for i in range(out.size):
            out[i] = factor * _slope(x[i], target[i], one)
    else:
        factors = g[first:stop]
        for i in range(out.size):
            out[i] = factors[i] * _slope(x[i], target[i], one)


@jit(contract=True)
def _slope(x, target, one):
    """σ(x) - target."""
    e = decay(abs(x))
    s = e / (one + e)
    return (one - target) - s if x > 0 else s - target
