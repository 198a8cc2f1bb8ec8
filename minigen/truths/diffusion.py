"""Truths of diffusion models, where the best denoiser is known. Start at `GaussianData`.

Everything follows from the array ᾱ (alpha_bar, (T+1,), ᾱ_0 = 1) alone, in formulas of its own: nothing here uses the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GaussianData:
    """Data N(0, variance), in each dimension, under a process with signal alpha_bar.

    x_0 and x_t are then jointly Gaussian, so E[x_0 | x_t], and with it every sampler, is linear in x_t.
    """

    variance: float
    alpha_bar: np.ndarray

    # ---- truth ddpm-gaussian

    def eps(self, x: np.ndarray, alpha_bar: np.ndarray | float) -> np.ndarray:
        """The best prediction of the noise:  ε*(x, t) = √(1 - ᾱ) x/(ᾱ s² + 1 - ᾱ)"""
        return np.sqrt(1 - alpha_bar) * x / (alpha_bar * self.variance + 1 - alpha_bar)

    def least_loss(self) -> float:
        """The least L_simple that any network can have:  mean_t ᾱ s²/(ᾱ s² + 1 - ᾱ)"""
        signal = self.alpha_bar[1:] * self.variance
        return float((signal / (signal + 1 - self.alpha_bar[1:])).mean())

    # ---- truth ddpm-vlb

    def best_variance(self) -> np.ndarray:
        """Var[x_{t-1} | x_t], the best σ_t² of a reverse step:  σ_t² = β_t v_{t-1}/v_t,  v_t = Var[x_t].  (T+1,), 0 at 0"""
        v = self._marginal()
        return np.concatenate([[0.0], (1 - self.alpha_bar[1:] / self.alpha_bar[:-1]) * v[:-1] / v[1:]])

    def least_bound(self) -> float:
        """The variational bound on -log p with the best means and variances: H(data) + KL(q(x_T) ‖ N(0, 1)).     nats/dim"""
        v = self._marginal()[-1]
        return 0.5 * (math.log(2 * math.pi * math.e * self.variance) + v - 1 - math.log(v))

    def gaps(self, sigma2: np.ndarray) -> np.ndarray:
        """What the variances σ_t² (T+1,) add to it, term by term:  ½ (log σ²/best + best/σ² - 1).    (T,) nats/dim, t = 1..T"""
        ratio = self.best_variance()[1:] / sigma2[1:]
        return 0.5 * (ratio - 1 - np.log(ratio))

    # ---- truth sampler-std

    def ancestral_std(self, sigma2: np.ndarray) -> float:
        """Standard deviation of ancestral samples from N(0, 1) with variances σ_t², and no noise at the last step.

        x_{t-1} = E[x_{t-1} | x_t] + σ_t z, whose first part is  √(ᾱ_t/ᾱ_{t-1}) v_{t-1}/v_t x_t.
        """
        v, var = self._marginal(), 1.0
        for t in range(len(v) - 1, 0, -1):
            slope = math.sqrt(self.alpha_bar[t] / self.alpha_bar[t - 1]) * v[t - 1] / v[t]
            var = slope**2 * var + (sigma2[t] if t > 1 else 0.0)
        return math.sqrt(var)

    def ddim_std(self) -> float:
        """Standard deviation of deterministic DDIM samples from N(0, 1): each step turns (√ᾱ x_0, √(1 - ᾱ) ε) by an angle."""
        v, std = self._marginal(), 1.0
        for t in range(len(v) - 1, 0, -1):
            now, before = self.alpha_bar[t], self.alpha_bar[t - 1]
            std *= (math.sqrt(now * before) * self.variance + math.sqrt((1 - now) * (1 - before))) / v[t]
        return std

    def _marginal(self) -> np.ndarray:
        """v_t = Var[x_t] = ᾱ_t s² + 1 - ᾱ_t.     (T+1,)"""
        return self.alpha_bar * self.variance + 1 - self.alpha_bar


@dataclass(frozen=True)
class FinitePoints:
    """Data that are one of a few points (M, D), all alike.   Truth memorise: the best sampler ends on one of them."""

    points: np.ndarray

    def x0(self, x: np.ndarray, alpha_bar: float) -> np.ndarray:
        """E[x_0 | x_t], a mean of the points with softmax weights -½ |x - √ᾱ p|²/(1 - ᾱ).     (N, D) -> (N, D)"""
        squares = ((x[:, None] - math.sqrt(alpha_bar) * self.points) ** 2).sum(axis=2)  # (N, M)
        logits = -0.5 * (squares - squares.min(axis=1, keepdims=True)) / (1 - alpha_bar)
        weights = np.exp(logits)
        return weights / weights.sum(axis=1, keepdims=True) @ self.points

    def eps(self, x: np.ndarray, alpha_bar: float) -> np.ndarray:
        return (x - math.sqrt(alpha_bar) * self.x0(x, alpha_bar)) / math.sqrt(1 - alpha_bar)
