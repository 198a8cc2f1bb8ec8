"""Random numbers without a sequence: kernels of the counter-based generator Philox4x32-10 (Salmon et al. 2011).

Philox is a keyed bijection of 128-bit counters: block i of a stream is simply the encryption of i, so any draw can be
made at any time, in any order, on any processor. `reference.py` is the definition, bit for bit, of all implementations.

    philox_bits(key, stream, block, n)                          (n,) uint32
    philox_uniform(key, stream, block, n, low, high, dtype)     (n,) in [low, high)
    philox_normal(key, stream, block, n, mean, std, dtype)      (n,) normal
    philox_integers(key, stream, block, n, low, high)           (n,) int64 in low … high - 1, unbiased
    philox_bernoulli(key, stream, block, n, p, dtype)           (n,) zeros and ones; p: (n,) or (1,) float32 or float64

    key, stream: 64 bits each, say which stream.      block: below 2^56, where the call starts in it.
    draw i reads word i of the call (32 bits, four to a block) or words 2i and 2i + 1 (64 bits, two to a block).

People use `minigen.random.Generator`, which keeps the position.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd.backend import Card, Kernel

__all__ = ["philox_bernoulli", "philox_bits", "philox_integers", "philox_normal", "philox_uniform"]

SIZES = (0, 1, 2, 3, 4, 5, 63, 1023, 1024, 1025, 2600)
BLOCK_OPERATIONS = 10 * (2 * 2 + 4 + 2)  # per round: two products of two halves, four xor, two additions to the key


def _addresses(rng: np.random.Generator) -> list[tuple[int, ...]]:
    """(key, stream, block, n): each size at a random place, and once across the carry of the counter's lower word."""
    cases = [(*(int(x) for x in rng.integers(0, 2**56, 3)), n) for n in SIZES]
    return [*cases, (2**64 - 1, 2**64 - 1, 2**32 - 100, 1025)]


def _card(arguments: Any, operations: float, note: str, draw_bytes: Any = None) -> Card:
    """A card whose calls are an address followed by `arguments(rng, n, dtype)`."""

    def size(dtype: Any) -> int:
        return np.dtype(dtype).itemsize

    def moved(key: int, stream: int, block: int, n: int, *rest: Any, **out: Any) -> int:
        return n * (draw_bytes or size(rest[-1])) + sum(a.nbytes for a in rest if isinstance(a, np.ndarray))

    def count(key: int, stream: int, block: int, n: int, *rest: Any, **out: Any) -> int:
        words = (draw_bytes or size(rest[-1])) // 4
        return int(n * (words * BLOCK_OPERATIONS / 4 + operations))

    return Card(
        cases=lambda rng, dtype: [((*at, *arguments(rng, at[-1], dtype)), {}) for at in _addresses(rng)],
        flops=count,
        bytes=moved,
        ulp=0.0,
        note="Same bits from every implementation. Operations count those on integers too. " + note,
    )


philox_bits = Kernel("philox_bits", __name__, _card(lambda rng, n, dtype: (), 0, "The words as they come.", 4))

philox_uniform = Kernel(
    "philox_uniform",
    __name__,
    _card(lambda rng, n, dtype: (-1.5, 2.0, dtype), 6, "Top 24 (float32) or 53 (float64) bits of a draw."),
)

philox_normal = Kernel(
    "philox_normal",
    __name__,
    _card(
        lambda rng, n, dtype: (0.5, 2.0, dtype),
        24,
        "Box-Muller with polynomial log, sin and cos; the standard normal is right to 3 eps, relative to its size.",
    ),
)

philox_integers = Kernel(
    "philox_integers",
    __name__,
    _card(
        lambda rng, n, dtype: (-5, 2**62 + 2**61 + 2**31) if n % 2 else (0, 10),  # a quarter of the former is rejected
        12,
        "Multiply and reject: exactly uniform.",
        8,
    ),
)

philox_bernoulli = Kernel(
    "philox_bernoulli",
    __name__,
    _card(
        lambda rng, n, dtype: (rng.random(n if n % 2 else 1).astype(dtype), dtype),
        3,
        "Probabilities are rounded down to multiples of 2^-32.",
    ),
)
