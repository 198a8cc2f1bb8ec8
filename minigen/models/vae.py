"""Variational autoencoder   (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; their equations are cited as K&W).

A latent code z ~ N(0, I) is decoded into a distribution over x. The likelihood p(x) = ∫ p(x|z) p(z) dz has no closed form, so
an encoder q(z|x) = N(mu(x), diag sigma²(x)) proposes codes that may explain x, and training raises a lower bound:

    log p(x)  ≥  ELBO(x)  =  E_q[log p(x|z)]  -  KL(q(z|x) ‖ p(z))                                             (K&W eq. 3)

Read `VAE.elbo` first, then `VAE.log_weights` for the tighter bound of importance weighting   (Burda 2016, the IWAE,
https://arxiv.org/abs/1509.00519). Log-likelihoods are in nats per sample. N is the batch, D the dimension of the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..nn import Conv2d, ConvTranspose2d, Linear, Module, Sequential, parameter
from ..random import Generator
from .model import Loss, Model, ModelConfig, option, other_default, register

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class BoundConfig(ModelConfig):
    """What every VAE needs to know. A large learning rate and averaged parameters: fast first, and then without its noise."""

    latent: int = option(20, "dimension of the latent code", low=1)
    beta: float = option(1.0, "weight of the KL term: 1 is the ELBO, more is the beta-VAE", low=0.0)
    free_bits: float = option(0.0, "nats of KL per latent dimension that cost nothing", low=0.0)
    samples: int = option(1, "importance samples in the objective: 1 is the ELBO, more is the IWAE", low=1)
    batch_size: int = other_default(ModelConfig, "batch_size", 200)
    lr: float = other_default(ModelConfig, "lr", 2e-3)
    steps: int = other_default(ModelConfig, "steps", 4000)
    ema: float = other_default(ModelConfig, "ema", 0.999)


class VAE(Model):
    """A VAE made of an encoder, a decoder and a likelihood.

    encoder(x) -> (N, 2D): mean and log-variance of q(z|x) side by side.     decoder(z): (N, D) -> parameters of p(x|z).
    Raises ValueError for beta or free_bits together with several importance samples, where they have no meaning.
    """

    config: BoundConfig

    def __init__(
        self, encoder: Callable, decoder: Callable, likelihood: Likelihood, data_shape: tuple[int, ...], config: BoundConfig
    ):
        if config.samples > 1 and (config.beta, config.free_bits) != (1, 0):
            raise ValueError("beta and free_bits weigh the KL term of the ELBO: leave them out, or samples at 1")
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.data_shape, self.config = data_shape, config

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        return self.likelihood.preprocess(x, rng)

    # ---- the bound

    def encode(self, x: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x).     x: (N, *data_shape) -> (N, D), (N, D)                       (K&W eq. 9)"""
        h = self.encoder(x)  # (N, 2D)
        return h[:, : self.config.latent], h[:, self.config.latent :]

    def decode(self, z: Tensor | np.ndarray) -> Tensor:
        """Parameters of p(x|z).     z: (N, D) -> (N, *data_shape): logits of Bernoullis, or means of Gaussians"""
        return self.decoder(z)

    def elbo(self, x: np.ndarray, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One-sample estimate of the ELBO, and its two terms.     x: (N, *data_shape) -> (N,), (N,), (N,) nats

            ELBO = log p(x|z) - KL,    z = mu + sigma · eps,  eps ~ N(0, I)                                (K&W eq. 10)
            KL   = -½ Σ_d (1 + log sigma_d² - mu_d² - sigma_d²)                                         (K&W app. B)
        """
        mu, logvar = self.encode(x)
        z, kl = ops.sample_normal_kl(mu, logvar, rng.normal(mu.shape, dtype=mu.dtype))  # (N, D), (N,)
        log_px = self.likelihood.log_prob(x, self.decode(z))  # (N,)
        return log_px - kl, log_px, kl  # proved by: truths linear-vae, pathwise

    def log_weights(self, x: np.ndarray, k: int, rng: Generator) -> Tensor:
        """k log importance weights for each sample.     x: (N, *data_shape) -> (k, N) nats

            log w = log p(x|z) + log p(z) - log q(z|x),    z ~ q(z|x)                               (Burda 2016, eq. 8)
        """
        mu, logvar = self.encode(x)
        n, d = mu.shape
        eps = rng.normal((k, n, d), dtype=mu.dtype)
        z = mu + ops.exp(0.5 * logvar) * eps  # (k, N, D)
        log_pz_qz = 0.5 * (eps * eps + logvar - ops.square(z)).sum(axis=-1)  # (k, N)   since (z - mu)/sigma = eps
        output = self.decode(z.reshape(k * n, d))  # (k N, *data_shape)
        repeated = np.broadcast_to(x, (k, *x.shape)).reshape(k * n, *x.shape[1:])
        log_px = self.likelihood.log_prob(repeated, output).reshape(k, n)
        return log_px + log_pz_qz  # proved by: truth iwae-bounds

    def log_prob_bound(self, x: np.ndarray, k: int, rng: Generator, chunk: int = 50) -> np.ndarray:
        """The importance-weighted bound L_k = E[log 1/k Σ w] ≤ log p(x), without a graph.     -> (N,) nats

        L_1 is the ELBO; L_k grows with k towards log p(x)   (Burda 2016, theorem 1). No more than `chunk` weights of each
        sample are in memory at a time. Raises ValueError for k or chunk below 1.
        """
        if min(k, chunk) < 1:
            raise ValueError(f"log_prob_bound: k={k} samples in chunks of {chunk}: both must be at least 1")
        log_sum = np.full_like(x, -np.inf, shape=len(x), dtype=np.float64)  # (N,) float64, of the weights so far
        with no_grad():
            for done in range(0, k, chunk):
                log_w = self.log_weights(x, min(chunk, k - done), rng)
                log_sum = np.logaddexp(log_sum, ops.logsumexp(log_w, axis=0).data)
        return log_sum - math.log(k)

    # ---- training

    def loss(self, x: np.ndarray, rng: Generator) -> Loss:
        """What is minimised, averaged over the batch: -ELBO, or -L_k for several importance samples.

        beta and free bits λ change the weight of the KL term   (Higgins 2017, eq. 4; Kingma 2016, IAF, eq. 15):

            -log p(x|z) + beta Σ_d max(λ, KL_d),     KL_d averaged over the batch
        """
        config = self.config
        if config.samples > 1:
            bound = (ops.logsumexp(self.log_weights(x, config.samples, rng), axis=0) - math.log(config.samples)).mean()
            return Loss(-bound, {"bound": bound})
        elbo, log_px, kl = self.elbo(x, rng)
        if config.free_bits:
            cost = ops.maximum(ops.kl_normal(*self.encode(x)).mean(axis=0), config.free_bits).sum()  # (D,) -> ()
        else:
            cost = kl.mean()
        terms = {"elbo": elbo, "reconstruction": log_px, "kl": kl}
        return Loss(config.beta * cost - log_px.mean(), {name: term.mean() for name, term in terms.items()})

    # ---- use

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """Samples for n codes z ~ N(0, I): points drawn from p(x|z); of images, as is usual, the means.  -> (n, *data_shape)"""
        with no_grad():
            return self.likelihood.sample(self.decode(Tensor(rng.normal((n, self.config.latent)))), rng)

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """Mean of p(x|z) at the mean code of x.     (N, *data_shape) -> the same"""
        with no_grad():
            return self.likelihood.mean(self.decode(self.encode(x)[0]))


# ---- what the decoder's output means


class Likelihood(Module):
    """A distribution p(x | output) over data. log_prob: (N, *data_shape), (N, *data_shape) -> (N,) nats."""

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        """What the model sees of a batch of data, (N, *data_shape): the data themselves, unless a subclass draws."""
        return x

    def log_prob(self, x: np.ndarray, output: Tensor) -> Tensor:
        """log p(x | output), (N,) nats, of x and output: (N, *data_shape). TypeError if no subclass defines it."""
        raise TypeError(f"{type(self).__name__} defines no log_prob()")

    def mean(self, output: Tensor) -> np.ndarray:
        """E[x | output], (N, *data_shape), as an array. TypeError if no subclass defines it."""
        raise TypeError(f"{type(self).__name__} defines no mean()")

    def sample(self, output: Tensor, rng: Generator) -> np.ndarray:
        """What is shown as a sample: the mean, unless a subclass draws."""
        return self.mean(output)


class Bernoulli(Likelihood):
    """Binary pixels with logits l: log p = Σ x log σ(l) + (1-x) log(1 - σ(l))                             (K&W eq. 11)

    Grey values in [0, 1] are drawn black or white anew each time they are seen: dynamic binarisation.
    """

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        return rng.bernoulli(x)

    def log_prob(self, x: np.ndarray, output: Tensor) -> Tensor:
        return -_sum_values(ops.binary_cross_entropy_with_logits(output, x, reduction="none"))

    def mean(self, output: Tensor) -> np.ndarray:
        return ops.sigmoid(output.data)


class Gaussian(Likelihood):
    """Real values around the output m, with one learned scale: log p = Σ -½ ((x - m)/s)² - log s - ½ log 2π   (K&W eq. 12)"""

    def __init__(self, scale: float = 1.0):
        self.log_scale = parameter(np.full((), math.log(scale), np.float32))

    def log_prob(self, x: np.ndarray, output: Tensor) -> Tensor:
        u = (x - output) * ops.exp(-self.log_scale)  # (N, *data_shape)
        return _sum_values(-0.5 * ops.square(u) - self.log_scale - 0.5 * LOG_2PI)

    def mean(self, output: Tensor) -> np.ndarray:
        return output.data

    def sample(self, output: Tensor, rng: Generator) -> np.ndarray:
        return output.data + np.exp(self.log_scale.data) * rng.normal(output.shape, dtype=output.dtype)


def _sum_values(per_value: Tensor) -> Tensor:
    """(N, *data_shape) -> (N,)"""
    return per_value.sum(axis=tuple(range(1, per_value.ndim)))


# ---- the two networks


@dataclass(frozen=True)
class MLPConfig(BoundConfig):
    latent: int = other_default(BoundConfig, "latent", 50)
    hidden: int = option(200, "units of each of the two hidden layers", low=1)


@register("vae-mlp", VAE, MLPConfig, "fully connected VAE, the network of the IWAE paper")
def mlp_vae(data_shape: tuple[int, ...], config: MLPConfig, rng: Generator) -> VAE:
    """784-200-200-50 and back, tanh   (Burda 2016, sec. 5). For images, or with a Gaussian likelihood for 2-D points."""
    size, h, d = math.prod(data_shape), config.hidden, config.latent
    encoder = Sequential(
        _reshape(size),
        Linear(size, h, rng=rng, activation="tanh"),
        Linear(h, h, rng=rng, activation="tanh"),
        Linear(h, 2 * d, rng=rng),
    )
    decoder = Sequential(
        Linear(d, h, rng=rng, activation="tanh"),
        Linear(h, h, rng=rng, activation="tanh"),
        Linear(h, size, rng=rng),
        _reshape(*data_shape),
    )
    return VAE(encoder, decoder, Bernoulli() if len(data_shape) == 3 else Gaussian(), data_shape, config)


@dataclass(frozen=True)
class VAEConfig(BoundConfig):
    hidden: int = option(256, "units of the hidden layer", low=1)
    channels: int = option(32, "channels of the first convolution; the second has twice as many", low=1)


@register("vae", VAE, VAEConfig, "small convolutional VAE")
def conv_vae(data_shape: tuple[int, ...], config: VAEConfig, rng: Generator) -> VAE:
    """Two convolutions of stride 2 and one hidden layer, and the mirror image. Height and width must be multiples of 4.

    Raises ValueError for points, and for sides that 4 does not divide.
    """
    if len(data_shape) != 3 or data_shape[0] % 4 or data_shape[1] % 4:
        raise ValueError(f"vae needs images whose sides are multiples of 4, not data of shape {data_shape}; vae-mlp takes any")
    height, width, channels = data_shape
    c, h, d = config.channels, config.hidden, config.latent
    inner = (height // 4, width // 4, 2 * c)  # 28 -> 14 -> 7,  8 -> 4 -> 2
    encoder = Sequential(
        Conv2d(channels, c, 4, stride=2, padding=1, rng=rng),
        ops.relu,
        Conv2d(c, 2 * c, 4, stride=2, padding=1, rng=rng),
        ops.relu,
        _reshape(math.prod(inner)),
        Linear(math.prod(inner), h, rng=rng, activation="relu"),
        Linear(h, 2 * d, rng=rng),
    )
    decoder = Sequential(
        Linear(d, h, rng=rng, activation="relu"),
        Linear(h, math.prod(inner), rng=rng, activation="relu"),
        _reshape(*inner),
        ConvTranspose2d(2 * c, c, 4, stride=2, padding=1, rng=rng),
        ops.relu,
        ConvTranspose2d(c, channels, 4, stride=2, padding=1, rng=rng),
    )
    return VAE(encoder, decoder, Bernoulli(), data_shape, config)


def _reshape(*shape: int) -> Callable:
    """A layer that gives each sample another shape."""

    def reshape(x: Tensor) -> Tensor:
        return x.reshape(len(x), *shape)

    return reshape
