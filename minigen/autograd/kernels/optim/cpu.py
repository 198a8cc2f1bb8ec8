"""Optimiser updates compiled by Numba, one pass over memory each. Start at `adam`; `reference.py` has the formulas.

The loops keep the reference's order of operations, in the dtype of the arrays, so they give its bits. Elements do not
depend on each other, so the parallel version of Adam, which moves the most memory, gives them too.
"""

from __future__ import annotations

import numpy as np

from minigen.autograd.kernels.jit import jit, prange
from minigen.autograd.kernels.optim.reference import CHUNK, adam_scalars, check_arrays

__all__ = ["adam", "ema", "global_norm_sq", "langevin_step", "sgd_momentum"]

PARALLEL = 1 << 19  # elements from which on two threads beat one (measured: 0.3 ms of Adam)


def adam(
    param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray,
    step: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
) -> None:
    check_arrays("adam", ("param", "m", "v"), param=param, grad=grad, m=m, v=v)
    scalars = (*adam_scalars(step, lr, beta1, beta2, weight_decay), 1 - beta1, 1 - beta2, eps)
    rate, correction, keep, new1, new2, eps = (param.dtype.type(x) for x in scalars)
    arrays = (param, np.ascontiguousarray(grad), m, v)
    if param.size < PARALLEL:
        _adam(*arrays, rate, correction, keep, new1, new2, eps)
    else:
        _adam_parallel(*arrays, rate, correction, keep, new1, new2, eps)


@jit()
def _adam(param, grad, m, v, rate, correction, keep, new1, new2, eps):
    one = param.dtype.type(1)
    old1, old2 = one - new1, one - new2
    for i in range(param.size):
        g = grad[i]
        first = old1 * m[i] + new1 * g
        second = old2 * v[i] + new2 * (g * g)
        m[i] = first
        v[i] = second
        param[i] = param[i] * keep - rate * first / (np.sqrt(second) * correction + eps)


@jit(parallel=True)
def _adam_parallel(param, grad, m, v, rate, correction, keep, new1, new2, eps):
    chunk = 16 * CHUNK
    for c in prange((param.size + chunk - 1) // chunk):
        part = slice(c * chunk, min((c + 1) * chunk, param.size))
        _adam(param[part], grad[part], m[part], v[part], rate, correction, keep, new1, new2, eps)


def sgd_momentum(
    param: np.ndarray, grad: np.ndarray, velocity: np.ndarray,
    lr: float, momentum: float, weight_decay: float, nesterov: bool,
) -> None:
    check_arrays("sgd_momentum", ("param", "velocity"), param=param, grad=grad, velocity=velocity)
    real = param.dtype.type
    scalars = real(lr), real(momentum), real(weight_decay)
    _sgd_momentum(param, np.ascontiguousarray(grad), velocity, *scalars, bool(nesterov))


@jit()
def _sgd_momentum(param, grad, velocity, lr, momentum, weight_decay, nesterov):
    for i in range(param.size):
        g = grad[i] + weight_decay * param[i]
        speed = momentum * velocity[i] + g
        velocity[i] = speed
        param[i] -= lr * (g + momentum * speed if nesterov else speed)


def ema(average: np.ndarray, param: np.ndarray, decay: float) -> None:
    check_arrays("ema", ("average",), average=average, param=param)
    _ema(average, np.ascontiguousarray(param), average.dtype.type(1 - decay))


@jit()
def _ema(average, param, new):
    for i in range(average.size):
        average[i] += new * (param[i] - average[i])


def langevin_step(
    x: np.ndarray, grad: np.ndarray, noise: np.ndarray, step: float, temperature: float, out: np.ndarray | None = None
) -> np.ndarray:
    out = np.empty(x.shape, x.dtype) if out is None else out
    check_arrays("langevin_step", ("out",), x=x, grad=grad, noise=noise, out=out)
    real = x.dtype.type
    arrays = (np.ascontiguousarray(a).reshape(-1) for a in (x, grad, noise))
    _langevin_step(*arrays, real(step), real((2 * step * temperature) ** 0.5), out.reshape(-1))
    return out


@jit()
def _langevin_step(x, grad, noise, step, spread, out):
    for i in range(out.size):
        out[i] = (x[i] - step * grad[i]) + spread * noise[i]


def global_norm_sq(grad: np.ndarray) -> float:
    check_arrays("global_norm_sq", (), grad=grad)
    chunks = np.empty(-(-grad.size // CHUNK))  # (chunks,) float64
    run = _square_chunks if grad.size < PARALLEL else _square_chunks_parallel
    return run(np.ascontiguousarray(grad), chunks)


@jit()
def _square_chunk(grad):
    """Sum of the squares of at most 4096 numbers, folded in halves like the reference."""
    half = CHUNK // 2
    sums = np.zeros(half)
    for i in range(min(half, grad.size)):
        value = np.float64(grad[i])
        sums[i] = value * value
    rest = grad[half:]
    for i in range(rest.size):
        value = np.float64(rest[i])
        sums[i] += value * value
    while half > 1:
        half //= 2
        for i in range(half):
            sums[i] += sums[half + i]
    return sums[0]


@jit()
def _square_chunks(grad, chunks):
    for c in range(chunks.size):
        chunks[c] = _square_chunk(grad[c * CHUNK : (c + 1) * CHUNK])
    return _sum(chunks)


@jit(parallel=True)
def _square_chunks_parallel(grad, chunks):
    for c in prange(chunks.size):
        chunks[c] = _square_chunk(grad[c * CHUNK : (c + 1) * CHUNK])
    return _sum(chunks)


@jit(inline=True)
def _sum(chunks):
    total = 0.0
    for c in range(chunks.size):
        total += chunks[c]
    return total
