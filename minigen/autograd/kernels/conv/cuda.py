"""Convolution on the GPU: launches of cuda.cu, implicit matrix products. Start at `conv2d`.

As on the CPU (direct.py), the convolution and its input gradient are one kernel: a convolution is one phase along each
axis, its adjoint one phase per residue of the pixel modulo the stride, so that no inserted zero is ever multiplied.
"""

from __future__ import annotations

import math
from typing import Any

from ..cuda import THREADS, Source, contiguous, empty, result
from ..reduction.cuda import sum_rows
from . import reference
from .geometry import Geometry, Pair, Phase, adjoint_phases, check, check_array, forward_phases

Array = Any

source = Source(__file__)

BLOCKS = 528  # that fill a large chip: four for each of 132 multiprocessors
PIXELS = 256  # of a chunk of the weight gradient, at least


def conv2d(
    x: Array, w: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int, out: Array | None = None
) -> Array:
    """Cross-correlate x (N, H, W, C_in) with w (kh, kw, C_in / groups, C_out) -> (N, Ho, Wo, C_out)."""
    geo = check("conv2d", x.shape, w.shape, stride, padding, dilation, groups)
    check_array("conv2d", "w", w, geo.weight_shape, x.dtype)
    out = result(out, geo.output_shape, x.dtype)
    x, w = contiguous(x, w)
    group_step = geo.c_out // groups
    phases = [forward_phases(*axis)[0] for axis in _axes(geo, geo.output_hw)]
    _convolve(x, w, group_step, phases[0], phases[1], groups, out)
    return out


def conv2d_input(
    g: Array, w: Array, input_hw: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int, out: Array | None = None
) -> Array:
    """The adjoint of conv2d in x: g (N, Ho, Wo, C_out), w (kh, kw, C_in / groups, C_out) -> (N, H, W, C_in)."""
    shape = reference.input_shape(g, w, input_hw, groups)
    geo = check("conv2d_input", shape, w.shape, stride, padding, dilation, groups)
    check_array("conv2d_input", "w", w, geo.weight_shape, g.dtype)
    check_array("conv2d_input", "g", g, geo.output_shape, g.dtype)
    out = result(out, geo.input_shape, g.dtype)
    g, w = contiguous(g, w.transpose(0, 1, 3, 2))  # (kh, kw, C_out, C_in / groups)
    group_step = geo.c_out // groups * w.shape[3]
    down, across = (adjoint_phases(*axis) for axis in _axes(geo, geo.input_hw))
    for y in down:
        for x in across:
            _convolve(g, w, group_step, y, x, groups, out)
    return out


def conv2d_weight(
    x: Array, g: Array, kernel_hw: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int, out: Array | None = None
) -> Array:
    """The adjoint of conv2d in w: x (N, H, W, C_in), g (N, Ho, Wo, C_out) -> (kh, kw, C_in / groups, C_out)."""
    shape = reference.weight_shape(x, g, kernel_hw, groups)
    geo = check("conv2d_weight", x.shape, shape, stride, padding, dilation, groups)
    check_array("conv2d_weight", "g", g, geo.output_shape, x.dtype)
    out = result(out, geo.weight_shape, x.dtype)
    x, g = contiguous(x, g)
    rows, pixels = math.prod(geo.weight_shape[:3]), math.prod(geo.output_shape[:3])
    columns = geo.c_out // groups
    side = 64 if columns > 16 else 16
    tiles = -(-rows // 64) * -(-columns // side) * groups
    chunks = max(1, min(-(-BLOCKS // max(tiles, 1)), pixels // PIXELS))
    length = -(-pixels // chunks) if pixels else 1
    parts = out.reshape(1, -1) if chunks == 1 else empty((chunks, out.size), x.dtype)
    phases = [forward_phases(*axis)[0] for axis in _axes(geo, geo.output_hw)]
    sizes = (*x.shape, *g.shape[1:], groups, 0, 0, 0, 0, *phases[0], *phases[1], length)
    grid = (-(-rows // 64), -(-columns // side) * groups, chunks)
    source.launch(f"weight_gradient_{side}", x.dtype, grid, THREADS, *sizes, x, g, parts)
    if chunks > 1:
        sum_rows(parts[None], out=out.reshape(1, -1))
    return out


def _convolve(image: Array, w: Array, group_step: int, y: Phase, x: Phase, groups: int, out: Array) -> None:
    """One phase.      w: (kh, kw, source channels, destination channels), of which one axis holds those of one group only."""
    rows, columns = len(out) * y.pixels * x.pixels, out.shape[3] // groups
    height, width = _tile(rows, columns)
    steps = (math.prod(w.shape[1:]), math.prod(w.shape[2:]), w.shape[3])  # of taps down and across, and of source channels
    sizes = (*image.shape, *out.shape[1:], groups, group_step, *steps, *y, *x)
    grid = (-(-rows // height), -(-columns // width), groups)
    source.launch(f"convolve_{height}x{width}", out.dtype, grid, THREADS, *sizes, image, w, out)


def _tile(rows: int, columns: int) -> Pair:
    """Pixels and channels of a block."""
    if columns <= 16:
        return (256, 4) if columns <= 4 else (256, 16)
    return (128, 64) if rows * columns >= 128 * 64 * BLOCKS / 2 else (64, 64)


def _axes(geo: Geometry, size: Pair) -> list[tuple[int, ...]]:
    """For each axis, what forward_phases and adjoint_phases take."""
    return list(zip(size, geo.kernel_hw, geo.stride, geo.padding, geo.dilation, strict=True))
