"""Convolution, pooling and resampling of channels-last images (N, H, W, C). Start at `conv2d`.

A convolution is linear in the image and in the weights. The gradient of each of

    conv2d(input, weight)   conv_transpose2d(input, weight)   conv2d_weight(input, g)

with respect to either of its arrays is another one of the three, so their rules below are complete, to any order.
Pools and upsampling come in pairs that are each other's adjoints.

Sizes are an integer, or a pair for height and width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..backend import on_gpu
from ..kernels import conv as kernels
from ..kernels import pool as pool_kernels
from ..kernels.conv import geometry
from ..tape import Array, op
from .shape import expand_dims, permute_dims, reshape, squeeze

Size = int | Sequence[int]
Pair = tuple[int, int]
Padding = int | Sequence[int] | Literal["same"]


@op
def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Array:
    """out[n, y, x, o] = bias[o] + Σ_{i, j, c} input[n, y s + i d - p, x s + j d - p, c] weight[i, j, c, o].

    input (N, H, W, C_in), weight (kh, kw, C_in / groups, C_out), bias (C_out,) -> (N, Ho, Wo, C_out), where
    Ho = floor((H + 2p - d (kh - 1) - 1) / s) + 1 for stride s, padding p and dilation d; pixels outside count as zero.
    groups: the k-th part of the output channels sees the k-th part of the input channels only.
    padding "same": as much as keeps H and W, for stride 1 and an even d (k - 1).
    Raises ValueError for channels, groups, kernels and sizes that do not fit; TypeError for different dtypes.
    """
    parameters = _parameters("conv2d", weight.shape, stride, padding, dilation)
    return _add_bias("conv2d", kernels.conv2d(input, weight, *parameters, groups), bias)


@op
def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Array:
    """The adjoint of conv2d for the same weight array: each input pixel adds its multiple of the kernel into the output.

        Σ conv2d(x, weight) * g  =  Σ x * conv_transpose2d(g, weight)        with the same stride, padding, dilation, groups

    input (N, H, W, C_in), weight (kh, kw, C_out / groups, C_in), bias (C_out,) -> (N, Ho, Wo, C_out), where
    Ho = (H - 1) s - 2p + d (kh - 1) + 1 + output_padding. The names are from this side: its C_out are the channels that
    conv2d takes, and its C_in are those that conv2d returns. The k-th part of the input channels reaches the k-th part
    of the output channels only.
    output_padding: 0 to s - 1, which of the s sizes that conv2d maps to H is meant; it adds pixels below and on the right.
    Raises ValueError for channels, groups and sizes that do not fit; TypeError for different dtypes.
    """
    sizes = _transposed_sizes(
        "conv_transpose2d", input.shape, weight.shape, stride, padding, output_padding, groups, dilation
    )
    return _add_bias("conv_transpose2d", kernels.conv2d_input(input, weight, *sizes, groups), bias)


@op
def conv2d_weight(
    input: Array, g: Array, kernel_size: Size, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1
) -> Array:
    """The gradient of conv2d with respect to its weight, where g is the gradient of its result.

    input (N, H, W, C_in), g (N, Ho, Wo, C_out) -> (kh, kw, C_in / groups, C_out)
    """
    kernel = _pair("conv2d_weight", "kernel_size", kernel_size)
    return kernels.conv2d_weight(
        input, g, kernel, *_parameters("conv2d_weight", kernel, stride, padding, dilation), groups
    )


conv2d.vjp(
    input=lambda g, weight, input_shape, stride, padding, dilation, groups: _to_image(
        g, weight, input_shape, stride, padding, dilation, groups
    ),
    weight=lambda g, input, weight_shape, stride, padding, dilation, groups: conv2d_weight(
        input, g, weight_shape[:2], stride, padding, dilation, groups
    ),
    bias=lambda g: g,
)
conv_transpose2d.vjp(
    input=lambda g, weight, stride, padding, dilation, groups: conv2d(
        g, weight, None, stride, padding, dilation, groups
    ),
    weight=lambda g, input, weight_shape, stride, padding, dilation, groups: conv2d_weight(
        g, input, weight_shape[:2], stride, padding, dilation, groups
    ),
    bias=lambda g: g,
)
conv2d_weight.vjp(
    input=lambda v, g, input_shape, stride, padding, dilation, groups: _to_image(
        g, v, input_shape, stride, padding, dilation, groups
    ),
    g=lambda v, input, stride, padding, dilation, groups: conv2d(input, v, None, stride, padding, dilation, groups),
)


def _to_image(
    g: Array,
    weight: Array,
    image_shape: tuple[int, ...],
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int,
) -> Array:
    """conv_transpose2d to an image of a given shape: of the sizes that conv2d maps to g's, the right one."""
    parameters = _parameters("conv2d", weight.shape, stride, padding, dilation)
    extra = tuple(
        size - _transposed_size(*sizes)
        for size, *sizes in zip(image_shape[1:3], g.shape[1:3], weight.shape[:2], *parameters, strict=True)
    )
    return conv_transpose2d(g, weight, None, *parameters[:2], extra, groups, parameters[2])


