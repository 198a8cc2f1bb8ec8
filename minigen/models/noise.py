"""The forward process of diffusion: data drown in noise, step by step. Everything here is exact. Start at `Schedule`.

    q(x_t | x_0) = N(√ᾱ_t x_0, (1 - ᾱ_t) I),     t = 1, ..., T,     ᾱ_0 = 1 (clean),     ᾱ_T ≈ 0 (noise)       (Ho 2020, eq. 4)

All that a model of this process needs to know is the array ᾱ. Sources: Ho 2020, "Denoising diffusion probabilistic models",
https://arxiv.org/abs/2006.11239; Nichol 2021, the cosine schedule, https://arxiv.org/abs/2102.09672; Song 2021, the DDIM,
https://arxiv.org/abs/2010.02502; Salimans 2022, the v-prediction, https://arxiv.org/abs/2202.00512.

x, x0, eps are raw arrays or Tensors (N, ...), t an integer or integers (N,).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..autograd.backend import beside, on_gpu

PREDICTIONS = ("eps", "x0", "v")


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha_bar: (T+1,) float64, the signal that is left: ᾱ_0 = 1, falling.

    times: (T+1,), what each step is called in the process that this one is a part of; 0, 1, ..., T where it is the whole one.
    """

    alpha_bar: np.ndarray
    times: np.ndarray

    # ---- how to get one

    @classmethod
    def named(cls, name: str, steps: int) -> Schedule:
        """The schedule called "linear" or "cosine", of T = steps."""
        return cls.linear(steps) if name == "linear" else cls.cosine(steps)

    @classmethod
    def linear(cls, steps: int, low: float = 1e-4, high: float = 0.02) -> Schedule:
        """β_t rises evenly from 1e-4 to 0.02 for T = 1000 (Ho 2020, sec. 4); scaled by 1000/T, so that ᾱ_T is small for any T.

        Raises ValueError for so few steps that β_T would reach 1.
        """
        beta = np.linspace(low, high, steps) * (1000 / steps)
        if beta.max() >= 1:
            raise ValueError(f"a linear schedule needs more than {1000 * high:.0f} steps, not {steps}; a cosine one takes any")
        return cls._of(beta)

    @classmethod
    def cosine(cls, steps: int, offset: float = 0.008) -> Schedule:
        """ᾱ_t = f(t)/f(0),  f(t) = cos²(π/2 (t/T + s)/(1 + s)),  with β_t at most 0.999               (Nichol 2021, eq. 17)"""
        f = np.cos(np.pi / 2 * (np.arange(steps + 1) / steps + offset) / (1 + offset)) ** 2
        return cls._of(np.minimum(1 - f[1:] / f[:-1], 0.999))

    @classmethod
    def _of(cls, beta: np.ndarray) -> Schedule:
        """ᾱ_t = Π_{s ≤ t} (1 - β_s)"""
        return cls(np.concatenate([[1.0], np.cumprod(1 - beta)]), np.arange(len(beta) + 1))

    def subset(self, count: int) -> Schedule:
        """The process seen at `count` of its steps only, evenly spaced, T and 1 among them: itself a process with a schedule.

        A model of the whole process samples along it in `count` steps. Raises ValueError unless 1 ≤ count ≤ T.
        """
        if not 1 <= count <= self.T:
            raise ValueError(f"a process of {self.T} steps has no {count} to sample in: choose from 1 to {self.T}")
        kept = np.rint(np.linspace(self.T, 1, count)).astype(int)[::-1]  # (count,), the last one always T
        kept = np.concatenate([[0], kept])
        return Schedule(self.alpha_bar[kept], self.times[kept])

    # ---- what follows from it

    @property
    def T(self) -> int:
        """How many steps there are."""
        return len(self.alpha_bar) - 1

    @cached_property
    def beta(self) -> np.ndarray:
        """β_t = 1 - ᾱ_t/ᾱ_{t-1}: the variance of the noise that step t adds.     (T+1,), 0 for t = 0"""
        return np.concatenate([[0.0], 1 - self.alpha_bar[1:] / self.alpha_bar[:-1]])

    @cached_property
    def beta_tilde(self) -> np.ndarray:
        """β̃_t = (1 - ᾱ_{t-1})/(1 - ᾱ_t) β_t: the variance of q(x_{t-1} | x_t, x_0).     (T+1,)             (Ho 2020, eq. 7)"""
        before, after = self.alpha_bar[:-1], self.alpha_bar[1:]
        return np.concatenate([[0.0], (1 - before) / (1 - after) * self.beta[1:]])

    def variance(self, kind: str) -> np.ndarray:
        """σ_t² of a reverse step p(x_{t-1} | x_t): "large" is β_t, "small" is β̃_t.     (T+1,)              (Ho 2020, sec. 3.2)

        They are right for data that are pure noise, and for data that are a single point. β̃_1 = 0 has no density, so the last
        step, to x_0, always has β_1.
        """
        sigma2 = {"large": self.beta, "small": self.beta_tilde}[kind].copy()
        sigma2[1] = self.beta[1]
        return sigma2

    # ---- forwards, and back where x_0 is known

    def q_sample(self, x0: Any, t: Any, eps: Any) -> Any:
        """Noise the data to step t.     x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε,  ε ~ N(0, I)                         (Ho 2020, eq. 4)"""
        a, b = self.signal_and_noise(t, x0)
        return a * x0 + b * eps  # proved by: truth ddpm-gaussian

    def posterior_mean(self, x0: Any, x: Any, t: Any) -> Any:
        """Mean of q(x_{t-1} | x_t, x_0):                                                                      (Ho 2020, eq. 7)

        μ̃_t = √ᾱ_{t-1} β_t/(1 - ᾱ_t) x_0 + √(ᾱ_t/ᾱ_{t-1}) (1 - ᾱ_{t-1})/(1 - ᾱ_t) x_t
        """
        t = t if on_gpu(t) else np.asarray(t)
        alpha_bar, beta = beside(self.alpha_bar, t), beside(self.beta, t)
        before, now = alpha_bar[t - 1], alpha_bar[t]
        c0 = np.sqrt(before) * beta[t] / (1 - now)
        ct = np.sqrt(now / before) * (1 - before) / (1 - now)
        return shaped(c0, x) * x0 + shaped(ct, x) * x  # proved by: truths ddpm-vlb, sampler-std

    def ddim_step(self, x0: Any, eps: Any, t: Any, eta: float, noise: Any) -> Any:
        """From x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε to x_{t-1}, with any share of fresh noise:               (Song 2021, eqs. 12, 16)

        x_{t-1} = √ᾱ_{t-1} x_0 + √(1 - ᾱ_{t-1} - σ²) ε + σ noise,     σ = η √β̃_t

        η = 0 is deterministic, η = 1 a draw from q(x_{t-1} | x_t, x_0).
        """
        t = np.asarray(t)
        before, sigma2 = self.alpha_bar[t - 1], eta**2 * self.beta_tilde[t]
        a, b = np.sqrt(before), np.sqrt(np.maximum(1 - before - sigma2, 0))
        return shaped(a, eps) * x0 + shaped(b, eps) * eps + shaped(np.sqrt(sigma2), eps) * noise  # truths memorise, ddim-eta1

    def signal_and_noise(self, t: Any, like: Any) -> tuple[np.ndarray, np.ndarray]:
        """√ᾱ_t and √(1 - ᾱ_t), to be multiplied with (N, ...)."""
        alpha_bar = beside(self.alpha_bar, t)[t]
        return shaped(np.sqrt(alpha_bar), like), shaped(np.sqrt(1 - alpha_bar), like)

    # ---- between the steps

    @cached_property
    def _log_alpha_bar(self) -> Any:
        from scipy.interpolate import PchipInterpolator

        curve = PchipInterpolator(np.arange(self.T + 1), np.log(self.alpha_bar))  # monotone, smooth, right at every step
        return curve, curve.derivative()

    def between(self, t: float) -> tuple[float, float]:
        """ᾱ and the rate β(t) = -d log ᾱ/dt at any time t in [0, T]: dx = -½ β x dt + √β dw     (Song 2021, SDE, eq. 11)"""
        curve, slope = self._log_alpha_bar
        return float(np.exp(curve(t))), float(-slope(t))


# ---- three ways of saying the same: ε, x_0, and v = √ᾱ ε - √(1 - ᾱ) x_0                            (Salimans 2022, sec. 4)


def target(kind: str, x0: Any, eps: Any, a: Any, b: Any) -> Any:
    """What a network that predicts `kind` ("eps", "x0" or "v") should say of x = a x_0 + b ε."""
    return {"eps": eps, "x0": x0, "v": a * eps - b * x0}[kind]


def x0_and_eps(kind: str, output: Any, x: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """What a network means that sees x = a x_0 + b ε and says `output`; undoes `target`.   truth: param-round-trip"""
    if kind == "eps":
        return (x - b * output) / a, output
    if kind == "x0":
        return output, (x - a * output) / b
    return a * x - b * output, b * x + a * output  # a rotation, since a² + b² = 1


def shaped(values: Any, like: Any) -> np.ndarray:
    """One number for each sample, or one for all: (N,) -> (N, 1, ...) for x (N, ...), in x's dtype."""
    values = values.astype(like.dtype) if hasattr(values, "astype") else np.asarray(values, like.dtype)
    return values.reshape(values.shape + (1,) * (like.ndim - 1)) if values.ndim else values
