"""Losses in NumPy: the formulas. Start at `cross_entropy`."""

from __future__ import annotations

import numpy as np

from minigen.autograd.kernels.softmax.reference import into, shifted

__all__ = ["bce_with_logits", "bce_with_logits_vjp", "cross_entropy", "cross_entropy_vjp"]


def cross_entropy(
    x: np.ndarray, target: np.ndarray, smoothing: float = 0.0, out: tuple | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-log softmax(x)_target of each row. With label smoothing, 1 - s of that, and s / n of the same for each class
    (Szegedy et al. 2016).

    x: (rows, n).      target: (rows,) int64 in 0 … n - 1.      An infinite x gives the limit.
    Returns the loss (rows,), and for the gradient the maximum that was subtracted and 1 / Σ exp(x - max), both (rows,).
    """
    d, highest = shifted(x)
    total = np.exp(d).sum(1)
    total = np.where(total == 0, 1, total)
    chosen = np.take_along_axis(d, target[:, None], axis=1)[:, 0]
    if smoothing:
        chosen = (1 - smoothing) * chosen + smoothing * d.mean(1, dtype=np.result_type(d.dtype, np.float64))
    return into(out, x.dtype, np.log(total) - chosen, highest[:, 0], 1 / total)


def cross_entropy_vjp(
    g: np.ndarray, x: np.ndarray, target: np.ndarray, highest: np.ndarray, inverse: np.ndarray, smoothing: float = 0.0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The gradient with respect to x: g (softmax(x) - wanted), where wanted is s / n, and at the target 1 - s + s / n.

    g: (rows,).      highest, inverse: what `cross_entropy` returned.      Returns (rows, n).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        d = np.where(x == highest[:, None], 0, x - highest[:, None])
    p = np.exp(d) * inverse[:, None]
    miss = smoothing / max(x.shape[1], 1)
    wanted = np.where(np.arange(x.shape[1]) == target[:, None], 1 - smoothing + miss, miss).astype(x.dtype)
    return np.multiply(g[:, None], p - wanted, out=out)


def bce_with_logits(x: np.ndarray, target: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """-target log σ(x) - (1 - target) log σ(-x), element by element, as  |x| w + log(1 + e^-|x|).

    w is the weight of the outcome that x speaks against: 1 - target for x > 0, else target. Where it is 0, an infinite x
    costs nothing.
    """
    a = np.where(x.real > 0, x, -x)
    w = np.where(x.real > 0, 1 - target, target)
    with np.errstate(invalid="ignore"):
        return np.add(np.where(w == 0, 0, a * w), np.log1p(np.exp(-a)), out=out)


def bce_with_logits_vjp(g: np.ndarray, x: np.ndarray, target: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The gradient with respect to x, g (σ(x) - target), without cancellation: ±(w - σ(-|x|)).

    g: like x, or a single number (1,) or ().
    """
    positive = x.real > 0
    e = np.exp(np.where(positive, -x, x))
    against = np.where(positive, 1 - target, target) - e / (1 + e)
    return np.multiply(g, np.where(positive, against, -against), out=out)
