"""What was measured, and what it was measured of: linear inverse problems with a diffusion model as the prior.

An image x is seen through y = A x + σ n: with pixels missing, blurred, or too coarse. The model knows what images look like,
and sampling it while holding it to y draws from p(x | y). All that changes is the score, by Bayes' rule:

    ∇ log p_t(x_t | y) = ∇ log p_t(x_t) + ∇ log p(y | x_t)                                 (Song 2021, arXiv 2011.13456, eq. 14)

Start at `LinearInverse.denoise`. p(y | x_t) is taken for a Gaussian, with the covariance of x_0 given x_t that the model itself
knows, by Tweedie's formula   (Boys 2023, Tweedie moment projected diffusions, https://arxiv.org/abs/2310.06721; cited as B23).
For Gaussian data that is exact. How far x_0 is still open matters: without it the guidance is far too strong at first.

D: values of x, flat.     M: values of y.     x is what the diffusion model sees: images in [-1, 1].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor, enable_grad, grad, ops
from ..random import Generator
from .ddpm import DDPM
from .noise import x0_and_eps


class LinearInverse:
    """model: a trained DDPM without classes.     matrix: A, (M, D).     sigma: the noise σ of the measurement, above 0."""

    def __init__(self, model: DDPM, matrix: np.ndarray, sigma: float):
        size = math.prod(model.data_shape)
        if matrix.ndim != 2 or matrix.shape[1] != size or sigma <= 0:
            wanted = f"a matrix (M, {size}) for data of shape {model.data_shape}, and a sigma above 0"
            raise ValueError(f"LinearInverse needs {wanted}, not {matrix.shape} and {sigma}")
        self.model, self.matrix, self.sigma = model, matrix, sigma

    def measure(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        """y = A x + σ n.     (N, *data_shape) -> (N, M)"""
        clean = x.reshape(len(x), -1) @ self.matrix.T.astype(x.dtype)
        return clean + x.dtype.type(self.sigma) * rng.normal(clean.shape, dtype=x.dtype)

    def denoise(self, x: np.ndarray, t: int, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """E[x_0 | x_t, y] and the noise that goes with it.     x: (N, *data_shape), y: (N, M) -> like x, like x

            log p(y | x_t) ≈ log N(y; A x̂_0, S),     S = σ² I + A C Aᵀ,     C = Cov[x_0 | x_t] = (1 - ᾱ)/√ᾱ ∂x̂_0/∂x_t
            ∇ log p(y | x_t) ≈ (∂x̂_0/∂x_t)ᵀ Aᵀ S⁻¹ (y - A x̂_0)

        One backward pass for each of the M values of y.                                   proved by: truth linear-inverse
        """
        a, b = (float(part) for part in self.model.schedule.signal_and_noise(np.asarray(t), x.reshape(-1)[:1]))
        x0, rows = self._denoised(x, t, a, b)  # (N, D), A ∂x̂_0/∂x_t: (N, M, D)
        covariance = self.sigma**2 * np.eye(len(self.matrix)) + b**2 / a * (rows @ self.matrix.T)  # S: (N, M, M)
        covariance = 0.5 * (covariance + covariance.swapaxes(1, 2))  # a network's Jacobian is not quite symmetric
        residual = y - x0 @ self.matrix.T  # (N, M)
        score = (rows * np.linalg.solve(covariance, residual[:, :, None])).sum(axis=1)  # ∇ log p(y | x_t): (N, D)
        guided = (x0 + b**2 / a * score).astype(x.dtype).reshape(x.shape)
        return guided, (x - x.dtype.type(a) * guided) / x.dtype.type(b)

    def _denoised(self, x: np.ndarray, t: int, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
        """x̂_0, and the rows of A ∂x̂_0/∂x_t.     -> (N, D), (N, M, D) float64"""
        with enable_grad():
            at = Tensor(x, requires_grad=True)
            output = self.model.network(at, self.model.time(t, x), None)
            x0 = x0_and_eps(self.model.config.prediction, output, at, a, b)[0].reshape(len(x), -1)
            seen = ops.matmul(x0, self.matrix.T.astype(x.dtype))  # (N, M); samples do not mix, so one pass serves them all
            rows = [grad(seen[:, i].sum(), [at])[0].data.reshape(len(x), -1) for i in range(len(self.matrix))]
        return x0.data.astype(np.float64), np.stack(rows, axis=1).astype(np.float64)

    def sample(self, y: np.ndarray, rng: Generator) -> np.ndarray:
        """One draw from p(x | y) for each row of y, along the model's path, by DDIM.     (N, M) -> (N, *data_shape)"""
        path, eta = self.model.path, self.model.config.eta
        x = rng.normal((len(y), *self.model.data_shape))
        for i in range(path.T, 0, -1):
            x0, eps = self.denoise(x, int(path.times[i]), y)
            noise: Any = rng.normal(x.shape) if i > 1 and eta > 0 else np.zeros_like(x)
            x = path.ddim_step(x0, eps, i, eta, noise)
        return x


# ---- three ways of seeing an image (H, W, C), as matrices (M, D)


def inpainting(known: np.ndarray, channels: int = 1) -> np.ndarray:
    """Only some pixels are seen.     known: (H, W) bool -> (M, D)"""
    return np.eye(known.size * channels)[np.repeat(known.reshape(-1), channels)]


def deblurring(shape: tuple[int, int, int], width: int = 3) -> np.ndarray:
    """Each pixel is seen as the mean of a square of `width` pixels around it, black outside the image.     -> (D, D)"""
    one = lambda n: np.array([[float(abs(i - j) <= width // 2) for j in range(n)] for i in range(n)]) / width
    return np.kron(np.kron(one(shape[0]), one(shape[1])), np.eye(shape[2]))


def super_resolution(shape: tuple[int, int, int], factor: int = 2) -> np.ndarray:
    """Only the means of squares of factor x factor pixels are seen. Raises ValueError where they do not fit.  -> (M, D)"""
    if shape[0] % factor or shape[1] % factor:
        raise ValueError(f"squares of {factor} x {factor} pixels do not cover images of shape {shape}")
    one = lambda n: np.kron(np.eye(n // factor), np.full((1, factor), 1 / factor))
    return np.kron(np.kron(one(shape[0]), one(shape[1])), np.eye(shape[2]))
