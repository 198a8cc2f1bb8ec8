"""Truths of linear-Gaussian models, where everything that a VAE estimates has a closed form. Start at `Ppca`.

Probabilistic PCA   (Tipping & Bishop 1999):   z ~ N(0, I_q),  x | z ~ N(W z + m, σ² I_d). Then x ~ N(m, W Wᵀ + σ² I), the
posterior of z is Gaussian, and the best W, σ² are known from the eigenvalues of the data's covariance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Ppca:
    """The maximum-likelihood solution for data (N, d) with q latent dimensions, in float64.

    weight: (d, q), with orthogonal columns.   mean: (d,).   variance: σ².   log_likelihood: mean over the data, in nats.
    """

    weight: np.ndarray
    mean: np.ndarray
    variance: float
    log_likelihood: float

    @classmethod
    def fit(cls, x: np.ndarray, q: int) -> Ppca:
        """σ² = mean of the discarded eigenvalues, W = U_q (Λ_q - σ² I)^½   (Tipping & Bishop, eqs. 7-8)."""
        x = np.asarray(x, np.float64)
        d, mean = x.shape[1], x.mean(axis=0)
        eigenvalues, u = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        eigenvalues, u = eigenvalues[::-1], u[:, ::-1]  # largest first
        variance = float(eigenvalues[q:].mean())
        weight = u[:, :q] * np.sqrt(eigenvalues[:q] - variance)  # (d, q)
        log_likelihood = -0.5 * (d * LOG_2PI + np.log(eigenvalues[:q]).sum() + (d - q) * math.log(variance) + d)
        return cls(weight, mean, variance, float(log_likelihood))

    def posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p(z|x) = N(M⁻¹ Wᵀ (x - m), σ² M⁻¹), M = Wᵀ W + σ² I, here diagonal.     (N, d) -> means (N, q), variances (q,)"""
        m = (self.weight**2).sum(axis=0) + self.variance  # (q,)
        return (x - self.mean) @ self.weight / m, self.variance / m

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log N(x; m, W Wᵀ + σ² I) for each sample.     (N, d) -> (N,) nats"""
        covariance = self.weight @ self.weight.T + self.variance * np.eye(len(self.mean))
        centred = x - self.mean
        mahalanobis = (centred * np.linalg.solve(covariance, centred.T).T).sum(axis=1)
        return -0.5 * (len(self.mean) * LOG_2PI + np.linalg.slogdet(covariance)[1] + mahalanobis)


def autoencoder_error(x: np.ndarray, k: int) -> float:
    """Truth linear-ae: the least summed squared error of a linear autoencoder with k units, per sample: the sum of the
    discarded eigenvalues of the covariance.     (N, d) -> float"""
    x = np.asarray(x, np.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    return float(eigenvalues[: x.shape[1] - k].sum())
