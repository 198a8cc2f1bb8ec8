"""Cards of ops/reduction.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ops import reduction as ops
from .card import Draw, Kink, OpCard

Sample = tuple[tuple, dict]


def _reduction(name: str, sample: Callable[[Draw], Sample], reference: Callable, **card: Any) -> None:
    OpCard(name, getattr(ops, name), sample, wrt=(0,), reference=reference, **card)


def _any(draw: Draw) -> Sample:
    x = draw.floats(draw.shape())
    return (x,), {"axis": draw.axes(x.ndim), "keepdims": draw.boolean()}


def _some(draw: Draw, values: str = "floats", least: int = 1) -> Sample:
    """Axes of at least `least` elements that are reduced; others may be of size 0."""
    ndim = draw.integer(least - 1, 3)
    axis = draw.axes(ndim) if least == 1 else draw.choice([None, draw.axis(ndim), tuple(range(0, ndim, 2))])
    reduced = range(ndim) if axis is None else [a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))]
    free = draw.shape(ndim, ndim)
    shape = tuple(draw.integer(least, 4) if i in reduced else n for i, n in enumerate(free))
    return (getattr(draw, values)(shape),), {"axis": axis, "keepdims": draw.boolean()}


def _spread(draw: Draw) -> Sample:
    """For variances: at least two elements, and a correction."""
    args, kwargs = _some(draw, least=2)
    return args, {**kwargs, "correction": draw.choice([0.0, 1, 0.5])}


def _cumulative(draw: Draw) -> Sample:
    x = draw.floats(draw.shape(min_dims=1))
    axis = None if x.ndim == 1 and draw.boolean() else draw.axis(x.ndim)
    return (x,), {"axis": axis, "include_initial": draw.boolean()}


def _prefix_sums(x: np.ndarray, axis: int | None, include_initial: bool) -> np.ndarray:
    """Each sum by itself."""
    axis = 0 if axis is None else axis
    counts = range(0 if include_initial else 1, x.shape[axis] + 1)
    sums = [x.take(range(n), axis).sum(axis) for n in counts]
    return np.stack(sums, axis) if sums else np.zeros(x.shape)


_reduction("sum", _any, np.sum, linear=(0,))
_reduction("mean", _some, np.mean, linear=(0,))
_reduction("var", _spread, lambda x, axis, keepdims, correction: np.var(x, axis, ddof=correction, keepdims=keepdims))
_reduction(
    "std",
    _spread,
    lambda x, axis, keepdims, correction: np.std(x, axis, ddof=correction, keepdims=keepdims),
    kinks=[Kink((np.full(3, 2.0),), {}, np.array(3.0), (np.zeros(3),))],
)
_reduction(
    "max",
    lambda draw: _some(draw, "distinct"),
    np.max,
    kinks=[Kink((np.array([2.0, 1.0, 2.0]),), {}, np.array(3.0), (np.array([1.5, 0.0, 1.5]),))],
)
_reduction(
    "min",
    lambda draw: _some(draw, "distinct"),
    np.min,
    kinks=[Kink((np.array([1.0, 2.0, 1.0]),), {}, np.array(3.0), (np.array([1.5, 0.0, 1.5]),))],
)
_reduction("logsumexp", _some, lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis, keepdims=keepdims)))
_reduction("cumulative_sum", _cumulative, _prefix_sums, linear=(0,))
