"""Cards of ops/attention.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops import attention as ops
from .card import Draw, OpCard

Sample = tuple[tuple, dict]

SIDES = (3, 2, 4, 3, 2, 1, 0)  # mostly such that the softmax has a choice, and so a gradient


def _attention(draw: Draw) -> Sample:
    length, keys, features, values = (draw.choice(SIDES) for _ in range(4))
    batch = draw.broadcastable(3, max_dims=2)
    query = draw.floats((*batch[0], length, features))
    key = draw.floats((*batch[1], keys, features))
    value = draw.floats((*batch[2], keys, values))
    mask = draw.choice([None, None, draw.rng().random((length, keys)) < 0.6, draw.floats((length, keys))])
    return (query, key, value, mask), {"is_causal": mask is None and draw.boolean(), "scale": draw.choice([None, 0.7])}


def _attention_reference(query, key, value, attn_mask, is_causal, scale):
    length, keys = query.shape[-2], key.shape[-2]
    scale = 1 / np.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    scores = scale * query @ np.swapaxes(key, -1, -2)
    mask = np.tri(length, keys, dtype=bool) if is_causal else attn_mask
    added = np.zeros((length, keys)) if mask is None else np.where(mask, 0, -np.inf) if mask.dtype == bool else mask
    e = np.exp(scores + added)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total) @ value


OpCard(
    "scaled_dot_product_attention",
    ops.scaled_dot_product_attention,
    _attention,
    wrt=(0, 1, 2),
    reference=_attention_reference,
)


class _Coins:
    """A generator that always starts from the same seed, so that dropout is a function."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def bernoulli(self, p: float, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.asarray(self.rng.random(shape) < p).astype(dtype)


def _dropout(draw: Draw) -> Sample:
    return (draw.floats(draw.shape()),), {"p": draw.choice([0.0, 0.3, 0.8]), "seed": draw.integer(0, 1000)}


OpCard(
    "dropout",
    lambda x, p, seed: ops.dropout(x, p, _Coins(seed)),
    _dropout,
    wrt=(0,),
    reference=lambda x, p, seed: x * _Coins(seed).bernoulli(1 - p, x.shape, x.dtype) / (1 - p),
    linear=(0,),
)
