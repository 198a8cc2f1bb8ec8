"""Reductions. Start at `sum`."""

from __future__ import annotations

import numpy as np

from ..tape import Array, op
from .shape import broadcast_to, reshape

Axis = int | tuple[int, ...] | None


@op
def sum(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Σ x over `axis` (all axes if None)."""
    return np.sum(x, axis=axis, keepdims=keepdims)


sum.vjp(x=lambda g, x_shape, axis: spread(g, x_shape, axis))


def spread(g: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """Repeat a reduced array along the axes it was reduced over: the adjoint of `sum`, with keepdims or without."""
    axes = range(len(shape)) if axis is None else [a % len(shape) for a in ((axis,) if isinstance(axis, int) else axis)]
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    return broadcast_to(reshape(g, kept), shape)
