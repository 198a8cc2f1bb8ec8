"""Losses of logits, element by element or row by row, without overflow and without cancellation.

    cross_entropy(x, target, smoothing=0.0, out=None)                                      loss, highest, inverse: (rows,)
    cross_entropy_vjp(g, x, target, highest, inverse, smoothing=0.0, out=None)             (rows, n)
    bce_with_logits(x, target, out=None)                                                   like x
    bce_with_logits_vjp(g, x, target, out=None)                                            like x

    cross_entropy      x: (rows, n)      target: (rows,) int64 in 0 … n - 1      g: (rows,)
    bce_with_logits    x, target: alike, of any shape                            g: alike, or broadcast from one number

`reference.py` has the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import Card, Kernel
from ..softmax import EXP
from ..softmax.reference import shifted

__all__ = ["bce_with_logits", "bce_with_logits_vjp", "cross_entropy", "cross_entropy_vjp"]

ROWS = ((0, 3), (1, 1), (4, 1), (5, 10), (3, 1001), (900, 10), (2, 5000))
SHAPES = ((), (0,), (1,), (5, 7), (2, 0, 3), (3, 3, 500))


def _row_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for i, (rows, n) in enumerate(ROWS):
        x: np.ndarray = rng.normal(0, 3, (rows, n)).astype(dtype)
        calls.append(((x, rng.integers(0, n, rows)), {"smoothing": 0.1} if i % 2 else {}))
    return calls


def _row_vjp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for (x, target), options in _row_cases(rng, dtype):
        d, highest = shifted(x)
        g = rng.standard_normal(x.shape[0]).astype(dtype)
        calls.append(((g, x, target, highest[:, 0], 1 / np.exp(d).sum(1)), options))
    return calls


def _row_scale(x: Any, target: Any, smoothing: float = 0.0) -> tuple:
    """A rounding of x - max changes its exponential by as much as x - max is large."""
    d, highest = shifted(x)
    e = np.exp(d)
    spread = 1 + (e * np.abs(d)).sum(1) / e.sum(1)
    chosen = (1 - smoothing) * np.abs(np.take_along_axis(d, target[:, None], 1)[:, 0]) + smoothing * np.abs(d).mean(1)
    return np.log(e.sum(1)) + chosen + spread, np.abs(highest[:, 0]), spread / e.sum(1)


def _row_vjp_scale(g: Any, x: Any, target: Any, highest: Any, inverse: Any, smoothing: float = 0.0) -> np.ndarray:
    d = x - highest[:, None]
    wanted = (1 - smoothing) * (np.arange(x.shape[1]) == target[:, None]) + smoothing / max(x.shape[1], 1)
    return np.abs(g)[:, None] * (np.exp(d) * inverse[:, None] * (1 + np.abs(d)) + wanted)


def _binary_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    def draw(shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Logits, and targets that are often exactly 0 or 1."""
        return np.asarray(rng.normal(0, 5, shape), dtype), np.asarray(np.clip(rng.normal(0.5, 1, shape), 0, 1), dtype)

    return [(draw(shape), {}) for shape in SHAPES]


def _binary_vjp_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []
    for i, ((x, target), _) in enumerate(_binary_cases(rng, dtype)):
        g: np.ndarray = np.asarray(rng.standard_normal(x.shape), dtype)
        if i % 3 == 2 or i == len(SHAPES) - 1:
            g = np.broadcast_to(np.asarray(0.7, dtype), x.shape)
        calls.append(((g, x, target), {}))
    return calls


def _binary_vjp_scale(g: Any, x: Any, target: Any) -> np.ndarray:
    return np.abs(g) * (np.where(x > 0, 1 - target, target) + 1 / (1 + np.exp(np.abs(x))))


cross_entropy = Kernel(
    "cross_entropy",
    __name__,
    Card(
        _row_cases,
        flops=lambda x, *args, **kwargs: (EXP + 3) * x.size,
        bytes=lambda x, target, *args, **kwargs: x.nbytes + target.nbytes + 3 * x.itemsize * x.shape[0],
        ulp=2,
        scale=_row_scale,
        note="Sums are float64.",
    ),
)
cross_entropy_vjp = Kernel(
    "cross_entropy_vjp",
    __name__,
    Card(
        _row_vjp_cases,
        flops=lambda g, x, *args, **kwargs: (EXP + 4) * x.size,
        bytes=lambda g, x, target, *args, **kwargs: 2 * x.nbytes + target.nbytes + 3 * g.nbytes,
        ulp=3,
        scale=_row_vjp_scale,
    ),
)
bce_with_logits = Kernel(
    "bce_with_logits",
    __name__,
    Card(
        _binary_cases,
        flops=lambda x, target: (2 * EXP + 4) * x.size,
        bytes=lambda x, target: 3 * x.nbytes,
        ulp=3,
    ),
)
bce_with_logits_vjp = Kernel(
    "bce_with_logits_vjp",
    __name__,
    Card(
        _binary_vjp_cases,
        flops=lambda g, x, target: (EXP + 6) * x.size,
        bytes=lambda g, x, target: (4 if any(g.strides) else 3) * x.nbytes,
        ulp=3,
        scale=_binary_vjp_scale,
    ),
)
