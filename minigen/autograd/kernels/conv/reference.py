"""Convolution in NumPy: the definition that the fast kernels are tested against. Start at `conv2d`.

A convolution is one matrix product per kernel tap: tap i connects input pixel (y * stride + i * dilation - padding) with
output pixel y, wherever that input pixel exists. Padding is therefore never multiplied: it contributes nothing, not
even to a weight of infinity. The two adjoints use the same pairs of pixels with the roles exchanged:

    <conv2d(x, w), g>  =  <x, conv2d_input(g, w)>  =  <w, conv2d_weight(x, g)>
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from . import geometry
from .geometry import Geometry, Pair


@np.errstate(all="ignore")  # infinities and NaN follow IEEE arithmetic, without a warning for each
def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Cross-correlate x (N, H, W, C_in) with w (kh, kw, C_in / groups, C_out) -> (N, Ho, Wo, C_out).

    Ho = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1. Group k of the output channels sees group k of the
    input channels only. Raises ValueError for shapes that do not fit, TypeError for dtypes that differ.
    """
    geo = geometry.check("conv2d", x.shape, w.shape, stride, padding, dilation, groups)
    geometry.check_array("conv2d", "w", w, geo.weight_shape, x.dtype)
    out = geometry.result("conv2d", out, geo.output_shape, x.dtype)
    out[...] = 0
    for i, j, source, target in taps(geo):
        for ci, co in channel_groups(geo):  # matmul, not tensordot: BLAS may take 0 * NaN for 0 there
            out[*target, co] += x[*source, ci] @ w[i, j, :, co]  # (N, h, w, C_out / groups)
    return out


@np.errstate(all="ignore")
def conv2d_input(
    g: np.ndarray,
    w: np.ndarray,
    input_hw: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The adjoint of conv2d in x: g (N, Ho, Wo, C_out), w (kh, kw, C_in / groups, C_out) -> (N, H, W, C_in).

    input_hw: (H, W), since a stride leaves it ambiguous. This is also the forward pass of a transposed convolution.
    """
    shape = input_shape(g, w, input_hw, groups)
    geo = geometry.check("conv2d_input", shape, w.shape, stride, padding, dilation, groups)
    geometry.check_array("conv2d_input", "w", w, geo.weight_shape, g.dtype)
    geometry.check_array("conv2d_input", "g", g, geo.output_shape, g.dtype)
    out = geometry.result("conv2d_input", out, geo.input_shape, g.dtype)
    out[...] = 0
    for i, j, source, target in taps(geo):
        for ci, co in channel_groups(geo):
            out[*source, ci] += g[*target, co] @ w[i, j, :, co].T  # (N, h, w, C_in / groups)
    return out


@np.errstate(all="ignore")
def conv2d_weight(
    x: np.ndarray,
    g: np.ndarray,
    kernel_hw: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The adjoint of conv2d in w: x (N, H, W, C_in), g (N, Ho, Wo, C_out) -> (kh, kw, C_in / groups, C_out)."""
    shape = weight_shape(x, g, kernel_hw, groups)
    geo = geometry.check("conv2d_weight", x.shape, shape, stride, padding, dilation, groups)
    geometry.check_array("conv2d_weight", "g", g, geo.output_shape, x.dtype)
    out = geometry.result("conv2d_weight", out, geo.weight_shape, x.dtype)
    for i, j, source, target in taps(geo):
        for ci, co in channel_groups(geo):
            left, right = _pixels(x[*source, ci]), _pixels(g[*target, co])  # (N h w, C_in / groups), (N h w, C_out / groups)
            out[i, j, :, co] = left.T @ right
    return out


def taps(geo: Geometry) -> Iterator[tuple[int, int, tuple[slice, ...], tuple[slice, ...]]]:
    """Each kernel tap (i, j) with the pixels it connects: slices of (N, H, W) and of (N, Ho, Wo)."""
    rows = [_connected(geo, 0, i) for i in range(geo.kernel_hw[0])]
    columns = [_connected(geo, 1, j) for j in range(geo.kernel_hw[1])]
    for i, (y_in, y_out) in enumerate(rows):
        for j, (x_in, x_out) in enumerate(columns):
            yield i, j, (slice(None), y_in, x_in), (slice(None), y_out, x_out)


def _connected(geo: Geometry, axis: int, k: int) -> tuple[slice, slice]:
    """Along one axis, the input and output pixels that tap k connects: those whose input pixel is not padding."""
    stride, shift = geo.stride[axis], k * geo.dilation[axis] - geo.padding[axis]  # input = output * stride + shift
    first = max(0, -(shift // stride))  # the smallest output with input >= 0
    last = min(geo.output_hw[axis] - 1, (geo.input_hw[axis] - 1 - shift) // stride)
    count = max(0, last - first + 1)
    start = first * stride + shift
    return slice(start, start + max(0, (count - 1) * stride + 1), stride), slice(first, first + count)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(math.prod(images.shape[:3]), images.shape[3])


def channel_groups(geo: Geometry) -> Iterator[tuple[slice, slice]]:
    """The input and output channels of each group."""
    ci, co = geo.c_in // geo.groups, geo.c_out // geo.groups
    for k in range(geo.groups):
        yield slice(k * ci, (k + 1) * ci), slice(k * co, (k + 1) * co)


def input_shape(g: np.ndarray, w: np.ndarray, input_hw: Pair, groups: int) -> tuple[int, ...]:
    """(N, H, W, C_in) of the image that conv2d_input returns."""
    return (*g.shape[:1], *input_hw, *(groups * c for c in w.shape[2:3]))


def weight_shape(x: np.ndarray, g: np.ndarray, kernel_hw: Pair, groups: int) -> tuple[int, ...]:
    """(kh, kw, C_in / groups, C_out) of the weights that conv2d_weight returns."""
    return (*kernel_hw, *(c // max(groups, 1) for c in x.shape[3:]), *g.shape[3:])
