"""Normalizing flows: what all of them share   (Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770; the review of
Papamakarios 2021, https://arxiv.org/abs/1912.02762, is cited as P21).

A flow is an invertible map z = f(x) that carries the data to a standard normal distribution. The density of x follows from the
change of variables, exactly and not as a bound:

    log p(x) = log N(f(x); 0, I) + log |det ∂f/∂x|                                                          (P21 eq. 5)

Training raises it; sampling runs f backwards. What makes a flow is a map whose inverse and whose determinant are both cheap.
Start at `Flow.log_prob`, then read `Bijection`, the contract of every map, and the maps that all flows use: `Chain`, `ActNorm`,
`InvertibleLinear`. Couplings are in coupling.py, autoregressive maps in maf.py, images in glow.py.

Maps act on the last axis: the two coordinates of points (N, 2), or the channels of images (N, H, W, C).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..nn import Known, Module, init, parameter
from ..optim import Adam, Optimizer
from ..random import Generator
from .model import Loss, Model, ModelConfig, option

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class FlowConfig(ModelConfig):
    batch_size: int = option(512, "samples in one training step", low=1)
    lr: float = option(2e-3, "learning rate of Adam", low=0.0)
    steps: int = option(4000, "training steps, where nothing else is said", low=1)
    anneal: int = option(4000, "steps over which the learning rate falls to a fiftieth, to stay there; 0: none", low=0)
    ema: float = option(0.998, "decay of the averaged parameters that are evaluated; 0 for none", low=0.0, high=0.999999)


class Flow(Model):
    """A density on points: the bijection f, and the normal distribution that it carries the data to."""

    config: FlowConfig

    def __init__(self, bijection: Bijection, data_shape: tuple[int, ...], config: FlowConfig):
        self.bijection, self.data_shape, self.config = bijection, data_shape, config

    def log_prob(self, x: np.ndarray | Tensor) -> Tensor:
        """log p(x) = log N(f(x); 0, I) + log |det ∂f/∂x|.     x: (N, *data_shape) -> (N,) nats              (P21 eq. 5)"""
        z, log_det = self.encode(x)
        return standard_normal(z) + log_det  # proved by: truths flow-density, gaussian-mle, entropy-floor

    def estimators(self, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
        """The exact value, of which there is one."""

        def exact(x: np.ndarray, rng: Generator) -> np.ndarray:
            with no_grad():
                return self.log_prob(x).data

        return {"exact": exact}

    def encode(self, x: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """The code z = f(x), as large as x, and log |det ∂f/∂x|.     (N, *data_shape) -> (N, D), (N,)"""
        return self.bijection(x if isinstance(x, Tensor) else Tensor(x))

    def loss(self, x: np.ndarray, rng: Generator) -> Loss:
        """What is minimised: -log p(x), averaged over the batch."""
        log_prob = self.log_prob(x).mean()
        return Loss(-log_prob, {"log_prob": log_prob})

    def optimizers(self) -> dict[str, Optimizer]:
        return {"adam": annealed_adam(self.parameters(), self.config)}

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """x = f⁻¹(z) for n codes z ~ N(0, I): exact, and in one pass where f⁻¹ takes one.     -> (n, *data_shape)"""
        with no_grad():
            return self.bijection.inverse(Tensor(rng.normal((n, math.prod(self.data_shape))))).data


def annealed_adam(parameters: list[Tensor], config: FlowConfig) -> Adam:
    """Adam with a rate that stays for half of `anneal` steps, and falls on a line over the other half, to a fiftieth.

    The logarithm of a density is sharp where the density is: only small steps at the end find the best parameters.
    """
    lr, steps = config.lr, config.anneal
    return Adam(parameters, (lambda step: lr * min(1.0, max(0.02, 2 - 2 * step / steps))) if steps else lr)


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I).     (N, D) -> (N,) nats"""
    return -0.5 * ops.square(z).sum(axis=1) - 0.5 * z.shape[1] * LOG_2PI


class Bijection(Module):
    """An invertible map.

    forward(x) -> (z, log_det): z = f(x), and log |det ∂f/∂x| of each sample, (N,), or a scalar where it is the same for all.
    inverse(z) -> x: forward(inverse(z)) is z. The log-determinant of the inverse at z is minus that of forward at x.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, ...)  ->  z: (N, ...), and log |det ∂z/∂x|, (N,) nats or a scalar. TypeError if no subclass defines it."""
        raise TypeError(f"{type(self).__name__} defines no forward()")

    def inverse(self, z: Tensor) -> Tensor:
        """z: (N, ...)  ->  x, with forward(x) = z. TypeError if no subclass defines it."""
        raise TypeError(f"{type(self).__name__} defines no inverse()")


