"""Initialisations. Start at `fan_in_uniform`, what every layer here uses unless told otherwise.

Each takes the shape first and a generator, and returns a raw float32 array. `fan_in` counts the inputs that one output
sums over: C_in for a linear layer (in, out), kh·kw·C_in/groups for a convolution (kh, kw, C_in/groups, C_out).
"""

from __future__ import annotations

import math

import numpy as np

from ..random import Generator


def fan_in_uniform(shape: tuple[int, ...], fan_in: int, rng: Generator) -> np.ndarray:
    """U(-1/√fan_in, 1/√fan_in): PyTorch's default for linear and convolution layers, weights and biases alike."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return rng.uniform(shape, -bound, bound) if bound else np.zeros(shape, np.float32)


def kaiming_normal(shape: tuple[int, ...], fan_in: int, rng: Generator, gain: float = math.sqrt(2)) -> np.ndarray:
    """N(0, gain²/fan_in): keeps the variance of activations through layers with ReLU   (He 2015, eq. 10)."""
    return rng.normal(shape, 0.0, gain / math.sqrt(fan_in))


def xavier_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: Generator, gain: float = 1.0) -> np.ndarray:
    """U(-a, a), a = gain √(6/(fan_in + fan_out))   (Glorot 2010, eq. 16)."""
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(shape, -bound, bound)


def normal(shape: tuple[int, ...], std: float, rng: Generator) -> np.ndarray:
    """N(0, std²): DCGAN's 0.02, for instance   (Radford 2016, sec. 4)."""
    return rng.normal(shape, 0.0, std)


def orthogonal(shape: tuple[int, int], rng: Generator, gain: float = 1.0) -> np.ndarray:
    """A matrix with orthonormal rows or columns (the fewer of them), times gain   (Saxe 2014)."""
    rows, cols = shape
    q, r = np.linalg.qr(rng.normal((max(rows, cols), min(rows, cols)), dtype=np.float64))
    q *= np.sign(np.diagonal(r))  # makes the decomposition unique, hence the distribution uniform
    return np.ascontiguousarray(gain * (q if rows >= cols else q.T)).astype(np.float32)
