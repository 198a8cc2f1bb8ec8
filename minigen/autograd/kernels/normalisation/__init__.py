"""Normalisation by statistics of the data, with scale, shift and activation.

    group_norm(x, weight, bias, groups, eps, activation=None, slope=0.01, out=None)                   y, mean, std
    group_norm_vjp(g, x, weight, bias, mean, std, eps, activation=None, slope=0.01, out=None)         gx, gweight, gbias
    layer_norm(x, weight, bias, eps, out=None)                                                        y, mean, std
    layer_norm_vjp(g, x, weight, mean, std, eps, out=None)                                            gx, gweight, gbias

    group_norm    x, y: (N, P, C)      mean, std: (N, groups)      weight, bias: (C,)
    layer_norm    x, y: (rows, n)      mean, std: (rows,)          weight, bias: (n,)

`out` is a tuple with an array for each result. Batch normalisation is group_norm of (1, N P, C) with C groups, instance
normalisation that of (N, P, C). `reference.py` has the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import Card, Kernel
from ..softmax import EXP

__all__ = ["group_norm", "group_norm_vjp", "layer_norm", "layer_norm_vjp"]

EPS = 1e-5
NOTE = "Statistics and the sums of gradients are float64: of float64 data they are rounded hundreds of times, hence the ulp."

GROUPED: list[tuple[int, int, int, int, str | None]] = [  # N, P, C, groups, activation
    (0, 3, 4, 2, None),
    (2, 0, 4, 2, "silu"),
    (1, 1, 1, 1, None),
    (2, 1, 6, 1, None),
    (3, 5, 6, 3, "silu"),
    (3, 5, 6, 6, "relu"),
    (1, 30, 5, 5, "leaky_relu"),
    (3, 5, 6, 2, "tanh"),
    (3, 5, 6, 1, "sigmoid"),
    (2, 49, 64, 8, "silu"),
    (2, 300, 3, 1, None),  # several positions to a loop
    (1, 900, 40, 40, "relu"),  # three chunks of one sample
    (2, 3, 17000, 1000, None),  # a chunk for each position
]
ROWS = ((0, 3), (3, 0), (1, 1), (5, 1), (5, 7), (40, 64), (300, 100), (2, 1000))


def _normal(rng: np.random.Generator, dtype: type, *shape: int, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    return rng.normal(mean, std, shape).astype(dtype)


def _group_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for n, p, c, groups, activation in GROUPED:
        x = _normal(rng, dtype, n, p, c, mean=0.5, std=3)
        weight, bias = _normal(rng, dtype, c, mean=1, std=0.3), _normal(rng, dtype, c)
        calls.append(((x, weight, bias, groups, EPS), {"activation": activation, "slope": 0.2}))
    return calls


def _group_vjp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for (x, weight, bias, groups, eps), options in _group_cases(rng, dtype):
        grouped = x.reshape(*x.shape[:2], groups, x.shape[2] // groups)
        count = max(grouped.shape[1] * grouped.shape[3], 1)
        mean = grouped.sum((1, 3), keepdims=True) / count
        std = np.sqrt(((grouped - mean) ** 2).sum((1, 3)) / count)
        calls.append(((_normal(rng, dtype, *x.shape), x, weight, bias, mean[:, 0, :, 0], std, eps), options))
    return calls


def _row_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    def affine(n: int) -> tuple[np.ndarray, np.ndarray]:
        return _normal(rng, dtype, n, mean=1, std=0.3), _normal(rng, dtype, n)

    return [((_normal(rng, dtype, r, n, mean=0.5, std=3), *affine(n), EPS), {}) for r, n in ROWS]


def _row_vjp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for (x, weight, _, eps), _ in _row_cases(rng, dtype):
        mean = x.sum(1) / max(x.shape[1], 1)
        std = np.sqrt(((x - mean[:, None]) ** 2).sum(1) / max(x.shape[1], 1))
        calls.append(((_normal(rng, dtype, *x.shape), x, weight, mean, std, eps), {}))
    return calls


def _group_scale(x: Any, weight: Any, bias: Any, groups: int, eps: float, activation: Any = None, slope: Any = 0) -> tuple:
    """Magnitudes of what is added up. Subtracting the mean costs digits, more of them the larger it is."""
    magnitude, width = np.abs(x), max(x.shape[2] // groups, 1)
    grouped = x.reshape(*x.shape[:2], groups, -1) if x.size else np.zeros((x.shape[0], 1, groups, 1))
    mean, root = np.abs(grouped).mean((1, 3)), np.sqrt((grouped**2).mean((1, 3)))
    rstd = 1 / np.sqrt(grouped.var((1, 3)) + eps)
    per_channel = [np.repeat(s, width, axis=1)[:, None, : x.shape[2]] for s in (mean, rstd)]
    return (magnitude + per_channel[0]) * per_channel[1] * np.abs(weight) + np.abs(bias) + 1, mean, root


def _group_vjp_scale(
    g: Any, x: Any, weight: Any, bias: Any, mean: Any, std: Any, eps: float, activation: Any = None, slope: Any = 0
) -> tuple:
    n, positions, channels = x.shape
    width = channels // mean.shape[1]
    centre, rstd = (np.repeat(s, width, axis=1)[:, None] for s in (np.abs(mean), 1 / np.sqrt(std**2 + eps)))
    normalised = (np.abs(x) + centre) * rstd
    d = np.abs(g) * (1 if activation is None else 1 + normalised * np.abs(weight) + np.abs(bias))
    weighted = d * np.abs(weight)

    def average(a: np.ndarray) -> np.ndarray:
        grouped = a.reshape(n, positions, mean.shape[1], width).sum((1, 3)) / max(positions * width, 1)
        return np.repeat(grouped, width, axis=1)[:, None]

    gx = rstd * (weighted + average(weighted) + normalised * average(weighted * normalised))
    return gx, (d * normalised).sum((0, 1)), d.sum((0, 1))


def _row_scale(x: Any, weight: Any, bias: Any, eps: float) -> tuple:
    y, mean, root = _group_scale(x[:, None], weight, bias, 1, eps)
    return y[:, 0], mean[:, 0], root[:, 0]


def _row_vjp_scale(g: Any, x: Any, weight: Any, mean: Any, std: Any, eps: float) -> tuple:
    gx, *affine = _group_vjp_scale(g[:, None], x[:, None], weight, weight, mean[:, None], std[:, None], eps)
    return gx[:, 0], *affine


def _activation_flops(activation: str | None) -> int:
    return {None: 0, "relu": 1, "leaky_relu": 2}.get(activation, EXP + 4)


group_norm = Kernel(
    "group_norm",
    __name__,
    Card(
        _group_cases,
        flops=lambda x, *args, activation=None, slope=0: x.size * (7 + _activation_flops(activation)),
        bytes=lambda x, weight, bias, groups, *args, **kwargs: (
            2 * x.nbytes + 2 * weight.nbytes + 2 * x.itemsize * x.shape[0] * groups
        ),
        ulp=16,
        scale=_group_scale,
        note=NOTE,
    ),
)
group_norm_vjp = Kernel(
    "group_norm_vjp",
    __name__,
    Card(
        _group_vjp_cases,
        flops=lambda g, *args, activation=None, slope=0: g.size * (9 + 2 * _activation_flops(activation)),
        bytes=lambda g, x, weight, bias, mean, *args, **kwargs: 3 * x.nbytes + 4 * weight.nbytes + 2 * mean.nbytes,
        ulp=16,
        scale=_group_vjp_scale,
        note=NOTE,
    ),
)
layer_norm = Kernel(
    "layer_norm",
    __name__,
    Card(
        _row_cases,
        flops=lambda x, *args: 8 * x.size,
        bytes=lambda x, weight, *args: 2 * x.nbytes + 2 * weight.nbytes + 2 * x.itemsize * x.shape[0],
        ulp=16,
        scale=_row_scale,
        note=NOTE,
    ),
)
layer_norm_vjp = Kernel(
    "layer_norm_vjp",
    __name__,
    Card(
        _row_vjp_cases,
        flops=lambda g, *args: 12 * g.size,
        bytes=lambda g, x, weight, mean, *args: 3 * x.nbytes + 3 * weight.nbytes + 2 * mean.nbytes,
        ulp=16,
        scale=_row_vjp_scale,
        note=NOTE,
    ),
)
