"""Truths of models with an exact density, and of normalizing flows in particular. Start at `bijection_errors`.

Everything is computed in float64 and from the definition, by means that have nothing in common with the model's own: Jacobians
by differences, integrals on a grid, Gaussians in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..data import Toy

LOG_2PI = math.log(2 * math.pi)

Map = Callable[[np.ndarray], np.ndarray]  # (N, ...) -> (N, ...), each sample on its own
LogDensity = Callable[[np.ndarray], np.ndarray]  # (N, 2) -> (N,) nats


def bijection_errors(forward: Map, inverse: Map, log_det: LogDensity, x: np.ndarray, h: float = 1e-5) -> dict[str, float]:
    """Truth flow-density, for a map at points x (N, ...) float64: how far, at worst, it is from being what it says.

        "log_det"           |log_det(x) - log |det ∂f/∂x||, the Jacobian by central differences of width h
        "inverse_log_det"   |log_det(x) + log |det ∂f⁻¹/∂z||, at z = f(x), likewise
        "round_trip"        |f⁻¹(f(x)) - x|

    A test that compares only the two log-determinants that a model itself gives is blind to a sign or a scale that both have.
    The differences cost two passes for each of the D values of a sample; their error is of order h², and round-off over h.
    """
    z, own = forward(x), np.broadcast_to(log_det(x), (len(x),))
    return {
        "log_det": float(np.abs(own - log_det_by_differences(forward, x, h)).max()),
        "inverse_log_det": float(np.abs(own + log_det_by_differences(inverse, z, h)).max()),
        "round_trip": float(np.abs(inverse(z) - x).max()),
    }


def log_det_by_differences(f: Map, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """log |det ∂f/∂x| of each sample by central differences.     x: (N, ...) float64, D values each -> (N,)"""
    columns = []
    for i in range(math.prod(x.shape[1:])):
        step = np.where(np.arange(math.prod(x.shape[1:])) == i, h, 0.0).reshape(x.shape[1:])
        columns.append(((f(x + step) - f(x - step)) / (2 * h)).reshape(len(x), -1))  # (N, D)
    return np.linalg.slogdet(np.stack(columns, axis=-1))[1]


def on_grid(box: tuple[tuple[float, float], tuple[float, float]], step: float) -> np.ndarray:
    """Midpoints of square cells of side `step` over a box.     -> (N, 2) float64"""
    axes = [np.arange(low + step / 2, high, step) for low, high in box]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def total_probability(log_prob: LogDensity, box: tuple[tuple[float, float], tuple[float, float]], step: float) -> float:
    """∫ p over a box, by the midpoint rule: 1 for a density whose mass lies in the box, and which has a scale above `step`."""
    return float(np.exp(log_prob(on_grid(box, step))).sum() * step**2)


def cross_entropy(toy: Toy, log_prob: LogDensity, step: float) -> float:
    """Truth entropy-floor: E[-log p_θ(x)] over a toy distribution, by quadrature and not from samples.     -> nats

    It is at least `toy.entropy`, for every density p_θ; the excess is KL(data ‖ model). A function below that floor is no
    density. The midpoint rule is as good as the data are smooth: see `minigen.data.toys.integrate`.
    """
    x = on_grid(toy.box, step)
    log_p = toy.log_density(x)
    x, p = x[log_p > -60], np.exp(log_p[log_p > -60])  # e^-60 of the mass is not worth the model's time
    return float(-(p * log_prob(x)).sum() / p.sum())


def gaussian_mle(x: np.ndarray) -> float:
    """Truth gaussian-mle: the least mean negative log-likelihood that a Gaussian, hence a linear flow, can have on data
    (N, D): ½ log det(2πe S), S the covariance with 1/N.     -> nats per sample"""
    d = x.shape[1]
    covariance = np.cov(np.asarray(x, np.float64).T, bias=True).reshape(d, d)
    return float(0.5 * (d * (LOG_2PI + 1) + np.linalg.slogdet(covariance)[1]))


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truth actnorm: mean and variance of each channel, 0 and 1 for the first batch.     (N, ..., C) -> (C,), (C,)"""
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return rows.mean(axis=0), rows.var(axis=0)


def bits_per_dim(nats: float, dims: int) -> float:
    """Nats of a sample of `dims` discrete values -> bits per value. log2(levels) is what a uniform distribution has: 8.000 at
    256 levels, whatever the data; truth dequantise."""
    return nats / dims / math.log(2)
