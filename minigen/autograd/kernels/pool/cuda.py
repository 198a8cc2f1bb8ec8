"""Pooling and upsampling on the GPU: launches of cuda.cu. Start at `max_pool2d`."""

from __future__ import annotations

from typing import Any

from ..conv.geometry import Geometry, Pair, check_array
from ..cuda import THREADS, Source, contiguous, empty, grid, result
from .reference import block_sums, upsampled, windows

Array = Any

source = Source(__file__)


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, out: Array | None = None) -> Array:
    """The largest value of each window: x (N, H, W, C) -> (N, Ho, Wo, C)."""
    geo = windows("max_pool2d", x.shape, kernel, stride, padding)
    return _windows("max_pool2d", geo, result(out, geo.output_shape, x.dtype), x)


def max_pool2d_gradient(
    x: Array, g: Array, kernel: Pair, stride: Pair, padding: Pair, out: Array | None = None
) -> Array:
    """The gradient of max_pool2d: x (N, H, W, C), g (N, Ho, Wo, C) -> (N, H, W, C). Ties share g evenly."""
    geo = windows("max_pool2d_gradient", x.shape, kernel, stride, padding)
    check_array("max_pool2d_gradient", "g", g, geo.output_shape, x.dtype)
    largest = max_pool2d(x, kernel, stride, padding)
    share = _windows("max_pool2d_share", geo, empty(geo.output_shape, x.dtype), x, g, largest)
    return _windows("max_pool2d_gradient", geo, result(out, geo.input_shape, x.dtype), x, share, largest)


def max_pool2d_tangent(
    x: Array, v: Array, kernel: Pair, stride: Pair, padding: Pair, out: Array | None = None
) -> Array:
    """The derivative of max_pool2d along v: x, v (N, H, W, C) -> (N, Ho, Wo, C), the mean of v over the maxima."""
    geo = windows("max_pool2d_tangent", x.shape, kernel, stride, padding)
    check_array("max_pool2d_tangent", "v", v, geo.input_shape, x.dtype)
    largest = max_pool2d(x, kernel, stride, padding)
    return _windows("max_pool2d_tangent", geo, result(out, geo.output_shape, x.dtype), x, v, largest)


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, out: Array | None = None) -> Array:
    """The mean of each window, padding included as zeros: x (N, H, W, C) -> (N, Ho, Wo, C)."""
    geo = windows("avg_pool2d", x.shape, kernel, stride, padding)
    return _windows("avg_pool2d", geo, result(out, geo.output_shape, x.dtype), x)


def avg_pool2d_adjoint(
    g: Array, input_hw: Pair, kernel: Pair, stride: Pair, padding: Pair, out: Array | None = None
) -> Array:
    """The adjoint of avg_pool2d: (N, Ho, Wo, C) -> (N, H, W, C)."""
    geo = windows("avg_pool2d_adjoint", (*g.shape[:1], *input_hw, *g.shape[3:]), kernel, stride, padding)
    check_array("avg_pool2d_adjoint", "g", g, geo.output_shape, g.dtype)
    return _windows("avg_pool2d_adjoint", geo, result(out, geo.input_shape, g.dtype), g)


def upsample_nearest(x: Array, scale: Pair, out: Array | None = None) -> Array:
    """Repeat every pixel scale[0] times downwards and scale[1] times sideways: (N, H, W, C) -> (N, H sh, W sw, C)."""
    out = result(out, upsampled("upsample_nearest", x.shape, scale), x.dtype)
    return _blocks("upsample_nearest", x.shape, scale, out, x)


def upsample_nearest_adjoint(g: Array, scale: Pair, out: Array | None = None) -> Array:
    """The adjoint of upsample_nearest, the sum of each block: g (N, H sh, W sw, C) -> (N, H, W, C)."""
    shape = block_sums("upsample_nearest_adjoint", g.shape, scale)
    return _blocks("upsample_nearest_adjoint", shape, scale, result(out, shape, g.dtype), g)


def _windows(name: str, geo: Geometry, out: Array, *arrays: Array) -> Array:
    sizes = (*geo.input_hw, geo.c_in, *geo.output_hw, *geo.kernel_hw, *geo.stride, *geo.padding)
    source.launch(f"{name}_kernel", out.dtype, grid(out.size), THREADS, out.size, *sizes, *contiguous(*arrays), out)
    return out


def _blocks(name: str, small: tuple[int, ...], scale: Pair, out: Array, array: Array) -> Array:
    sizes = (out.size, *small[1:], int(scale[0]), int(scale[1]))
    source.launch(f"{name}_kernel", out.dtype, grid(out.size), THREADS, *sizes, *contiguous(array), out)
    return out
