"""Pooling and nearest-neighbour upsampling with Numba. Start at `_max_pool2d`.

Every kernel is a loop over windows, over the pixels of a window that exist, and over channels; channels are innermost
and contiguous, so LLVM vectorises them. These kernels are bound by memory, and run on one thread.
"""

from __future__ import annotations

import numpy as np

from ..arrays import contiguous
from ..conv.geometry import Pair, check_array, result
from ..jit import jit
from .reference import block_sums, upsampled, windows


def max_pool2d(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The largest value of each window: x (N, H, W, C) -> (N, Ho, Wo, C)."""
    geo = windows("max_pool2d", x.shape, kernel, stride, padding)
    out = result("max_pool2d", out, geo.output_shape, x.dtype)
    _max_pool2d(contiguous(x), geo.kernel_hw, geo.stride, geo.padding, out)
    return out


def max_pool2d_gradient(
    x: np.ndarray, g: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The gradient of max_pool2d, shared evenly by ties: x (N, H, W, C), g (N, Ho, Wo, C) -> (N, H, W, C)."""
    geo = windows("max_pool2d_gradient", x.shape, kernel, stride, padding)
    check_array("max_pool2d_gradient", "g", g, geo.output_shape, x.dtype)
    out = result("max_pool2d_gradient", out, geo.input_shape, x.dtype)
    _max_pool2d_gradient(contiguous(x), contiguous(g), geo.kernel_hw, geo.stride, geo.padding, out)
    return out


def max_pool2d_tangent(
    x: np.ndarray, v: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The mean of v over the maxima of each window of x: x, v (N, H, W, C) -> (N, Ho, Wo, C)."""
    geo = windows("max_pool2d_tangent", x.shape, kernel, stride, padding)
    check_array("max_pool2d_tangent", "v", v, geo.input_shape, x.dtype)
    out = result("max_pool2d_tangent", out, geo.output_shape, x.dtype)
    _max_pool2d_tangent(contiguous(x), contiguous(v), geo.kernel_hw, geo.stride, geo.padding, out)
    return out


def avg_pool2d(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The mean of each window, padding included as zeros: x (N, H, W, C) -> (N, Ho, Wo, C)."""
    geo = windows("avg_pool2d", x.shape, kernel, stride, padding)
    out = result("avg_pool2d", out, geo.output_shape, x.dtype)
    _avg_pool2d(contiguous(x), geo.kernel_hw, geo.stride, geo.padding, out)
    return out


def avg_pool2d_adjoint(
    g: np.ndarray, input_hw: Pair, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The adjoint of avg_pool2d: g (N, Ho, Wo, C) -> (N, H, W, C)."""
    geo = windows("avg_pool2d_adjoint", (*g.shape[:1], *input_hw, *g.shape[3:]), kernel, stride, padding)
    check_array("avg_pool2d_adjoint", "g", g, geo.output_shape, g.dtype)
    out = result("avg_pool2d_adjoint", out, geo.input_shape, g.dtype)
    _avg_pool2d_adjoint(contiguous(g), geo.kernel_hw, geo.stride, geo.padding, out)
    return out


def upsample_nearest(x: np.ndarray, scale: Pair, out: np.ndarray | None = None) -> np.ndarray:
    """Repeat every pixel: (N, H, W, C) -> (N, H sh, W sw, C)."""
    out = result("upsample_nearest", out, upsampled("upsample_nearest", x.shape, scale), x.dtype)
    _upsample(contiguous(x), tuple(scale), out)
    return out


def upsample_nearest_adjoint(g: np.ndarray, scale: Pair, out: np.ndarray | None = None) -> np.ndarray:
    """The sum of each block: g (N, H sh, W sw, C) -> (N, H, W, C)."""
    shape = block_sums("upsample_nearest_adjoint", g.shape, scale)
    out = result("upsample_nearest_adjoint", out, shape, g.dtype)
    _upsample_adjoint(contiguous(g), tuple(scale), out)
    return out


@jit(inline=True)
def _clip(position, stride, padding, kernel, size):
    """First and one past the last pixel of a window along one axis that exist."""
    start = position * stride - padding
    return max(start, 0), min(start + kernel, size)


@jit(inline=True)
def _equal(x, y):
    return (x == y) | ((x != x) & (y != y))  # NaN equals NaN here


@jit()
def _max_pool2d(x, kernel, stride, padding, out):
    for n in range(out.shape[0]):
        for y in range(out.shape[1]):
            top, bottom = _clip(y, stride[0], padding[0], kernel[0], x.shape[1])
            for z in range(out.shape[2]):
                left, right = _clip(z, stride[1], padding[1], kernel[1], x.shape[2])
                _window_maximum(x, n, top, bottom, left, right, out[n, y, z])


@jit()
def _window_maximum(x, n, top, bottom, left, right, largest):
    for c in range(x.shape[3]):
        largest[c] = -np.inf
    for i in range(top, bottom):
        for j in range(left, right):
            for c in range(x.shape[3]):
                value, best = x[n, i, j, c], largest[c]
                largest[c] = best if (best >= value) | (best != best) else value


@jit()
def _count_maxima(x, n, top, bottom, left, right, largest, count):
    for c in range(x.shape[3]):
        count[c] = 0
    for i in range(top, bottom):
        for j in range(left, right):
            for c in range(x.shape[3]):
                count[c] += _equal(x[n, i, j, c], largest[c])


@jit()
def _max_pool2d_gradient(x, g, kernel, stride, padding, out):
    zero = x.dtype.type(0)
    largest, count = np.empty(x.shape[3], x.dtype), np.empty(x.shape[3], x.dtype)
    out[:] = 0
    for n in range(g.shape[0]):
        for y in range(g.shape[1]):
            top, bottom = _clip(y, stride[0], padding[0], kernel[0], x.shape[1])
            for z in range(g.shape[2]):
                left, right = _clip(z, stride[1], padding[1], kernel[1], x.shape[2])
                _window_maximum(x, n, top, bottom, left, right, largest)
                _count_maxima(x, n, top, bottom, left, right, largest, count)
                for i in range(top, bottom):
                    for j in range(left, right):
                        for c in range(x.shape[3]):
                            share = g[n, y, z, c] / count[c]
                            out[n, i, j, c] += share if _equal(x[n, i, j, c], largest[c]) else zero


@jit()
def _max_pool2d_tangent(x, v, kernel, stride, padding, out):
    zero = x.dtype.type(0)
    largest, count = np.empty(x.shape[3], x.dtype), np.empty(x.shape[3], x.dtype)
    out[:] = 0
    for n in range(out.shape[0]):
        for y in range(out.shape[1]):
            top, bottom = _clip(y, stride[0], padding[0], kernel[0], x.shape[1])
            for z in range(out.shape[2]):
                left, right = _clip(z, stride[1], padding[1], kernel[1], x.shape[2])
                _window_maximum(x, n, top, bottom, left, right, largest)
                _count_maxima(x, n, top, bottom, left, right, largest, count)
                for i in range(top, bottom):
                    for j in range(left, right):
                        for c in range(x.shape[3]):
                            out[n, y, z, c] += v[n, i, j, c] if _equal(x[n, i, j, c], largest[c]) else zero
                for c in range(x.shape[3]):
                    out[n, y, z, c] /= count[c]


@jit()
def _avg_pool2d(x, kernel, stride, padding, out):
    size = x.dtype.type(kernel[0] * kernel[1])
    out[:] = 0
    for n in range(out.shape[0]):
        for y in range(out.shape[1]):
            top, bottom = _clip(y, stride[0], padding[0], kernel[0], x.shape[1])
            for z in range(out.shape[2]):
                left, right = _clip(z, stride[1], padding[1], kernel[1], x.shape[2])
                for i in range(top, bottom):
                    for j in range(left, right):
                        for c in range(x.shape[3]):
                            out[n, y, z, c] += x[n, i, j, c]
                for c in range(x.shape[3]):
                    out[n, y, z, c] /= size


@jit()
def _avg_pool2d_adjoint(g, kernel, stride, padding, out):
    size = g.dtype.type(kernel[0] * kernel[1])
    out[:] = 0
    for n in range(g.shape[0]):
        for y in range(g.shape[1]):
            top, bottom = _clip(y, stride[0], padding[0], kernel[0], out.shape[1])
            for z in range(g.shape[2]):
                left, right = _clip(z, stride[1], padding[1], kernel[1], out.shape[2])
                for i in range(top, bottom):
                    for j in range(left, right):
                        for c in range(g.shape[3]):
                            out[n, i, j, c] += g[n, y, z, c] / size


@jit()
def _upsample(x, scale, out):
    for n in range(out.shape[0]):
        for y in range(out.shape[1]):
            for z in range(x.shape[2]):
                for j in range(z * scale[1], (z + 1) * scale[1]):
                    for c in range(x.shape[3]):
                        out[n, y, j, c] = x[n, y // scale[0], z, c]


@jit()
def _upsample_adjoint(g, scale, out):
    out[:] = 0
    for n in range(out.shape[0]):
        for y in range(g.shape[1]):
            for z in range(out.shape[2]):
                for j in range(z * scale[1], (z + 1) * scale[1]):
                    for c in range(g.shape[3]):
                        out[n, y // scale[0], z, c] += g[n, y, j, c]
