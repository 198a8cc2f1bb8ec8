"""The exact likelihood of a diffusion model's deterministic sampler   (Song 2021, "Score-based generative modeling through
stochastic differential equations", https://arxiv.org/abs/2011.13456). Start at `log_prob`.

The process dx = -½ β x dt + √β dw has the same densities p_t at every time as an ordinary differential equation:

    dx/dt = f(x, t) = -½ β(t) x - ½ β(t) ∇log p_t(x),     ∇log p_t(x) = -ε(x, t)/√(1 - ᾱ_t)            (eq. 13, with g² = β)

Along it, log p changes as in any flow:     d log p_t(x(t))/dt = -∇·f(x(t), t)                                  (eq. 39)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ..autograd import Tensor, enable_grad, grad
from ..random import Generator
from .noise import Schedule

EXACT = 8  # up to so many dimensions the divergence is computed, one gradient each; beyond, it is estimated


def log_prob(eps: Callable, schedule: Schedule, x: np.ndarray, steps: int, rng: Generator) -> np.ndarray:
    """log p(x) = log N(x(T); 0, I) + ∫ ∇·f dt, from step 1 to T, by the midpoint rule.     (N, ...) -> (N,) float64 nats

    eps(x, t, a, b): Tensor (N, ...), a time, √ᾱ_t, √(1 - ᾱ_t) -> the noise in x, as a Tensor.
    It starts at 1, not at 0, because no network has ever seen less noise than there: that is where its sampler has to end.
    """
    dims = math.prod(x.shape[1:])
    probe = None if dims <= EXACT else 2 * rng.bernoulli(0.5, x.shape, x.dtype) - 1  # one for the whole path

    def f(x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        """f(x, t) and its divergence.     -> (N, ...), (N,)"""
        alpha_bar, beta = schedule.between(t)
        a, b = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        noise, divergence = _with_divergence(lambda x: eps(x, t, a, b), x, probe)
        return -0.5 * beta * (x - noise / b), -0.5 * beta * (dims - divergence / b)

    total = np.zeros_like(x, shape=len(x), dtype=np.float64)  # ∫ ∇·f dt
    for t, after in pairwise(_times(schedule, steps)):
        h = after - t
        slope, _ = f(x, t)
        slope, divergence = f(x + h / 2 * slope, t + h / 2)
        x = x + h * slope
        total += h * divergence
    squares = np.square(x, dtype=np.float64).reshape(len(x), -1).sum(axis=1)
    return total - 0.5 * (squares + dims * math.log(2 * math.pi))  # proved by: truth pf-ode


def _times(schedule: Schedule, steps: int) -> list[float]:
    """Where the steps begin and end: the point (√ᾱ, √(1 - ᾱ)) of the unit circle turns by the same angle in each."""
    angle = np.arccos(np.sqrt(schedule.alpha_bar[1:]))  # (T,), rising
    return np.interp(np.linspace(angle[0], angle[-1], steps + 1), angle, np.arange(1, schedule.T + 1)).tolist()


def _with_divergence(function: Callable, x: np.ndarray, probe: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """A function's value at x, and its divergence: Σ_i ∂f_i/∂x_i, or the estimate vᵀ (∂f/∂x) v   (Hutchinson 1990).

    (N, ...) -> (N, ...), (N,)
    """
    at = Tensor(x, requires_grad=True)
    with enable_grad():
        value = function(at)
    if probe is not None:
        return value.data, (grad(value, at, probe).data * probe).reshape(len(x), -1).sum(axis=1, dtype=np.float64)
    divergence = np.zeros_like(x, shape=len(x), dtype=np.float64)
    for i in range(math.prod(x.shape[1:])):
        unit = np.zeros_like(x).reshape(len(x), -1)  # (N, D)
        unit[:, i] = 1
        row = grad(value, at, unit.reshape(x.shape)).data  # ∂f_i/∂x for each sample, since samples do not mix
        divergence += row.reshape(len(x), -1)[:, i]
    return value.data, divergence
