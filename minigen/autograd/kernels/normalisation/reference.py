"""Normalisation in NumPy: the formulas. Start at `group_norm`, then `group_norm_vjp`.

Statistics of float32 data are taken in float64: the variance of numbers around 1000 would lose six digits otherwise, and
that of numbers above 1e19 would overflow. What is kept is the standard deviation, which has the range of the data.
"""

from __future__ import annotations

import numpy as np

from minigen.autograd.kernels.fused.reference import activate, activation_vjp
from minigen.autograd.kernels.softmax.reference import into

__all__ = ["group_norm", "group_norm_vjp", "layer_norm", "layer_norm_vjp", "wider"]


@np.errstate(over="ignore", invalid="ignore")  # infinite numbers give NaN
def group_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, eps: float,
    activation: str | None = None, slope: float = 0.01, out: tuple | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise each group of channels of each sample, scale and shift each channel, activate (Wu & He 2018, eq. 1-3).

        y = f(weight (x - mean) / √(std² + eps) + bias),   mean and (biased) std over the positions and channels of a group

    x: (N, P, C), P positions.      weight, bias: (C,).      groups: divides C; group k is the k-th run of C / groups channels.
    Returns y (N, P, C), mean (N, groups), std (N, groups); the last two are 0 for groups without elements.

    Batch normalisation is the case N = 1, groups = C; instance normalisation the case groups = C.
    """
    grouped, mean, var = _statistics(x, groups)
    normalised = ((grouped - mean) / np.sqrt(var + eps)).reshape(x.shape)
    y = activate(normalised * weight + bias, activation, slope)
    return into(out, x.dtype, y, mean[:, 0, :, 0], np.sqrt(var[:, 0, :, 0]))


@np.errstate(over="ignore", invalid="ignore")  # infinite numbers give NaN
def group_norm_vjp(
    g: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, std: np.ndarray,
    eps: float, activation: str | None = None, slope: float = 0.01, out: tuple | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of `group_norm` with respect to x (N, P, C), weight (C,) and bias (C,).

    With x̂ the normalised x, d = g f'(weight x̂ + bias) and averages over a group,

        grad weight = Σ d x̂      grad bias = Σ d      grad x = (weight d - avg(weight d) - x̂ avg(weight d x̂)) / √(std² + eps)
    """
    n, positions, channels = x.shape
    groups = mean.shape[1]
    shape = (n, positions, groups, channels // groups)
    wide = wider(x.dtype)
    root = np.sqrt(std[:, None, :, None].astype(wide) ** 2 + eps)
    normalised = (x.astype(wide).reshape(shape) - mean[:, None, :, None]) / root
    flat = normalised.reshape(x.shape)
    kept = flat * weight + bias
    if activation in ("tanh", "sigmoid"):
        kept = activate(kept, activation, slope)
    d = activation_vjp(g.astype(wide), kept, activation, slope)
    weighted = (d * weight).reshape(shape)
    count = max(positions * shape[3], 1)
    first = weighted.sum((1, 3), keepdims=True) / count
    second = (weighted * normalised).sum((1, 3), keepdims=True) / count
    gx = ((weighted - first - normalised * second) / root).reshape(x.shape)
    return into(out, x.dtype, gx, (d * flat).sum((0, 1)), d.sum((0, 1)))


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, out: tuple | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise each row: y = weight (x - mean) / √(std² + eps) + bias (Ba, Kiros & Hinton 2016).

    x: (rows, n).      weight, bias: (n,).      Returns y (rows, n), mean (rows,), std (rows,); the last two are 0 where n = 0.
    """
    y, mean, std = group_norm(x[:, None, :], weight, bias, 1, eps)
    return into(out, x.dtype, y[:, 0, :], mean[:, 0], std[:, 0])


def layer_norm_vjp(
    g: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, std: np.ndarray, eps: float,
    out: tuple | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of `layer_norm` with respect to x (rows, n), weight (n,) and bias (n,)."""
    gx, gweight, gbias = group_norm_vjp(
        g[:, None, :], x[:, None, :], weight, weight, mean[:, None], std[:, None], eps
    )
    return into(out, x.dtype, gx[:, 0, :], gweight, gbias)


def wider(dtype: np.dtype) -> np.dtype:
    """The dtype that statistics are taken in: float64, or complex128 for the complex step."""
    return np.result_type(dtype, np.float64)


def _statistics(x: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x as (N, P, groups, C / groups) in the wider dtype, with the mean and variance of its groups, (N, 1, groups, 1)."""
    n, positions, channels = x.shape
    grouped = x.astype(wider(x.dtype)).reshape(n, positions, groups, channels // groups)
    count = max(positions * grouped.shape[3], 1)
    mean = grouped.sum((1, 3), keepdims=True) / count
    centred = grouped - mean
    return grouped, mean, (centred * centred).sum((1, 3), keepdims=True) / count
