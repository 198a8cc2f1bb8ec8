"""Glow   (Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039): a flow for images.

A step is an ActNorm, an invertible 1×1 convolution and an affine coupling (their fig. 2a). At each scale the image is squeezed,
2×2 pixels becoming channels, and goes through K steps; then half of the channels are put aside as part of the code, and the
rest goes on to the next scale   (fig. 2b; Dinh 2017, sec. 3.6). Pixels are integers, so their likelihood is a bound, which
dequantise.py explains, and is told in bits per dimension. Start at `ImageFlow.elbo`, then `glow`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..nn import Conv2d, init
from ..nn import Sequential as Layers
from ..optim import Optimizer
from ..random import Generator
from .coupling import AffineCoupling, halves
from .dequantise import Uniform, Variational, grey_levels, to_images
from .flow import ActNorm, Bijection, Chain, Flow, FlowConfig, InvertibleLinear, annealed_adam, sum_values
from .model import Loss, Model, option, other_default, register


@dataclass(frozen=True)
class GlowConfig(FlowConfig):
    batch_size: int = option(64, "images in one training step", low=1)
    lr: float = option(2e-3, "learning rate of Adam", low=0.0)
    steps: int = option(5000, "training steps, where nothing else is said", low=1)
    anneal: int = other_default(FlowConfig, "anneal", 5000)
    levels: int = option(0, "grey levels of the images; 0: those of the data set", low=0, high=65536)
    flow_steps: int = option(6, "steps of flow at each scale", low=1)
    scales: int = option(2, "how often the image is squeezed to half its sides", low=1)
    hidden: int = option(32, "channels inside a coupling's network", low=1)
    dequantisation: str = option("variational", "noise inside a grey level", choices=("uniform", "variational"))


class ImageFlow(Model):
    """Probabilities of images of L grey levels, by a density p(y) on images y in [0, 1]. Likelihoods here are of the levels."""

    config: GlowConfig
    levels: int

    def __init__(
        self, bijection: Bijection, dequantiser: Uniform | Variational, data_shape: tuple[int, ...], config: GlowConfig
    ):
        self.density, self.dequantiser = Flow(bijection, data_shape, config), dequantiser
        self.data_shape, self.config, self.levels = data_shape, config, config.levels

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        """Images in [0, 1] -> levels 0 ... L-1. The noise is part of the bound, not of the data."""
        return grey_levels(x, self.levels)

    def elbo(self, x: np.ndarray, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A bound on log P(x) with one draw of the noise, and its two terms.     x: (N, H, W, C) levels -> (N,) nats, thrice

        log P(x) ≥ E_q[(log p(y) - D log L) - log q(u|x)],     y = (x + u)/L,  u ~ q(u|x)            (Ho 2019, eq. 12)
        """
        u, log_q = self.dequantiser.sample(x, rng)
        log_p = self.density.log_prob((u + x) / self.levels) - math.prod(self.data_shape) * math.log(self.levels)  # (N,)
        return log_p - log_q, log_p, log_q  # proved by: truth dequantise

    def log_prob_bound(self, x: np.ndarray, k: int, rng: Generator) -> np.ndarray:
        """log 1/k Σ w over k draws of the noise, without a graph: at k = 1 the bound above, rising to log P(x).     -> (N,)"""
        log_sum = np.full_like(x, -np.inf, shape=len(x), dtype=np.float64)
        with no_grad():
            for _ in range(k):
                log_sum = np.logaddexp(log_sum, self.elbo(x, rng)[0].data)
        return log_sum - math.log(k)

    def encode(self, x: np.ndarray) -> tuple[Tensor, Tensor]:
        """The code of the middle of an image's cell, and log |det ∂f/∂y|.     (N, H, W, C) levels -> (N, D), (N,)"""
        return self.density.encode((x + 0.5) / self.levels)

    def loss(self, x: np.ndarray, rng: Generator) -> Loss:
        """What is minimised: minus the bound, averaged over the batch, in nats per value (so that lr fits any size)."""
        bound = self.elbo(x, rng)[0].mean()
        per_value = -bound / math.prod(self.data_shape)
        return Loss(per_value, {"elbo": bound, "bits_per_dim": per_value / math.log(2)})

    def optimizers(self) -> dict[str, Optimizer]:
        return {"adam": annealed_adam(self.parameters(), self.config)}

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """Images, of L grey levels in [0, 1].     -> (n, H, W, C)"""
        return to_images(self.density.sample(n, rng), self.levels)


