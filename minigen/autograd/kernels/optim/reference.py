"""Optimiser updates in NumPy: the formulas. Start at `adam`.

Moving averages are written a += (1 - decay) (new - a), not a = decay a + (1 - decay) new: the weights of the second
form, once rounded, do not sum to 1, and for decay = 0.9999 in float32 all its averages are 0.017 % too small.
Scalars are combined in float64 and rounded once to the dtype of the arrays.
"""

from __future__ import annotations

import numpy as np

__all__ = ["CHUNK", "adam", "adam_scalars", "check_arrays", "ema", "global_norm_sq", "langevin_step", "sgd_momentum"]

CHUNK = 4096  # gradients whose squares are summed together


def adam(
    param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray,
    step: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
) -> None:
    """One step of Adam (Kingma & Ba 2015, algorithm 1), with decoupled weight decay (AdamW: Loshchilov & Hutter 2019).

        m <- beta1 m + (1 - beta1) grad                      first moment
        v <- beta2 v + (1 - beta2) grad²                     second moment
        param <- (1 - lr weight_decay) param - lr m̂ / (√v̂ + eps),   m̂ = m / (1 - beta1^step),  v̂ = v / (1 - beta2^step)

    param, m, v: (n,), updated in place.      grad: (n,).      step: 1 for the first one.
    """
    check_arrays("adam", ("param", "m", "v"), param=param, grad=grad, m=m, v=v)
    real = param.dtype.type
    rate, correction, keep = (real(x) for x in adam_scalars(step, lr, beta1, beta2, weight_decay))
    new1, new2 = real(1 - beta1), real(1 - beta2)
    m[...] = (real(1) - new1) * m + new1 * grad  # not m + new1 (grad - m), which loses a small gradient after a large one
    v[...] = (real(1) - new2) * v + new2 * (grad * grad)
    param *= keep
    param -= rate * m / (np.sqrt(v) * correction + real(eps))


def adam_scalars(step: int, lr: float, beta1: float, beta2: float, weight_decay: float) -> tuple[float, float, float]:
    """lr / (1 - beta1^step),  1 / √(1 - beta2^step),  1 - lr weight_decay.   Raises ValueError for step < 1."""
    if step < 1:
        raise ValueError(f"adam: step={step}, but the first step is 1, since moments are divided by 1 - beta^step")
    return lr / (1 - beta1**step), (1 - beta2**step) ** -0.5, 1 - lr * weight_decay


def sgd_momentum(
    param: np.ndarray, grad: np.ndarray, velocity: np.ndarray,
    lr: float, momentum: float, weight_decay: float, nesterov: bool,
) -> None:
    """One step of stochastic gradient descent with momentum, in PyTorch's form (Sutskever et al. 2013).

        g = grad + weight_decay param
        velocity <- momentum velocity + g
        param <- param - lr velocity        (Nesterov: param - lr (g + momentum velocity))

    param, velocity: (n,), updated in place; velocity starts at 0.      grad: (n,).
    """
    check_arrays("sgd_momentum", ("param", "velocity"), param=param, grad=grad, velocity=velocity)
    real = param.dtype.type
    g = grad + real(weight_decay) * param
    velocity *= real(momentum)
    velocity += g
    param -= real(lr) * (g + real(momentum) * velocity if nesterov else velocity)


def ema(average: np.ndarray, param: np.ndarray, decay: float) -> None:
    """Exponential moving average: average <- average + (1 - decay) (param - average).

    average: (n,), updated in place.      param: (n,).      decay: 0 copies, 1 keeps.
    Steps under half an ulp of the average are lost: in float32 a difference of 6e-8 / (1 - decay), relative to it, stays.
    """
    check_arrays("ema", ("average",), average=average, param=param)
    average += average.dtype.type(1 - decay) * (param - average)


def langevin_step(
    x: np.ndarray, grad: np.ndarray, noise: np.ndarray, step: float, temperature: float, out: np.ndarray | None = None
) -> np.ndarray:
    """One step of unadjusted Langevin dynamics: x - step grad + √(2 step temperature) noise.

    The noise belongs to the step: for small steps, and only with this factor, x follows exp(-E / temperature).
    x, noise (standard normal), grad (of the energy E at x): arrays of one shape and dtype. out: like x, and may be x.
    """
    out = np.empty(x.shape, x.dtype) if out is None else out
    check_arrays("langevin_step", ("out",), x=x, grad=grad, noise=noise, out=out)
    real = x.dtype.type
    return np.add(x - real(step) * grad, real((2 * step * temperature) ** 0.5) * noise, out=out)


def global_norm_sq(grad: np.ndarray) -> float:
    """Sum of the squares of grad, (n,), in float64 whatever its dtype, in an order that depends on n only.

    Each chunk of 4096 squares is folded in halves (x[:2048] + x[2048:], and so on); the sums of the chunks are then
    added one after the other. So any number of threads may share the chunks, and rounding errors stay small.
    """
    check_arrays("global_norm_sq", (), grad=grad)
    squares = np.zeros((-(-grad.size // CHUNK), CHUNK))  # (chunks, 4096), the last one filled up with zeros
    squares.reshape(-1)[: grad.size] = grad
    squares *= squares
    while squares.shape[1] > 1:
        half = squares.shape[1] // 2
        squares = squares[:, :half] + squares[:, half:]
    total = 0.0
    for chunk in squares[:, 0].tolist():
        total += chunk
    return total


def check_arrays(op: str, written: tuple[str, ...], **arrays: np.ndarray) -> None:
    """All arrays have one shape and dtype; those named in `written` can be written in place.

    Raises ValueError for shapes and layout, TypeError for dtypes.
    """
    first = next(iter(arrays.values()))
    if first.dtype not in (np.float32, np.float64):
        raise TypeError(f"{op}: arrays must be float32 or float64, got {first.dtype}")
    for array in arrays.values():
        if array.shape != first.shape:
            shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
            raise ValueError(f"{op}: arrays must have one shape, got {shapes}")
        if array.dtype != first.dtype:
            dtypes = ", ".join(f"{name} {a.dtype}" for name, a in arrays.items())
            raise TypeError(f"{op}: arrays must have one dtype, got {dtypes}; convert with .astype")
    for name in written:
        flags = arrays[name].flags
        if not (flags.c_contiguous and getattr(flags, "writeable", True)):  # arrays on a GPU always are
            raise ValueError(f"{op}: {name} is updated in place, so it must be contiguous and writeable")
