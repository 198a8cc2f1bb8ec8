"""Coupling flows: RealNVP   (Dinh 2017, https://arxiv.org/abs/1605.08803) and neural spline flows   (Durkan 2019,
https://arxiv.org/abs/1906.04032, after which the spline is read in spline.py).

A coupling leaves one half of x as it is, and changes each value of the other half by an increasing function whose parameters
a network computes from the first half. The Jacobian is triangular, so its determinant is a product; the network may be
anything, since neither direction inverts it. Two couplings with the halves exchanged change all of x. Start at `Coupling`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..autograd import Tensor, ops
from ..nn import Linear, Sequential, init
from ..random import Generator
from .flow import ActNorm, Bijection, Chain, Flow, FlowConfig, sum_values
from .model import option, register
from .spline import rational_quadratic

Half = Tensor
REACH = 3.0  # log-scales of an affine coupling stay within ±REACH


class Coupling(Bijection):
    """(a, b) -> (a, g(b; network(a))): the halves of the last axis.     (N, ..., C) -> the same

    network(a) -> parameters, (N, ..., outputs * C_b).     flip: the second half is the one that stays.
    """

    outputs: int  # parameters per value of b

    def __init__(self, network: Callable, channels: int, flip: bool = False):
        self.network, self.flip = network, flip
        self.kept, self.changed = halves(channels, flip)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self._split(x)
        b, log_slope = self.transform(b, self._parameters(a), inverse=False)
        return self._join(a, b), sum_values(log_slope)  # (N, ..., C), (N,)       proved by: truth flow-density

    def inverse(self, z: Tensor) -> Tensor:
        a, b = self._split(z)
        return self._join(a, self.transform(b, self._parameters(a), inverse=True)[0])

    def transform(self, b: Half, parameters: Tensor, inverse: bool) -> tuple[Half, Half]:
        """g, or its inverse, and the logarithm of its slope.     (N, ..., C_b), (N, ..., C_b, outputs) -> two like b

        Raises TypeError if no subclass defines it.
        """
        raise TypeError(f"{type(self).__name__} defines no transform()")

    def _parameters(self, a: Half) -> Tensor:
        return self.network(a).reshape(*a.shape[:-1], self.changed, -1)

    def _split(self, x: Tensor) -> tuple[Half, Half]:
        if self.flip:
            return x[..., self.changed :], x[..., : self.changed]
        return x[..., : self.kept], x[..., self.kept :]

    def _join(self, a: Half, b: Half) -> Tensor:
        return ops.concat([b, a] if self.flip else [a, b], axis=-1)


class AffineCoupling(Coupling):
    """g(b) = b e^s + t   (Dinh 2017, eqs. 4-8).     log |det| = Σ s

    s = R tanh r of the network's output r, so that no step of the optimiser can make the scale explode.
    """

    outputs = 2

    def transform(self, b: Half, parameters: Tensor, inverse: bool) -> tuple[Half, Half]:
        s, t = REACH * ops.tanh(parameters[..., 0]), parameters[..., 1]
        return ((b - t) * ops.exp(-s), -s) if inverse else (b * ops.exp(s) + t, s)


class SplineCoupling(Coupling):
    """g a rational-quadratic spline of K bins on [-B, B]   (Durkan 2019, sec. 3).     log |det| = Σ log g'(b)"""

    def __init__(self, network: Callable, channels: int, flip: bool = False, bins: int = 16, bound: float = 3.0):
        super().__init__(network, channels, flip)
        self.outputs, self.bound = 3 * bins - 1, bound

    def transform(self, b: Half, parameters: Tensor, inverse: bool) -> tuple[Half, Half]:
        return rational_quadratic(b, parameters, self.bound, inverse)


def halves(channels: int, flip: bool) -> tuple[int, int]:
    """How many channels a coupling keeps, and how many it changes."""
    first = channels // 2
    return (channels - first, first) if flip else (first, channels - first)


# ---- the two models


@dataclass(frozen=True)
class RealNVPConfig(FlowConfig):
    couplings: int = option(8, "coupling layers", low=1)
    hidden: int = option(64, "units of each of the two hidden layers of a coupling's network", low=1)


@dataclass(frozen=True)
class SplineConfig(RealNVPConfig):
    lr: float = option(5e-3, "learning rate of Adam", low=0.0)
    couplings: int = option(4, "coupling layers", low=1)
    bins: int = option(16, "bins of each spline", low=2)
    bound: float = option(3.0, "splines act on [-bound, bound], in standard deviations of the data", low=0.1)


@register("realnvp", Flow, RealNVPConfig, "normalizing flow of affine couplings, for points")
def realnvp(data_shape: tuple[int, ...], config: RealNVPConfig, rng: Generator) -> Flow:
    """ActNorm, then `couplings` affine couplings, with the halves exchanged each time."""
    return coupling_flow("realnvp", data_shape, config, rng, AffineCoupling, AffineCoupling.outputs)


@register("spline", Flow, SplineConfig, "normalizing flow of rational-quadratic spline couplings, for points")
def spline(data_shape: tuple[int, ...], config: SplineConfig, rng: Generator) -> Flow:
    """The same with splines: one coupling bends where an affine one only stretches."""
    make = lambda network, channels, flip: SplineCoupling(network, channels, flip, config.bins, config.bound)
    return coupling_flow("spline", data_shape, config, rng, make, 3 * config.bins - 1)


def coupling_flow(
    name: str, data_shape: tuple[int, ...], config: RealNVPConfig, rng: Generator, coupling: Callable, outputs: int
) -> Flow:
    """ActNorm, and then `config.couplings` couplings that change one half and the other in turn.

    coupling(network, channels, flip) makes one; its network has so many outputs for each channel that is changed. For points,
    data_shape (D,): raises ValueError for images.
    """
    channels = points(name, data_shape)
    layers: list[Bijection] = [ActNorm(channels)]
    for i in range(config.couplings):
        flip = i % 2 == 1
        kept, changed = halves(channels, flip)
        layers.append(coupling(mlp(kept, config.hidden, outputs * changed, rng), channels, flip))
    return Flow(Chain(*layers), data_shape, config)


def mlp(inputs: int, hidden: int, outputs: int, rng: Generator) -> Sequential:
    """Two hidden layers, ReLU. The last layer starts at 0, so that a coupling starts as the identity."""
    return Sequential(
        Linear(inputs, hidden, rng=rng, activation="relu"),
        Linear(hidden, hidden, rng=rng, activation="relu"),
        Linear(hidden, outputs, rng=rng, weight_init=init.zeros),
    )


def points(name: str, data_shape: tuple[int, ...]) -> int:
    """D of points (N, D). Raises ValueError for images, or for one dimension, which has no halves."""
    if len(data_shape) != 1 or data_shape[0] < 2:
        raise ValueError(f"{name} needs points of two dimensions or more, not data of shape {data_shape}; for images: glow")
    return data_shape[0]
