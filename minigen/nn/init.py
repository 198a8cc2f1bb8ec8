"""Initialisations: how a weight starts. Start at `fan_in_uniform`, what every layer uses unless told otherwise.

Each takes the shape of a weight, whose last two axes are (in, out), and a generator, and returns a raw float32 array:

    Linear(784, 200, rng=rng, weight_init=init.xavier_uniform)
    Conv2d(64, 3, 4, rng=rng, weight_init=lambda shape, rng: init.normal(shape, rng, std=0.02))

fan_in counts the inputs that one output sums over, fan_out the outputs that one input reaches: see `fans`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..random import Generator

Initialisation = Callable[[tuple[int, ...], Generator], np.ndarray]
RELU_GAIN = math.sqrt(2)  # ReLU halves the second moment


def fan_in_uniform(shape: tuple[int, ...], rng: Generator) -> np.ndarray:
    """U(-1/√fan_in, 1/√fan_in): PyTorch's default for linear and convolution layers."""
    return _uniform(shape, rng, 1 / math.sqrt(fans(shape)[0]))


def kaiming_uniform(shape: tuple[int, ...], rng: Generator, gain: float = RELU_GAIN) -> np.ndarray:
    """U(-a, a) with variance gain²/fan_in: a = gain √(3/fan_in)   (He 2015, eq. 10)."""
    return _uniform(shape, rng, gain * math.sqrt(3 / fans(shape)[0]))


def kaiming_normal(shape: tuple[int, ...], rng: Generator, gain: float = RELU_GAIN) -> np.ndarray:
    """N(0, gain²/fan_in): keeps the size of activations through layers with ReLU   (He 2015, eq. 10)."""
    return normal(shape, rng, gain / math.sqrt(fans(shape)[0]))


def xavier_uniform(shape: tuple[int, ...], rng: Generator, gain: float = 1.0) -> np.ndarray:
    """U(-a, a), a = gain √(6/(fan_in + fan_out)): keeps the size of activations and of gradients   (Glorot 2010, eq. 16)."""
    return _uniform(shape, rng, gain * math.sqrt(6 / sum(fans(shape))))


def xavier_normal(shape: tuple[int, ...], rng: Generator, gain: float = 1.0) -> np.ndarray:
    """N(0, gain² 2/(fan_in + fan_out))   (Glorot 2010, eq. 12)."""
    return normal(shape, rng, gain * math.sqrt(2 / sum(fans(shape))))


def normal(shape: tuple[int, ...], rng: Generator, std: float = 0.02) -> np.ndarray:
    """N(0, std²); 0.02 is DCGAN's   (Radford 2016, sec. 4)."""
    return rng.normal(shape, 0.0, std)


def orthogonal(shape: tuple[int, ...], rng: Generator, gain: float = 1.0) -> np.ndarray:
    """gain times a matrix (all axes but the last, last) with orthonormal rows or columns, the fewer of them   (Saxe 2014)."""
    rows, cols = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(rng.normal((max(rows, cols), min(rows, cols)), dtype=np.float64))
    q *= np.sign(np.diagonal(r))  # makes the decomposition unique, hence the distribution uniform
    return np.ascontiguousarray(gain * (q if rows >= cols else q.T).reshape(shape), np.float32)


def zeros(shape: tuple[int, ...], rng: Generator) -> np.ndarray:
    """0: for a last layer that is to change nothing at first, such as the end of a residual branch. Draws nothing."""
    return np.zeros(shape, np.float32)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: (in, out), or (kernel ..., in / groups, out) of a convolution.

    A transposed convolution has the weight of the convolution that it is the adjoint of, and gets the fans of that one, as
    in PyTorch. Raises ValueError for fewer than two axes, or an empty one.
    """
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"a weight has at least the axes (in, out), none of them empty, not shape {shape}")
    *kernel, c_in, c_out = shape
    return math.prod(kernel) * c_in, math.prod(kernel) * c_out


def _uniform(shape: tuple[int, ...], rng: Generator, bound: float) -> np.ndarray:
    return rng.uniform(shape, -bound, bound)