class Logit(Bijection):
    """z = logit(a + (1 - 2a) y): pixels in [0, 1] to the whole line   (Dinh 2017, sec. 4.1).     log |det| = Σ log dz/dy

    A small a spreads out the black and white levels, in which most pixels of drawn digits lie.
    """

    def __init__(self, a: float = 1e-4):
        self.a = a

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        p = self.a + (1 - 2 * self.a) * y
        log_p, log_q = ops.log(p), ops.log(1 - p)
        return log_p - log_q, sum_values(-log_p - log_q + math.log(1 - 2 * self.a))

    def inverse(self, z: Tensor) -> Tensor:
        return (ops.sigmoid(z) - self.a) / (1 - 2 * self.a)


class MultiScale(Bijection):
    """Squeeze, a map, half of the channels put aside; and again with the rest.     (N, H, W, C) -> (N, D), D = H W C"""

    def __init__(self, maps: Sequence[Bijection], data_shape: tuple[int, ...]):
        self.maps, self.data_shape = list(maps), data_shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        aside, log_dets = [], []
        for i, bijection in enumerate(self.maps):
            x, log_det = bijection(ops.space_to_depth(x, 2))  # (N, H/2, W/2, 4 C); squeezing only moves values
            log_dets.append(log_det)
            if i < len(self.maps) - 1:
                half = x.shape[-1] // 2
                aside.append(x[..., half:].reshape(len(x), -1))
                x = x[..., :half]
        return ops.concat([*aside, x.reshape(len(x), -1)], axis=1), sum(log_dets)

    def inverse(self, z: Tensor) -> Tensor:
        shapes = self._shapes()
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        parts = [z[:, end - math.prod(s) : end].reshape(-1, *s) for s, end in zip(shapes, ends, strict=True)]
        x = parts.pop()  # the last scale's, of which nothing was put aside
        for bijection in reversed(self.maps):
            x = ops.depth_to_space(bijection.inverse(x), 2)
            if parts:
                x = ops.concat([x, parts.pop()], axis=-1)
        return x

    def _shapes(self) -> list[tuple[int, int, int]]:
        """Of the parts of the code."""
        h, w, c = self.data_shape
        shapes = []
        for _ in self.maps[1:]:
            h, w, c = h // 2, w // 2, 2 * c
            shapes.append((h, w, c))
        return [*shapes, (h // 2, w // 2, 4 * c)]


@register("glow", ImageFlow, GlowConfig, "normalizing flow for images: 1x1 convolutions, couplings, several scales")
def glow(data_shape: tuple[int, ...], config: GlowConfig, rng: Generator) -> ImageFlow:
    """Logit, then `scales` scales of `flow_steps` steps. The sides must be multiples of 2^scales.

    Raises ValueError if they are not, or if the number of grey levels is not given.
    """
    side = 2**config.scales
    if len(data_shape) != 3 or data_shape[0] % side or data_shape[1] % side:
        raise ValueError(f"glow with {config.scales} scales needs images whose sides are multiples of {side}, not {data_shape}")
    if config.levels < 2:
        raise ValueError("glow must know how many grey levels the images have: GlowConfig(levels=256)")
    channels, maps = data_shape[2], []
    for _ in range(config.scales):
        maps.append(Chain(*(step for _ in range(config.flow_steps) for step in _step(4 * channels, config.hidden, rng))))
        channels *= 2  # 4 C after squeezing, half of which go on
    if config.dequantisation == "variational":
        dequantiser: Uniform | Variational = Variational(data_shape[2], config.levels, config.hidden, rng=rng)
    else:
        dequantiser = Uniform()
    return ImageFlow(Chain(Logit(), MultiScale(maps, data_shape)), dequantiser, data_shape, config)


def _step(channels: int, hidden: int, rng: Generator) -> list[Bijection]:
    """One step of flow   (fig. 2a): the network of the coupling is 3×3, 1×1, 3×3, and starts at 0."""
    kept, changed = halves(channels, flip=False)
    network = Layers(
        Conv2d(kept, hidden, 3, padding=1, rng=rng),
        ops.relu,
        Conv2d(hidden, hidden, 1, rng=rng),
        ops.relu,
        Conv2d(hidden, 2 * changed, 3, padding=1, rng=rng, weight_init=init.zeros),
    )
    return [ActNorm(channels), InvertibleLinear(channels, rng=rng), AffineCoupling(network, channels)]
