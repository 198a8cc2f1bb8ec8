"""Layers, except convolutions, normalisations and attention, which have files of their own. Start at `Linear`.

A layer that starts from random numbers takes a generator, by keyword. Parameters are float32; see `Module.astype`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor, ops
from ..random import Generator
from .init import Initialisation, fan_in_uniform, fans
from .module import Module


class Linear(Module):
    """y = f(x W + b).     x: (..., in_features)  ->  (..., out_features)

    weight: (in_features, out_features).     bias: (out_features,), or None.     How they start: see `weight_and_bias`.
    activation: f, None or one that `ops.linear` knows ("relu", "leaky_relu", "tanh", "sigmoid", "silu"), in the same pass.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rng: Generator,
        bias: bool = True,
        activation: str | None = None,
        negative_slope: float = 0.01,
        weight_init: Initialisation = fan_in_uniform,
    ):
        self.weight, self.bias = weight_and_bias((in_features, out_features), out_features, bias, weight_init, rng)
        self.activation, self.negative_slope = activation, negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features)  ->  (..., out_features). Raises ValueError for another last axis."""
        return ops.linear(x, self.weight, self.bias, self.activation, self.negative_slope)

    def extra_repr(self) -> str:
        return self.activation or ""


def parameter(array: np.ndarray) -> Tensor:
    """A Tensor to be learned."""
    return Tensor(array, requires_grad=True)


def weight_and_bias(
    shape: tuple[int, ...], out: int, bias: bool, weight_init: Initialisation, rng: Generator
) -> tuple[Tensor, Tensor | None]:
    """The parameters of a linear or convolution layer: a weight of `shape`, and a bias (out,) or None.

    Unless told otherwise both start in U(-1/√fan_in, 1/√fan_in), as in PyTorch. With a `weight_init` of its own the bias
    starts at 0, as in the papers that those come from. Raises ValueError for a negative size.
    """
    if min(shape) < 0 or out < 0:
        raise ValueError(f"a weight of shape {shape} cannot be made: no size can be negative")
    weight = parameter(weight_init(shape, rng))
    if not bias:
        return weight, None
    if weight_init is not fan_in_uniform:
        return weight, parameter(np.zeros(out, np.float32))
    bound = fans(shape)[0] ** -0.5
    return weight, parameter(rng.uniform((out,), -bound, bound))


class Embedding(Module):
    """A row of a table for each index.     indices: (...) int in [0, num_embeddings)  ->  (..., embedding_dim)

    weight: (num_embeddings, embedding_dim), N(0, 1) at the start.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, rng: Generator):
        self.weight = parameter(rng.normal((num_embeddings, embedding_dim)))

    def forward(self, indices: Any) -> Tensor:
        """indices: (...) integers  ->  (..., embedding_dim).

        Raises TypeError for others than integers, IndexError outside [0, num_embeddings).
        """
        return ops.embedding(indices, self.weight)


class Dropout(Module):
    """Zero each element with probability p while training, and scale the others by 1/(1-p)   (Srivastava 2014).

    It draws from its generator, whose position is part of the state of the module. Raises ValueError for p outside [0, 1).
    """

    def __init__(self, p: float, *, rng: Generator):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p={p} is the probability of a zero and must be in [0, 1)")
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        """x: (...)  ->  the same shape; x itself unless `training`."""
        return ops.dropout(x, self.p, self.rng, training=self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Sequential(Module):
    """Layers, or plain functions such as `ops.relu`, one after another."""

    def __init__(self, *layers: Callable[[Any], Any]):
        self.layers = list(layers)

    def forward(self, x: Any) -> Any:
        """x: what the first layer takes  ->  what the last one gives; x itself if there are no layers."""
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, index: int) -> Any:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)
