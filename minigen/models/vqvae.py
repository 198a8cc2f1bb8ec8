"""VQ-VAE: a VAE with discrete codes   (van den Oord 2017, https://arxiv.org/abs/1711.00937; his equations by number alone).

An image becomes a small grid of vectors, and each of them is replaced by the nearest e_k of a codebook of K: the code of the
image is a grid of whole numbers. The posterior is a single point, so the bound has no expectation:

    log p(x)  ≥  log p(x | z_q(x)) + log p(k(x)),     z_q(x) = e_k,   k = argmin_j |z_e(x) - e_j|          (eqs. 1, 2; sec. 3.1)

Start at `Codebook.forward`, the straight-through gradient, and `Codebook.update`; then `VQVAE.loss`. The prior p(k) is a small
PixelCNN over the grid of codes (sec. 3.3), here trained at the same time: it sees the codes, and they do not see it.

N images, a grid of (h, w) codes, D the dimension of a vector. Log-likelihoods are in nats per image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..nn import Conv2d, ConvTranspose2d, Embedding, Known, Linear, Module, Sequential, parameter
from ..random import Generator
from .autoregressive import pick
from .model import Loss, Model, ModelConfig, option, other_default, register
from .pixelcnn import CausalConv, ResidualBlock
from .vae import Bernoulli, Likelihood

RARE = 0.1  # uses in a batch, as a moving average, below which a code starts again
WIDEST = 8  # sides of the grid of codes, at most


@dataclass(frozen=True)
class VQVAEConfig(ModelConfig):
    codes: int = option(64, "vectors in the codebook", low=2)
    dimension: int = option(16, "dimension of each", low=1)
    commitment: float = option(0.25, "weight beta of the pull of the encoder's outputs towards their codes", low=0.0)
    decay: float = option(0.99, "decay of the averages that the codebook follows", low=0.0, high=0.999999)
    channels: int = option(32, "channels of the first convolution; later ones have twice as many", low=1)
    batch_size: int = other_default(ModelConfig, "batch_size", 100)
    lr: float = other_default(ModelConfig, "lr", 2e-3)
    steps: int = other_default(ModelConfig, "steps", 4000)
    ema: float = other_default(ModelConfig, "ema", 0.99)


class Codebook(Module):
    """K vectors, each the moving average of what was nearest to it.     size: K     dimension: D     decay: γ"""

    def __init__(self, size: int, dimension: int, decay: float = 0.99):
        self.decay = decay
        self.vectors, self.sums = (Tensor(np.zeros((size, dimension), np.float32)) for _ in range(2))  # e, m: buffers
        self.counts, self.started = Tensor(np.zeros(size, np.float32)), Tensor(np.zeros((), np.float32))
        self.has_started = Known(self.started)

    def forward(self, z: Tensor) -> tuple[Tensor, np.ndarray]:
        """The nearest vectors, and which they are.     z: (..., D) -> (..., D), (...) int                         (eqs. 1, 2)

        The choice has no derivative, so the gradient is passed straight through: that of z_q is given to z_e   (sec. 3.2).
        """
        k = self.nearest(z.data)
        return (z - z.detach()) + self.vectors.data[k], k  # e_k, with the derivative of z       proved by: truth vq

    def nearest(self, z: np.ndarray) -> np.ndarray:
        """argmin_k |z - e_k|², by |e_k|² - 2 z·e_k.     (..., D) -> (...) int"""
        e = self.vectors.data
        return ((e * e).sum(axis=1) - 2 * ops.matmul(z, e.T)).argmin(axis=-1)

    def update(self, z: np.ndarray, k: np.ndarray, rng: Generator) -> None:
        """Move each vector towards the mean of the z that it was chosen for.     z: (..., D), k: (...)

            N_k ← γ N_k + (1 - γ) n_k,     m_k ← γ m_k + (1 - γ) Σ z,     e_k = m_k/N_k                       (eqs. 6 to 8)

        A code that is hardly used any more starts again at one of the z, or it would be lost   (Dhariwal 2020, 2005.00341).
        """
        z, k, keep = z.reshape(-1, z.shape[-1]), k.reshape(-1), self.decay
        chosen = self._one_hot(k, z.dtype)  # (M, K)
        n, total = chosen.sum(axis=0), ops.matmul(chosen.T, z)  # (K,), (K, D)
        counts, sums = keep * self.counts.data + (1 - keep) * n, keep * self.sums.data + (1 - keep) * total
        rare = counts < RARE  # which ones is not asked here: a GPU would have to be waited for
        fresh = z[rng.integers(0, len(z), (len(counts),))]
        self._set(np.where(rare, 1, counts), np.where(rare[:, None], fresh, sums))

    def start(self, z: np.ndarray, rng: Generator) -> None:
        """Begin at vectors that the encoder gives, as if each had been chosen once.     z: (..., D)"""
        z = z.reshape(-1, z.shape[-1])
        self._set(0 * self.counts.data + 1, z[rng.integers(0, len(z), (len(self.counts),))])
        self.started.data[...] = 1
        self.started.mark_written()

    def _set(self, counts: np.ndarray, sums: np.ndarray) -> None:
        for buffer, values in ((self.counts, counts), (self.sums, sums), (self.vectors, sums / counts[:, None])):
            buffer.data[...] = values
            buffer.mark_written()

    def perplexity(self, k: np.ndarray) -> Tensor:
        """e^H of how often each code is used: K if all are used alike, 1 if one is used alone.     k: (...) int -> ()"""
        p = self._one_hot(k.reshape(-1), np.float64).mean(axis=0)  # (K,)
        return Tensor(np.exp(-(p * np.log(np.where(p > 0, p, 1))).sum()))

    def _one_hot(self, k: np.ndarray, dtype: Any) -> np.ndarray:
        """(M,) -> (M, K)"""
        return ops.one_hot(k, len(self.counts), dtype)


class VQVAE(Model):
    """encoder(x): (N, *data_shape) -> (N, h, w, D).     decoder(z): (N, h, w, D) -> parameters of p(x|z).

    prior(k): (N, h, w) int -> logits (N, h, w, K), those of a code from the codes before it in raster order only.
    grid: (h, w).
    """

    config: VQVAEConfig

    def __init__(
        self,
        encoder: Callable,
        codebook: Codebook,
        decoder: Callable,
        prior: Callable,
        likelihood: Likelihood,
        data_shape: tuple[int, ...],
        grid: tuple[int, int],
        config: VQVAEConfig,
    ):
        self.encoder, self.codebook, self.decoder, self.prior, self.likelihood = encoder, codebook, decoder, prior, likelihood
        self.data_shape, self.grid, self.config = data_shape, grid, config

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        return self.likelihood.preprocess(x, rng)

    def loss(self, x: np.ndarray, rng: Generator) -> Loss:
        """-log p(x|z_q) - log p(k) + β |z_e - sg[e_k]|², averaged over the batch; sg: no gradient                      (eq. 3)

        The codebook needs no gradient: in training it follows the encoder (`Codebook.update`), in the place of eq. 3's |sg[z_e]
        - e|². log p(k) trains the prior alone.
        """
        z = self.encoder(x)  # (N, h, w, D)
        if self.training and not self.codebook.has_started():
            self.codebook.start(z.data, rng)
        z_q, k = self.codebook(z)
        log_px, log_pk = self.likelihood.log_prob(x, self.decoder(z_q)), self.log_prior(k)  # (N,), (N,)
        pull = ops.square(z - z_q.data).sum(axis=(1, 2, 3))  # (N,)                                 proved by: truth vq-bound
        if self.training:
            self.codebook.update(z.data, k, rng)
        terms = {"elbo": (log_px + log_pk).mean(), "reconstruction": log_px.mean()}
        terms |= {"code": -log_pk.mean(), "perplexity": self.codebook.perplexity(k)}
        return Loss(self.config.commitment * pull.mean() - log_px.mean() - log_pk.mean(), terms)

    def codes(self, x: np.ndarray) -> np.ndarray:
        """k(x).     x: preprocessed (N, *data_shape) -> (N, h, w) int"""
        return self.codebook(self.encoder(x))[1]

    def decode(self, k: np.ndarray) -> Tensor:
        """Parameters of p(x|k).     (N, h, w) int -> (N, *data_shape)"""
        return self.decoder(Tensor(self.codebook.vectors.data[k]))

    def log_prior(self, k: np.ndarray) -> Tensor:
        """log p(k) = Σ_i log p(k_i | k_<i).     (N, h, w) int -> (N,) nats"""
        return -ops.cross_entropy(self.prior(k), k, reduction="none").sum(axis=(1, 2))

    def elbo(self, x: np.ndarray, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The bound, and its two terms: log p(x|k), and the cost -log p(k) of the code.     x: preprocessed -> (N,), thrice

        It is one term of p(x) = Σ_k p(x|k) p(k), the one of the code that the encoder chooses.   proved by: truth vq-bound
        """
        k = self.codes(x)
        log_px, log_pk = self.likelihood.log_prob(x, self.decode(k)), self.log_prior(k)
        return log_px + log_pk, log_px, -log_pk

    def estimators(self, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
        """The bound of the encoder's code: there is no noise to average over."""

        def bound(x: np.ndarray, rng: Generator) -> np.ndarray:
            with no_grad():
                return self.elbo(x, rng)[0].data

        return {"bound by one code": bound}

    # ---- use

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """Codes from the prior, one after another, and the mean of p(x|k), as is usual.     -> (n, *data_shape)"""
        k = np.zeros((n, *self.grid), np.int64)
        with no_grad():
            for at in np.ndindex(self.grid):
                logits = self.prior(k).data[:, *at].astype(np.float64)  # (n, K)
                p = np.exp(logits - logits.max(axis=1, keepdims=True))
                below = p.cumsum(axis=1)[:, :-1] / p.sum(axis=1, keepdims=True)
                k[:, *at] = pick(below, rng.uniform((n,), dtype=np.float64))
            return self.likelihood.sample(self.decode(k), rng)

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """Mean of p(x|k(x)).     (N, *data_shape) -> the same"""
        with no_grad():
            return self.likelihood.mean(self.decode(self.codes(x)))


class CodePrior(Module):
    """A PixelCNN over a grid of codes.     (N, h, w) int -> logits (N, h, w, K)"""

    def __init__(self, codes: int, grid: tuple[int, int], channels: int, rng: Generator, blocks: int = 2):
        self.enter = Embedding(codes, channels, rng=rng)
        self.place = parameter(np.zeros((*grid, channels), np.float32))
        self.first = CausalConv(channels, channels, 3, 3, own=False, rng=rng)
        self.blocks = [ResidualBlock(channels, rng) for _ in range(blocks)]
        self.leave = Linear(channels, codes, rng=rng)

    def forward(self, k: np.ndarray) -> Tensor:
        h = self.first(self.enter(k)) + self.place  # (N, h, w, c)
        for block in self.blocks:
            h = block(h, None)
        return self.leave(ops.relu(h))


@register("vqvae", VQVAE, VQVAEConfig, "VAE with discrete codes, and a small PixelCNN as their prior")
def vqvae(data_shape: tuple[int, ...], config: VQVAEConfig, rng: Generator) -> VQVAE:
    """Convolutions of stride 2 down to a grid of at most 8 x 8, once at least, and the mirror image: 28 -> 7,  8 -> 4.

    Raises ValueError for data that are not such images.
    """
    if len(data_shape) != 3 or data_shape[0] % 4 or data_shape[1] % 4:
        raise ValueError(f"vqvae needs images whose sides are multiples of 4, not data of shape {data_shape}")
    c, d, (height, width, channels) = config.channels, config.dimension, data_shape
    down: list[Callable] = []
    up: list[Callable] = []
    inside, outside = channels, 1
    while not down or (max(height, width) > WIDEST and height % 2 == width % 2 == 0):
        down += [Conv2d(inside, outside * c, 4, stride=2, padding=1, rng=rng), ops.relu]
        up = [ops.relu, ConvTranspose2d(outside * c, inside, 4, stride=2, padding=1, rng=rng), *up]
        inside, outside, height, width = outside * c, 2, height // 2, width // 2
    encoder = Sequential(*down, Conv2d(inside, inside, 3, padding=1, rng=rng), ops.relu, Conv2d(inside, d, 1, rng=rng))
    decoder = Sequential(Conv2d(d, inside, 3, padding=1, rng=rng), *up)
    prior, book = CodePrior(config.codes, (height, width), 2 * c, rng), Codebook(config.codes, d, config.decay)
    return VQVAE(encoder, book, decoder, prior, Bernoulli(), data_shape, (height, width), config)
