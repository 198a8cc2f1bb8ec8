"""Normalisation layers, channels-last: each subtracts a mean, divides by a standard deviation, scales and shifts.

They differ in what they average over, for x of shape (N, H, W, C). Start at the one you know.

    BatchNorm     over N, H, W, for each channel; running averages take over in evaluation
    LayerNorm     over the last axes, for each sample
    GroupNorm     over H, W and the channels of a group, for each sample and group
    InstanceNorm  over H, W, for each sample and channel

weight (the scale) starts at 1, bias (the shift) at 0.
"""

from __future__ import annotations

import numpy as np

from ..autograd import Tensor, ops
from .layers import parameter
from .module import Module


class BatchNorm(Module):
    """Batch normalisation over all axes but the last   (Ioffe & Szegedy 2015, alg. 1).     (N, ..., num_features) -> the same

    In evaluation running averages take the place of the batch's mean and variance. Each training step moves them,

        running ← (1 - momentum) running + momentum new,     new variance: the unbiased one,

    with or without gradients. They are buffers, and start at 0 and 1.     activation, negative_slope: see `ops.batch_norm`.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ):
        self.weight, self.bias = _scale_and_shift(num_features)
        self.running_mean = Tensor(np.zeros(num_features, np.float32))
        self.running_var = Tensor(np.ones(num_features, np.float32))
        self.eps, self.momentum, self.activation, self.negative_slope = eps, momentum, activation, negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, ..., num_features)  ->  the same shape; in training the running statistics are updated.

        Raises ValueError for other features, or in training for a single number per channel.
        """
        return ops.batch_norm(
            x,
            self.running_mean.data,
            self.running_var.data,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
            activation=self.activation,
            negative_slope=self.negative_slope,
        )

    def extra_repr(self) -> str:
        return self.activation or ""


class LayerNorm(Module):
    """Layer normalisation over the last axes   (Ba 2016, eq. 4).     (..., *normalized_shape) -> the same"""

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5):
        self.shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.weight, self.bias = _scale_and_shift(*self.shape)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., *normalized_shape)  ->  the same shape. Raises ValueError for another ending."""
        return ops.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class GroupNorm(Module):
    """Group normalisation   (Wu & He 2018, eq. 7).     (N, ..., num_channels) -> the same

    activation, negative_slope: what follows in the same pass; see `ops.group_norm`.
    Raises ValueError if num_groups does not divide num_channels.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ):
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups={num_groups} does not divide num_channels={num_channels}")
        self.weight, self.bias = _scale_and_shift(num_channels)
        self.num_groups, self.eps, self.activation, self.negative_slope = num_groups, eps, activation, negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, ..., num_channels)  ->  the same shape. Raises ValueError for other channels."""
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps, self.activation, self.negative_slope)

    def extra_repr(self) -> str:
        return f"num_groups={self.num_groups}" + (f", {self.activation}" if self.activation else "")


class InstanceNorm(Module):
    """Instance normalisation   (Ulyanov 2016), with scale and shift.     (N, ..., num_features) -> the same"""

    def __init__(self, num_features: int, eps: float = 1e-5):
        self.weight, self.bias = _scale_and_shift(num_features)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, ..., num_features)  ->  the same shape. Raises ValueError for other features, or a single position."""
        return ops.instance_norm(x, self.weight, self.bias, self.eps)


def _scale_and_shift(*shape: int) -> tuple[Tensor, Tensor]:
    return parameter(np.ones(shape, np.float32)), parameter(np.zeros(shape, np.float32))
