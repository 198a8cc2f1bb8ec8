"""Fused kernels in NumPy: the formulas. Start at `bias_act`, then `sample_normal_kl`."""

from __future__ import annotations

import numpy as np

from minigen.autograd.kernels.softmax.reference import into

__all__ = [
    "FROM_OUTPUT",
    "activate",
    "activation_vjp",
    "bias_act",
    "bias_act_vjp",
    "gated_tanh",
    "gated_tanh_vjp",
    "sample_normal_kl",
    "sample_normal_kl_vjp",
    "sigmoid",
]

ACTIVATIONS = (None, "relu", "leaky_relu", "tanh", "sigmoid", "silu")  # the position is the number in compiled code

FROM_OUTPUT = ("relu", "leaky_relu", "tanh", "sigmoid")  # whose derivative follows from their output, which is kept anyway


def bias_act(
    x: np.ndarray, bias: np.ndarray, activation: str | None = None, slope: float = 0.01, out: np.ndarray | None = None
) -> np.ndarray:
    """y = f(x + bias).      x: (rows, C).      bias: (C,).      `out` may be x itself."""
    out = np.empty_like(x) if out is None else out
    out[...] = activate(x + bias, activation, slope)
    return out


def bias_act_vjp(
    g: np.ndarray, y: np.ndarray, x: np.ndarray, bias: np.ndarray, activation: str | None = None, slope: float = 0.01,
    out: tuple | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of `bias_act` with respect to x (rows, C) and bias (C,), from its result y or, for "silu", from x."""
    gx = activation_vjp(g, y if activation in FROM_OUTPUT else x + bias, activation, slope)
    return into(out, g.dtype, gx, gx.sum(0))


def activate(z: np.ndarray, activation: str | None, slope: float) -> np.ndarray:
    """f(z). `slope` is that of "leaky_relu" for negative z. Raises ValueError for an unknown activation."""
    if activation is None:
        return z
    if activation == "relu" or (activation == "leaky_relu" and slope == 0):  # not 0 · -inf
        return np.where(z.real <= 0, 0, z)
    if activation == "leaky_relu":
        return np.where(z.real <= 0, z.dtype.type(slope) * z, z)
    if activation == "tanh":
        return np.tanh(z)
    if activation == "sigmoid":
        return sigmoid(z)
    if activation == "silu":
        return np.where(np.isneginf(z.real), 0, z) * sigmoid(z)  # not -inf · 0
    raise ValueError(f"unknown activation {activation!r}: choose one of {', '.join(map(repr, ACTIVATIONS))}")


def activation_vjp(g: np.ndarray, kept: np.ndarray, activation: str | None, slope: float) -> np.ndarray:
    """g f'(z). `kept` is f(z) for the activations in FROM_OUTPUT, z for the others."""
    if activation is None:
        return g
    if activation == "relu" or (activation == "leaky_relu" and slope == 0):
        return np.where(kept.real <= 0, 0, g)
    if activation == "leaky_relu":
        return np.where(kept.real <= 0, g.dtype.type(slope) * g, g)
    if activation == "tanh":
        return g * (1 - kept * kept)
    if activation == "sigmoid":
        return g * (kept * (1 - kept))
    s = sigmoid(kept)
    return g * (s + np.where(np.isinf(kept), 0, kept) * (s * (1 - s)))


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), from an exponential that never overflows."""
    negative = z.real <= 0
    e = np.exp(np.where(negative, z, -z))
    return np.where(negative, e, 1) / (1 + e)


def gated_tanh(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """tanh(a) σ(b), a and b the halves of each row (van den Oord et al. 2016, eq. 2).   x: (rows, 2 C); returns (rows, C)."""
    a, b = np.split(x, 2, axis=1)
    return np.multiply(np.tanh(a), sigmoid(b), out=out)


def gated_tanh_vjp(g: np.ndarray, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The gradient of `gated_tanh` with respect to x (rows, 2 C):  g σ(b) (1 - tanh² a)  and  g tanh(a) σ(b) (1 - σ(b))."""
    a, b = np.split(x, 2, axis=1)
    t, s = np.tanh(a), sigmoid(b)
    return np.concatenate([g * (s * (1 - t * t)), g * (t * (s * (1 - s)))], axis=1, out=out)


def sample_normal_kl(
    mu: np.ndarray, logvar: np.ndarray, eps: np.ndarray, out: tuple | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A reparameterised sample of N(mu, e^logvar), and the divergence KL(N(mu, e^logvar) | N(0, 1)) summed over each row.

        z = mu + e^(logvar / 2) eps        kl_n = ½ Σ_i (mu² + e^logvar - 1 - logvar)      (Kingma & Welling 2014, appendix B)

    mu, logvar, eps: (N, D).      Returns z (N, D) and kl (N,). An infinite logvar gives the limit, an infinite kl.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # ∞ - ∞ and 0 · ∞, which are replaced
        growth = np.expm1(logvar)  # for a logvar near 0, e^logvar - 1 would lose its digits
        terms = mu * mu + np.where(np.isposinf(growth.real), growth, growth - logvar)
        return into(out, mu.dtype, mu + np.where(eps == 0, 0, np.exp(0.5 * logvar) * eps), 0.5 * terms.sum(1))


def sample_normal_kl_vjp(
    gz: np.ndarray, gkl: np.ndarray, mu: np.ndarray, logvar: np.ndarray, eps: np.ndarray, out: tuple | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients with respect to mu and logvar.      gz: (N, D), gkl: (N,). What has no cotangent gives 0, even times ∞.

        grad mu = gz + gkl mu        grad logvar = ½ (gz eps e^(logvar / 2) + gkl (e^logvar - 1))
    """
    gkl = gkl[:, None]
    moved = gz * eps
    with np.errstate(over="ignore", invalid="ignore"):
        stretch = np.where(moved == 0, 0, moved * np.exp(0.5 * logvar))
        to_logvar = 0.5 * (stretch + np.where(gkl == 0, 0, gkl * np.expm1(logvar)))
        return into(out, mu.dtype, gz + np.where(gkl == 0, 0, gkl * mu), to_logvar)
