"""MADE: masked autoencoder for distribution estimation   (Germain 2015, https://arxiv.org/abs/1502.03509).

A fully connected network from x to the parameters of all conditional distributions p(x_i | x_<i) at once. Each connection that
would let an output see its own value or a later one is masked out (their sec. 4). maf.py has the masked layers, since a masked
autoregressive flow is made of the same network; here its outputs are distributions:

    made      images, each pixel black or white: a logit   (their eq. 3)
    made2d    points, each coordinate a mixture of Gaussians given those before it   (RNADE, Uria 2013, arXiv 1306.0186, eq. 9)

Start at `MADE.log_prob` for points. Images share `autoregressive.PixelByPixel`, and their network is `ImageNetwork`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..autograd.backend import beside, move
from ..nn import Embedding, Module
from ..random import Generator
from .autoregressive import PixelByPixel, PixelConfig, grey_or_binary
from .coupling import points
from .flow import LOG_2PI, ActNorm
from .maf import MaskedLinear, MaskedNetwork, hidden_degrees
from .model import Loss, Model, ModelConfig, option, other_default, register

STRIPS = 8  # that the large layers are cut into

# ---- points


@dataclass(frozen=True)
class MADE2dConfig(ModelConfig):
    batch_size: int = option(512, "samples in one training step", low=1)
    lr: float = option(2e-3, "learning rate of Adam", low=0.0)
    steps: int = option(4000, "training steps, where nothing else is said", low=1)
    ema: float = option(0.998, "decay of the averaged parameters that are evaluated; 0 for none", low=0.0, high=0.999999)
    hidden: int = option(64, "units of each of the two hidden layers", low=1)
    components: int = option(16, "Gaussians in the mixture of each coordinate", low=1)


class MADE(Model):
    """A density on points, p(x) = Π_i p(x_i | x_<i), each factor a mixture of K Gaussians.

    The points are brought to mean 0 and variance 1 first, by an ActNorm.     network: (N, D) -> (N, 3 K D)
    """

    config: MADE2dConfig

    def __init__(self, network: Callable, data_shape: tuple[int, ...], config: MADE2dConfig):
        self.normalise, self.network = ActNorm(data_shape[0]), network
        self.data_shape, self.config = data_shape, config
        self.spread = np.linspace(-2, 2, config.components)[:, None]  # components that start equal would stay equal

    def log_prob(self, x: np.ndarray | Tensor) -> Tensor:
        """log p(x) = Σ_i log Σ_k π_ik N(z_i; mu_ik, s_ik²) + log |dz/dx|.     x: (N, D) -> (N,) nats      (RNADE eqs. 1, 9)"""
        z, log_det = self.normalise(x if isinstance(x, Tensor) else Tensor(x))
        log_weight, mu, log_s = self._mixtures(z)  # (N, K, D) each
        u = (z.reshape(len(z), 1, -1) - mu) * ops.exp(-log_s)
        log_p = ops.logsumexp(log_weight - 0.5 * ops.square(u) - log_s - 0.5 * LOG_2PI, axis=1)  # (N, D)
        return log_p.sum(axis=1) + log_det  # proved by: truths causal, entropy-floor

    def loss(self, x: np.ndarray, rng: Generator) -> Loss:
        """What is minimised: -log p(x), averaged over the batch."""
        log_prob = self.log_prob(x).mean()
        return Loss(-log_prob, {"log_prob": log_prob})

    def estimators(self, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
        """The exact value, of which there is one."""

        def exact(x: np.ndarray, rng: Generator) -> np.ndarray:
            with no_grad():
                return self.log_prob(x).data

        return {"exact": exact}

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """One coordinate after the other: a component by its weight, then a draw from it.     -> (n, D)"""
        z = move(np.zeros((n, *self.data_shape), np.float32), rng.device)
        with no_grad():
            for i in range(z.shape[1]):
                log_weight, mu, log_s = (part.data[:, :, i] for part in self._mixtures(Tensor(z)))  # (n, K)
                below = np.exp(log_weight.astype(np.float64)).cumsum(axis=1)[:, :-1]
                k = (rng.uniform((n, 1), dtype=np.float64) >= below).sum(axis=1)[:, None]  # (n, 1)
                chosen_mu, chosen_log_s = (np.take_along_axis(part, k, axis=1)[:, 0] for part in (mu, log_s))
                z[:, i] = chosen_mu + np.exp(chosen_log_s) * rng.normal((n,))
            return self.normalise.inverse(Tensor(z)).data

    def _mixtures(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log π, mu, log s.     (N, D) -> (N, K, D) each"""
        n, d = z.shape
        k = self.config.components
        weight, mu, log_s = ops.split(self.network(z).reshape(n, 3 * k, d), 3, axis=1)
        spread = beside(self.spread, z.data).astype(z.dtype)  # (K, 1)
        return ops.log_softmax(weight, axis=1), mu + spread, log_s + math.log(4 / k)


