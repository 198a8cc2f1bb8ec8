"""Fused kernels compiled by Numba: one pass over memory each. Start at `bias_act`; `reference.py` has the formulas.

As in normalisation/cpu.py, loops run over `lanes`, several rows at once, so that rows of few channels use whole vectors,
and work is cut into fixed chunks of rows that stay in cache, whose sums are added up in order.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from minigen.autograd.kernels.arrays import buffer, buffers, contiguous, flat
from minigen.autograd.kernels.elementwise.polynomial import exp, expm1, sigmoid, tanh
from minigen.autograd.kernels.fused.activations import activate, activation_vjp, from_output, number_of
from minigen.autograd.kernels.jit import jit
from minigen.autograd.kernels.softmax.rows import row_sum
from minigen.autograd.kernels.threads import spread

__all__ = [
    "bias_act",
    "bias_act_vjp",
    "gated_tanh",
    "gated_tanh_vjp",
    "sample_normal_kl",
    "sample_normal_kl_vjp",
]

LANES = 1024  # lanes of a loop, about: what is done to them one after another is done in the first-level cache
CHUNK = 1 << 14  # numbers in a chunk of rows, about


def bias_act(
    x: np.ndarray, bias: np.ndarray, activation: str | None = None, slope: float = 0.01, out: np.ndarray | None = None
) -> np.ndarray:
    out = np.empty(x.shape, x.dtype) if out is None else buffer(out, x.shape, x.dtype)
    if x.size:
        in_place = x is out or np.may_share_memory(x, out)
        arrays = contiguous(x), contiguous(bias), number_of(activation, slope), slope, out, in_place
        spread(partial(_bias_act, *arrays), _chunks(x.shape), x.size)
    return out


def bias_act_vjp(
    g: np.ndarray, y: np.ndarray, x: np.ndarray, bias: np.ndarray, activation: str | None = None, slope: float = 0.01,
    out: tuple | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    gx, gbias = results = buffers(out, g.dtype, g.shape, bias.shape)
    code, chunks = number_of(activation, slope), _chunks(g.shape)
    sums = np.empty((chunks, bias.size))
    if g.size:
        kept = y if from_output(code) else x
        arrays = contiguous(g), contiguous(kept), contiguous(bias), code, slope, gx, sums
        spread(partial(_bias_act_vjp, *arrays), chunks, g.size)
    gbias[:] = np.add.reduce(sums, 0)
    return results


def gated_tanh(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    rows, width = x.shape
    out = buffer(out, (rows, width // 2), x.dtype)
    if out.size:
        spread(partial(_gated_tanh, flat(x), flat(out), width // 2), rows, x.size)
    return out


def gated_tanh_vjp(g: np.ndarray, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    out = buffer(out, x.shape, x.dtype)
    if out.size:
        spread(partial(_gated_tanh_vjp, flat(g), flat(x), flat(out), g.shape[1]), g.shape[0], x.size)
    return out


def sample_normal_kl(
    mu: np.ndarray, logvar: np.ndarray, eps: np.ndarray, out: tuple | None = None
) -> tuple[np.ndarray, np.ndarray]:
    z, kl = results = buffers(out, mu.dtype, mu.shape, mu.shape[:1])
    kl[:] = 0  # for samples without numbers
    if mu.size:
        spread(partial(_sample_normal_kl, flat(mu), flat(logvar), flat(eps), flat(z), kl), mu.shape[0], mu.size)
    return results


def sample_normal_kl_vjp(
    gz: np.ndarray, gkl: np.ndarray, mu: np.ndarray, logvar: np.ndarray, eps: np.ndarray, out: tuple | None = None
) -> tuple[np.ndarray, np.ndarray]:
    gmu, glogvar = results = buffers(out, mu.dtype, mu.shape, mu.shape)
    if mu.size:
        arrays = flat(gz), np.ascontiguousarray(gkl), flat(mu), flat(logvar), flat(eps), flat(gmu), flat(glogvar)
        spread(partial(_sample_normal_kl_vjp, *arrays), mu.shape[0], mu.size)
    return results


def _chunks(shape: tuple[int, ...]) -> int:
    """The number of chunks of an array (rows, C)."""
    rows = _rows(shape[1])
    return (shape[0] + rows - 1) // rows


@jit()
def _rows(channels):
    """How many rows make a chunk."""
    return max(1, CHUNK // max(channels, 1))


@jit()
def _repeat(bias, size):
    """The bias for each lane, of an array of `size` numbers."""
    channels = bias.size
    repeated = np.empty(max(1, min(LANES, size) // channels) * channels, bias.dtype)
    for i in range(0, repeated.size, channels):
        repeated[i : i + channels] = bias
    return repeated


@jit()
def _bias_act(x, bias, activation, slope, out, in_place, first, stop):
    """Chunks first … stop - 1.      in_place: x is out; its own loop, for one between two arrays that are the same one
    would not be vectorised.
    """
    x, out, slope = x.reshape(-1), out.reshape(-1), x.dtype.type(slope)
    size = _rows(bias.size) * bias.size
    bias = _repeat(bias, x.size)
    for j in range(first, stop):
        chunk, y = x[j * size : (j + 1) * size], out[j * size : (j + 1) * size]
        for start in range(0, chunk.size, bias.size):
            row, z = chunk[start : start + bias.size], y[start : start + bias.size]
            if in_place:
                for i in range(z.size):
                    z[i] += bias[i]
            else:
                for i in range(z.size):
                    z[i] = row[i] + bias[i]
            activate(activation, slope, z)


@jit()
def _bias_act_vjp(g, kept, bias, activation, slope, out, sums, first, stop):
    """Chunks first … stop - 1.      sums: (chunks, C), for the gradient of the bias."""
    g, kept, out, slope = g.reshape(-1), kept.reshape(-1), out.reshape(-1), g.dtype.type(slope)
    channels = bias.size
    size = _rows(channels) * channels
    bias = _repeat(bias, g.size)
    lanes = bias.size
    lane_sums = np.empty(lanes)
    for j in range(first, stop):
        at = slice(j * size, (j + 1) * size)
        cotangent, chunk, d = g[at], kept[at], out[at]
        lane_sums[:] = 0
        for top in range(0, chunk.size, 4 * lanes):
            four = slice(top, min(top + 4 * lanes, chunk.size))
            known, found = chunk[four], d[four]
            if from_output(activation):
                for i in range(known.size):
                    found[i] = known[i]
            elif activation:
                for start in range(0, known.size, lanes):
                    row, z = known[start : start + lanes], found[start : start + lanes]
                    for i in range(row.size):
                        z[i] = row[i] + bias[i]
            activation_vjp(activation, slope, cotangent[four], found)
            if found.size == 4 * lanes:
                r0, r1, r2, r3 = found[:lanes], found[lanes : 2 * lanes], found[2 * lanes : 3 * lanes], found[3 * lanes :]
                for i in range(lanes):
                    lane_sums[i] += (r0[i] + r1[i]) + (r2[i] + r3[i])
            else:
                for start in range(0, found.size, lanes):
                    row = found[start : start + lanes]
                    for i in range(row.size):
                        lane_sums[i] += row[i]
        sums[j] = 0
        for start in range(0, lanes, channels):
            for c in range(channels):
                sums[j, c] += lane_sums[start + c]


# Below, arrays are flat.


@jit(contract=True)
def _gated_tanh(x, out, channels, first, stop):
    """Rows first … stop - 1."""
    for r in range(first, stop):
        a = x[2 * r * channels : (2 * r + 1) * channels]
        b = x[(2 * r + 1) * channels : (2 * r + 2) * channels]
        y = out[r * channels : (r + 1) * channels]
        for i in range(channels):
            y[i] = tanh(a[i]) * sigmoid(b[i])


@jit(contract=True)
def _gated_tanh_vjp(g, x, out, channels, first, stop):
    """Rows first … stop - 1."""
    one = x.dtype.type(1)
    for r in range(first, stop):
        left, right = slice(2 * r * channels, (2 * r + 1) * channels), slice((2 * r + 1) * channels, (2 * r + 2) * channels)
        a, b, ga, gb = x[left], x[right], out[left], out[right]
        row = g[r * channels : (r + 1) * channels]
        for i in range(channels):
            t, s = tanh(a[i]), sigmoid(b[i])
            ga[i] = row[i] * (s * (one - t * t))
            gb[i] = row[i] * (t * (s * (one - s)))


@jit(contract=True)
def _sample_normal_kl(mu, logvar, eps, z, kl, first, stop):
    """Samples first … stop - 1."""
    real = mu.dtype.type
    zero, half, infinite = real(0), real(0.5), real(np.inf)
    n = mu.size // kl.size
    terms = np.empty(n, mu.dtype)
    for r in range(first, stop):
        at = slice(r * n, (r + 1) * n)
        mean, l, noise, sample = mu[at], logvar[at], eps[at], z[at]
        for i in range(n):
            growth = expm1(l[i])
            sample[i] = mean[i] + (zero if noise[i] == zero else exp(half * l[i]) * noise[i])
            terms[i] = mean[i] * mean[i] + (growth if growth == infinite else growth - l[i])
        kl[r] = half * real(row_sum(terms))


@jit(contract=True)
def _sample_normal_kl_vjp(gz, gkl, mu, logvar, eps, gmu, glogvar, first, stop):
    """Samples first … stop - 1."""
    real = mu.dtype.type
    zero, half = real(0), real(0.5)
    n = mu.size // gkl.size
    for r in range(first, stop):
        at = slice(r * n, (r + 1) * n)
        g, mean, l, noise, to_mean, to_logvar = gz[at], mu[at], logvar[at], eps[at], gmu[at], glogvar[at]
        weight = gkl[r]
        for i in range(n):
            moved = g[i] * noise[i]
            stretch = zero if moved == zero else moved * exp(half * l[i])
            to_mean[i] = g[i] + (zero if weight == zero else weight * mean[i])
            to_logvar[i] = half * (stretch + (zero if weight == zero else weight * expm1(l[i])))
