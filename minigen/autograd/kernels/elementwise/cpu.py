"""Elementwise kernels compiled by Numba. `reference.py` has the formulas; start at `silu` and `silu_vjp`.

Each function is a loop over flat arrays, which `unary` or `binary` (see loop.py) makes a kernel on arrays of any shape.
In float32 every number must be a float32, `zero` and not `0`: a single Python number would turn the loop into float64.
Choices are written so that NaN goes the way that keeps it: `zero if v <= zero else v`.
"""

from __future__ import annotations

import math

from ..jit import jit
from . import polynomial as p
from .loop import binary, unary
from .reference import FAR, GELU_CUBIC, GELU_SCALE

TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)
PEAK = 1 / math.sqrt(2 * math.pi)  # of the standard normal density


@unary
@jit(contract=True)
def exp(x, out):
    for i in range(x.size):
        out[i] = p.exp(x[i])


@unary
@jit(contract=True)
def expm1(x, out):
    for i in range(x.size):
        out[i] = p.expm1(x[i])


@unary
@jit(contract=True)
def log(x, out):
    for i in range(x.size):
        out[i] = p.log(x[i])


@unary
@jit(contract=True)
def log1p(x, out):
    for i in range(x.size):
        out[i] = p.log1p(x[i])


@binary
@jit()
def chain(g, d, out):
    zero = g.dtype.type(0)
    for i in range(g.size):
        out[i] = zero if g[i] == zero else g[i] * d[i]


@binary
@jit()
def chain_divide(g, d, out):
    zero = g.dtype.type(0)
    for i in range(g.size):
        out[i] = zero if g[i] == zero else g[i] / d[i]


@unary
@jit(contract=True)
def tanh(x, out):
    for i in range(x.size):
        out[i] = p.tanh(x[i])


@binary
@jit(contract=True)
def tanh_vjp(g, y, out):
    one = g.dtype.type(1)
    for i in range(g.size):
        out[i] = g[i] * (one - y[i] * y[i])


@unary
@jit(contract=True)
def sigmoid(x, out):
    for i in range(x.size):
        out[i] = p.sigmoid(x[i])


@binary
@jit(contract=True)
def sigmoid_vjp(g, y, out):
    one = g.dtype.type(1)
    for i in range(g.size):
        out[i] = g[i] * (y[i] * (one - y[i]))


@unary
@jit(contract=True)
def softplus(x, out, beta):
    zero = x.dtype.type(0)
    for i in range(x.size):
        z = beta * x[i]
        out[i] = (zero if z <= zero else x[i]) + p.log1p(p.decay(abs(z))) / beta


@binary
@jit(contract=True)
def softplus_vjp(g, x, out, beta):
    for i in range(g.size):
        out[i] = g[i] * p.sigmoid(beta * x[i])


@unary
@jit()
def relu(x, out):
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = zero if x[i] <= zero else x[i]


@binary
@jit()
def relu_vjp(g, y, out):
    zero = g.dtype.type(0)
    for i in range(g.size):
        out[i] = zero if y[i] <= zero else g[i]


@unary
@jit()
def leaky_relu(x, out, slope):
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = slope * x[i] if x[i] <= zero else x[i]


@binary
@jit()
def leaky_relu_vjp(g, y, out, slope):
    zero = g.dtype.type(0)
    for i in range(g.size):
        out[i] = slope * g[i] if y[i] <= zero else g[i]


@unary
@jit(contract=True)
def elu(x, out, alpha):
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = alpha * p.expm1(x[i]) if x[i] <= zero else x[i]


@binary
@jit()
def elu_vjp(g, y, out, alpha):
    zero = g.dtype.type(0)
    for i in range(g.size):
        out[i] = g[i] * (y[i] + alpha) if y[i] <= zero else g[i]


@unary
@jit(contract=True)
def silu(x, out):
    far = x.dtype.type(FAR)
    for i in range(x.size):
        v = -far if x[i] < -far else x[i]
        out[i] = v * p.sigmoid(v)


@binary
@jit(contract=True)
def silu_vjp(g, x, out):
    one, far = x.dtype.type(1), x.dtype.type(FAR)
    for i in range(g.size):
        v = _near(x[i], far)
        s, t = _sigmoids(v, one)
        out[i] = g[i] * (s * (one + v * t))


@unary
@jit(contract=True)
def erf(x, out):
    for i in range(x.size):
        out[i] = p.erf(x[i])


@binary
@jit(contract=True)
def erf_vjp(g, x, out):
    peak, sqrt2 = x.dtype.type(TWO_OVER_SQRT_PI), x.dtype.type(math.sqrt(2))
    for i in range(g.size):
        density, _ = p.normal_tail(sqrt2 * x[i])
        out[i] = g[i] * (peak * density)


@unary
@jit(contract=True)
def gelu(x, out):
    zero, one, far = x.dtype.type(0), x.dtype.type(1), x.dtype.type(FAR)
    for i in range(x.size):
        v = -far if x[i] < -far else x[i]
        _, tail = p.normal_tail(v)
        out[i] = v * (tail if v <= zero else one - tail)


@binary
@jit(contract=True)
def gelu_vjp(g, x, out):
    zero, one, far, peak = x.dtype.type(0), x.dtype.type(1), x.dtype.type(FAR), x.dtype.type(PEAK)
    for i in range(g.size):
        v = _near(x[i], far)
        density, tail = p.normal_tail(v)
        out[i] = g[i] * ((tail if v <= zero else one - tail) + v * (peak * density))


@unary
@jit(contract=True)
def gelu_tanh(x, out):
    scale, cubic, far = x.dtype.type(2 * GELU_SCALE), x.dtype.type(GELU_CUBIC), x.dtype.type(FAR)
    for i in range(x.size):
        v = -far if x[i] < -far else x[i]
        out[i] = v * p.sigmoid(scale * (v + cubic * v * v * v))


@binary
@jit(contract=True)
def gelu_tanh_vjp(g, x, out):
    one, far, cubic3 = x.dtype.type(1), x.dtype.type(FAR), x.dtype.type(3 * GELU_CUBIC)
    scale, cubic = x.dtype.type(2 * GELU_SCALE), x.dtype.type(GELU_CUBIC)
    for i in range(g.size):
        v = _near(x[i], far)
        s, t = _sigmoids(scale * (v + cubic * v * v * v), one)
        out[i] = g[i] * (s * (one + v * (scale * (one + cubic3 * v * v)) * t))


@jit(inline=True)
def _near(v, far):
    """v cut to ±far."""
    v = far if v > far else v
    return -far if v < -far else v


@jit(inline=True)
def _sigmoids(v, one):
    """σ(v) and σ(-v) = 1 - σ(v), neither by a subtraction."""
    e = p.decay(abs(v))
    high = one / (one + e)
    low = e * high
    return (low, high) if v < -v else (high, low)
