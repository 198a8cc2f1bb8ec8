"""A U-Net: from an image, a time and perhaps a label to an image of the same shape. Start at `UNet.forward`.

The network of Ho 2020, app. B, made small enough for a CPU: group normalisation, SiLU, time in every residual block, attention
where the image is smallest. The first thing it does is to make each 2 x 2 block of pixels into channels, and the last to undo
that, so that nothing is computed at full resolution; between its two resolutions it moves the same way. Most of the
operations, and nearly all of the parameters, are at a quarter of the resolution, where a channel costs least.

Images are (N, H, W, C); H and W must be multiples of 4.
"""

from __future__ import annotations

import math

import numpy as np

from ..autograd import Tensor, ops
from ..nn import Conv2d, Embedding, GroupNorm, Linear, Module, MultiHeadAttention, Sequential, init
from ..random import Generator

BLOCK = 2  # pixels to a side that become channels
GROUPS = 4  # of channels that are normalised together: several in each, or the norm would undo what the time adds
PERIODS = (1, 2)  # of the Fourier features, in grey levels
TIME = 32  # size of the embedded time that the network is told


class UNet(Module):
    """base: channels at half resolution, a multiple of 4; four times as many at a quarter.     classes: 0 for none.

    depth: residual blocks at a quarter of the resolution.     attention: whether there is some, after the first of them.
    levels: of grey, if the network is to see where between two of them each pixel lies; 0: it is not told.
    """

    def __init__(
        self, channels: int, base: int, classes: int, rng: Generator, depth: int = 2, attention: bool = True, levels: int = 0
    ):
        if base % GROUPS:
            raise ValueError(f"the U-Net normalises {GROUPS} groups of channels: base={base} must be a multiple")
        c, d = base, BLOCK**2 * base  # at half resolution, at a quarter; the embedded time has d, too
        self.time = Sequential(Linear(TIME, d, rng=rng, activation="silu"), Linear(d, d, rng=rng))
        self.label = Embedding(classes + 1, d, rng=rng) if classes else None
        self.levels, seen = levels, channels * (1 + 2 * len(PERIODS) if levels else 1)
        self.enter = Conv2d(seen * BLOCK**2, c, 3, padding=1, rng=rng)
        self.high = ResidualBlock(c, c, d, rng)
        self.down = Linear(BLOCK**2 * c, d, rng=rng)
        self.low = [ResidualBlock(d, d, d, rng) for _ in range(depth)]
        self.attention = AttentionBlock(d, rng) if attention else None
        self.up = Linear(d, BLOCK**2 * c, rng=rng)
        self.high_up = ResidualBlock(2 * c, c, d, rng)
        self.norm = GroupNorm(GROUPS, c, activation="silu")
        self.leave = Conv2d(c, channels * BLOCK**2, 3, padding=1, rng=rng, weight_init=init.zeros)

    def forward(self, x: Tensor, u: np.ndarray, y: np.ndarray | None = None) -> Tensor:
        """x: (N, H, W, C)     u: (N,) time in [0, 1]     y: (N,) int labels, or None     -> (N, H, W, C), zeros at first"""
        emb = self.time(time_embedding(u, TIME))  # (N, d)
        if self.label is not None:
            emb = emb + self.label(y)
        emb = ops.silu(emb)
        seen = ops.concat([x, *fourier_features(x, self.levels)], axis=-1) if self.levels else x
        high = self.high(self.enter(ops.space_to_depth(seen, BLOCK)), emb)  # (N, H/2, W/2, c)
        h = self.down(ops.space_to_depth(high, BLOCK))  # (N, H/4, W/4, d)
        for i, block in enumerate(self.low):
            h = block(h, emb)
            if i == 0 and self.attention is not None:
                h = self.attention(h)
        h = ops.depth_to_space(self.up(h), BLOCK)  # (N, H/2, W/2, c)
        h = self.high_up(ops.concat([h, high], axis=-1), emb)  # 2 c -> c
        return ops.depth_to_space(self.leave(self.norm(h)), BLOCK)  # (N, H, W, C)


class ResidualBlock(Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x))) + time))).     (N, H, W, c_in), (N, e) -> (N, H, W, c_out)

    The second convolution starts at 0, so that every block starts as its skip.
    """

    def __init__(self, c_in: int, c_out: int, e: int, rng: Generator):
        self.norm1, self.norm2 = GroupNorm(GROUPS, c_in, activation="silu"), GroupNorm(GROUPS, c_out, activation="silu")
        self.conv1 = Conv2d(c_in, c_out, 3, padding=1, rng=rng)
        self.conv2 = Conv2d(c_out, c_out, 3, padding=1, rng=rng, weight_init=init.zeros)
        self.time = Linear(e, c_out, rng=rng)
        self.skip = Linear(c_in, c_out, rng=rng) if c_in != c_out else None  # a 1 x 1 convolution

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        n = len(x)
        h = self.conv1(self.norm1(x)) + self.time(emb).reshape(n, 1, 1, -1)  # (N, H, W, c_out)
        h = self.conv2(self.norm2(h))
        return h + (x if self.skip is None else self.skip(x))


class AttentionBlock(Module):
    """x + attention of all positions to all.     (N, H, W, c) -> the same"""

    def __init__(self, c: int, rng: Generator):
        self.norm = GroupNorm(GROUPS, c)
        self.attention = MultiHeadAttention(c, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, c = x.shape
        tokens = self.norm(x).reshape(n, height * width, c)  # (N, L, c)
        return x + self.attention(tokens).reshape(n, height, width, c)


def fourier_features(x: Tensor, levels: int) -> list[Tensor]:
    """sin and cos of x, in [-1, 1], at periods of one and of two grey levels.     (N, H, W, C) -> 4 of them

    A pixel with little noise is near a level. x itself hardly shows where the next one is; these do, so that the network can
    round   (Kingma 2021, Variational diffusion models, https://arxiv.org/abs/2107.00630).
    """
    level = (x + 1) * ((levels - 1) / 2)  # 0, 1, ..., levels - 1 for clean pixels
    return [f(level * (2 * math.pi / period)) for period in PERIODS for f in (ops.sin, ops.cos)]


def time_embedding(u: np.ndarray, size: int) -> np.ndarray:
    """sin and cos of 1000 u at frequencies from 1 down to 1/10,000.   (N,) -> (N, size), size even  (Vaswani 2017, sec. 3.5)"""
    half = size // 2
    frequencies = np.exp(-math.log(10_000) * np.arange(half, like=u) / half)
    angle = 1000 * u.astype(np.float64)[:, None] * frequencies  # (N, size/2)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(u.dtype)
