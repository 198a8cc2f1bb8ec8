"""Activation functions, named as in torch.nn.functional: each with its gradient rule next to it. Start at `sigmoid`.

Their kernels stand in kernels/elementwise (tanh is in elementwise.py, with the other mathematical functions). A rule calls
the kernel that computes the gradient in one pass. How it is differentiated further is said in one of two ways: an op such as
`sigmoid_vjp` has rules of its own, or the activation has a `spec`, a composition of basic ops.

Conventions where there is no derivative are PyTorch's: relu'(0) = 0, leaky_relu'(0) = negative_slope, elu'(0) = alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..kernels import elementwise as kernels
from ..tape import Array, op
from .elementwise import clip, erf, tanh, where


@op
def sigmoid(x: Array) -> Array:
    """σ(x) = 1 / (1 + e^-x)."""
    return kernels.sigmoid(x)


sigmoid.vjp(x=lambda g, out: sigmoid_vjp(g, out))


@op
def sigmoid_vjp(g: Array, y: Array) -> Array:
    """g y (1 - y): the gradient of y = σ(x)."""
    return kernels.sigmoid_vjp(g, y)


sigmoid_vjp.vjp(g=lambda v, y: sigmoid_vjp(v, y), y=lambda v, g, y: v * g * (1 - 2 * y))


def log_sigmoid(x: Array) -> Array:
    """log σ(x) = -log(1 + e^-x), without overflow or cancellation anywhere: `softplus` with β = -1."""
    return softplus(x, beta=-1.0)


@op
def softplus(x: Array, beta: float = 1.0) -> Array:
    """log(1 + e^(βx)) / β, a smooth max(x, 0), without overflow or cancellation anywhere.

    There is no `threshold` beyond which PyTorch returns x instead: this is exact and no slower. Raises ValueError for β = 0.
    """
    if beta == 0:
        raise ValueError(f"beta must not be {beta}: softplus has no limit there; relu is its limit for large beta")
    return kernels.softplus(x, beta)


softplus.vjp(x=lambda g, x, beta: softplus_vjp(g, x, beta=beta))


@op
def softplus_vjp(g: Array, x: Array, beta: float) -> Array:
    """g σ(βx)."""
    return kernels.softplus_vjp(g, x, beta)


softplus_vjp.vjp(
    g=lambda v, x, beta: softplus_vjp(v, x, beta=beta),
    x=lambda v, g, x, beta: beta * sigmoid_vjp(v * g, sigmoid(beta * x)),
)


@op
def relu(x: Array) -> Array:
    """max(x, 0), with gradient 0 at 0."""
    return kernels.relu(x)


relu.vjp(x=lambda g, out: relu_vjp(g, out))


@op
def relu_vjp(g: Array, y: Array) -> Array:
    """g where y = relu(x) is positive, else 0."""
    return kernels.relu_vjp(g, y)


def _flat(v):
    """The rule for an input that a function depends on only by its sign: no gradient."""


relu_vjp.vjp(g=lambda v, y: relu_vjp(v, y), y=_flat)


@op
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """x where x > 0, negative_slope · x elsewhere, with gradient negative_slope at 0 (Maas et al. 2013).

    Raises ValueError for negative_slope < 0, since the gradient is computed from the sign of the result.
    """
    if not negative_slope >= 0:
        raise ValueError(f"negative_slope must be at least 0, not {negative_slope}")
    return kernels.leaky_relu(x, negative_slope) if negative_slope else kernels.relu(x)


leaky_relu.vjp(x=lambda g, out, negative_slope: leaky_relu_vjp(g, out, negative_slope=negative_slope))


@op
def leaky_relu_vjp(g: Array, y: Array, negative_slope: float) -> Array:
    """g where y = leaky_relu(x) is positive, negative_slope · g elsewhere."""
    return kernels.leaky_relu_vjp(g, y, negative_slope)


leaky_relu_vjp.vjp(g=lambda v, y, negative_slope: leaky_relu_vjp(v, y, negative_slope=negative_slope), y=_flat)


@op
def elu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, alpha (e^x - 1) elsewhere, with gradient alpha at 0 (Clevert et al. 2015).

    Raises ValueError for alpha < 0, since the gradient is computed from the result.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, not {alpha}")
    return kernels.elu(x, alpha)


elu.vjp(x=lambda g, out, alpha: elu_vjp(g, out, alpha=alpha))


@op
def elu_vjp(g: Array, y: Array, alpha: float) -> Array:
    """g where y = elu(x) is positive, g (y + alpha) elsewhere."""
    return kernels.elu_vjp(g, y, alpha)


elu_vjp.vjp(
    g=lambda v, y, alpha: elu_vjp(v, y, alpha=alpha),
    y=lambda v, g, y: where(y <= 0, v * g, 0.0),
)


def silu_spec(x: Array) -> Array:
    """x σ(x)."""
    return _inside(lambda x: x * sigmoid(x), x, 800.0)


def _inside(function: Callable, x: Array, bound: float) -> Array:
    """function(x) where |x| < bound, and beyond it its limit max(x, 0): there σ(x) and e^-x² are 0 and would meet ∞."""
    return where((x > -bound) & (x < bound), function(clip(x, -bound, bound)), where(x < 0, 0.0, x))


@op(spec=silu_spec)
def silu(x: Array) -> Array:
    """x σ(x), also called swish (Elfwing et al. 2017)."""
    return kernels.silu(x)


silu.vjp(x=lambda g, x: kernels.silu_vjp(g, x))


def gelu_spec(x: Array, approximate: str = "none") -> Array:
    """x Φ(x), or its approximation by tanh (Hendrycks & Gimpel 2016)."""
    if approximate == "tanh":
        return _inside(lambda x: 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), x, 40.0)
    return _inside(lambda x: 0.5 * x * (1 + erf(math.sqrt(0.5) * x)), x, 40.0)


@op(spec=gelu_spec)
def gelu(x: Array, approximate: str = "none") -> Array:
    """x Φ(x), with Φ the distribution function of a standard normal variable (Hendrycks & Gimpel 2016).

    approximate: "none", or "tanh" for ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))). Raises ValueError for anything else.
    Both are relatively exact for negative x too, where ½ (1 + erf) cancels.
    """
    return _gelu_kernels(approximate)[0](x)


gelu.vjp(x=lambda g, x, approximate: _gelu_kernels(approximate)[1](g, x))


def _gelu_kernels(approximate: str) -> tuple:
    if approximate == "none":
        return kernels.gelu, kernels.gelu_vjp
    if approximate == "tanh":
        return kernels.gelu_tanh, kernels.gelu_tanh_vjp
    raise ValueError(f"approximate must be 'none' or 'tanh', not {approximate!r}")
