"""Elementwise ops: each forward function with its gradient rule next to it. Start at `multiply`, then `chain` and `log`.

Two inputs broadcast together. A rule returns its gradient in the broadcast shape; grad.py sums it down.

Extreme values: value and gradient are the mathematical limit. Where the derivative is infinite or undefined at a real
number (log at 0, 1/x at 0, exp where it overflows), a rule multiplies by it through `chain`, which gives 0 wherever the
cotangent is 0. Hence `where(x > 0, log(x), 0.0)` has the gradient 0, and not NaN, at the branch that was not taken.

Only add, subtract and multiply let NumPy's warning of an overflow pass; the others compute infinities and NaN in silence.
"""

from __future__ import annotations

import numpy as np

from ..backend import on_gpu
from ..kernels import elementwise as kernels
from ..tape import Array, op

quiet = np.errstate(all="ignore")

# ---- arithmetic


@op
def add(x1: Array, x2: Array) -> Array:
    """x1 + x2."""
    return np.add(x1, x2)


add.vjp(x1=lambda g: g, x2=lambda g: g)


@op
def subtract(x1: Array, x2: Array) -> Array:
    """x1 - x2."""
    return np.subtract(x1, x2)


subtract.vjp(x1=lambda g: g, x2=lambda g: -g)


@op
def multiply(x1: Array, x2: Array) -> Array:
    """x1 · x2."""
    return np.multiply(x1, x2)


multiply.vjp(
    x1=lambda g, x2: g * x2,
    x2=lambda g, x1: g * x1,
)


@op
@quiet
def divide(x1: Array, x2: Array) -> Array:
    """x1 / x2; ±inf where only x2 is 0, NaN for 0 / 0."""
    return np.divide(x1, x2)


divide.vjp(
    x1=lambda g, x2: chain_divide(g, x2),
    x2=lambda g, x2, out: -chain(g, divide(out, x2)),
)


@op
def negative(x: Array) -> Array:
    """-x."""
    return np.negative(x)


negative.vjp(x=lambda g: -g)


@op
@quiet
def pow(x1: Array, x2: Array) -> Array:
    """x1 to the power x2; NaN for a negative x1 with an x2 that is not an integer.

    At x1 = 0 the gradient with respect to x2 is 0 for x2 >= 0 (PyTorch's convention; 0^x2 jumps at x2 = 0).
    """
    return x1**x2


pow.vjp(
    x1=lambda g, x1, x2: chain(g, chain(x2, pow(x1, x2 - 1))),  # chain: x^0 is constant, even where 1/x is infinite
    x2=lambda g, x1, x2, out: where((x1 == 0) & (x2 >= 0), 0.0, chain(g, chain(out, _weak(log, x1)))),
)


def _weak(function, x):
    """function(x), which for a Python number is a Python number, so that it takes the dtype of whatever it meets."""
    return function(x) if hasattr(x, "dtype") else float(function(float(x)))


@op
@quiet
def square(x: Array) -> Array:
    """x²."""
    return np.square(x)


square.vjp(x=lambda g, x: 2 * g * x)


@op
@quiet
def sqrt(x: Array) -> Array:
    """√x; NaN below 0."""
    return np.sqrt(x)


sqrt.vjp(x=lambda g, out: 0.5 * chain_divide(g, out))


@op
def abs(x: Array) -> Array:
    """|x|, with gradient 0 at 0."""
    return np.abs(x)


abs.vjp(x=lambda g, x: g * _sign(x))


@op(constant=True)
def _sign(x: Array) -> Array:
    """-1, 0 or 1. No gradient."""
    return np.sign(x)


# ---- the chain rule where a derivative may be infinite


@op
def chain(g: Array, d: Array) -> Array:
    """g d, but 0 wherever g is 0, whatever d is: the cotangent times a derivative that may be infinite or NaN."""
    if _alike(g, d):
        return kernels.chain(g, d)
    with np.errstate(all="ignore"):  # broadcasting, or a Python number
        return g * d if _holds(np.isfinite, d) else np.where(np.equal(g, 0), 0.0, g * d)


chain.vjp(
    g=lambda v, d: chain(v, d),
    d=lambda v, g: where(g == 0, 0.0, chain(v, g)),  # 0 where g is 0 holds for its derivative, even if v is infinite
)


@op
def chain_divide(g: Array, d: Array) -> Array:
    """g / d, but 0 wherever g is 0, whatever d is."""
    if _alike(g, d):
        return kernels.chain_divide(g, d)
    if isinstance(d, float | int) and d != 0:
        return g / d
    with np.errstate(all="ignore"):
        return g / d if _holds(np.abs, d) else np.where(np.equal(g, 0), 0.0, np.divide(g, d))


chain_divide.vjp(
    g=lambda v, d: chain_divide(v, d),
    d=lambda v, d, out: where(out == 0, 0.0, -chain(v, chain_divide(out, d))),
)


def _holds(test: np.ufunc, d: Array) -> bool:
    """Whether all of test(d) is above 0. On a GPU that is not asked: one would have to wait for the answer."""
    return not on_gpu(d) and bool((test(d) > 0).all())


def _alike(a: Array, b: Array) -> bool:
    """Whether the kernels take them, which do not broadcast."""
    return type(a) is type(b) and hasattr(a, "shape") and a.shape == b.shape and a.dtype == b.dtype


# ---- functions of one variable


@op
def exp(x: Array) -> Array:
    """e^x."""
    return kernels.exp(x)


