"""Ops that rearrange. Start at `reshape`."""

from __future__ import annotations

import numpy as np

from ..tape import Array, op


@op(view=True)
def reshape(x: Array, shape: tuple[int, ...]) -> Array:
    """The same elements, in C order, in another shape; one axis may be -1."""
    return np.reshape(x, shape)


reshape.vjp(x=lambda g, x_shape: reshape(g, x_shape))


@op(view=True)
def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x repeated to a larger shape, without a copy."""
    return np.broadcast_to(x, shape)


broadcast_to.vjp(x=lambda g: g)  # grad.py's gate sums it down
