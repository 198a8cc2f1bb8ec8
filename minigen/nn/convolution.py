"""Convolution layers. Images are channels-last: (N, H, W, C), signals (N, L, C). Start at `Conv2d`.

A size (kernel_size, stride, padding, dilation, output_padding) is an integer, or in two dimensions a pair for height and
width. How weights start: see `weight_and_bias` in layers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import Tensor, ops
from ..random import Generator
from .init import Initialisation, fan_in_uniform
from .layers import weight_and_bias
from .module import Module

Size = int | tuple[int, int]


class Conv2d(Module):
    """Convolution.     x: (N, H, W, in_channels)  ->  (N, H', W', out_channels),  H' = ⌊(H + 2p - d(k-1) - 1)/s⌋ + 1

    k, s, p, d: kernel_size, stride, padding, dilation.     padding may be "same".     groups: see `ops.conv2d`.
    weight: (k, k, in_channels / groups, out_channels).     bias: (out_channels,), or None.
    """

    op: Callable = ops.conv2d
    axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        *,
        rng: Generator,
        bias: bool = True,
        weight_init: Initialisation = fan_in_uniform,
    ):
        shape = (*_kernel(self, kernel_size), _part(self, in_channels, groups), _whole(self, out_channels, groups))
        self.weight, self.bias = weight_and_bias(shape, out_channels, bias, weight_init, rng)
        self.options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, H, W, in_channels)  ->  (N, H', W', out_channels). Raises ValueError for other channels, or too few pixels."""
        return type(self).op(x, self.weight, self.bias, **self.options)

    def extra_repr(self) -> str:
        return _changed(self.options)


class Conv1d(Conv2d):
    """Convolution of signals.     x: (N, L, in_channels)  ->  (N, L', out_channels)

    weight: (k, in_channels / groups, out_channels).     The rest is Conv2d's.
    """

    op = ops.conv1d
    axes = 1


class ConvTranspose2d(Module):
    """Transposed convolution, the adjoint of Conv2d.     x: (N, H, W, in_channels)  ->  (N, H', W', out_channels),
    H' = (H - 1)s - 2p + d(k-1) + 1 + output_padding

    weight: (k, k, out_channels / groups, in_channels): that of the Conv2d from out to in_channels whose adjoint this is.
    """

    op: Callable = ops.conv_transpose2d
    axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        dilation: Size = 1,
        *,
        rng: Generator,
        bias: bool = True,
        weight_init: Initialisation = fan_in_uniform,
    ):
        shape = (*_kernel(self, kernel_size), _part(self, out_channels, groups), _whole(self, in_channels, groups))
        self.weight, self.bias = weight_and_bias(shape, out_channels, bias, weight_init, rng)
        self.options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        self.options["output_padding"] = output_padding

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, H, W, in_channels)  ->  (N, H', W', out_channels). Raises ValueError for other channels."""
        return type(self).op(x, self.weight, self.bias, **self.options)

    def extra_repr(self) -> str:
        return _changed(self.options)


class ConvTranspose1d(ConvTranspose2d):
    """Transposed convolution of signals, the adjoint of Conv1d.     x: (N, L, in_channels)  ->  (N, L', out_channels)

    weight: (k, out_channels / groups, in_channels).     The rest is ConvTranspose2d's.
    """

    op = ops.conv_transpose1d
    axes = 1


def _kernel(layer: Conv2d | ConvTranspose2d, size: Size) -> tuple[int, ...]:
    """(k, k) or (k,)."""
    kernel = (size,) * layer.axes if isinstance(size, int) else tuple(size)
    if len(kernel) != layer.axes:
        what = "an integer" if layer.axes == 1 else "an integer, or two"
        raise ValueError(f"{type(layer).__name__}: kernel_size={size} must be {what}")
    return kernel


def _whole(layer: Module, channels: int, groups: int) -> int:
    if groups < 1 or channels % groups:
        raise ValueError(f"{type(layer).__name__}: groups={groups} does not divide {channels} channels")
    return channels


def _part(layer: Module, channels: int, groups: int) -> int:
    """Channels in a group."""
    return _whole(layer, channels, groups) // groups


def _changed(options: dict[str, Any]) -> str:
    """The options that are not the usual ones: 1, or 0 for the paddings."""
    return ", ".join(f"{name}={value}" for name, value in options.items() if value != (0 if "padding" in name else 1))
