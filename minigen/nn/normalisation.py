"""Normalisation layers, channels-last: each subtracts a mean, divides by a standard deviation, scales and shifts.

They differ only in what they average over, for x of shape (N, H, W, C):

    BatchNorm     over N, H, W, for each channel; running averages take over in evaluation
    LayerNorm     over the last axes, for each sample
    GroupNorm     over H, W and the channels of a group, for each sample and group
    InstanceNorm  over H, W, for each sample and channel
"""

from __future__ import annotations

import numpy as np

from ..autograd import Tensor, ops
from .layers import parameter
from .module import Module


def ones(*shape: int) -> Tensor:
    return parameter(np.ones(shape, np.float32))


def zeros(*shape: int) -> Tensor:
    return parameter(np.zeros(shape, np.float32))


class BatchNorm(Module):
    """Batch normalisation over all axes but the last   (Ioffe & Szegedy 2015, alg. 1).     (N, ..., C) -> the same

    momentum: weight of the newest batch in the running mean and (unbiased) variance that evaluation uses.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        self.weight, self.bias = ones(num_features), zeros(num_features)
        self.running_mean = Tensor(np.zeros(num_features, np.float32))
        self.running_var = Tensor(np.ones(num_features, np.float32))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        return ops.batch_norm(
            x,
            self.running_mean.data,
            self.running_var.data,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )


class LayerNorm(Module):
    """Layer normalisation over the last axes   (Ba 2016, eq. 4).     (..., *normalized_shape) -> the same"""

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5):
        self.shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.weight, self.bias = ones(*self.shape), zeros(*self.shape)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class GroupNorm(Module):
    """Group normalisation   (Wu & He 2018, eq. 7).     (N, ..., C) -> the same

    silu: follow it with x·sigmoid(x) in the same pass.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, silu: bool = False):
        self.weight, self.bias = ones(num_channels), zeros(num_channels)
        self.num_groups, self.eps, self.silu = num_groups, eps, silu

    def forward(self, x: Tensor) -> Tensor:
        norm = ops.group_norm_silu if self.silu else ops.group_norm
        return norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"num_groups={self.num_groups}{', silu' if self.silu else ''}"


class InstanceNorm(Module):
    """Instance normalisation   (Ulyanov 2016).     (N, ..., C) -> the same"""

    def __init__(self, num_features: int, eps: float = 1e-5):
        self.weight, self.bias = ones(num_features), zeros(num_features)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.instance_norm(x, self.weight, self.bias, self.eps)
