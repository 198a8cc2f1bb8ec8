"""Truth linear-inverse: of Gaussian data, seen through y = A x + σ n, everything is Gaussian. Start at `linear_inverse`.

The class is made like `minigen.models.LinearInverse`: cls(model, matrix, sigma), with `denoise(x, t, y)` -> x_0 and ε given
both, and `sample(y, rng)`. The model is a DDPM whose network is the best one for data N(m, Σ), and can be differentiated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..models.ddpm import DDPM, DDPM2dConfig
from ..models.inverse_problems import deblurring, inpainting, super_resolution
from ..models.noise import Schedule
from .diffusion import GaussianData
from .truth import Finding, Impulses, Truth, array

SHAPE, SIGMA, STEPS = (4, 4, 1), 0.3, 20
D = math.prod(SHAPE)


@dataclass(frozen=True)
class LinearGaussian:
    """x ~ N(mean, covariance), in D dimensions, and what is known of it."""

    mean: np.ndarray
    covariance: np.ndarray

    def given(self, matrix: np.ndarray, sigma: float, y: np.ndarray) -> LinearGaussian:
        """p(x | y) for y = A x + σ n: the Wiener filter.     G = Σ Aᵀ (A Σ Aᵀ + σ² I)⁻¹,   m + G (y - A m),   Σ - G A Σ"""
        gain = self.covariance @ matrix.T @ np.linalg.inv(matrix @ self.covariance @ matrix.T + sigma**2 * np.eye(len(y)))
        return LinearGaussian(self.mean + gain @ (y - matrix @ self.mean), self.covariance - gain @ matrix @ self.covariance)

    def x0(self, x: Any, alpha_bar: float) -> Any:
        """E[x_0 | x_t], linear in x_t.     (N, D) -> (N, D), of Tensors too"""
        a = math.sqrt(alpha_bar)
        slope = a * self.covariance @ np.linalg.inv(alpha_bar * self.covariance + (1 - alpha_bar) * np.eye(len(self.mean)))
        return (x - a * self.mean) @ slope.T + self.mean

    def open(self, alpha_bar: float) -> np.ndarray:
        """Cov[x_0 | x_t].     -> (D, D)"""
        return np.linalg.inv(np.linalg.inv(self.covariance) + alpha_bar / (1 - alpha_bar) * np.eye(len(self.mean)))


def sampled(covariance: np.ndarray, alpha_bar: np.ndarray) -> np.ndarray:
    """The covariance of DDIM samples of Gaussian data: in each eigenvector that of one dimension.     (D, D) -> (D, D)"""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * [GaussianData(v, alpha_bar).ddim_std() ** 2 for v in values]) @ vectors.T


def linear_inverse(cls: Any) -> list[Finding]:
    """At every step x_0 given x_t and y is what the posterior says, and DDIM samples end with its spread."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(D, D)) * np.linspace(1.0, 0.1, D)
    prior = LinearGaussian(rng.normal(size=D), root @ root.T / D + 0.01 * np.eye(D))
    schedule = Schedule.cosine(STEPS)

    def network(x: Any, u: np.ndarray, y: Any = None) -> Any:
        x = x if isinstance(x, Tensor) else Tensor(x)
        return prior.x0(x.reshape(len(x), D), float(schedule.alpha_bar[round(float(u[0]) * STEPS)])).reshape(*x.shape)

    config = DDPM2dConfig(timesteps=STEPS, schedule="cosine", prediction="x0", sampler="ddim", sampling_steps=0, eta=0.0)
    model, findings = DDPM(network, (D,), config), []
    known = np.ones(SHAPE[:2], bool)
    known[1:3, 1:] = False
    for name, matrix in (
        ("inpainting", inpainting(known)),
        ("deblurring", deblurring(SHAPE)),
        ("super-resolution", super_resolution(SHAPE)),
    ):
        y = matrix @ (prior.mean + root @ rng.normal(size=D) / math.sqrt(D)) + SIGMA * rng.normal(size=len(matrix))
        inverse, posterior = cls(model, matrix, SIGMA), prior.given(matrix, SIGMA, y)
        findings += _steps(name, inverse, prior, posterior, y, schedule, rng)
        samples = np.asarray(array(inverse.sample(np.tile(y, (D + 1, 1)), Impulses())), np.float64)
        rows = samples[:-1] - samples[-1]  # what becomes of each value of the first noise; and of none
        right, own = (sampled(data.covariance, schedule.alpha_bar) for data in (posterior, prior))
        findings += [
            Finding(
                f"{name}: variance of samples, summed over their values",
                float((rows**2).sum()),
                float(np.trace(right)),
                1e-6,
                ((float(np.trace(own)), "samples do not know of y"),),
            ),
            Finding(f"{name}: largest error of their covariance", float(np.abs(rows.T @ rows - right).max()), 0, 1e-6),
        ]
    return findings


