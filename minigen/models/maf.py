"""Masked autoregressive flow   (Papamakarios 2017, https://arxiv.org/abs/1705.07057) and its inverse   (Kingma 2016, IAF,
https://arxiv.org/abs/1606.04934).

Each value is shifted and scaled by functions of the values before it, which one masked network computes for all of them at
once   (Germain 2015, MADE, https://arxiv.org/abs/1502.03509):

    z_i = (x_i - mu_i(x_<i)) e^-alpha_i(x_<i),        x_i = z_i e^alpha_i(x_<i) + mu_i(x_<i)           (Papamakarios eqs. 3, 4)

Left to right that is one pass, right to left D of them, since x_i needs x_<i. So the MAF has fast densities and slow samples.
The IAF is the same map turned round: fast samples, slow densities. Start at `Autoregressive`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor, ops
from ..nn import Linear, Module, init
from ..random import Generator
from .coupling import points
from .flow import ActNorm, Bijection, Chain, Flow, FlowConfig, Inverse
from .model import option, register

REACH = 3.0  # log-scales stay within ±REACH


class Autoregressive(Bijection):
    """z_i = (x_i - mu_i(x_<i)) e^-alpha_i(x_<i).     (N, D) -> (N, D)     log |det| = -Σ_i alpha_i         (eq. 5)

    network(x) -> (N, 2 D): mu and r of every value, alpha = R tanh r.
    """

    def __init__(self, network: MaskedNetwork):
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, alpha = self._mu_alpha(x)
        return (x - mu) * ops.exp(-alpha), -alpha.sum(axis=1)  # (N, D), (N,)     proved by: truth flow-density

    def inverse(self, z: Tensor) -> Tensor:
        """D passes: after the i-th, the first i values in the order are right, and stay so."""
        x = z
        for _ in range(z.shape[1]):
            mu, alpha = self._mu_alpha(x)
            x = z * ops.exp(alpha) + mu
        return x

    def _mu_alpha(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output, d = self.network(x), x.shape[1]  # (N, 2 D)
        return output[:, :d], REACH * ops.tanh(output[:, d:])


class MaskedLinear(Linear):
    """y = f(x (M ⊙ W) + b): a connection exists only where the mask is 1   (MADE, eq. 10).     mask: (in, out)"""

    def __init__(self, mask: np.ndarray, **options: Any):
        super().__init__(*mask.shape, **options)
        self.mask = Tensor(mask.astype(np.float32))

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight * self.mask, self.bias, self.activation)


class MaskedNetwork(Module):
    """MADE: output i sees the inputs before i only.     (N, D) -> (N, outputs D), all first outputs, then all second ones

    Every unit has a degree: input i has its place in the order, 1 ... D; a hidden unit of degree m may see the inputs 1 ... m,
    and output i hidden units of degree < i   (MADE, eqs. 8, 9).
    """

    def __init__(self, d: int, hidden: int, outputs: int, reverse: bool, *, rng: Generator):
        places = np.arange(d, 0, -1) if reverse else np.arange(1, d + 1)  # (D,)
        inner = hidden_degrees(d, hidden)  # (H,)
        to_hidden, between = places[:, None] <= inner, inner[:, None] <= inner
        to_output = np.tile(inner[:, None] < places, outputs)  # (H, outputs D)         proved by: truth causal
        self.layers = [
            MaskedLinear(to_hidden, rng=rng, activation="relu"),
            MaskedLinear(between, rng=rng, activation="relu"),
            MaskedLinear(to_output, rng=rng, weight_init=init.zeros),
        ]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def hidden_degrees(d: int, hidden: int) -> np.ndarray:
    """Degrees of the units of a hidden layer: 1 ... D - 1, as evenly as they go.     -> (hidden,) int, ascending"""
    return np.linspace(1, d, hidden, endpoint=False).astype(int)


@dataclass(frozen=True)
class MAFConfig(FlowConfig):
    layers: int = option(8, "autoregressive layers", low=1)
    hidden: int = option(64, "units of each of the two hidden layers of a layer's network", low=1)


@register("maf", Flow, MAFConfig, "masked autoregressive flow, for points: fast densities")
def maf(data_shape: tuple[int, ...], config: MAFConfig, rng: Generator) -> Flow:
    """ActNorm, then `layers` autoregressive maps, the order of the values turned round each time   (their sec. 3.1)."""
    d = points("maf", data_shape)
    return Flow(Chain(ActNorm(d), *_layers(d, config, rng)), data_shape, config)


@register("iaf", Flow, MAFConfig, "inverse autoregressive flow, for points: fast samples")
def iaf(data_shape: tuple[int, ...], config: MAFConfig, rng: Generator) -> Flow:
    """The same with each map turned round. A density takes D passes, so it is trained here on points of few dimensions."""
    d = points("iaf", data_shape)
    return Flow(Chain(ActNorm(d), *map(Inverse, _layers(d, config, rng))), data_shape, config)


def _layers(d: int, config: MAFConfig, rng: Generator) -> list[Bijection]:
    return [Autoregressive(MaskedNetwork(d, config.hidden, 2, reverse=i % 2 == 1, rng=rng)) for i in range(config.layers)]
