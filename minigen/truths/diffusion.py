"""Truths of diffusion models, where the best denoiser is known. Start at `GaussianData`.

Everything follows from the array ᾱ (alpha_bar, (T+1,), ᾱ_0 = 1) alone, in formulas of its own: nothing here uses the model.
What known mistakes would give is at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
        """E[ε | x_t], the noise that the best network predicts: (x_t - √ᾱ E[x_0 | x_t]) / √(1 - ᾱ).     (N, D) -> (N, D)"""
        return (x - math.sqrt(alpha_bar) * self.x0(x, alpha_bar)) / math.sqrt(1 - alpha_bar)


def reverse_variance(alpha_bar: np.ndarray, kind: str) -> np.ndarray:
    """σ_t² of the reverse steps: "large" β_t, "small" β̃_t, and at t = 1 always β_1.     (T+1,)"""
    before, now = alpha_bar[:-1], alpha_bar[1:]
    beta = 1 - now / before
    sigma2 = beta * ((1 - before) / (1 - now) if kind == "small" else 1.0)
    sigma2[0] = beta[0]
    return np.concatenate([[0.0], sigma2])


# ---- what known mistakes would give


def error_of_noise(truth: GaussianData, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """E (ε* - ε)² at each t where x_t has been made with these squares of the two coefficients, and the network knows ᾱ."""
    a2 = truth.alpha_bar[1:]
    slope = np.sqrt(1 - a2) / (a2 * truth.variance + 1 - a2)  # ε* = slope x
    return slope**2 * (signal * truth.variance + noise) - 2 * slope * np.sqrt(noise) + 1


def loss_suspects(truth: GaussianData) -> tuple[tuple[float, str], ...]:
    """Of `ddpm.ddpm_gaussian`. Where fewer than T times are drawn, `Signs` begins again at the first of them."""
    a2, before = truth.alpha_bar[1:], truth.alpha_bar[:-1]
    right = error_of_noise(truth, a2, 1 - a2)
    a, b, v = np.sqrt(a2), np.sqrt(1 - a2), a2 * truth.variance + 1 - a2
    return tuple(
        (float(np.mean(wrong)), mistake)
        for wrong, mistake in (
            (np.append(right[:-1], right[0]), "t is drawn from 1..T-1: step T, where the sampler starts, is never trained"),
            (np.append(right[:-1], 1.0), "t is drawn from 0..T-1, where the steps are 1..T"),
            (error_of_noise(truth, before, 1 - before), "x_t is noised with ᾱ of the step before: the schedule is off by one"),
            (error_of_noise(truth, a2, (1 - a2) ** 2), "the noise is scaled by its variance 1 - ᾱ, where √(1 - ᾱ) is meant"),
            (error_of_noise(truth, a2**2, 1 - a2), "the data are scaled by ᾱ where √ᾱ is meant"),
            (error_of_noise(truth, a2 / before, 1 - a2 / before), "x_t is noised with α_t = 1 - β_t where ᾱ_t is meant"),
            (b**2 / v - 2 * a * b * truth.variance / v + truth.variance, "the network says ε, and is compared with x_0"),
            (b**2 / v * 3 + 1, "the target is -ε: a wrong sign"),
            (2 * right, "the loss counts everything twice"),
            (right / 2, "the loss has a factor ½"),
        )
    )


def bound_suspects(truth: GaussianData, sigma2: np.ndarray, right: float) -> tuple[tuple[float, str], ...]:
    """Of `ddpm.ddpm_vlb`, whose right value is `right`."""
    v = truth.alpha_bar * truth.variance + 1 - truth.alpha_bar
    left = truth.alpha_bar[-1]
    prior = 0.5 * (left * truth.variance - left - math.log1p(-left))  # E L_T
    last = 0.5 * (math.log(2 * math.pi * sigma2[1]) + truth.variance * (1 - truth.alpha_bar[1]) / v[1] / sigma2[1])  # E L_0
    middle = right - prior - last
    return (
        (right - prior, "L_T, the KL of the last step from the prior, is left out"),
        (right - last, "L_0, the likelihood of the last step back, is left out"),
        (right - middle, "the terms L_1 ... L_{T-1} are left out"),
        (prior + last + middle / max(1, len(sigma2) - 2), "the terms over t are averaged where they should be summed"),
        (right - 0.5 * math.log(2 * math.pi), "½ log 2π is missing from L_0"),
        (-right, "the sign: this is minus the bound"),
    )


def ode_mistakes(
    truth: GaussianData, between: Callable[[float], tuple[float, float]], steps: int
) -> Iterator[tuple[float, float, str]]:
    """Of `ddpm.pf_ode`: what wrong equations dx/dt = a(t) x come to, from t = 1 to T, and the mistake.

    The right one is  dx/dt = -½ β x - ½ g² s(x),  g² = β,  s = -x/v: a = -½ β (1 - 1/v)        (Song 2021, SDE, eq. 13)
    between: t -> ᾱ, β.     -> by how much x is multiplied, ∫ a dt, and the mistake. Some are so steep that the solver's own
    error counts, so it is done as a midpoint rule does it, in steps along which (√ᾱ, √(1 - ᾱ)) turns evenly.
    """
    angle = np.arccos(np.sqrt(truth.alpha_bar[1:]))
    times = np.interp(np.linspace(angle[0], angle[-1], steps + 1), angle, np.arange(1, len(truth.alpha_bar)))
    h = np.diff(times)
    first, middle = (np.array([between(float(t)) for t in at]).T for at in (times[:-1], times[:-1] + h / 2))
    rates: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {  # a of ᾱ, β, v
        "the score is multiplied by g, where g² is meant": lambda alpha, beta, v: -0.5 * beta + 0.5 * np.sqrt(beta) / v,
        "β is replaced by its root: g for g²": lambda alpha, beta, v: -0.5 * np.sqrt(beta) * (1 - 1 / v),
        "the score has no ½: that is the drift of the reverse SDE": lambda alpha, beta, v: -0.5 * beta + beta / v,
        "the score has the wrong sign": lambda alpha, beta, v: -0.5 * beta * (1 + 1 / v),
        "ε stands where the score is meant": lambda alpha, beta, v: -0.5 * beta * (1 - np.sqrt(1 - alpha) / v),
    }
    for mistake, rate in rates.items():
        start, half = (rate(alpha, beta, alpha * truth.variance + 1 - alpha) for alpha, beta in (first, middle))
        yield float(np.prod(1 + h * half * (1 + h / 2 * start))), float((h * half).sum()), mistake


def sampler_suspects(path: GaussianData, sampler: str, kind: str) -> tuple[tuple[float, str], ...]:
    """Of `ddpm.sampler_std`, along the steps of `path`."""
    small, large = (reverse_variance(path.alpha_bar, name) for name in ("small", "large"))
    found = [
        (path.ancestral_std(small), "this is ancestral sampling with the small variance, β̃_t"),
        (path.ancestral_std(large), "this is ancestral sampling with the large variance, β_t"),
        (path.ancestral_std(0 * small), "no noise is added between the steps"),
        (path.ddim_std(), "this is deterministic DDIM sampling"),
    ]
    if sampler == "ancestral":
        own = small if kind == "small" else large
        found = [entry for entry in found if abs(entry[0] - path.ancestral_std(own)) > 1e-9]
        found += [
            (math.sqrt(path.ancestral_std(own) ** 2 + own[1]), "noise is added at the last step too"),
            (GaussianData(path.variance, path.alpha_bar[:-1]).ancestral_std(own[:-1]), "it starts at step T - 1 instead of T"),
            (path.ancestral_std(own**2), "the noise is scaled by the variance σ², where σ is meant"),
        ]
    return tuple(found)
