"""Real handwritten digits, bundled with scikit-learn, so that a first model needs no download. See `load_split`."""

from __future__ import annotations

import importlib.util

import numpy as np

from minigen.data.dataset import DataError, Dataset

SIZES = {"train": 1_437, "test": 360}
GREY_LEVELS = 17  # each 8x8 pixel counts the ink in a 4x4 block of a 32x32 bitmap: 0 to 16
CLASSES = 10
SPLIT_SEED = 1797


def load_split(split: str) -> Dataset:
    """8x8 digits: x (1437 or 360, 8, 8, 1), multiples of 1/16 in [0, 1]; y (N,) in 0..9.

    The split is ours, since scikit-learn bundles one set of 1,797 only: the test split holds 36 digits of each class,
    drawn with a fixed seed. Both keep scikit-learn's order. Raises DataError where scikit-learn is not installed.
    """
    if where() is None:
        raise DataError("digits", "needs scikit-learn", "Install it with: python -m pip install scikit-learn")
    from sklearn.datasets import load_digits  # lazily: it takes a second

    from minigen.random import Generator

    images, labels = load_digits(return_X_y=True)  # (1797, 64) float64 0..16, (1797,)
    chosen = _in_split(labels, Generator(SPLIT_SEED).permutation(len(labels)), split)  # (N,) indices
    return Dataset(
        name="digits",
        split=split,
        x=(images[chosen] / (GREY_LEVELS - 1)).astype(np.float32).reshape(-1, 8, 8, 1),
        y=labels[chosen].astype(np.int64),
        levels=GREY_LEVELS,
        entropy=None,
        source="scikit-learn, sklearn.datasets.load_digits",
        description="handwritten digits, 8 x 8",
    )


def where() -> str | None:
    """scikit-learn, or None where it is not installed."""
    return "scikit-learn" if importlib.util.find_spec("sklearn") else None


def _in_split(labels: np.ndarray, order: np.ndarray, split: str) -> np.ndarray:
    """Indices of the samples of `split`: the first of each class in the random `order` are the test's."""
    per_class = SIZES["test"] // CLASSES
    in_test = np.zeros(len(labels), bool)
    for label in range(CLASSES):
        in_test[order[labels[order] == label][:per_class]] = True
    return np.flatnonzero(in_test if split == "test" else ~in_test)