exp.vjp(x=lambda g, out: chain(g, out))


@op
def expm1(x: Array) -> Array:
    """e^x - 1, exact near 0."""
    return kernels.expm1(x)


expm1.vjp(x=lambda g, x: chain(g, exp(x)))


@op
def log(x: Array) -> Array:
    """Natural logarithm: -inf at 0, NaN below."""
    return kernels.log(x)


log.vjp(x=lambda g, x: chain_divide(g, x))


@op
def log1p(x: Array) -> Array:
    """log(1 + x), exact near 0: -inf at -1, NaN below."""
    return kernels.log1p(x)


log1p.vjp(x=lambda g, x: chain_divide(g, 1 + x))


@op
@quiet
def sin(x: Array) -> Array:
    """Sine of x in radians; NaN at ±inf."""
    return np.sin(x)


sin.vjp(x=lambda g, x: g * cos(x))


@op
@quiet
def cos(x: Array) -> Array:
    """Cosine of x in radians; NaN at ±inf."""
    return np.cos(x)


cos.vjp(x=lambda g, x: -g * sin(x))


@op
def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return kernels.tanh(x)


tanh.vjp(x=lambda g, out: tanh_vjp(g, out))


@op
def tanh_vjp(g: Array, y: Array) -> Array:
    """g (1 - y²): the gradient of y = tanh x in one pass."""
    return kernels.tanh_vjp(g, y)


tanh_vjp.vjp(g=lambda v, y: tanh_vjp(v, y), y=lambda v, g, y: -2 * (v * g * y))


@op
def erf(x: Array) -> Array:
    """Error function, 2/√π ∫₀ˣ e^(-t²) dt."""
    return kernels.erf(x)


erf.vjp(x=lambda g, x: erf_vjp(g, x))


@op
def erf_vjp(g: Array, x: Array) -> Array:
    """g 2/√π e^(-x²)."""
    return kernels.erf_vjp(g, x)


erf_vjp.vjp(
    g=lambda v, x: erf_vjp(v, x),
    x=lambda v, g, x: -2 * clip(x, -32, 32) * erf_vjp(v * g, x),  # beyond 32 e^(-x²) is 0, and 0 · ∞ would be NaN
)


# ---- choices


@op
def maximum(x1: Array, x2: Array) -> Array:
    """The larger of x1 and x2, NaN if either is. Where they are equal, each gets half of the gradient."""
    return np.maximum(x1, x2)


maximum.vjp(
    x1=lambda g, x1, x2: where(x1 < x2, 0.0, where(x1 == x2, 0.5 * g, g)),
    x2=lambda g, x1, x2: where(x2 < x1, 0.0, where(x1 == x2, 0.5 * g, g)),
)


@op
def minimum(x1: Array, x2: Array) -> Array:
    """The smaller of x1 and x2, NaN if either is. Where they are equal, each gets half of the gradient."""
    return np.minimum(x1, x2)


minimum.vjp(
    x1=lambda g, x1, x2: where(x1 > x2, 0.0, where(x1 == x2, 0.5 * g, g)),
    x2=lambda g, x1, x2: where(x2 > x1, 0.0, where(x1 == x2, 0.5 * g, g)),
)


@op
def clip(x: Array, min: float | np.ndarray | None = None, max: float | np.ndarray | None = None) -> Array:
    """x cut to [min, max], where None is no bound. Passes the gradient inside and at the bounds, 0 outside.

    The bounds are numbers or arrays that broadcast with x, and have no gradient: for that, use `maximum` and `minimum`.
    Raises TypeError for bounds that are Tensors, or not numbers at all.
    """
    for name, bound in (("min", min), ("max", max)):
        if bound is not None and not isinstance(bound, int | float) and not _is_number(bound):
            raise TypeError(
                f"{name} is of type {type(bound).__name__}, and must be a number or a plain array: it gets no gradient; "
                f"maximum(x, {name}) and minimum(x, {name}) take Tensors"
            )
    return np.clip(x, min, max)


def _is_number(value: Array) -> bool:
    """Whether it is an array of numbers, and no Tensor."""
    return hasattr(value, "dtype") and not hasattr(value, "node") and value.dtype.kind in "fiu"


def _clip_vjp(g, x, min, max):
    if min is not None:
        g = where(x < min, 0.0, g)
    return g if max is None else where(x > max, 0.0, g)


clip.vjp(x=_clip_vjp)


@op
def where(condition: Array, x1: Array, x2: Array) -> Array:
    """x1 where the boolean `condition` holds, x2 elsewhere; all three broadcast.

    The branch not taken has the gradient 0, also where its own derivative is infinite: see the top of this file.
    Raises TypeError if the condition is not boolean.
    """
    if not isinstance(condition, bool) and getattr(condition, "dtype", None) != np.bool:
        raise TypeError("the condition must be boolean: compare, as in where(x > 0, x1, x2)")
    return np.where(condition, x1, x2)


where.vjp(
    x1=lambda g, condition: where(condition, g, 0.0),
    x2=lambda g, condition: where(condition, 0.0, g),
)


@op
def astype(x: Array, dtype: type | np.dtype | str) -> Array:
    """x converted to another floating dtype; the gradient is converted back. Raises TypeError for float16 and the like."""
    if np.dtype(dtype).char in "egG":
        raise TypeError(f"there are float32 and float64 here, not {np.dtype(dtype)}")
    return x.astype(dtype)


astype.vjp(x=lambda g: g)  # grad.py's gate converts it to the dtype of x
