"""Normalisation of numbers whose squares, or differences, leave the range of the dtype. Start at `in_range`.

Scaling by a power of two changes no digit, and the result of a normalisation does not depend on the scale. So groups with a
huge standard deviation, which show in the statistics that a kernel returns anyway, are computed a second time, scaled down;
ordinary ones do not change by a bit and cost nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..backend import on_gpu
from ..tape import Array
from .elementwise import sqrt
from .reduction import mean, var


def standardised(x: Array, over: tuple[int, ...], eps: float) -> Array:
    """(x - mean) / √(var + eps) along the axes `over`.

    Numbers too far apart for the dtype to hold their squares are divided by a power of two first.
    """
    raw = (x.data if hasattr(x, "node") else x).real
    if raw.size and not on_gpu(raw):
        highest, lowest = raw.max(axis=over, keepdims=True), raw.min(axis=over, keepdims=True)
        with np.errstate(over="ignore", invalid="ignore"):
            huge = np.isfinite(highest) & np.isfinite(lowest) & ~(highest - lowest < _limit(raw.dtype))
        if huge.any():
            unit = np.where(huge, _unit(raw.dtype), 1).astype(raw.dtype)
            x, eps = x * unit, eps * unit * unit
    return (x - mean(x, over, keepdims=True)) / sqrt(var(x, over, keepdims=True) + eps)


def in_range(kernel: Callable, x: np.ndarray, eps: float) -> tuple:
    """kernel(x, eps=eps) -> y, mean, std, whose groups of huge numbers are computed a second time, scaled down.

    x: (N, P, C) with statistics (N, groups), or (rows, n) with statistics (rows,).
    """
    y, mu, std = kernel(x, eps=eps)
    huge = _huge(std)
    if huge is None:
        return y, mu, std
    unit = _unit(x.dtype)
    with np.errstate(all="ignore"):  # what comes of the other groups is not used
        tiny = float(np.finfo(x.dtype).tiny)  # eps is nothing beside such a variance; but equal numbers have none
        again, mu_again, std_again = kernel(x * unit, eps=tiny)
    y = np.where(_like_data(huge, x), again, y)
    return y, np.where(huge, mu_again / unit, mu), np.where(huge, std_again / unit, std)


def vjp_in_range(kernel: Callable, g: np.ndarray, x: np.ndarray, mean: np.ndarray, std: np.ndarray, eps: float) -> tuple:
    """kernel(g, x, mean=, std=, eps=) -> gx, gweight, gbias, as the sum of that of the huge groups, scaled, and the rest."""
    huge = _huge(std)
    if huge is None:
        return kernel(g, x, mean=mean, std=std, eps=eps)
    unit = _unit(x.dtype)
    there = _like_data(huge, x)
    zero, one = np.zeros_like(x, shape=()), np.ones_like(x, shape=())  # in place of the groups that the other one does
    rest = np.where(there, zero, g), np.where(there, zero, x)
    gx, gweight, gbias = kernel(*rest, mean=np.where(huge, zero, mean), std=np.where(huge, one, std), eps=eps)
    mean, std = np.where(huge, mean * unit, zero), np.where(huge, std * unit, one)
    more = kernel(np.where(there, g, zero), np.where(there, x * unit, zero), mean=mean, std=std, eps=0.0)
    return np.where(there, more[0] * unit, gx), gweight + more[1], gbias + more[2]


def _huge(std: np.ndarray) -> np.ndarray | None:
    """Which groups are so spread out that their squares overflow; None for none. Not asked on a GPU, which would wait."""
    if on_gpu(std):
        return None
    ordinary = std.real < _limit(std.dtype)  # false for NaN
    return None if ordinary.all() else ~ordinary


def _like_data(huge: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(N, groups) as (N, 1, C), or (rows,) as (rows, 1): it broadcasts with x."""
    return np.repeat(huge, x.shape[2] // huge.shape[1], axis=1)[:, None] if x.ndim == 3 else huge[:, None]


def _limit(dtype: np.dtype) -> float:
    """The square root of the largest number."""
    return math.sqrt(np.finfo(dtype).max)


def _unit(dtype: np.dtype) -> float:
    """A power of two for huge numbers: their multiples have squares that can be added up, and those are not too small."""
    return 2.0 ** -(np.finfo(dtype).maxexp * 5 // 8)
