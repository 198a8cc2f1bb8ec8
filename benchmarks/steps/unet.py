"""The U-Net of the diffusion workloads: width 32, 28 -> 14 -> 7, attention in the middle. Start at `unet`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .workload import Draw

RESIDUAL = {  # blocks of the U-Net: name -> channels in and out
    "d0": (32, 32), "d1": (32, 64), "d2": (64, 64), "m1": (64, 64), "m2": (64, 64),
    "u2": (128, 64), "u1": (128, 64), "u0": (96, 32),
}  # fmt: skip


def unet_weights(draw: Draw) -> None:
    draw.linear("t1", 32, 128)
    draw.linear("t2", 128, 128)
    draw.conv("first", 1, 32, 3)
    for name, (c_in, c_out) in RESIDUAL.items():
        draw.norm(f"{name}.n1", c_in)
        draw.conv(f"{name}.c1", c_in, c_out, 3)
        draw.linear(f"{name}.t", 128, c_out)
        draw.norm(f"{name}.n2", c_out)
        draw.conv(f"{name}.c2", c_out, c_out, 3)
        if c_in != c_out:
            draw.conv(f"{name}.skip", c_in, c_out, 1)
    for name, c_in, c_out in (("down0", 32, 32), ("down1", 64, 64), ("up2", 64, 64), ("up1", 64, 64)):
        draw.conv(name, c_in, c_out, 3)
    draw.norm("attention.norm", 64)
    draw.conv("attention.qkv", 64, 192, 1)
    draw.conv("attention.out", 64, 64, 1)
    draw.norm("last.norm", 32)
    draw.conv("last", 32, 1, 3)


def time_features(xp: Any, t: Any) -> Any:
    """(N,) -> (N, 32) sines and cosines.     xp: numpy, or jax.numpy inside a compiled function"""
    angles = t[:, None] * np.exp(-math.log(10_000) * np.arange(16) / 16)
    return xp.concatenate([xp.sin(angles), xp.cos(angles)], axis=1)


def unet(lib: Any, p: dict, x: Any, features: Any) -> Any:
    """Images (N, 1, 28, 28) and time features (N, 32) -> the noise in them."""
    time = lib.silu(lib.linear(lib.linear(features, p, "t1", "silu"), p, "t2"))  # (N, 128), SiLU as each block wants it

    def block(name: str, x: Any) -> Any:
        h = lib.conv(lib.group_norm_silu(x, p, f"{name}.n1"), p, f"{name}.c1", 1, 1)
        h = lib.add_channels(h, lib.linear(time, p, f"{name}.t"))
        h = lib.conv(lib.group_norm_silu(h, p, f"{name}.n2"), p, f"{name}.c2", 1, 1)
        return h + (lib.conv(x, p, f"{name}.skip", 1, 0) if f"{name}.skip.w" in p else x)

    h = lib.conv(x, p, "first", 1, 1)
    h0 = block("d0", h)
    h1 = block("d1", lib.conv(h0, p, "down0", 2, 1))
    h2 = block("d2", lib.conv(h1, p, "down1", 2, 1))
    h = block("m2", lib.attention(block("m1", h2), p, "attention"))
    h = lib.conv(lib.upsample(block("u2", lib.concat(h, h2))), p, "up2", 1, 1)
    h = lib.conv(lib.upsample(block("u1", lib.concat(h, h1))), p, "up1", 1, 1)
    h = block("u0", lib.concat(h, h0))
    return lib.conv(lib.group_norm_silu(h, p, "last.norm"), p, "last", 1, 1)
