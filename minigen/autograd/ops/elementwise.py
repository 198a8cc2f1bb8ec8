"""Elementwise ops: each forward function with its gradient rule next to it. Start at `multiply`.

Two inputs broadcast together. A rule returns its gradient in the broadcast shape; grad.py sums it down.
"""

from __future__ import annotations

import numpy as np

from ..tape import Array, op


@op
def add(x1: Array, x2: Array) -> Array:
    """x1 + x2."""
    return np.add(x1, x2)


add.vjp(x1=lambda g: g, x2=lambda g: g)


@op
def subtract(x1: Array, x2: Array) -> Array:
    """x1 - x2."""
    return np.subtract(x1, x2)


subtract.vjp(x1=lambda g: g, x2=lambda g: -g)


@op
def multiply(x1: Array, x2: Array) -> Array:
    """x1 · x2."""
    return np.multiply(x1, x2)


multiply.vjp(
    x1=lambda g, x2: g * x2,
    x2=lambda g, x1: g * x1,
)


@op
def negative(x: Array) -> Array:
    """-x."""
    return np.negative(x)


negative.vjp(x=lambda g: -g)


@op
def astype(x: Array, dtype: type | np.dtype | str) -> Array:
    """x converted to another floating dtype; the gradient is converted back."""
    return x.astype(dtype)


astype.vjp(x=lambda g: g)  # grad.py's gate converts it to the dtype of x


@op
def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x)


tanh.vjp(x=lambda g, out: tanh_vjp(g, out))


@op
def tanh_vjp(g: Array, y: Array) -> Array:
    """g (1 - y²): the gradient of y = tanh x in one pass."""
    return g * (1 - y * y)


tanh_vjp.vjp(g=lambda v, y: tanh_vjp(v, y), y=lambda v, g, y: -2 * (v * g * y))
