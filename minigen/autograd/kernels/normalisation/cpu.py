"""Normalisation compiled by Numba. Start at `group_norm` and `_normalise_samples`; `reference.py` has the formulas.

Two ideas make it fast on channels-last data:

* Lanes. A row of C channels may be too short for vector instructions, so a loop runs over `lanes` = k C neighbouring
  numbers, that is k positions at once, against statistics and weights repeated k times.
* Chunks. A sample is cut into fixed chunks of positions that stay in cache. Each gives sums per channel, which are then
  combined in order. So several threads can share even a single sample (which is what batch normalisation is to these
  kernels) without changing a bit.

Sums are float64, whatever the data. Normalisation of rows, `layer_norm`, is in rows.py.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from minigen.autograd.kernels.arrays import buffers
from minigen.autograd.kernels.fused.activations import activate, activation_vjp, from_output, number_of
from minigen.autograd.kernels.jit import jit
from minigen.autograd.kernels.normalisation.rows import layer_norm, layer_norm_vjp
from minigen.autograd.kernels.threads import spread

__all__ = ["group_norm", "group_norm_vjp", "layer_norm", "layer_norm_vjp"]

LANES = 256  # lanes of a loop, about: 2 KiB of sums
CHUNK = 1 << 14  # numbers in a chunk, at most (unless there are more channels)


def group_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, eps: float,
    activation: str | None = None, slope: float = 0.01, out: tuple | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, weight, bias = np.ascontiguousarray(x), np.ascontiguousarray(weight), np.ascontiguousarray(bias)
    statistics = (x.shape[0], groups)
    y, mean, std = results = buffers(out, x.dtype, x.shape, statistics, statistics)
    affine = weight, bias, eps, number_of(activation, slope), x.dtype.type(slope)
    samples, numbers = x.shape[0], x.shape[1] * x.shape[2]
    x, y = x.reshape(samples, numbers), y.reshape(samples, numbers)
    if samples > 1 and numbers:
        spread(partial(_normalise_samples, x, *affine, y, mean, std), samples, x.size)
    elif x.size:
        chunks = _chunks(numbers, weight.size)[1]
        means, squares = np.empty((chunks, weight.size)), np.empty((chunks, weight.size))
        spread(partial(_moments, x[0], means, squares), chunks, x.size)
        _combine(means, squares, numbers, mean[0], std[0])
        spread(partial(_apply, x[0], *affine, mean[0], std[0], y[0]), chunks, x.size)
    else:
        mean[...] = std[...] = 0
    return results


def group_norm_vjp(
    g: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, std: np.ndarray,
    eps: float, activation: str | None = None, slope: float = 0.01, out: tuple | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    g, x, weight, bias, mean, std = (np.ascontiguousarray(a) for a in (g, x, weight, bias, mean, std))
    gx, gweight, gbias = results = buffers(out, x.dtype, x.shape, weight.shape, bias.shape)
    affine = weight, bias, eps, number_of(activation, slope), x.dtype.type(slope)
    samples, numbers = x.shape[0], x.shape[1] * x.shape[2]
    g, x, gx = (a.reshape(samples, numbers) for a in (g, x, gx))
    sums = np.zeros((2, samples, weight.size))  # of each sample and channel: Σ d and Σ d x̂
    if samples > 1 and numbers:
        spread(partial(_backward_samples, g, x, *affine, mean, std, gx, sums), samples, x.size)
    elif x.size:
        chunks = _chunks(numbers, weight.size)[1]
        parts = np.empty((2, chunks, weight.size))
        spread(partial(_sums, g[0], x[0], *affine, mean[0], std[0], gx[0], parts), chunks, x.size)
        sums = parts.sum(1, keepdims=True)
        spread(partial(_finish, x[0], weight, mean[0], std[0], eps, sums[:, 0], gx[0]), chunks, x.size)
    gbias[:], gweight[:] = sums.sum(1)
    return results


@jit()
def _normalise_samples(x, weight, bias, eps, activation, slope, out, mean, std, first, stop):
    """Samples first … stop - 1.      x, out: (N, P C).      mean, std: (N, groups)."""
    chunks = _chunks(x.shape[1], weight.size)[1]
    means, squares = np.empty((chunks, weight.size)), np.empty((chunks, weight.size))
    for n in range(first, stop):
        _moments(x[n], means, squares, 0, chunks)
        _combine(means, squares, x.shape[1], mean[n], std[n])
        _apply(x[n], weight, bias, eps, activation, slope, mean[n], std[n], out[n], 0, chunks)


@jit()
def _chunks(numbers, channels):
    """How many of a sample's numbers make a chunk (whole positions), and how many chunks there are."""
    size = channels * max(1, CHUNK // channels)
    return size, (numbers + size - 1) // size


@jit()
def _lanes(channels):
    return channels * max(1, LANES // channels)


@jit()
def _repeat(channels, lane):
    """Fill `lane` with copies of its first `channels` elements."""
    for start in range(channels, lane.size, channels):
        for c in range(channels):
            lane[start + c] = lane[c]


@jit()
def _fold(lane, channel):
    """Add up the lanes of each channel."""
    for c in range(channel.size):
        channel[c] = 0
    for start in range(0, lane.size, channel.size):
        for c in range(channel.size):
            channel[c] += lane[start + c]


@jit(contract=True)
def _moments(x, means, squares, first, stop):
    """For chunks first … stop - 1 of a sample x: the mean of each channel, and its sum of squared deviations from that
    mean, in two passes through the cache.      means, squares: (chunks, C).
    """
    channels = means.shape[1]
    size, lanes = _chunks(x.size, channels)[0], _lanes(channels)
    sums, centre = np.empty(lanes), np.empty(lanes)
    for j in range(first, stop):
        chunk = x[j * size : (j + 1) * size]
        for i in range(lanes):
            sums[i] = 0
        for start in range(0, chunk.size, lanes):
            row = chunk[start : start + lanes]
            for i in range(row.size):
                sums[i] += row[i]
        _fold(sums, means[j])
        for c in range(channels):
            means[j, c] /= chunk.size // channels
            centre[c] = means[j, c]
        _repeat(channels, centre)
        for i in range(lanes):
            sums[i] = 0
        for start in range(0, chunk.size, lanes):
            row = chunk[start : start + lanes]
            for i in range(row.size):
                d = row[i] - centre[i]
                sums[i] += d * d
        _fold(sums, squares[j])


@jit()
def _combine(means, squares, numbers, mean, std):
    """Mean and deviation of each group of channels, from those of its chunks and channels (Chan et al. 1979, eq. 2.1).

    means, squares: (chunks, C).      numbers: in the sample.      mean, std: (groups,).
    """
    chunks, channels = means.shape
    size = _chunks(numbers, channels)[0]
    width = channels // mean.size
    count = numbers // mean.size
    for k in range(mean.size):
        total = 0.0
        for j in range(chunks):
            positions = (min((j + 1) * size, numbers) - j * size) // channels
            for c in range(k * width, (k + 1) * width):
                total += positions * means[j, c]
        total /= count
        square = 0.0
        for j in range(chunks):
            positions = (min((j + 1) * size, numbers) - j * size) // channels
            for c in range(k * width, (k + 1) * width):
                d = means[j, c] - total
                square += squares[j, c] + positions * (d * d)
        mean[k] = total
        std[k] = np.sqrt(square / count)


@jit(contract=True)
def _apply(x, weight, bias, eps, activation, slope, mean, std, out, first, stop):
    """Chunks first … stop - 1 of a sample normalised, scaled, shifted and activated."""
    size = _chunks(x.size, weight.size)[0]
    centre, scale, shift = _affine(weight, bias, mean, std, eps)
    for j in range(first, stop):
        chunk, y = x[j * size : (j + 1) * size], out[j * size : (j + 1) * size]
        for start in range(0, chunk.size, centre.size):
            row, result = chunk[start : start + centre.size], y[start : start + centre.size]
            for i in range(row.size):
                result[i] = (row[i] - centre[i]) * scale[i] + shift[i]
        activate(activation, slope, y)


@jit()
def _rstd(std, eps):
    """1 / √(std² + eps), in float64."""
    return 1 / np.sqrt(np.float64(std) * np.float64(std) + eps)


@jit()
def _affine(weight, bias, mean, std, eps):
    """Lanes of the mean, of weight / √(std² + eps), and of the bias."""
    channels = weight.size
    width = channels // mean.size
    lanes = _lanes(channels)
    centre, scale, shift = np.empty(lanes, weight.dtype), np.empty(lanes, weight.dtype), np.empty(lanes, weight.dtype)
    for c in range(channels):
        centre[c] = mean[c // width]
        scale[c] = weight[c] * _rstd(std[c // width], eps)
        shift[c] = bias[c]
    _repeat(channels, centre)
    _repeat(channels, scale)
    _repeat(channels, shift)
    return centre, scale, shift


# ---- backward


@jit()
def _backward_samples(g, x, weight, bias, eps, activation, slope, mean, std, out, sums, first, stop):
    """Samples first … stop - 1.      sums: (2, N, C), for the gradients of weight and bias."""
    chunks = _chunks(x.shape[1], weight.size)[1]
    parts = np.empty((2, chunks, weight.size))
    for n in range(first, stop):
        _sums(g[n], x[n], weight, bias, eps, activation, slope, mean[n], std[n], out[n], parts, 0, chunks)
        total = sums[:, n]
        for j in range(chunks):
            for c in range(weight.size):
                total[0, c] += parts[0, j, c]
                total[1, c] += parts[1, j, c]
        _finish(x[n], weight, mean[n], std[n], eps, total, out[n], 0, chunks)


@jit(contract=True)
def _sums(g, x, weight, bias, eps, activation, slope, mean, std, out, parts, first, stop):
    """For chunks first … stop - 1 of a sample, with x̂ the normalised x: out = d = g f'(weight x̂ + bias), and in `parts`
    (2, chunks, C) the sums over positions of d and of d x̂.
    """
    channels = weight.size
    width = channels // mean.size
    size = _chunks(x.size, channels)[0]
    centre, scale, shift = _affine(weight, bias, mean, std, eps)
    lanes = centre.size
    sums, products = np.empty(lanes), np.empty(lanes)
    for j in range(first, stop):
        chunk, d = x[j * size : (j + 1) * size], out[j * size : (j + 1) * size]
        if activation:
            for start in range(0, chunk.size, lanes):
                row, z = chunk[start : start + lanes], d[start : start + lanes]
                for i in range(row.size):
                    z[i] = (row[i] - centre[i]) * scale[i] + shift[i]
            if from_output(activation):
                activate(activation, slope, d)
        activation_vjp(activation, slope, g[j * size : (j + 1) * size], d)
        for i in range(lanes):
            sums[i] = 0
            products[i] = 0
        for start in range(0, chunk.size, lanes):
            row, factor = chunk[start : start + lanes], d[start : start + lanes]
            for i in range(row.size):
                sums[i] += factor[i]
                products[i] += factor[i] * (row[i] - centre[i])
        _fold(sums, parts[0, j])
        _fold(products, parts[1, j])
        for c in range(channels):
            parts[1, j, c] *= _rstd(std[c // width], eps)


@jit()
def _finish(x, weight, mean, std, eps, sums, out, first, stop):
    """grad x of chunks first … stop - 1, in place of d: (weight d - avg(weight d) - x̂ avg(weight d x̂)) / √(std² + eps).

    sums: (2, C), those of the whole sample.      Without fused multiply-adds: the gradient of a group of one number is
    exactly 0 only if both of the terms that cancel are rounded.
    """
    channels = weight.size
    width = channels // mean.size
    size, lanes = _chunks(x.size, channels)[0], _lanes(channels)
    count = x.size // mean.size
    centre, scale, rstd = np.empty(lanes, x.dtype), np.empty(lanes, x.dtype), np.empty(lanes, x.dtype)
    average, linear = np.empty(lanes, x.dtype), np.empty(lanes, x.dtype)
    for k in range(mean.size):
        a = b = 0.0
        for c in range(k * width, (k + 1) * width):
            a += weight[c] * sums[0, c]
            b += weight[c] * sums[1, c]
        inverse = _rstd(std[k], eps)
        for c in range(k * width, (k + 1) * width):
            centre[c] = mean[k]
            scale[c] = weight[c]
            rstd[c] = inverse
            average[c] = a / count
            linear[c] = inverse * (b / count)
    _repeat(channels, centre)
    _repeat(channels, scale)
    _repeat(channels, rstd)
    _repeat(channels, average)
    _repeat(channels, linear)
    for j in range(first, stop):
        chunk, result = x[j * size : (j + 1) * size], out[j * size : (j + 1) * size]
        for start in range(0, chunk.size, lanes):
            row, gx = chunk[start : start + lanes], result[start : start + lanes]
            for i in range(row.size):
                gx[i] = ((gx[i] * scale[i] - average[i]) - (row[i] - centre[i]) * linear[i]) * rstd[i]
