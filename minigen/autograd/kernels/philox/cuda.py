"""Philox4x32-10 on the GPU: launches of cuda.cu, whose bits are those of reference.py. Start at `philox_normal`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dials import by_value_or_place, turned
from ..cuda import THREADS, Source, contiguous, grid, result

Array = Any

source = Source(__file__, exact=True)

HALF = (1 << 64) - 1


def philox_bits(key: int, stream: int, block: int, n: int, out: Array | None = None) -> Array:
    """The first n words of 32 bits from `block` on, (n,) uint32."""
    out = result(out, (n,), np.uint32)
    _draw("bits", np.float32, -(-n // 4), key, stream, block, n, out)
    return out


def philox_uniform(
    key: int, stream: int, block: int, n: int, low: float, high: float, dtype: Any, out: Array | None = None
) -> Array:
    """n draws from [low, high)."""
    real = np.dtype(dtype).type
    low, high = real(low), real(high)
    out = result(out, (n,), real)
    _draw("uniform", real, _blocks(n, real), key, stream, block, n, low, high - low, np.nextafter(high, low), out)
    return out


def philox_normal(
    key: int, stream: int, block: int, n: int, mean: float, std: float, dtype: Any, out: Array | None = None
) -> Array:
    """n draws from N(mean, std²)."""
    real = np.dtype(dtype).type
    out = result(out, (n,), real)
    _draw("normal", real, _blocks(n, real), key, stream, block, n, real(mean), real(std), out)
    return out


def philox_integers(key: int, stream: int, block: int, n: int, low: int, high: int, out: Array | None = None) -> Array:
    """n integers from low … high - 1, (n,) int64."""
    out = result(out, (n,), np.int64)
    span = high - low
    limits = (np.uint64(x & HALF) for x in (low, span, (1 << 64) % span))
    _draw("integers", np.float32, n, key, stream, block, n, *limits, out)
    return out


def philox_bernoulli(
    key: int, stream: int, block: int, n: int, p: Array, dtype: Any, out: Array | None = None
) -> Array:
    """n zeros and ones, 1 with probability p, (n,) or (1,). Widening a p to float64 keeps it as it is."""
    out = result(out, (n,), dtype)
    real = p.dtype if p.dtype == out.dtype else np.dtype(np.float64)
    target = out if out.dtype == real else result(None, (n,), real)
    _draw("bernoulli", real, -(-n // 4), key, stream, block, n, *contiguous(p.astype(real, copy=False)), p.size > 1, target)
    if target is not out:
        out[...] = target
    return out


def _blocks(n: int, real: type) -> int:
    """Blocks of 128 bits for n numbers."""
    return -(-n * np.dtype(real).itemsize // 16)


def _draw(name: str, dtype: Any, units: int, key: int, stream: int, block: Any, *arguments: Any) -> None:
    """One thread to each of `units` blocks or draws.     block: an int, or a Dial"""
    place = (np.uint64(key), np.uint64(stream), *by_value_or_place(turned(np.uint64, block), np.uint64))
    source.launch(f"{name}_kernel", dtype, grid(units), THREADS, *place, *arguments)
