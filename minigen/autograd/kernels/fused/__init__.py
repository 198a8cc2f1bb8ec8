"""Chains of elementwise operations in one pass over memory.

    bias_act(x, bias, activation=None, slope=0.01, out=None)                       y: (rows, C); `out` may be x itself
    bias_act_vjp(g, y, x, bias, activation=None, slope=0.01, out=None)             gx (rows, C), gbias (C,)
    gated_tanh(x, out=None)                                                        (rows, 2 C) -> (rows, C)
    gated_tanh_vjp(g, x, out=None)                                                 (rows, 2 C)
    sample_normal_kl(mu, logvar, eps, out=None)                                    z (N, D), kl (N,)
    sample_normal_kl_vjp(gz, gkl, mu, logvar, eps, out=None)                       gmu, glogvar: (N, D)

activation: None, "relu", "leaky_relu" (of `slope`), "tanh", "sigmoid" or "silu".      bias_act_vjp reads x for "silu" and y
for the others. For several results, `out` is a tuple. `reference.py` has the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import Card, Kernel
from ..softmax import EXP
from .reference import ACTIVATIONS
from .reference import bias_act as _bias_act

__all__ = [
    "bias_act",
    "bias_act_vjp",
    "gated_tanh",
    "gated_tanh_vjp",
    "sample_normal_kl",
    "sample_normal_kl_vjp",
]

SHAPES = ((0, 3), (3, 0), (1, 1), (5, 7), (3, 300), (70, 3), (700, 50))  # the last is three chunks
NOTE = "Sums are float64."


def _bias_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    def draw(shape: tuple[int, int], activation: str | None) -> tuple:
        return rng.normal(0, 3, shape).astype(dtype), rng.standard_normal(shape[1]).astype(dtype), activation, 0.2

    return [(draw(shape, activation), {}) for shape in SHAPES for activation in ACTIVATIONS]


def _bias_vjp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for args, _ in _bias_cases(rng, dtype):
        x, bias, activation, slope = args
        calls.append(((rng.standard_normal(x.shape).astype(dtype), _bias_act(*args), x, bias, activation, slope), {}))
    return calls


def _bias_vjp_scale(g: Any, y: Any, x: Any, bias: Any, activation: Any, slope: Any) -> tuple:
    gx = np.abs(g) * (1 + np.abs(x) + np.abs(bias) if activation == "silu" else 1)
    return gx, gx.sum(0)


def _gated_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    return [((rng.normal(0, 2, (rows, 2 * c)).astype(dtype),), {}) for rows, c in SHAPES]


def _gated_vjp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for (x,), _ in _gated_cases(rng, dtype):
        calls.append(((rng.standard_normal((x.shape[0], x.shape[1] // 2)).astype(dtype), x), {}))
    return calls


def _gated_vjp_scale(g: Any, x: Any) -> np.ndarray:
    a, b = np.split(x, 2, axis=1)
    s = 1 / (1 + np.exp(-b))
    return np.concatenate([np.abs(g) * s, np.abs(g * np.tanh(a)) * s], axis=1)


def _sample_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    return [(tuple(rng.standard_normal((3, *shape)).astype(dtype)), {}) for shape in SHAPES]


def _sample_vjp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for shape in SHAPES:
        gz, *rest = rng.standard_normal((4, *shape)).astype(dtype)
        calls.append(((gz, rng.standard_normal(shape[0]).astype(dtype), *rest), {}))
    return calls


def _sample_scale(mu: Any, logvar: Any, eps: Any) -> tuple:
    z = np.abs(mu) + np.exp(logvar / 2) * np.abs(eps)
    return z, 0.5 * (mu**2 + np.abs(np.expm1(logvar)) + np.abs(logvar)).sum(1)


def _sample_vjp_scale(gz: Any, gkl: Any, mu: Any, logvar: Any, eps: Any) -> tuple:
    weight = np.abs(gkl)[:, None]
    to_logvar = np.abs(gz * eps) * np.exp(logvar / 2) + weight * np.abs(np.expm1(logvar))
    return np.abs(gz) + weight * np.abs(mu), 0.5 * to_logvar


bias_act = Kernel(
    "bias_act",
    __name__,
    Card(
        _bias_cases,
        flops=lambda x, bias, activation, slope: x.size * (1 + (EXP + 4 if activation in ACTIVATIONS[3:] else 1)),
        bytes=lambda x, bias, activation, slope: 2 * x.nbytes + bias.nbytes,
        ulp=3,
        scale=lambda x, bias, activation, slope: 1 + np.abs(x) + np.abs(bias),
    ),
)
bias_act_vjp = Kernel(
    "bias_act_vjp",
    __name__,
    Card(
        _bias_vjp_cases,
        flops=lambda g, y, x, bias, activation, slope: g.size * (EXP + 8 if activation == "silu" else 4),
        bytes=lambda g, y, x, bias, activation, slope: 3 * g.nbytes + 2 * bias.nbytes,
        ulp=3,
        scale=_bias_vjp_scale,
        note=NOTE,
    ),
)
gated_tanh = Kernel(
    "gated_tanh",
    __name__,
    Card(
        _gated_cases,
        flops=lambda x: (EXP + 5) * x.size,
        bytes=lambda x: x.nbytes + x.nbytes // 2,
        ulp=5,
    ),
)
gated_tanh_vjp = Kernel(
    "gated_tanh_vjp",
    __name__,
    Card(
        _gated_vjp_cases,
        flops=lambda g, x: (EXP + 8) * x.size,
        bytes=lambda g, x: 2 * x.nbytes + g.nbytes,
        ulp=5,
        scale=_gated_vjp_scale,
    ),
)
sample_normal_kl = Kernel(
    "sample_normal_kl",
    __name__,
    Card(
        _sample_cases,
        flops=lambda mu, logvar, eps: (2 * EXP + 7) * mu.size,
        bytes=lambda mu, logvar, eps: 4 * mu.nbytes + mu.itemsize * mu.shape[0],
        ulp=3,
        scale=_sample_scale,
        note=NOTE,
    ),
)
sample_normal_kl_vjp = Kernel(
    "sample_normal_kl_vjp",
    __name__,
    Card(
        _sample_vjp_cases,
        flops=lambda gz, gkl, mu, logvar, eps: (2 * EXP + 8) * mu.size,
        bytes=lambda gz, gkl, mu, logvar, eps: 6 * mu.nbytes + gkl.nbytes,
        ulp=3,
        scale=_sample_vjp_scale,
    ),
)
