"""Layers that hold weights. Start at `Linear`.

Images are channels-last, (N, H, W, C). Every layer that starts from random numbers takes a generator, by keyword.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor, ops
from ..random import Generator
from . import init
from .module import Module

Pair = int | tuple[int, int]


def parameter(array: np.ndarray) -> Tensor:
    """A Tensor to be learned."""
    return Tensor(array, requires_grad=True)


def pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class Linear(Module):
    """y = act(x W + b).     x: (..., in_features)  ->  (..., out_features)

    weight: (in_features, out_features), bias: (out_features,), both U(±1/√in_features) at the start.
    activation: None or a name that `ops.linear` knows ("relu", "silu", "tanh", ...), computed in the same pass.
    """

    def __init__(
        self, in_features: int, out_features: int, *, rng: Generator, bias: bool = True, activation: str | None = None
    ):
        self.weight = parameter(init.fan_in_uniform((in_features, out_features), in_features, rng))
        self.bias = parameter(init.fan_in_uniform((out_features,), in_features, rng)) if bias else None
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias, activation=self.activation)

    def extra_repr(self) -> str:
        return "" if self.activation is None else f"activation={self.activation!r}"


class Conv2d(Module):
    """Convolution.     x: (N, H, W, in_channels)  ->  (N, H', W', out_channels),  H' = ⌊(H + 2p - d(k-1) - 1)/s⌋ + 1

    weight: (kh, kw, in_channels / groups, out_channels), bias: (out_channels,), both U(±1/√fan_in) at the start.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        *,
        rng: Generator,
        bias: bool = True,
    ):
        kh, kw = pair(kernel_size)
        fan_in = kh * kw * in_channels // groups
        self.weight = parameter(init.fan_in_uniform((kh, kw, in_channels // groups, out_channels), fan_in, rng))
        self.bias = parameter(init.fan_in_uniform((out_channels,), fan_in, rng)) if bias else None
        self.options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self.options.items())


class ConvTranspose2d(Module):
    """Transposed convolution, the adjoint of Conv2d.     x: (N, H, W, in_channels)  ->  (N, H', W', out_channels),
    H' = (H - 1)s - 2p + d(k-1) + output_padding + 1

    weight: (kh, kw, out_channels / groups, in_channels): the array that a Conv2d from out_channels to in_channels has.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        dilation: Pair = 1,
        *,
        rng: Generator,
        bias: bool = True,
    ):
        kh, kw = pair(kernel_size)
        fan_in = kh * kw * out_channels // groups  # PyTorch's convention for its (in, out, kh, kw) weights
        self.weight = parameter(init.fan_in_uniform((kh, kw, out_channels // groups, in_channels), fan_in, rng))
        self.bias = parameter(init.fan_in_uniform((out_channels,), fan_in, rng)) if bias else None
        self.options: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "groups": groups,
            "dilation": dilation,
        }

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv_transpose2d(x, self.weight, self.bias, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self.options.items())


class Embedding(Module):
    """A row of a table for each index.     indices: (...) int in [0, num_embeddings)  ->  (..., embedding_dim)"""

    def __init__(self, num_embeddings: int, embedding_dim: int, *, rng: Generator):
        self.weight = parameter(rng.normal((num_embeddings, embedding_dim)))

    def forward(self, indices: Any) -> Tensor:
        return ops.embedding(indices, self.weight)


class Sequential(Module):
    """Layers, or plain functions such as `ops.relu`, one after another."""

    def __init__(self, *layers: Callable[[Any], Any]):
        self.layers = list(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, index: int) -> Any:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)


class Dropout(Module):
    """Zero each element with probability p while training, and scale the others by 1/(1-p). Draws from its generator."""

    def __init__(self, p: float, *, rng: Generator):
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, self.rng, training=self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