@register("made2d", MADE, MADE2dConfig, "points, coordinate by coordinate: mixtures by a masked network")
def made2d(data_shape: tuple[int, ...], config: MADE2dConfig, rng: Generator) -> MADE:
    """Two hidden layers; the last starts at 0, so that every coordinate starts as a row of Gaussians over ±2 deviations."""
    d = points("made2d", data_shape)
    return MADE(MaskedNetwork(d, config.hidden, 3 * config.components, reverse=False, rng=rng), data_shape, config)


# ---- images


class ImageNetwork(Module):
    """One hidden layer, and direct connections past it   (MADE eqs. 1, 2, 15).     (N, H, W, 1) -> (N, H, W, outputs)

        h = relu(b + (W ⊙ M^W) x),     output = c + (V ⊙ M^V) h + (A ⊙ M^A) x

    With hidden units of degree m, M^W lets one see the pixels 1 ... m, and M^V the outputs of pixels i > m see it (eqs. 8, 9);
    M^A is strictly triangular.     classes: 0 for none; otherwise each label adds its own vector to the hidden units.
    """

    def __init__(self, data_shape: tuple[int, ...], hidden: int, outputs: int, classes: int, rng: Generator):
        d = math.prod(data_shape)
        place, degree = np.arange(1, d + 1), hidden_degrees(d, hidden)  # (D,), (H,)
        self.label = Embedding(classes, hidden, rng=rng) if classes else None
        self.enter = Staircase(place[:, None] <= degree, rng=rng)
        self.leave = Staircase(np.repeat(degree[:, None] < place, outputs, axis=1), rng=rng)
        self.direct = Staircase(np.repeat(place[:, None] < place, outputs, axis=1), rng=rng, bias=False)

    def forward(self, x: Tensor, y: np.ndarray | None = None) -> Tensor:
        flat = x.reshape(len(x), -1)  # (N, D)
        h = self.enter(flat)  # (N, H)
        if self.label is not None:
            h = h + self.label(y)
        output = self.leave(ops.relu(h)) + self.direct(flat)  # (N, D outputs)         proved by: truth causal
        return output.reshape(*x.shape[:3], -1)


class Staircase(Module):
    """A masked layer of whose mask each column is ones above zeros, with more ones the further right.     (N, in) -> (N, out)

    Cut into strips of columns, each without the rows that are masked in all of it: about half of the work remains.
    """

    def __init__(self, mask: np.ndarray, **options: Any):
        cuts = np.linspace(0, mask.shape[1], min(STRIPS, mask.shape[1]) + 1).astype(int)
        strips = [mask[: max(1, mask[:, end - 1].sum()), start:end] for start, end in itertools.pairwise(cuts)]
        self.strips = [MaskedLinear(strip, **options) for strip in strips]

    def forward(self, x: Tensor) -> Tensor:
        return ops.concat([strip(x[:, : strip.weight.shape[0]]) for strip in self.strips], axis=1)


@dataclass(frozen=True)
class MADEConfig(PixelConfig):
    batch_size: int = other_default(ModelConfig, "batch_size", 200)
    lr: float = other_default(ModelConfig, "lr", 2e-3)
    steps: int = other_default(ModelConfig, "steps", 4000)
    ema: float = other_default(ModelConfig, "ema", 0.998)
    hidden: int = option(500, "hidden units", low=1)


@register("made", PixelByPixel, MADEConfig, "images pixel by pixel, with a masked fully connected network")
def made(data_shape: tuple[int, ...], config: MADEConfig, rng: Generator) -> PixelByPixel:
    """784-500-784 for MNIST, and direct connections. For images of one channel."""
    pixels = grey_or_binary("made", data_shape, config)
    network = ImageNetwork(data_shape, config.hidden, pixels.outputs, config.classes, rng)
    return PixelByPixel(network, pixels, data_shape, config)
