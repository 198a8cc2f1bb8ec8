"""Attention as a layer."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, ops
from ..random import Generator
from .layers import Linear
from .module import Module


class MultiHeadAttention(Module):
    """Self-attention   (Vaswani 2017, sec. 3.2).     x: (N, L, dim) -> (N, L, dim)

    dim is split over num_heads heads; is_causal keeps position i from seeing positions j > i.
    Raises ValueError if num_heads does not divide dim.
    """

    def __init__(self, dim: int, num_heads: int = 1, *, rng: Generator, is_causal: bool = False):
        if dim % num_heads:
            raise ValueError(f"MultiHeadAttention: num_heads={num_heads} does not divide dim={dim}")
        self.qkv = Linear(dim, 3 * dim, rng=rng)
        self.out = Linear(dim, dim, rng=rng)
        self.num_heads, self.is_causal = num_heads, is_causal

    def forward(self, x: Tensor, attn_mask: Any = None) -> Tensor:
        """x: (N, L, dim)  ->  (N, L, dim).     attn_mask: (..., L, L), as in `ops.scaled_dot_product_attention`.

        Raises ValueError or TypeError for a mask that does not fit.
        """
        n, length, dim = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.num_heads, dim // self.num_heads)  # (N, L, 3, heads, d)
        q, k, v = (ops.permute_dims(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3))  # (N, heads, L, d) each
        y = ops.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, is_causal=self.is_causal)
        return self.out(ops.permute_dims(y, (0, 2, 1, 3)).reshape(n, length, dim))  # (N, L, dim)
