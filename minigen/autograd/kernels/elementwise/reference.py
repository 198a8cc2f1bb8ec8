"""Elementwise kernels in NumPy: the readable definitions. Start at `silu` and `silu_vjp`.

`name(x)` is a function of one array, `name_vjp(g, ·)` its gradient times the cotangent g, computed from x or, where that is
cheaper, from the result y = name(x). Arrays of one shape; the result has their dtype. Every value is the mathematical limit
at infinities and where a factor overflows, and NaN goes through.

Where a function is analytic, the definition also holds for complex arrays (choices look at the real part), so that
gradients can be checked by complex steps.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

Array = np.ndarray
Out = np.ndarray | None

FAR = 1000.0  # e^-FAR is 0 in float32 and float64: beyond it, a function that decays like e^-|x| may be computed here

quiet = np.errstate(all="ignore")


@quiet
def exp(x: Array, out: Out = None) -> Array:
    """e^x."""
    return np.exp(x, out=out)


@quiet
def expm1(x: Array, out: Out = None) -> Array:
    """e^x - 1, exact near 0."""
    return np.expm1(x, out=out)


@quiet
def log(x: Array, out: Out = None) -> Array:
    """Natural logarithm: -inf at 0, NaN below."""
    return np.log(x, out=out)


@quiet
def log1p(x: Array, out: Out = None) -> Array:
    """log(1 + x), exact near 0: -inf at -1, NaN below."""
    return np.log1p(x, out=out)


@quiet
def chain(g: Array, d: Array, out: Out = None) -> Array:
    """g d, but 0 wherever g is 0, whatever d is."""
    return _into(out, np.where(g == 0, np.zeros_like(g), g * d))


@quiet
def chain_divide(g: Array, d: Array, out: Out = None) -> Array:
    """g / d, but 0 wherever g is 0, whatever d is."""
    return _into(out, np.where(g == 0, np.zeros_like(g), g / d))


def tanh(x: Array, out: Out = None) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x, out=out)


def tanh_vjp(g: Array, y: Array, out: Out = None) -> Array:
    """From y = tanh x:  g (1 - y²)."""
    return _into(out, g * (1 - y * y))


@quiet
def sigmoid(x: Array, out: Out = None) -> Array:
    """σ(x) = 1 / (1 + e^-x), where the exponential never overflows."""
    e = np.exp(np.where(x.real < 0, x, -x))
    return _into(out, np.where(x.real < 0, e, np.ones_like(e)) / (1 + e))


def sigmoid_vjp(g: Array, y: Array, out: Out = None) -> Array:
    """From y = σ(x):  g y (1 - y)."""
    return _into(out, g * (y * (1 - y)))


@quiet
def softplus(x: Array, beta: float, out: Out = None) -> Array:
    """log(1 + e^(βx)) / β  =  max(βx, 0) / β + log(1 + e^-|βx|) / β."""
    z = beta * x
    positive = z.real > 0
    tail = np.log1p(np.exp(np.where(positive, -z, z)))
    return _into(out, np.where(positive, x, np.zeros_like(x)) + tail / beta)


@quiet
def softplus_vjp(g: Array, x: Array, beta: float, out: Out = None) -> Array:
    """g σ(βx)."""
    return _into(out, g * sigmoid(beta * x))


def relu(x: Array, out: Out = None) -> Array:
    """max(x, 0)."""
    return _into(out, np.where(x.real <= 0, np.zeros_like(x), x))


def relu_vjp(g: Array, y: Array, out: Out = None) -> Array:
    """From y = relu(x):  g where y > 0, and 0 where y = 0."""
    return _into(out, np.where(y.real <= 0, np.zeros_like(g), g))


def leaky_relu(x: Array, slope: float, out: Out = None) -> Array:
    """x where x > 0, slope · x elsewhere; slope > 0."""
    return _into(out, np.where(x.real <= 0, slope * x, x))


def leaky_relu_vjp(g: Array, y: Array, slope: float, out: Out = None) -> Array:
    """From y = leaky_relu(x), which has the sign of x:  g where y > 0, slope · g elsewhere."""
    return _into(out, np.where(y.real <= 0, slope * g, g))


@quiet
def elu(x: Array, alpha: float, out: Out = None) -> Array:
    """x where x > 0, α (e^x - 1) elsewhere; α >= 0."""
    return _into(out, np.where(x.real <= 0, alpha * np.expm1(x), x))


def elu_vjp(g: Array, y: Array, alpha: float, out: Out = None) -> Array:
    """From y = elu(x):  g where y > 0, g α e^x = g (y + α) elsewhere."""
    return _into(out, np.where(y.real <= 0, g * (y + alpha), g))


@quiet
def silu(x: Array, out: Out = None) -> Array:
    """x σ(x)."""
    return _into(out, _not_below(x) * sigmoid(x))


@quiet
def silu_vjp(g: Array, x: Array, out: Out = None) -> Array:
    """g σ(x) (1 + x σ(-x))."""
    x = _near(x)
    return _into(out, g * (sigmoid(x) * (1 + x * sigmoid(-x))))


def erf(x: Array, out: Out = None) -> Array:
    """Error function, 2/√π ∫₀ˣ e^(-t²) dt."""
    return special.erf(x, out=out)


@quiet
def erf_vjp(g: Array, x: Array, out: Out = None) -> Array:
    """g 2/√π e^(-x²)."""
    return _into(out, g * (2 / math.sqrt(math.pi) * np.exp(-x * x)))


@quiet
def gelu(x: Array, out: Out = None) -> Array:
    """x Φ(x), with Φ the distribution function of a standard normal variable."""
    return _into(out, _not_below(x) * _normal_cdf(x))


@quiet
def gelu_vjp(g: Array, x: Array, out: Out = None) -> Array:
    """g (Φ(x) + x φ(x)), with the density φ = Φ'."""
    x = _near(x)
    density = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return _into(out, g * (_normal_cdf(x) + x * density))


@quiet
def gelu_tanh(x: Array, out: Out = None) -> Array:
    """x σ(2u), u = √(2/π) (x + 0.044715 x³); and σ(2u) is ½ (1 + tanh u)."""
    return _into(out, _not_below(x) * sigmoid(2 * _gelu_u(x)))


@quiet
def gelu_tanh_vjp(g: Array, x: Array, out: Out = None) -> Array:
    """g σ(2u) (1 + x σ(-2u) 2u')."""
    x = _near(x)
    u = _gelu_u(x)
    slope = 2 * GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x)
    return _into(out, g * (sigmoid(2 * u) * (1 + x * slope * sigmoid(-2 * u))))


GELU_SCALE, GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715  # Hendrycks & Gimpel 2016


def _gelu_u(x: Array) -> Array:
    return GELU_SCALE * (x + GELU_CUBIC * x * x * x)


def _normal_cdf(x: Array) -> Array:
    """Φ(x), relatively exact in both tails for real x."""
    if np.iscomplexobj(x):
        return 0.5 * (1 + special.erf(x * math.sqrt(0.5)))
    return special.ndtr(x)


def _not_below(x: Array) -> Array:
    """x, or -FAR where x is smaller: a factor that is not infinite where the other one is 0."""
    return np.where(x.real < -FAR, np.full_like(x, -FAR), x)


def _near(x: Array) -> Array:
    """x cut to ±FAR."""
    return np.where(x.real > FAR, np.full_like(x, FAR), _not_below(x))


def _into(out: Out, value: Array) -> Array:
    """The value, in the given buffer if there is one."""
    if out is None:
        return value
    out[...] = value
    return out
