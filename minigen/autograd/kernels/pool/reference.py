"""Pooling and nearest-neighbour upsampling in NumPy: the definition. Start at `max_pool2d`.

A window connects pixels as a kernel of a convolution does: tap (i, j) of output pixel (y, z) is input pixel
(y * stride + i - padding, ...), wherever that exists (`conv.reference.taps`). Padding never wins a maximum.
"""

from __future__ import annotations

import numpy as np

from ..conv.geometry import Geometry, Pair, check, check_array, pair, result
from ..conv.reference import taps


@np.errstate(all="ignore")  # infinities and NaN follow IEEE arithmetic, without a warning for each
def max_pool2d(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The largest value of each window: x (N, H, W, C) -> (N, Ho, Wo, C), Ho = (H + 2 padding - kh) // stride + 1.

    NaN counts as larger than any number. Raises ValueError for a window that fits nowhere, or that could lie in the
    padding as a whole (2 padding > kernel).
    """
    geo = windows("max_pool2d", x.shape, kernel, stride, padding)
    out = result("max_pool2d", out, geo.output_shape, x.dtype)
    out[...] = -np.inf
    for _, _, source, target in taps(geo):
        out[target] = np.maximum(out[target], x[source])  # (N, h, w, C)
    return out


@np.errstate(all="ignore")
def max_pool2d_gradient(
    x: np.ndarray, g: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The gradient of max_pool2d: x (N, H, W, C), g (N, Ho, Wo, C) -> (N, H, W, C).

    The values of a window that equal its maximum share the window's g evenly; NaN equals NaN here.
    """
    geo = windows("max_pool2d_gradient", x.shape, kernel, stride, padding)
    check_array("max_pool2d_gradient", "g", g, geo.output_shape, x.dtype)
    out = result("max_pool2d_gradient", out, geo.input_shape, x.dtype)
    largest, count = _maxima(x, geo)
    share = g / count  # (N, Ho, Wo, C)
    out[...] = 0
    for _, _, source, target in taps(geo):
        out[source] += np.where(_equal(x[source], largest[target]), share[target], 0)
    return out


@np.errstate(all="ignore")
def max_pool2d_tangent(
    x: np.ndarray, v: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The derivative of max_pool2d along v: x, v (N, H, W, C) -> (N, Ho, Wo, C), the mean of v over the maxima.

    It is the adjoint of max_pool2d_gradient in g, so these two are all that derivatives of higher order need.
    """
    geo = windows("max_pool2d_tangent", x.shape, kernel, stride, padding)
    check_array("max_pool2d_tangent", "v", v, geo.input_shape, x.dtype)
    out = result("max_pool2d_tangent", out, geo.output_shape, x.dtype)
    largest, count = _maxima(x, geo)
    out[...] = 0
    for _, _, source, target in taps(geo):
        out[target] += np.where(_equal(x[source], largest[target]), v[source], 0)
    out /= count
    return out


@np.errstate(all="ignore")
def avg_pool2d(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The mean of each window, padding included as zeros: x (N, H, W, C) -> (N, Ho, Wo, C)."""
    geo = windows("avg_pool2d", x.shape, kernel, stride, padding)
    out = result("avg_pool2d", out, geo.output_shape, x.dtype)
    out[...] = 0
    for _, _, source, target in taps(geo):
        out[target] += x[source]
    out /= kernel[0] * kernel[1]
    return out


@np.errstate(all="ignore")
def avg_pool2d_adjoint(
    g: np.ndarray, input_hw: Pair, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None
) -> np.ndarray:
    """The adjoint of avg_pool2d, every pixel gets its part of each window's g: (N, Ho, Wo, C) -> (N, H, W, C)."""
    geo = windows("avg_pool2d_adjoint", (*g.shape[:1], *input_hw, *g.shape[3:]), kernel, stride, padding)
    check_array("avg_pool2d_adjoint", "g", g, geo.output_shape, g.dtype)
    out = result("avg_pool2d_adjoint", out, geo.input_shape, g.dtype)
    share = g / (kernel[0] * kernel[1])
    out[...] = 0
    for _, _, source, target in taps(geo):
        out[source] += share[target]
    return out


def upsample_nearest(x: np.ndarray, scale: Pair, out: np.ndarray | None = None) -> np.ndarray:
    """Repeat every pixel scale[0] times downwards and scale[1] times sideways: (N, H, W, C) -> (N, H sh, W sw, C)."""
    shape = upsampled("upsample_nearest", x.shape, scale)
    out = result("upsample_nearest", out, shape, x.dtype)
    out[...] = x.repeat(scale[0], axis=1).repeat(scale[1], axis=2)
    return out


@np.errstate(all="ignore")
def upsample_nearest_adjoint(g: np.ndarray, scale: Pair, out: np.ndarray | None = None) -> np.ndarray:
    """The adjoint of upsample_nearest, the sum of each block: g (N, H sh, W sw, C) -> (N, H, W, C)."""
    shape = block_sums("upsample_nearest_adjoint", g.shape, scale)
    out = result("upsample_nearest_adjoint", out, shape, g.dtype)
    n, h, w, c = shape
    g.reshape(n, h, scale[0], w, scale[1], c).sum(axis=(2, 4), out=out)  # (N, H, sh, W, sw, C) -> (N, H, W, C)
    return out


def windows(op: str, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Geometry:
    """The geometry of pooling windows: that of a convolution between as many channels; raises ValueError."""
    geo = check(op, shape, (*kernel, *shape[3:] * 2), stride, padding, (1, 1), 1)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"{op}: padding {padding} is more than half of the kernel {kernel}: a window could be empty")
    return geo


def upsampled(op: str, shape: tuple[int, ...], scale: Pair) -> tuple[int, ...]:
    """(N, H, W, C) -> (N, H sh, W sw, C); raises ValueError."""
    if len(shape) != 4:
        raise ValueError(f"{op}: images must have shape (N, H, W, C), got {shape}")
    down, right = pair(op, "scale", scale, 1)
    return shape[0], shape[1] * down, shape[2] * right, shape[3]


def block_sums(op: str, shape: tuple[int, ...], scale: Pair) -> tuple[int, ...]:
    """(N, H sh, W sw, C) -> (N, H, W, C); raises ValueError."""
    upsampled(op, shape, scale)
    if shape[1] % scale[0] or shape[2] % scale[1]:
        raise ValueError(f"{op}: an image of {shape[1:3]} pixels is not made of whole blocks of {scale}")
    return shape[0], shape[1] // scale[0], shape[2] // scale[1], shape[3]


def _maxima(x: np.ndarray, geo: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of each window and how many values equal it, both (N, Ho, Wo, C)."""
    largest = max_pool2d(x, geo.kernel_hw, geo.stride, geo.padding)
    count = np.zeros_like(largest)
    for _, _, source, target in taps(geo):
        count[target] += _equal(x[source], largest[target])
    return largest, count


def _equal(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x == y) | (np.isnan(x) & np.isnan(y))