def _transposed_sizes(
    name: str,
    image: tuple[int, ...],
    weight: tuple[int, ...],
    stride: Size,
    padding: Padding,
    output_padding: Size,
    groups: int,
    dilation: Size,
) -> tuple[Pair, Pair, Pair, Pair]:
    """Output size, stride, padding and dilation of a transposed convolution, as pairs; ValueError if they do not fit."""
    if len(image) != 4 or len(weight) != 4:
        raise ValueError(
            f"{name}: input must be (N, H, W, C_in) and weight (kh, kw, C_out / groups, C_in), got {image} and {weight}"
        )
    if groups < 1 or image[3] != weight[3] or image[3] % groups:
        raise ValueError(
            f"{name}: input {image} and weight {weight} do not fit with {groups} groups: weight must be "
            f"(kh, kw, C_out / groups, C_in), with C_in divisible by groups"
        )
    strides, paddings, dilations = _parameters(name, weight, stride, padding, dilation)
    extra = _pair(name, "output_padding", output_padding)
    if any(not 0 <= e < s for e, s in zip(extra, strides, strict=True)):
        raise ValueError(f"{name}: output_padding {extra} must be at least 0 and less than the stride {strides}")
    rows, columns = (
        _transposed_size(*sizes) + e
        for *sizes, e in zip(image[1:3], weight[:2], strides, paddings, dilations, extra, strict=True)
    )
    if rows < 1 or columns < 1:
        raise ValueError(
            f"{name}: input {image} and weight {weight} with stride {strides}, padding {paddings} and dilation "
            f"{dilations} give an output of {rows} x {columns} pixels"
        )
    return (rows, columns), strides, paddings, dilations


def _transposed_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The smallest image size from which conv2d makes `size`."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1


def _add_bias(name: str, out: Array, bias: Array | None) -> Array:
    """Add the bias into a fresh result."""
    if bias is not None:
        geometry.check_array(name, "bias", bias, out.shape[3:], out.dtype)
        out += bias
    return out


