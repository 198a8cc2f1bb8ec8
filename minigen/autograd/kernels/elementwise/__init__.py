"""Functions of each element: exp, log, tanh, the activations, and what their gradients need, each in one pass.

    exp  expm1  log  log1p  tanh  sigmoid  erf  relu  silu  gelu  gelu_tanh     name(x, out=None)
    softplus(x, beta)   leaky_relu(x, slope)   elu(x, alpha)                     log(1 + e^(βx))/β; slope, α below 0
    tanh_vjp(g, y)  sigmoid_vjp  relu_vjp  leaky_relu_vjp  elu_vjp               g f'(x), from the result y = f(x)
    erf_vjp(g, x)  silu_vjp  gelu_vjp  gelu_tanh_vjp  softplus_vjp               g f'(x), from x
    chain(g, d)  chain_divide(g, d)                                              g d and g / d, 0 wherever g is 0

Arrays of any shape, float32 or float64, all of one call alike. `reference.py` has the formulas, `polynomial.py` the
functions exp, log … for use inside other families' kernels, `loop.py` what turns a loop into a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigen.autograd.backend import Card, Kernel

__all__ = [
    "chain", "chain_divide", "elu", "elu_vjp", "erf", "erf_vjp", "exp", "expm1", "gelu", "gelu_tanh", "gelu_tanh_vjp",
    "gelu_vjp", "leaky_relu", "leaky_relu_vjp", "log", "log1p", "relu", "relu_vjp", "sigmoid", "sigmoid_vjp", "silu",
    "silu_vjp", "softplus", "softplus_vjp", "tanh", "tanh_vjp",
]

SHAPES = ((0,), (1,), (), (3,), (2, 0, 3), (33,), (5, 7), (1025,))


def _kernel(
    name: str, flops: int, ulp: float, arguments: Callable, scale: Callable | None = None, note: str = ""
) -> Kernel:
    """arguments(normal) -> one call's arguments; normal() draws an array with standard deviation 3.
    flops: per element, where a polynomial counts as many as it has terms, twice."""

    def cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
        calls = [arguments(lambda s=s: np.asarray(rng.normal(0, 3, s), dtype)) for s in SHAPES]
        return [(tuple(np.asarray(a) if isinstance(a, np.generic) else a for a in args), {}) for args in calls]

    def moved(*args: Any, **kwargs: Any) -> int:
        return args[0].nbytes * (1 + sum(isinstance(a, np.ndarray) for a in args))

    card = Card(cases, lambda *args, **kwargs: flops * args[0].size, moved, ulp, scale, note=note)
    return Kernel(name, __name__, card)


def _of_x(normal: Callable) -> tuple:
    return (normal(),)


def _of_positive(normal: Callable) -> tuple:
    return (np.exp(normal()),)


def _of_g_and_x(normal: Callable) -> tuple:
    return normal(), normal()


def _of_g_and_half_x(normal: Callable) -> tuple:
    """For results that decay like e^(-x²): none may be denormal, where nothing is relatively exact."""
    return normal(), normal() / 2


def _of_g_and(function: Callable, *scalars: float) -> Callable:
    """Arguments of a gradient that is computed from the result y = function(x)."""
    return lambda normal: (normal(), function(normal()), *scalars)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _normal_cdf(x: Any) -> Any:
    from scipy import special  # not at the top: importing it takes longer than importing minigen

    return special.ndtr(x)


def _gelu_u(x: Any) -> Any:
    """2u of `gelu_tanh`."""
    return 1.6 * (x + 0.044715 * x**3)


exp = _kernel("exp", 18, 2.0, _of_x)
expm1 = _kernel("expm1", 20, 2.5, _of_x)
log = _kernel("log", 27, 2.0, _of_positive)
log1p = _kernel("log1p", 33, 2.0, lambda normal: (np.expm1(normal()),))
chain = _kernel("chain", 1, 0.5, _of_g_and_x)
chain_divide = _kernel("chain_divide", 1, 0.5, _of_g_and_x)

tanh = _kernel("tanh", 32, 2.0, _of_x)
tanh_vjp = _kernel("tanh_vjp", 3, 1.5, _of_g_and(np.tanh), lambda g, y: abs(g))
sigmoid = _kernel("sigmoid", 20, 3.0, _of_x)
sigmoid_vjp = _kernel("sigmoid_vjp", 3, 2.0, _of_g_and(_sigmoid))
softplus = _kernel(
    "softplus", 54, 3.0, lambda normal: (normal(), 1.5),
    lambda x, beta: np.logaddexp(0, beta * x) / beta * (1 + abs(beta * x)),
    note="The product βx is rounded, which its exponential multiplies by |βx|; exact for β = ±1.",
)
softplus_vjp = _kernel(
    "softplus_vjp", 22, 4.0, lambda normal: (normal(), normal(), -1.5),
    lambda g, x, beta: abs(g) * _sigmoid(beta * x) * (1 + abs(beta * x)), note="See softplus.",
)

relu = _kernel("relu", 0, 0.0, _of_x)
relu_vjp = _kernel("relu_vjp", 0, 0.0, _of_g_and(lambda x: np.maximum(x, 0)))
leaky_relu = _kernel("leaky_relu", 1, 1.0, lambda normal: (normal(), 0.2))
leaky_relu_vjp = _kernel("leaky_relu_vjp", 1, 1.0, _of_g_and(lambda x: np.where(x > 0, x, x / 5), 0.2))
elu = _kernel("elu", 21, 3.0, lambda normal: (normal(), 1.3))
elu_vjp = _kernel(
    "elu_vjp", 2, 2.0, _of_g_and(lambda x: np.where(x > 0, x, 1.3 * np.expm1(x)), 1.3),
    lambda g, y, alpha: abs(g) * (abs(y) + alpha),
)
silu = _kernel("silu", 21, 3.5, _of_x)
silu_vjp = _kernel("silu_vjp", 25, 4.0, _of_g_and_x, lambda g, x: abs(g) * _sigmoid(x) * (1 + abs(x) * _sigmoid(-x)))

erf = _kernel("erf", 60, 2.5, _of_x)
erf_vjp = _kernel(
    "erf_vjp", 45, 3.0, _of_g_and_half_x, lambda g, x: 1.13 * abs(g) * np.exp(-x * x) * (1 + 2 * x * x),
)
gelu = _kernel(
    "gelu", 46, 6.0, lambda normal: (normal() / 2,), lambda x: abs(x) * _normal_cdf(x) * (1 + x * x / 4),
    note="Relatively exact in the lower tail, where ½ (1 + erf) would cancel; 6 ulp of the result itself in float32.",
)
gelu_vjp = _kernel(
    "gelu_vjp", 50, 4.0, _of_g_and_half_x,
    lambda g, x: abs(g) * (_normal_cdf(x) + abs(x) * np.exp(-x * x / 2)) * (1 + x * x / 4),
)
gelu_tanh = _kernel(
    "gelu_tanh", 26, 3.0, lambda normal: (normal() / 2,),
    lambda x: abs(x) * _sigmoid(_gelu_u(x)) * (1 + abs(_gelu_u(x))),
    note="The exponent 2u is rounded, which the exponential multiplies by |2u|.",
)
gelu_tanh_vjp = _kernel(
    "gelu_tanh_vjp", 34, 3.0, _of_g_and_half_x,
    lambda g, x: abs(g) * (_sigmoid(_gelu_u(x)) + (1 + abs(_gelu_u(x))) ** 2 * np.exp(-abs(_gelu_u(x)))),
    note="See gelu_tanh.",
)