class Chain(Bijection):
    """Maps one after another: f = f_K ∘ ... ∘ f_1, log |det ∂f/∂x| = Σ_k log |det ∂f_k/∂x_k|                 (P21 eq. 8)"""

    def __init__(self, *bijections: Bijection):
        self.bijections = list(bijections)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_dets = []
        for bijection in self.bijections:
            x, log_det = bijection(x)
            log_dets.append(log_det)  # (N,), or a scalar
        return x, sum(log_dets)

    def inverse(self, z: Tensor) -> Tensor:
        for bijection in reversed(self.bijections):
            z = bijection.inverse(z)
        return z


class Inverse(Bijection):
    """A map turned round: f⁻¹ in place of f, so log |det| = -log |det ∂f/∂x| at x = f⁻¹(z)."""

    def __init__(self, bijection: Bijection):
        self.bijection = bijection

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.bijection.inverse(z)
        return x, -self.bijection(x)[1]  # proved by: truth iaf-maf

    def inverse(self, x: Tensor) -> Tensor:
        return self.bijection(x)[0]


class ActNorm(Bijection):
    """A scale and a shift for each channel, z = e^s x + b   (Kingma & Dhariwal 2018, sec. 3.1).     (N, ..., C) -> the same

    The first batch that it sees in training sets s and b so that z has mean 0 and variance 1 in each channel; from then on
    they are ordinary parameters.     log |det| = H W Σ_c s_c, with H W the positions of an image, 1 for points
    """

    def __init__(self, channels: int):
        self.log_scale, self.shift = (parameter(np.zeros(channels, np.float32)) for _ in range(2))
        self.started = Tensor(np.zeros((), np.float32))  # a buffer, so that a resumed run does not start again
        self.has_started = Known(self.started)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self.has_started():
            self._start(x.data)
        z = x * ops.exp(self.log_scale) + self.shift
        return z, positions(x) * self.log_scale.sum()

    def inverse(self, z: Tensor) -> Tensor:
        return (z - self.shift) * ops.exp(-self.log_scale)

    def _start(self, x: np.ndarray) -> None:
        """s = -log std, b = -mean / std over the batch, and over the positions.         proved by: truth actnorm"""
        axes = tuple(range(x.ndim - 1))
        std = x.std(axis=axes, dtype=np.float64) + 1e-6  # (C,)   a channel that is constant keeps a finite scale
        with no_grad():
            self.log_scale[...] = -np.log(std)
            self.shift[...] = -x.mean(axis=axes, dtype=np.float64) / std
            self.started[...] = 1


class InvertibleLinear(Bijection):
    """z = x W: a learned mixing of the channels, on images a 1×1 convolution   (Kingma & Dhariwal 2018, sec. 3.2).

        W = P L (U + diag(sign · e^l)),     log |det| = H W Σ_c l_c                                  (their eqs. 10, 11)

    P: a fixed permutation.   L: lower triangular with a diagonal of 1.   U: strictly upper.   It starts as a random rotation.
    """

    def __init__(self, channels: int, *, rng: Generator):
        from scipy.linalg import lu

        p, lower, upper = lu(init.orthogonal((channels, channels), rng).astype(np.float64))
        diagonal = np.diagonal(upper)
        self.permutation, self.sign = (Tensor(a.astype(np.float32)) for a in (p, np.sign(diagonal)))
        self.lower, self.upper = (parameter(a.astype(np.float32)) for a in (np.tril(lower, -1), np.triu(upper, 1)))
        self.log_diagonal = parameter(np.log(np.abs(diagonal)).astype(np.float32))

    def weight(self) -> Tensor:
        """W, (C, C)."""
        eye = np.eye(len(self.sign), dtype=self.sign.dtype, like=self.sign.data)
        diagonal = eye * (self.sign * ops.exp(self.log_diagonal))
        return self.permutation @ (ops.tril(self.lower, -1) + eye) @ (ops.triu(self.upper, 1) + diagonal)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return ops.linear(x, self.weight()), positions(x) * self.log_diagonal.sum()

    def inverse(self, z: Tensor) -> Tensor:
        return ops.linear(z, ops.inv(self.weight()))


def positions(x: Tensor) -> int:
    """How often a map of the channels acts on one sample: H W for images (N, H, W, C), 1 for points (N, C)."""
    return math.prod(x.shape[1:-1])


def sum_values(x: Tensor) -> Tensor:
    """(N, ...) -> (N,)"""
    return x.sum(axis=tuple(range(1, x.ndim)))