def _parameters(
    name: str, kernel: Sequence[int], stride: Size, padding: Padding, dilation: Size
) -> tuple[Pair, Pair, Pair]:
    """stride, padding and dilation as pairs. kernel: begins with (kh, kw)."""
    strides, dilations = _pair(name, "stride", stride), _pair(name, "dilation", dilation)
    if not isinstance(padding, str):
        return strides, _pair(name, "padding", padding), dilations
    around = [d * (k - 1) for d, k in zip(dilations, kernel, strict=False)]
    if padding != "same" or strides != (1, 1) or any(n % 2 for n in around):
        raise ValueError(
            f"{name}: padding {padding!r} with a kernel of {tuple(kernel[:2])}, stride {strides} and dilation {dilations}: "
            f"the only word is 'same', for stride 1 and an even dilation * (kernel - 1); else use ops.pad first"
        )
    return strides, (around[0] // 2, around[1] // 2), dilations


def _pair(name: str, parameter: str, value: Any) -> Pair:
    """An integer twice, or two integers."""
    try:
        first, second = (value, value) if hasattr(value, "__index__") else value
        return first.__index__(), second.__index__()
    except (TypeError, ValueError, AttributeError):
        raise ValueError(f"{name}: {parameter} must be an integer or two, got {value!r}") from None


# ---- one dimension: an image of one row


def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int | Literal["same"] = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """conv2d along one axis: input (N, L, C_in), weight (k, C_in / groups, C_out), bias (C_out,) -> (N, Lo, C_out)."""
    _check_row("conv1d", input, weight, "C_in / groups, C_out")
    if padding == "same":
        _, (_, padding), _ = _parameters("conv1d", (1, weight.shape[0]), (1, stride), "same", (1, dilation))
    sizes = (1, stride), (0, padding), (1, dilation)
    geometry.check("conv1d", _row(input.shape), (1, *weight.shape), *sizes, groups)
    return squeeze(conv2d(expand_dims(input, 1), expand_dims(weight, 0), bias, *sizes, groups), 1)


def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> Array:
    """conv_transpose2d along one axis: input (N, L, C_in), weight (k, C_out / groups, C_in) -> (N, Lo, C_out)."""
    _check_row("conv_transpose1d", input, weight, "C_out / groups, C_in")
    sizes = (1, stride), (0, padding), (0, output_padding), groups, (1, dilation)
    _transposed_sizes("conv_transpose1d", _row(input.shape), (1, *weight.shape), *sizes)
    return squeeze(conv_transpose2d(expand_dims(input, 1), expand_dims(weight, 0), bias, *sizes), 1)


def _check_row(name: str, input: Array, weight: Array, channels: str) -> None:
    if input.ndim != 3 or weight.ndim != 3:
        raise ValueError(f"{name}: input must be (N, L, C_in) and weight (k, {channels}), got {input.shape} and {weight.shape}")


def _row(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], 1, *shape[1:])


# ---- pooling


