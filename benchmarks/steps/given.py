"""The same noise for every library, drawn by NumPy: with it, equal work shows as equal losses. Start at `Given`.

In float64: in float32 a GAN's first steps carry the last bit of a gradient near zero, through Adam's division by its size, to
the fourth digit of the third loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Given:
    """Noise that does not depend on the library. `lib.constants` brings it into the library's layout."""

    def __init__(self, lib: Any, seed: int):
        self.lib, self.rng = lib, np.random.default_rng(seed)

    def normal(self, shape: tuple[int, ...]) -> Any:
        return self.lib.constants(self.rng.standard_normal(shape))

    def uniform(self, shape: tuple[int, ...]) -> Any:
        return self.lib.constants(self.rng.random(shape))

    def times(self, n: int) -> np.ndarray:
        return self.rng.integers(0, 1000, n)
