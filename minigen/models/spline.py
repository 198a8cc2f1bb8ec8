"""Monotone rational-quadratic splines   (Durkan 2019, Neural Spline Flows, https://arxiv.org/abs/1906.04032).

An increasing function on [-B, B], made of K bins in each of which it is a quotient of two quadratics, continuous with its
derivative; outside it is the identity. It is inverted by solving one quadratic equation. Start at `rational_quadratic`.
"""

from __future__ import annotations

import math

import numpy as np

from ..autograd import Tensor, ops

SMALLEST = 1e-3  # of a bin's share of the width and of the height, and of a derivative
UNIT = math.log(math.expm1(1 - SMALLEST))  # softplus(UNIT) + SMALLEST = 1


def rational_quadratic(x: Tensor, raw: Tensor, bound: float, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """The spline, or its inverse, at x.     x: (..., D), raw: (..., D, 3K - 1) -> y (..., D), log dy/dx (..., D)

    raw: what a network says of each spline: K widths, K heights, and K - 1 derivatives at the inner knots, unconstrained. All
    zeros are the identity. With inverse=True x is a height, y the place where it is reached, log dy/dx that of the inverse.

    In the bin of width w and height h that starts at (x_k, y_k), with θ = (x - x_k)/w, slope s = h/w, derivatives d_k, d_k+1:

        y = y_k + h (s θ² + d_k θ(1-θ)) / (s + c θ(1-θ)),          c = d_k+1 + d_k - 2s                             (eq. 4)
        dy/dx = s² (d_k+1 θ² + 2s θ(1-θ) + d_k (1-θ)²) / (s + c θ(1-θ))²                                           (eq. 5)
    """
    k = (raw.shape[-1] + 1) // 3
    widths, heights = (_shares(raw[..., i * k : (i + 1) * k], bound) for i in range(2))  # (..., D, K), summing to 2B
    inside = np.abs(x.data) < bound
    x_in = ops.where(inside, x, 0.0)

    edges = np.cumsum((heights if inverse else widths).data[..., :-1], axis=-1) - bound  # (..., D, K-1)
    reached = x_in.data[..., None] >= edges
    one = np.ones_like(x_in.data[..., None], dtype=bool)
    before = np.concatenate([reached, ~one], axis=-1).astype(x.dtype)  # (..., D, K): 1 for the bins left of x's
    at = np.concatenate([one, reached], axis=-1).astype(x.dtype) - before  # 1 for the bin of x
    w, h = (widths * at).sum(axis=-1), (heights * at).sum(axis=-1)  # (..., D), as is everything below
    x_k, y_k = (widths * before).sum(axis=-1) - bound, (heights * before).sum(axis=-1) - bound
    slopes = raw[..., 2 * k :]
    d_k, d_next = (  # both ends of the spline have raw slope 0, derivative 1, like the identity outside
        ops.softplus((slopes * chosen).sum(axis=-1) + UNIT) + SMALLEST for chosen in (at[..., 1:], at[..., :-1])
    )
    s = h / w
    c = d_next + d_k - 2 * s
    theta = _solve(x_in - y_k, h, s, d_k, c) if inverse else (x_in - x_k) / w
    both = theta * (1 - theta)
    denominator = s + c * both
    y = x_k + theta * w if inverse else y_k + h * (s * ops.square(theta) + d_k * both) / denominator
    numerator = d_next * ops.square(theta) + 2 * s * both + d_k * ops.square(1 - theta)
    log_slope = 2 * ops.log(s / denominator) + ops.log(numerator)
    return ops.where(inside, y, x), ops.where(inside, -log_slope if inverse else log_slope, 0.0)


def _shares(raw: Tensor, bound: float) -> Tensor:
    """Widths or heights of K bins that fill [-B, B], none vanishing.     (..., K) -> (..., K)"""
    k = raw.shape[-1]
    return 2 * bound * (SMALLEST + (1 - SMALLEST * k) * ops.softmax(raw, axis=-1))


def _solve(rise: Tensor, h: Tensor, s: Tensor, d_k: Tensor, c: Tensor) -> Tensor:
    """θ at which the spline has risen so far above y_k: the root in [0, 1] of a θ² + b θ + q = 0             (eqs. 6-8, 29)"""
    a = h * (s - d_k) + rise * c
    b = h * d_k - rise * c
    q = -s * rise
    discriminant = ops.maximum(ops.square(b) - 4 * a * q, 0.0)  # rounding may take a 0 below 0
    return 2 * q / (-b - ops.sqrt(discriminant))  # this form of the root does not cancel
