"""Convolution on the CPU with Numba. Start at `conv2d`; the work is done in `direct.convolve_images`.

All three kernels are sums of products over a few strided loops, and all three run on the micro-kernel of ../tile.py:

* forward (direct.py): rows are output pixels, columns are output channels, the sum runs over taps and input channels;
* input gradient (direct.py): the same with the channels exchanged and the kernel flipped, in one phase per residue of
  the pixel modulo the stride (`geometry.Phase`), so that no inserted zero is ever multiplied;
* weight gradient (weight.py): rows are (tap, input channel), columns are output channels, the sum runs over pixels.

Kernels of 3 x 3, and of 4 x 4 with stride 2, between many channels have a faster way to the same sums (winograd.py,
winograd_weight.py).

Where an image has a few channels only, which do not fill a vector, the taps take the place of the channels (few.py).

Padding contributes nothing, as in the reference. Here it is a zero that is multiplied, which differs when the other
factor is NaN or infinite: those calls, which a healthy training step does not make, are handed to the reference.
"""

from __future__ import annotations

import numpy as np

from . import direct, few, geometry, reference, weight, winograd, winograd_weight
from .geometry import Geometry, Pair

ONE = ((1, 1), (0, 0), (1, 1), 1)  # stride, padding, dilation and groups of a product pixel by pixel


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Cross-correlate x (N, H, W, C_in) with w (kh, kw, C_in / groups, C_out) -> (N, Ho, Wo, C_out)."""
    geo = geometry.check("conv2d", x.shape, w.shape, stride, padding, dilation, groups)
    geometry.check_array("conv2d", "w", w, geo.weight_shape, x.dtype)
    out = geometry.result("conv2d", out, geo.output_shape, x.dtype)
    if few.pays(geo, geo.input_hw, geo.c_out, x.dtype):
        by_tap = np.ascontiguousarray(w.transpose(2, 0, 1, 3)).reshape(1, 1, geo.c_in, -1)  # (1, 1, C_in, taps * C_out)
        few.spread(conv2d(x, by_tap, *ONE), few.targets_of_inputs(geo), out)
        return out
    phases = [geometry.forward_phases(*axis) for axis in axes(geo, geo.output_hw)]
    _, kw, c_in, c_out = w.shape
    steps = (c_out // groups, kw * c_in * c_out, c_in * c_out, c_out, 1)  # of group, i, j, source and target channel
    if (groups == 1 and winograd.convolve(x, w, steps, phases, out)) or direct.convolve(x, w, steps, phases, groups, out):
        return out
    return reference.conv2d(x, w, stride, padding, dilation, groups, out)


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
    """The adjoint of conv2d in x: g (N, Ho, Wo, C_out), w (kh, kw, C_in / groups, C_out) -> (N, H, W, C_in)."""
    shape = reference.input_shape(g, w, input_hw, groups)
    geo = geometry.check("conv2d_input", shape, w.shape, stride, padding, dilation, groups)
    geometry.check_array("conv2d_input", "w", w, geo.weight_shape, g.dtype)
    geometry.check_array("conv2d_input", "g", g, geo.output_shape, g.dtype)
    out = geometry.result("conv2d_input", out, geo.input_shape, g.dtype)
    if few.pays(geo, geo.output_hw, geo.c_in, g.dtype):
        by_tap = w.transpose(3, 0, 1, 2).reshape(1, 1, geo.c_out, -1)  # (1, 1, C_out, taps * C_in)
        few.spread(conv2d(g, by_tap, *ONE), few.targets_of_outputs(geo), out)
        return out
    phases = [geometry.adjoint_phases(*axis) for axis in axes(geo, geo.input_hw)]
    _, kw, c_in, c_out = w.shape
    steps = (c_out // groups, kw * c_in * c_out, c_in * c_out, 1, c_out)  # of group, i, j, source and target channel
    if (groups == 1 and winograd.convolve(g, w, steps, phases, out)) or direct.convolve(g, w, steps, phases, groups, out):
        return out
    return reference.conv2d_input(g, w, input_hw, stride, padding, dilation, groups, out)


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
    shape = reference.weight_shape(x, g, kernel_hw, groups)
    geo = geometry.check("conv2d_weight", x.shape, shape, stride, padding, dilation, groups)
    geometry.check_array("conv2d_weight", "g", g, geo.output_shape, x.dtype)
    out = geometry.result("conv2d_weight", out, geo.weight_shape, x.dtype)
    phases = [geometry.forward_phases(*axis) for axis in axes(geo, geo.output_hw)]
    if few.pays(geo, geo.input_hw, geo.c_out, x.dtype):
        columns = few.collect(g, few.targets_of_inputs(geo))  # (N, H, W, taps * C_out)
        by_tap = conv2d_weight(x, columns, (1, 1), *ONE)  # (1, 1, C_in, taps * C_out)
        out[...] = by_tap.reshape(geo.c_in, *geo.kernel_hw, geo.c_out).transpose(1, 2, 0, 3)
        padded = True
    elif groups == 1 and winograd_weight.gradient(x, g, geo, phases, out):
        return out
    else:
        padded = weight.gradient(x, g, geo, phases, out)
    if padded and not np.isfinite(out).all():
        return reference.conv2d_weight(x, g, kernel_hw, stride, padding, dilation, groups, out)
    return out


def axes(geo: Geometry, target: Pair) -> list[tuple[int, int, int, int, int]]:
    """Target size, kernel, stride, padding and dilation of the two axes."""
    return list(zip(target, geo.kernel_hw, geo.stride, geo.padding, geo.dilation, strict=True))
