"""Softmax along rows, and its logarithm.

    softmax(x, out=None)                    (rows, n): probabilities
    softmax_vjp(g, p, out=None)             its gradient, from its result p
    log_softmax(x, out=None)                (rows, n): logarithms of probabilities
    log_softmax_vjp(g, log_p, out=None)     its gradient, from its result log_p

All arrays are (rows, n) and of one dtype, float32 or float64. `reference.py` has the formulas, and what infinities give.
rows.py has sums of rows for other families, calls.py what their Python side needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...backend import Card, Kernel
from .reference import log_softmax as _log_softmax
from .reference import shifted
from .reference import softmax as _softmax

__all__ = ["EXP", "log_softmax", "log_softmax_vjp", "softmax", "softmax_vjp"]

SHAPES = ((0, 3), (3, 0), (1, 1), (2, 1), (5, 10), (7, 49), (3, 1001), (900, 10), (1, 5000))
EXP = 16  # operations of an exponential


def _kernel(name: str, flops: int, ulp: float, result: Callable | None, scale: Callable) -> Kernel:
    """result: what the second argument of a gradient is, from some x; None for a kernel of x alone."""

    def cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
        calls: list[tuple[tuple, dict]] = []
        for shape in SHAPES:
            x: np.ndarray = rng.normal(0, 3, shape).astype(dtype)
            calls.append(((x,) if result is None else (rng.standard_normal(shape).astype(dtype), result(x)), {}))
        return calls

    def moved(*arrays: Any) -> int:
        return arrays[0].nbytes * (1 + len(arrays))

    card = Card(cases, lambda *a: flops * a[0].size, moved, ulp, scale, note="Sums are float64.")
    return Kernel(name, __name__, card)


def _rounding(x: np.ndarray) -> np.ndarray:
    """What one rounding of x - max does to its exponential, and one rounding of the exponential itself."""
    return 1 + np.abs(shifted(x)[0])


softmax = _kernel("softmax", EXP + 4, 2, None, lambda x: _softmax(x) * _rounding(x))
softmax_vjp = _kernel(
    "softmax_vjp", 4, 2, _softmax, lambda g, p: p * (np.abs(g) + np.abs(g * p).sum(1, keepdims=True))
)
log_softmax = _kernel("log_softmax", EXP + 4, 2, None, lambda x: _rounding(x) + np.abs(_log_softmax(x)))
log_softmax_vjp = _kernel(
    "log_softmax_vjp",
    EXP + 3,
    2,
    _log_softmax,
    lambda g, log_p: np.abs(g) + np.exp(log_p) * np.abs(g).sum(1, keepdims=True),
)
