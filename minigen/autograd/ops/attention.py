"""Attention, and dropout. Start at `scaled_dot_product_attention`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tape import Array
from .elementwise import where
from .linalg import matmul
from .normalisation import softmax


def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Array:
    """softmax(scale query keyᵀ + mask) value: for each query an average of the values, weighted by how its key matches.

    query: (..., L, E)      key: (..., S, E)      value: (..., S, V)      returns (..., L, V); leading axes broadcast.
    attn_mask: broadcasts to (..., L, S): booleans, True where the query may look; or floats, added to the scores.
    is_causal: query i sees the keys 0 … i only.      scale: 1 / √E if None.

    A query that may look nowhere gets zeros, and passes no gradient back.
    Raises ValueError if the shapes do not fit, or for a mask together with is_causal; TypeError for a mask of integers.
    Source: Vaswani et al. 2017, eq. 1.
    """
    _check(query, key, value, attn_mask, is_causal)
    scale = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    scores = matmul(query * scale, key.mT)  # (..., L, S)
    if is_causal:
        raw = scores.data if hasattr(scores, "node") else scores
        causal = np.tri(*scores.shape[-2:], dtype=np.bool_, like=raw)  # on the device of the scores
        scores = where(causal, scores, -math.inf)
    elif attn_mask is not None and attn_mask.dtype == bool:
        scores = where(attn_mask, scores, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return matmul(softmax(scores), value)


def dropout(input: Array, p: float, rng: Any, training: bool = True) -> Array:
    """Zero each element with probability p, scale the others by 1 / (1 - p): the mean stays (Srivastava et al. 2014).

    rng: a `minigen.random.Generator`.      training: if False, or for p = 0, the input itself; rng is not used.
    Raises ValueError for p outside [0, 1), TypeError for another rng.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p={p} is the probability of a zero and must be in [0, 1)")
    if not training or p == 0:
        return input
    if not hasattr(rng, "bernoulli"):
        raise TypeError(
            f"dropout: rng is {type(rng).__name__}, and must be a minigen.random.Generator, Generator(0) say; or training=False"
        )
    keep = rng.bernoulli(1 - p, input.shape, input.dtype)
    return input * (keep * (1 / (1 - p)))


def _check(query: Array, key: Array, value: Array, attn_mask: Array | None, is_causal: bool) -> None:
    name = "scaled_dot_product_attention"
    shapes = [tuple(a.shape) for a in (query, key, value)]
    given = ", ".join(f"{what} {shape}" for what, shape in zip(("query", "key", "value"), shapes, strict=True))
    if any(len(shape) < 2 for shape in shapes):
        raise ValueError(f"{name}: {given}: each must be (..., length, features)")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"{name}: {given}: query and key must have equally many features, their last axis")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"{name}: {given}: key and value must have equally many rows, the last axis but one")
    try:
        batch = np.broadcast_shapes(*(shape[:-2] for shape in shapes))
    except ValueError:
        raise ValueError(f"{name}: {given}: the leading axes do not broadcast") from None
    if attn_mask is None:
        return
    if is_causal:
        raise ValueError(f"{name}: give attn_mask or is_causal=True, not both; np.tri(L, S, dtype=bool) is the causal mask")
    if np.dtype(attn_mask.dtype).kind not in "bfc":
        raise TypeError(f"{name}: attn_mask must be boolean (True: may look) or floating-point (added), not {attn_mask.dtype}")
    scores = (*batch, query.shape[-2], key.shape[-2])
    try:
        fits = np.broadcast_shapes(tuple(attn_mask.shape), scores) == scores
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: attn_mask {tuple(attn_mask.shape)} does not broadcast to the scores {scores}")
