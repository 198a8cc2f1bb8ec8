"""Fused kernels on the GPU: launches of cuda.cu. Start at `bias_act`."""

from __future__ import annotations

from typing import Any

from ..cuda import THREADS, Source, contiguous, grid, result, team
from ..reduction.cuda import sum_rows
from .reference import ACTIVATIONS, FROM_OUTPUT

Array = Any

source = Source(__file__)


def number_of(activation: str | None, slope: float) -> int:
    """The number that stands for an activation in activation.cuh. Raises ValueError for an unknown one."""
    if activation == "leaky_relu" and slope == 0:
        activation = "relu"  # not 0 times an infinity
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: choose one of {', '.join(map(repr, ACTIVATIONS))}")
    return ACTIVATIONS.index(activation)


def bias_act(
    x: Array, bias: Array, activation: str | None = None, slope: float = 0.01, out: Array | None = None
) -> Array:
    """y = f(x + bias).      x: (rows, C).      bias: (C,).      `out` may be x itself."""
    out = result(out, x.shape, x.dtype)
    arguments = (x.size, x.shape[1], *contiguous(x, bias), number_of(activation, slope), float(slope), out)
    source.launch("bias_act_kernel", x.dtype, grid(x.size), THREADS, *arguments)
    return out


def bias_act_vjp(
    g: Array, y: Array, x: Array, bias: Array, activation: str | None = None, slope: float = 0.01, out: tuple | None = None
) -> tuple[Array, Array]:
    """The gradients of `bias_act` with respect to x (rows, C) and bias (C,)."""
    gx, gbias = out or (None, None)
    gx = result(gx, g.shape, g.dtype)
    arrays = contiguous(g, y if activation in FROM_OUTPUT else x, bias)
    arguments = (g.size, g.shape[1], *arrays, number_of(activation, slope), float(slope), gx)
    source.launch("bias_act_vjp_kernel", g.dtype, grid(g.size), THREADS, *arguments)
    gbias = result(gbias, g.shape[1:], g.dtype)
    sum_rows(gx[None], out=gbias[None])
    return gx, gbias


def gated_tanh(x: Array, out: Array | None = None) -> Array:
    """tanh(a) σ(b) with a, b the two halves of each row.      x: (rows, 2 C) -> (rows, C)."""
    out = result(out, (x.shape[0], x.shape[1] // 2), x.dtype)
    source.launch("gated_tanh_kernel", x.dtype, grid(out.size), THREADS, out.size, out.shape[1], *contiguous(x), out)
    return out


def gated_tanh_vjp(g: Array, x: Array, out: Array | None = None) -> Array:
    """The gradient of `gated_tanh` with respect to x (rows, 2 C)."""
    out = result(out, x.shape, x.dtype)
    source.launch("gated_tanh_vjp_kernel", x.dtype, grid(g.size), THREADS, g.size, g.shape[1], *contiguous(g, x), out)
    return out


def sample_normal_kl(mu: Array, logvar: Array, eps: Array, out: tuple | None = None) -> tuple[Array, Array]:
    """z = mu + e^(logvar / 2) eps, and the divergence from N(0, 1) of each row.      (N, D) -> (N, D), (N,)."""
    z, kl = out or (None, None)
    z, kl = result(z, mu.shape, mu.dtype), result(kl, mu.shape[:1], mu.dtype)
    arrays = contiguous(mu, logvar, eps)
    source.launch("sample_normal_kl_kernel", mu.dtype, *team(*mu.shape), *mu.shape, *arrays, z, kl)
    return z, kl


def sample_normal_kl_vjp(
    gz: Array, gkl: Array, mu: Array, logvar: Array, eps: Array, out: tuple | None = None
) -> tuple[Array, Array]:
    """The gradients with respect to mu and logvar.      gz: (N, D), gkl: (N,)."""
    results = tuple(result(o, mu.shape, mu.dtype) for o in out or (None, None))
    arrays = contiguous(gz, gkl, mu, logvar, eps)
    source.launch("sample_normal_kl_vjp_kernel", mu.dtype, grid(mu.size), THREADS, mu.size, mu.shape[1], *arrays, *results)
    return results