def _steps(name: str, inverse: Any, prior: LinearGaussian, posterior: LinearGaussian, y: np.ndarray, schedule: Schedule,
           rng: np.random.Generator) -> list[Finding]:  # fmt: skip
    """How far y moves E[x_0 | x_t], at three steps, along the way that it must; and what known mistakes would make of that."""
    findings, a_ = [], inverse.matrix
    for t in (1, STEPS // 2, STEPS - 1):
        alpha_bar = float(schedule.alpha_bar[t])
        x = rng.normal(size=(5, D))
        plain, right = prior.x0(x, alpha_bar), posterior.x0(x, alpha_bar)
        found, eps = (array(part) for part in inverse.denoise(x, t, np.tile(y, (5, 1))))
        moved = right - plain
        along = lambda shift, moved=moved: float((shift * moved).sum() / (moved * moved).sum())
        residual, still = y - plain @ a_.T, prior.open(alpha_bar)  # (5, M), (D, D)
        noise, eye = SIGMA**2 * np.eye(len(a_)), np.eye(len(a_))
        by = lambda s, residual=residual, still=still: residual @ np.linalg.inv(s) @ a_ @ still  # (5, D)
        open_y = a_ @ still @ a_.T
        suspects = (
            (0.0, "y does nothing"),
            (-1.0, "y pushes the wrong way: the sign of y - A x_0"),
            (along(by(noise)), "S is σ² I: that x_0 is still open is left out, and the guidance is too strong"),
            (along(by(noise / SIGMA + open_y)), "the noise of y enters S as σ, where it must be σ²"),
            (along(by(eye + open_y)), "the noise of y enters S as 1: its scale is ignored"),
            (along(by(eye)), "S is left out: the guidance ignores the scale of the noise"),
            (along(by(noise + (1 - alpha_bar) * a_ @ a_.T)), "Cov[x_0 | x_t] is taken for (1 - ᾱ) I"),
            (along(by(noise + (1 - alpha_bar) / alpha_bar * a_ @ a_.T)), "Cov[x_0 | x_t] is taken for (1 - ᾱ)/ᾱ I"),
            (along(residual @ np.linalg.inv(noise + open_y) @ a_), "the derivative of x_0 by x_t is left out"),
        )
        what = f"{name}, t = {t}: how far y moves x_0, along the right way"
        error = np.abs(found - right).max() + np.abs(math.sqrt(alpha_bar) * found + math.sqrt(1 - alpha_bar) * eps - x).max()
        findings += [
            Finding(what, along(found - plain), 1, 1e-6, suspects),
            Finding(f"{name}, t = {t}: largest error of x_0, and of ε that goes with it", float(error), 0, 1e-6),
        ]
    return findings


# ---- the row of the table


TRUTHS = (
    Truth(
        "linear-inverse",
        "of Gaussian data seen through y = A x + σ n, every step and the spread of samples are those of the Wiener filter",
        "Boys et al. 2023, arXiv 2310.06721; the posterior of a linear Gaussian model",
        ("denoise", "sample"),
        linear_inverse,
        made_of=("model", "matrix", "sigma"),
        mistakes="the covariance of y given x_t, the derivative of x_0 by x_t, or the step from the score to x_0",
    ),
)
