"""What the outputs of an autoregressive model of images mean: the distribution of one pixel given those before it.

    Binary            black or white, one output: a logit
    LogisticMixture   L grey levels, 3 K outputs: a discretised mixture of K logistic distributions   (Salimans 2017,
                      PixelCNN++, https://arxiv.org/abs/1701.05517)

Both draw a pixel from one uniform number u, by the distribution function F: the first level k with u < F(k). So whatever
computes the outputs, the same numbers give the same pixels. Start at `LogisticMixture.log_levels`.
"""

from __future__ import annotations

import numpy as np

from ..autograd import Tensor, ops
from ..autograd.backend import alike
from ..random import Generator
from .dequantise import grey_levels
from .vae import Bernoulli, Likelihood

LEAST = -7.0  # of log-scales, as in the published code: a logistic narrower than that lies within one of 256 levels


class Binary(Bernoulli):
    """Levels 0 and 1, drawn from grey values anew each time.     outputs: 1, the logit"""

    outputs, levels = 1, 2

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """Levels as the network sees them: -1 and 1, so that black is not what lies outside the image."""
        return 2 * x - 1

    def below(self, output: np.ndarray) -> np.ndarray:
        """F(k) = P(x ≤ k) for every level but the last.     (N, 1) -> (N, 1) float64"""
        return _sigmoid(-output.astype(np.float64))

    def images(self, x: np.ndarray) -> np.ndarray:
        """Levels -> images in [0, 1]."""
        return x


class LogisticMixture(Likelihood):
    """Levels 0 ... L-1, at v = -1 ... 1; each has the mass of a mixture of logistic distributions in its interval of 2/(L-1).

        P(v) = Σ_k π_k [σ((v + h - mu_k)/s_k) - σ((v - h - mu_k)/s_k)],    h = 1/(L-1)                (PixelCNN++ eq. 2)

    where the first interval begins at -∞ and the last ends at ∞.     outputs: 3 K, logits of π, mu, log s of each component
    """

    def __init__(self, levels: int, components: int):
        self.levels, self.components, self.outputs = levels, components, 3 * components

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        """x: (N, H, W, C) in [0, 1]  ->  levels 0 .. L-1, of the same shape and dtype."""
        return grey_levels(x, self.levels)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """Levels 0 .. L-1  ->  what a network is given: [-1, 1]."""
        return x * (2 / (self.levels - 1)) - 1

    def log_prob(self, x: np.ndarray, output: Tensor) -> Tensor:
        """(N, H, W, 1), (N, H, W, 3 K) -> (N,) nats"""
        return self.log_levels(x[..., 0], output).sum(axis=(1, 2))

    def log_levels(self, k: np.ndarray, output: Tensor) -> Tensor:
        """log P of levels k.     (...), (..., 3 K) -> (...) nats

        With a and b the standardised ends of the interval,  log [σ(b) - σ(a)] = -ζ(-b) - ζ(a) + log(1 - e^(a-b)),  ζ softplus:
        no difference of nearly equal numbers, and the edge intervals just leave out the terms of their infinite end.
        """
        weight, mu, log_s = self._split(output)  # (..., K) each
        rate, half = ops.exp(-log_s), 1 / (self.levels - 1)
        v = self.inputs(k)[..., None]  # (..., 1)
        a, b = (v - half - mu) * rate, (v + half - mu) * rate
        first, last = k[..., None] == 0, k[..., None] == self.levels - 1
        inner = ops.where(first | last, 0.0, ops.log(-ops.expm1(-2 * half * rate)))
        log_mass = inner - ops.where(last, 0.0, ops.softplus(-b)) - ops.where(first, 0.0, ops.softplus(a))
        return ops.logsumexp(ops.log_softmax(weight) + log_mass, axis=-1)  # proved by: truth logistic-mixture

    def below(self, output: np.ndarray) -> np.ndarray:
        """F(k) = Σ π σ((v_k + h - mu)/s).     (N, 3 K) -> (N, L-1) float64"""
        weight, mu, log_s = (part.data[:, None] for part in self._split(Tensor(output.astype(np.float64))))  # (N, 1, K)
        ends = alike(self.inputs(np.arange(self.levels - 1) + 0.5)[:, None], output)  # (L-1, 1)
        pi = np.exp(weight - weight.max(axis=-1, keepdims=True))
        return (pi / pi.sum(axis=-1, keepdims=True) * _sigmoid((ends - mu) * np.exp(-log_s))).sum(axis=-1)

    def images(self, x: np.ndarray) -> np.ndarray:
        """Levels 0 .. L-1  ->  what is shown: [0, 1]."""
        return x / np.float32(self.levels - 1)

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.components
        return output[..., :n], output[..., n : 2 * n], ops.maximum(output[..., 2 * n :], LEAST)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))  # overflows nowhere
