"""Optimiser kernels on the GPU: launches of cuda.cu. Start at `adam`."""

from __future__ import annotations

from typing import Any

from ...dials import by_value_or_place, turned
from ..cuda import THREADS, Source, contiguous, empty, grid, result
from .reference import adam_scalars, check_arrays

Array = Any

source = Source(__file__, exact=True)

PARTS = 1024  # blocks that share a sum


def adam(
    param: Array, grad: Array, m: Array, v: Array,
    step: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
) -> None:
    """One step of Adam (Kingma & Ba 2015, algorithm 1), with decoupled weight decay; param, m and v change in place."""
    check_arrays("adam", ("param", "m", "v"), param=param, grad=grad, m=m, v=v)
    scalars = turned(adam_scalars, step, lr, beta1, beta2, weight_decay)  # of the next step, when this one is replayed
    (grad,) = contiguous(grad)
    weights = float(1 - beta1), float(1 - beta2), float(eps)
    _elementwise("adam", param, param, grad, m, v, *weights, *by_value_or_place(scalars, param.dtype))


def sgd_momentum(
    param: Array, grad: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """One step of gradient descent with momentum; param and velocity change in place."""
    check_arrays("sgd_momentum", ("param", "velocity"), param=param, grad=grad, velocity=velocity)
    (grad,) = contiguous(grad)
    rate = by_value_or_place(turned(float, lr), param.dtype)
    _elementwise("sgd_momentum", param, param, grad, velocity, float(momentum), float(weight_decay), bool(nesterov), *rate)


def ema(average: Array, param: Array, decay: float) -> None:
    """average <- average + (1 - decay) (param - average), in place."""
    check_arrays("ema", ("average",), average=average, param=param)
    weight = by_value_or_place(turned(lambda d: float(1 - d), decay), average.dtype)
    _elementwise("ema", average, average, *contiguous(param), *weight)


def langevin_step(
    x: Array, grad: Array, noise: Array, step: float, temperature: float, out: Array | None = None
) -> Array:
    """x - step grad + √(2 step temperature) noise."""
    check_arrays("langevin_step", (), x=x, grad=grad, noise=noise)
    out = result(out, x.shape, x.dtype)
    _elementwise("langevin_step", x, *contiguous(x, grad, noise), float(step), float((2 * step * temperature) ** 0.5), out)
    return out


def global_norm_sq(grad: Array) -> float:
    """The sum of the squares of grad, (n,), as a Python number, for which the device is waited for."""
    check_arrays("global_norm_sq", (), grad=grad)
    if grad.size == 0:
        return 0.0
    blocks = min(grid(grad.size), PARTS)
    parts, total = empty((blocks, 2), grad.dtype), empty(2, grad.dtype)  # sums and their rounding errors
    source.launch("squares_kernel", grad.dtype, blocks, THREADS, grad.size, *contiguous(grad), parts)
    source.launch("sum_kernel", grad.dtype, 1, THREADS, blocks, parts, total)
    head, error = total.tolist()
    return head + error


def _elementwise(name: str, like: Array, *arguments: Any) -> None:
    source.launch(f"{name}_kernel", like.dtype, grid(like.size), THREADS, like.size, *arguments)
