"""Losses on the GPU: launches of cuda.cu. Start at `cross_entropy`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cuda import THREADS, Source, contiguous, grid, result, team

Array = Any

source = Source(__file__)


def cross_entropy(
    x: Array, target: Array, smoothing: float = 0.0, out: tuple | None = None
) -> tuple[Array, Array, Array]:
    """-log softmax(x)_target of each row, smoothed; with the maximum and 1 / Σ exp(x - max).      x: (rows, n)

    A class outside 0 … n - 1 gives NaN.
    """
    (x,), target = contiguous(x), _classes(target)
    results = tuple(result(o, x.shape[:1], x.dtype) for o in out or (None,) * 3)
    options = (float(1 - smoothing), float(smoothing))
    source.launch("cross_entropy_kernel", x.dtype, *team(*x.shape), *x.shape, x, target, *options, *results)
    return results


def cross_entropy_vjp(
    g: Array, x: Array, target: Array, highest: Array, inverse: Array, smoothing: float = 0.0, out: Array | None = None
) -> Array:
    """The gradient with respect to x: g (softmax(x) - wanted).      g: (rows,) -> (rows, n)."""
    g, x, highest, inverse = contiguous(g, x, highest, inverse)
    out = result(out, x.shape, x.dtype)
    miss = smoothing / max(x.shape[1], 1)
    options = (float(1 - smoothing + miss), float(miss))  # what is wanted at the target, and elsewhere
    arrays = (g, x, _classes(target), highest, inverse)
    source.launch("cross_entropy_vjp_kernel", x.dtype, grid(x.size), THREADS, x.size, x.shape[1], *arrays, *options, out)
    return out


def bce_with_logits(x: Array, target: Array, out: Array | None = None) -> Array:
    """-target log σ(x) - (1 - target) log σ(-x), element by element."""
    out = result(out, x.shape, x.dtype)
    source.launch("bce_with_logits_kernel", x.dtype, grid(x.size), THREADS, x.size, *contiguous(x, target), out)
    return out


def bce_with_logits_vjp(g: Array, x: Array, target: Array, out: Array | None = None) -> Array:
    """g (σ(x) - target).      g: like x, or a single number, or one broadcast to the shape of x."""
    out = result(out, x.shape, x.dtype)
    if g.size and not any(g.strides):
        g = g.reshape(-1)[:1]
    arrays = contiguous(x, target)
    source.launch(
        "bce_with_logits_vjp_kernel", x.dtype, grid(x.size), THREADS, x.size, *contiguous(g), g.size > 1, *arrays, out
    )
    return out


def _classes(target: Array) -> Array:
    return contiguous(target.astype(np.int64, copy=False))[0]
