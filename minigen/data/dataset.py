"""`Dataset`, what every loader returns, and `DataError`, what every loader raises. Start at `Dataset`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, in memory.

    name, split: what was asked for; split is "train" or "test".
    x: float32. Images (N, H, W, C) in [0, 1], each value k / (levels - 1) for an integer k; or points (N, 2).
    y: (N,) int64 class labels, or None.
    levels: number of grey levels an image value can take (2 or more), or None for points.
    entropy: differential entropy of the distribution that x was drawn from, in nats per sample, or None where nobody
        knows it. No model's negative log-likelihood can be below it in expectation.
    source: where these arrays came from.
    description: one line for a person.
    factors: (N, F) int64, the index of each generative factor of each sample, or None; factor_names: their F names.
    """

    name: str
    split: str
    x: np.ndarray
    y: np.ndarray | None
    levels: int | None
    entropy: float | None
    source: str
    description: str
    factors: np.ndarray | None = None
    factor_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of x and y with their shapes: equal digests mean equal data. Computed at first use."""
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            if array is not None:
                digest.update(f"{array.dtype.str} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class DataError(ValueError):
    """A data set cannot be had: unknown, missing, damaged, or not what it claims to be.

    file: the file, folder or name that is at fault.   reason: what is wrong.   remedy: what to do about it.
    """

    def __init__(self, file: object, reason: str, remedy: str):
        super().__init__(str(file), reason, remedy)
        self.file, self.reason, self.remedy = str(file), reason, remedy

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}. {self.remedy}."