@op
def max_pool2d(input: Array, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Array:
    """The largest value of each window: (N, H, W, C) -> (N, Ho, Wo, C), Ho = floor((H + 2p - k) / s) + 1.

    stride: the kernel size if None.   padding: at most half of the kernel; it never is the largest.
    Values that tie share the gradient evenly. NaN counts as the largest. Raises ValueError for sizes that do not fit.
    """
    return pool_kernels.max_pool2d(input, *_windows("max_pool2d", kernel_size, stride, padding))


@op
def max_pool2d_gradient(
    g: Array, input: Array, kernel_size: Size, stride: Size | None = None, padding: Size = 0
) -> Array:
    """Each window's g, given to the largest value of the window: (N, Ho, Wo, C) -> (N, H, W, C)."""
    return pool_kernels.max_pool2d_gradient(input, g, *_windows("max_pool2d", kernel_size, stride, padding))


@op
def max_pool2d_tangent(
    v: Array, input: Array, kernel_size: Size, stride: Size | None = None, padding: Size = 0
) -> Array:
    """v at the largest value of each window: (N, H, W, C) -> (N, Ho, Wo, C); linear in v."""
    return pool_kernels.max_pool2d_tangent(input, v, *_windows("max_pool2d", kernel_size, stride, padding))


# Where the maxima are does not change with a small change of the input: it enters the rules as raw data.
max_pool2d.vjp(
    input=lambda g, input, kernel_size, stride, padding: max_pool2d_gradient(g, _raw(input), kernel_size, stride, padding)
)
max_pool2d_gradient.vjp(
    g=lambda v, input, kernel_size, stride, padding: max_pool2d_tangent(v, input, kernel_size, stride, padding)
)
max_pool2d_tangent.vjp(
    v=lambda g, input, kernel_size, stride, padding: max_pool2d_gradient(g, input, kernel_size, stride, padding)
)


@op
def avg_pool2d(input: Array, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Array:
    """The mean of each window: (N, H, W, C) -> (N, Ho, Wo, C), Ho = floor((H + 2p - k) / s) + 1.

    stride: the kernel size if None.   padding: at most half of the kernel; it counts as zeros.
    Finite for finite numbers, also where their sum would not be. Raises ValueError for sizes that do not fit.
    """
    windows = _windows("avg_pool2d", kernel_size, stride, padding)
    out = pool_kernels.avg_pool2d(input, *windows)
    if on_gpu(out) or _finite_sum(out):
        return out
    scale = 2.0 ** -math.prod(windows[0]).bit_length()  # a power of two: changes no digit of numbers whose sum overflows
    return np.where(np.isfinite(out), out, pool_kernels.avg_pool2d(input * scale, *windows) / scale)


@op
def avg_pool2d_adjoint(
    g: Array, input_hw: Pair, kernel_size: Size, stride: Size | None = None, padding: Size = 0
) -> Array:
    """Each window's g, spread evenly over its pixels: (N, Ho, Wo, C) -> (N, *input_hw, C)."""
    return pool_kernels.avg_pool2d_adjoint(g, input_hw, *_windows("avg_pool2d", kernel_size, stride, padding))


avg_pool2d.vjp(
    input=lambda g, input_shape, kernel_size, stride, padding: avg_pool2d_adjoint(
        g, input_shape[1:3], kernel_size, stride, padding
    )
)
avg_pool2d_adjoint.vjp(g=lambda v, kernel_size, stride, padding: avg_pool2d(v, kernel_size, stride, padding))


@np.errstate(all="ignore")
def _finite_sum(x: Array) -> bool:
    """Whether the sum is finite, and with it every number of x: cheaper to ask than the same of each of them."""
    return bool(np.isfinite(x.sum()))


def _windows(name: str, kernel_size: Size, stride: Size | None, padding: Size) -> tuple[Pair, Pair, Pair]:
    kernel = _pair(name, "kernel_size", kernel_size)
    if min(kernel) < 1:
        raise ValueError(f"{name}: kernel_size must be at least 1, got {kernel_size}")
    return kernel, kernel if stride is None else _pair(name, "stride", stride), _pair(name, "padding", padding)


def _raw(x: Array) -> Array:
    return x.data if hasattr(x, "node") else x


# ---- resolution


@op
def upsample_nearest(x: Array, scale_factor: Size) -> Array:
    """Every pixel repeated: (N, H, W, C) -> (N, H sh, W sw, C) for the scale factors (sh, sw).

    Raises ValueError for a scale factor below 1.
    """
    return pool_kernels.upsample_nearest(x, _pair("upsample_nearest", "scale_factor", scale_factor))


@op
def upsample_nearest_adjoint(g: Array, scale_factor: Size) -> Array:
    """The sum of each block of pixels: (N, H sh, W sw, C) -> (N, H, W, C)."""
    return pool_kernels.upsample_nearest_adjoint(g, _pair("upsample_nearest", "scale_factor", scale_factor))


upsample_nearest.vjp(x=lambda g, scale_factor: upsample_nearest_adjoint(g, scale_factor))
upsample_nearest_adjoint.vjp(g=lambda v, scale_factor: upsample_nearest(v, scale_factor))


def space_to_depth(x: Array, block: int) -> Array:
    """Blocks of pixels become channels: (N, H b, W b, C) -> (N, H, W, b b C). Undone by `depth_to_space`.

    Channel (i b + j) C + c of the result is channel c of row i and column j of the block, so the pixels of a block lie
    one after another, each with its C channels. Raises ValueError if b does not divide the image.
    """
    _check_block("space_to_depth", x, block, block >= 1 and x.ndim == 4 and x.shape[1] % block + x.shape[2] % block == 0)
    n, height, width, channels = x.shape
    h, w = height // block, width // block
    x = reshape(x, (n, h, block, w, block, channels))
    x = permute_dims(x, (0, 1, 3, 2, 4, 5))  # (N, H, W, b, b, C)
    return reshape(x, (n, h, w, block * block * channels))


def depth_to_space(x: Array, block: int) -> Array:
    """Channels become blocks of pixels: (N, H, W, b b C) -> (N, H b, W b, C). Undone by `space_to_depth`, which says
    how channels are ordered. Raises ValueError if b b does not divide the channels."""
    _check_block("depth_to_space", x, block, block >= 1 and x.ndim == 4 and x.shape[3] % block**2 == 0)
    n, h, w, depth = x.shape
    channels = depth // block**2
    x = reshape(x, (n, h, w, block, block, channels))
    x = permute_dims(x, (0, 1, 3, 2, 4, 5))  # (N, H, b, W, b, C)
    return reshape(x, (n, h * block, w * block, channels))


def _check_block(name: str, x: Array, block: int, fits: bool) -> None:
    if not fits:
        what = "height and width must be multiples of block" if name == "space_to_depth" else "C must be a multiple of block²"
        raise ValueError(f"{name}: x {x.shape} with block {block}: x must be (N, H, W, C), and {what}")
