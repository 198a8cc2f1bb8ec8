"""Normalisation of rows compiled by Numba. Start at `_normalise`; `reference.py` has the formulas."""

from __future__ import annotations

from functools import partial

import numpy as np

from minigen.autograd.kernels.arrays import buffers
from minigen.autograd.kernels.jit import jit
from minigen.autograd.kernels.softmax.rows import row_dot, row_squares, row_sum
from minigen.autograd.kernels.threads import spread

__all__ = ["layer_norm", "layer_norm_vjp"]

BLOCK = 8  # rows that are summed in the array's own precision, before they are added up in float64
CHUNK = 1 << 14  # numbers in a chunk of rows, about: each gives one partial sum of the gradients of weight and bias


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, out: tuple | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, weight, bias = np.ascontiguousarray(x), np.ascontiguousarray(weight), np.ascontiguousarray(bias)
    results = buffers(out, x.dtype, x.shape, x.shape[:1], x.shape[:1])
    if x.size:
        spread(partial(_normalise, x, weight, bias, eps, *results), x.shape[0], x.size)
    else:
        results[1][...] = results[2][...] = 0
    return results


def layer_norm_vjp(
    g: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, std: np.ndarray, eps: float,
    out: tuple | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    g, x, weight = np.ascontiguousarray(g), np.ascontiguousarray(x), np.ascontiguousarray(weight)
    mean, std = np.ascontiguousarray(mean), np.ascontiguousarray(std)
    gx, gweight, gbias = results = buffers(out, x.dtype, x.shape, weight.shape, weight.shape)
    rows = max(1, CHUNK // max(x.shape[1], 1))
    chunks = -(-x.shape[0] // rows) if x.size else 0
    sums = np.zeros((2, chunks, weight.size))
    spread(partial(_backward, g, x, weight, mean, std, eps, rows, gx, sums), chunks, x.size)
    gweight[:], gbias[:] = sums.sum(1)
    return results


@jit(contract=True)
def _normalise(x, weight, bias, eps, out, mean, std, first, stop):
    """Rows first … stop - 1."""
    real = x.dtype.type
    n = x.shape[1]
    for r in range(first, stop):
        row, y = x[r], out[r]
        centre = row_sum(row) / n
        square = row_squares(row, centre) / n
        mean[r] = centre
        std[r] = np.sqrt(square)
        shift, scale = real(centre), real(1 / np.sqrt(square + eps))
        for i in range(n):
            y[i] = (row[i] - shift) * scale * weight[i] + bias[i]


@jit(contract=True)
def _backward(g, x, weight, mean, std, eps, rows, out, sums, first, stop):
    """Chunks first … stop - 1 of `rows` rows each: grad x, and in sums (2, chunks, n) the chunk's Σ g x̂ and Σ g."""
    real = x.dtype.type
    n = x.shape[1]
    normalised, weighted = np.empty(n, x.dtype), np.empty(n, x.dtype)
    weight_part, bias_part = np.zeros(n, x.dtype), np.zeros(n, x.dtype)
    for t in range(first, stop):
        last = min((t + 1) * rows, x.shape[0])
        for r in range(t * rows, last):
            row, g_row, gx = x[r], g[r], out[r]
            centre, rstd = mean[r], real(1 / np.sqrt(np.float64(std[r]) ** 2 + eps))
            for i in range(n):
                normalised[i] = (row[i] - centre) * rstd
                weighted[i] = g_row[i] * weight[i]
            first_mean, second_mean = real(row_sum(weighted) / n), real(row_dot(weighted, normalised) / n)
            for i in range(n):
                gx[i] = (weighted[i] - first_mean - normalised[i] * second_mean) * rstd
            for i in range(n):
                weight_part[i] += g_row[i] * normalised[i]
            for i in range(n):  # a loop of its own: both sums in one are not vectorised
                bias_part[i] += g_row[i]
            if (r + 1) % BLOCK == 0 or r + 1 == last:
                for part, total in ((weight_part, sums[0, t]), (bias_part, sums[1, t])):
                    for i in range(n):
                        total[i] += part[i]
                    part[:] = 0
