"""Dequantisation: how a density, which a flow is, gives probabilities of grey levels, which images are made of.

A pixel has one of L levels x = 0 ... L-1. Noise u in [0, 1) makes it the real number y = (x + u)/L, and the probability of an
image with D pixels is the mass of its cell of volume L^-D:

    P(x) = ∫_[0,1)^D p((x + u)/L) L^-D du  ≥  E_q[log p((x + u)/L) - log q(u|x)] - D log L       (Ho 2019, Flow++, eqs. 5, 12)

With q uniform that is uniform dequantisation   (Theis 2016, https://arxiv.org/abs/1511.01844, sec. 3.1), tight for a density
that is constant in each cell. A learned q can be tight for smooth ones too   (https://arxiv.org/abs/1902.00275).
"""

from __future__ import annotations

import math

import numpy as np

from ..autograd import Tensor, ops
from ..autograd.backend import on_gpu
from ..nn import Conv2d, Module, Sequential, init
from ..random import Generator
from .flow import LOG_2PI, sum_values

SPREAD = math.log(1.7)  # σ(1.7 ε) is close to uniform for a normal ε


class Uniform(Module):
    """u ~ U[0, 1).     sample(x, rng): x (N, H, W, C) levels -> u like x, log q(u|x) (N,) nats"""

    def sample(self, x: np.ndarray, rng: Generator) -> tuple[Tensor, Tensor]:
        """x: (N, H, W, C) levels  ->  u like x, in [0, 1), and log q(u|x) = 0, (N,) nats."""
        return Tensor(rng.uniform(x.shape, dtype=x.dtype)), Tensor(np.zeros(len(x), x.dtype, like=x))


class Variational(Module):
    """u = σ(v), v = mu(x) + e^s(x) ε, ε ~ N(0, I), with mu and s from a small convolutional network of the image.

        log q(u|x) = Σ log N(ε; 0, 1) - s - log σ(v)(1 - σ(v))                                    (Ho 2019, sec. 3.1)

    It starts close to uniform.     levels: L, so that the network sees x/L.
    """

    def __init__(self, channels: int, levels: int, hidden: int, *, rng: Generator):
        self.levels = levels
        self.network = Sequential(
            Conv2d(channels, hidden, 3, padding=1, rng=rng),
            ops.relu,
            Conv2d(hidden, 2 * channels, 3, padding=1, rng=rng, weight_init=init.zeros),
        )

    def sample(self, x: np.ndarray, rng: Generator) -> tuple[Tensor, Tensor]:
        """x: (N, H, W, C) levels  ->  u like x, in (0, 1), and log q(u|x), (N,) nats."""
        output = self.network(Tensor(x / x.dtype.type(self.levels) - x.dtype.type(0.5)))  # (N, H, W, 2 C)
        mu, s = output[..., : x.shape[-1]], ops.tanh(output[..., x.shape[-1] :]) + SPREAD
        eps = rng.normal(x.shape, dtype=x.dtype)
        v = mu + ops.exp(s) * eps
        log_q = -0.5 * eps**2 - 0.5 * LOG_2PI - s + ops.softplus(v) + ops.softplus(-v)
        return ops.sigmoid(v), sum_values(log_q)  # proved by: truth dequantise


def grey_levels(x: np.ndarray, levels: int) -> np.ndarray:
    """Images in [0, 1] -> their levels 0 ... L-1, float32. Raises ValueError for images that do not have L levels."""
    k = np.rint(x * (levels - 1))
    if on_gpu(x):
        return k.astype(np.float32)  # not looked at: the device would have to be waited for
    if x.size and not (np.abs(k - x * (levels - 1)) < 1e-2).all():
        raise ValueError(f"images of other than {levels} grey levels: make the model with the right number (digits have 17)")
    if x.size and not (k.min() >= 0 and k.max() < levels):
        raise ValueError(f"images must lie in [0, 1], not in [{x.min()}, {x.max()}]")
    return k.astype(np.float32)


def to_images(y: np.ndarray, levels: int) -> np.ndarray:
    """Real values y -> the images in whose cells they lie: ⌊y L⌋ / (L - 1), in [0, 1]."""
    return (np.clip(np.floor(y * levels), 0, levels - 1) / (levels - 1)).astype(np.float32)
