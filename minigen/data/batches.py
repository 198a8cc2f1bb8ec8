"""From arrays to what a training step eats. Start at `BatchOrder`, which decides what comes when and can be resumed.

    BatchOrder, minibatches      shuffled index batches
    binarize                     grey images to black and white, anew each time
    quantize, dequantize         [0, 1] to integer grey levels, and to a continuous variable with a density
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from minigen.random import Generator


class BatchOrder:
    """Endless iterator over index batches: int64 arrays (batch_size,), each epoch a new permutation of 0 .. n - 1.

    drop_last: the n % batch_size indices left at the end of an epoch are dropped, so that every batch has the same
        size; another permutation drops others. With drop_last=False they come as one smaller batch.

    epoch: epochs begun, 0 before the first batch.   position: how many indices of this epoch have been given out.
    Raises ValueError where there would be no batch in an epoch.
    """

    def __init__(self, n: int, batch_size: int, rng: Generator, drop_last: bool = True):
        if n < 1 or batch_size < 1:
            raise ValueError(f"BatchOrder: n = {n} and batch_size = {batch_size} have to be at least 1")
        if drop_last and batch_size > n:
            raise ValueError(
                f"BatchOrder: no full batch of {batch_size} in {n} samples; choose a batch size of at most {n}, "
                f"or drop_last=False"
            )
        self.n, self.batch_size, self.rng, self.drop_last = n, batch_size, rng, drop_last
        self.permutation = np.empty(0, np.int64)
        self.position = 0
        self.epoch = 0

    @property
    def batches_per_epoch(self) -> int:
        """How many whole batches the data give."""
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        left = len(self.permutation) - self.position
        if left < (self.batch_size if self.drop_last else 1):
            self.permutation = self.rng.permutation(self.n)
            self.position = 0
            self.epoch += 1
        batch = self.permutation[self.position : self.position + self.batch_size].copy()
        self.position += len(batch)
        return batch

    @property
    def state(self) -> dict[str, Any]:
        """What resuming needs: permutation, position, epoch and the state of the generator. A snapshot."""
        return {
            "permutation": self.permutation.copy(),
            "position": self.position,
            "epoch": self.epoch,
            "rng": self.rng.state,
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` was taken. Raises ValueError where it is the state of another order."""
        permutation = np.array(state["permutation"], np.int64)
        position, epoch = int(state["position"]), int(state["epoch"])
        begun = len(permutation) > 0
        if begun and not np.array_equal(np.sort(permutation), np.arange(self.n)):
            raise ValueError(f"BatchOrder: a state of {len(permutation)} indices is no permutation of {self.n} samples")
        if not 0 <= position <= len(permutation) or epoch < 0 or begun != (epoch > 0):
            raise ValueError(f"BatchOrder: no state has position {position} of {len(permutation)} in epoch {epoch}")
        self.rng.state = state["rng"]  # a bad one raises here and changes nothing
        self.permutation, self.position, self.epoch = permutation, position, epoch


def minibatches(n: int, batch_size: int, rng: Generator, drop_last: bool = True) -> Iterator[np.ndarray]:
    """The index batches of one epoch, as `BatchOrder` gives them."""
    order = BatchOrder(n, batch_size, rng, drop_last)
    return itertools.islice(order, order.batches_per_epoch)


def binarize(x: np.ndarray, rng: Generator) -> np.ndarray:
    """Dynamic binarisation: each value becomes 1 with probability x, else 0, drawn anew at every call.

    x: any shape, in [0, 1].   Returns float32 of the same shape. Raises ValueError for values outside [0, 1] and NaN.
    Source: Salakhutdinov & Murray 2008, "On the Quantitative Analysis of Deep Belief Networks", section 4.
    """
    return rng.bernoulli(x)


def quantize(x: np.ndarray, levels: int) -> np.ndarray:
    """The nearest of `levels` grey levels: round(x * (levels - 1)), uint8 up to 256 levels, else int64.

    x: any shape, in [0, 1], where 0 is the first level and 1 the last, as in `Dataset.x`. Raises ValueError for others.
    """
    if x.size and not (x.min() >= 0 and x.max() <= 1):  # written so that NaN fails
        raise ValueError(f"quantize: values from {x.min()} to {x.max()}, expected all in [0, 1]")
    _require_levels("quantize", levels)
    return np.rint(x * (levels - 1)).astype(np.uint8 if levels <= 256 else np.int64)


def dequantize(k: np.ndarray, levels: int, rng: Generator) -> np.ndarray:
    """Uniform dequantisation: z = (k + u) / levels in [0, 1), with u uniform in [0, 1) drawn anew at every call.

    k: integers of any shape, 0 .. levels - 1, at most 2^16 levels.   Returns float32 of the same shape.

    Level k owns the cube of side 1/levels, so for D values in one sample, log |dz/du| = -D ln(levels), and a density
    p(z) bounds the probability of the levels:

        log P(k) = log E_u[p(z)] - D ln(levels)  >=  E_u[log p(z)] - D ln(levels)                 (nats)
        bits per dimension  =  log2(levels) - E_u[log p(z)] / (D ln 2)

    The bound is tight where p is constant on each cube; the uniform density has log p = 0, and so exactly
    log2(levels) bits per dimension, 8 at 256 levels.   Source: Theis et al. 2016, arXiv 1511.01844, section 3.1.
    Raises ValueError for values outside 0 .. levels - 1.
    """
    _require_levels("dequantize", levels)
    if k.size and not (k.min() >= 0 and k.max() < levels):
        raise ValueError(f"dequantize: levels from {k.min()} to {k.max()}, expected integers in 0 .. {levels - 1}")
    floor = k.astype(np.float32)
    below = np.nextafter(floor + 1, np.float32(0))  # float32 rounds 255 + 0.99999994 to 256, and z to 1
    return np.minimum(floor + rng.uniform(k.shape), below) / np.float32(levels)


def _require_levels(function: str, levels: int) -> None:
    if not 2 <= levels <= 65_536:
        raise ValueError(f"{function}: levels = {levels}, expected 2 to 65,536")
