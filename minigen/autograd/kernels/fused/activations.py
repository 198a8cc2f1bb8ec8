"""Activations as compiled loops over a tile of numbers, for kernels that apply one to what they have just computed.

Start at `activate`. A kernel works through tiles that stay in the first-level cache, so the further loop here costs
arithmetic but no memory traffic, and one compiled kernel serves every activation.
"""

from __future__ import annotations

from minigen.autograd.kernels.elementwise.polynomial import decay, sigmoid, tanh
from minigen.autograd.kernels.fused.reference import ACTIVATIONS
from minigen.autograd.kernels.jit import jit

__all__ = ["activate", "activation_vjp", "from_output", "number_of"]

NONE, RELU, LEAKY_RELU, TANH, SIGMOID, SILU = range(len(ACTIVATIONS))
SATURATED = 750.0  # beyond it e^-|z| is 0 in float32 and float64, so that |z| e^-|z| may be computed from it: never ∞ · 0


def number_of(activation: str | None, slope: float) -> int:
    """The number that stands for an activation in compiled code. Raises ValueError for an unknown one."""
    if activation == "leaky_relu" and slope == 0:
        return RELU  # not 0 · -inf
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: choose one of {', '.join(map(repr, ACTIVATIONS))}")
    return ACTIVATIONS.index(activation)


@jit()
def from_output(activation):
    """Whether the derivative is computed from the output."""
    return RELU <= activation <= SIGMOID


@jit(contract=True)
def activate(activation, slope, z):
    """z <- f(z), in place. z: contiguous, one axis. slope: in the dtype of z.

    Every branch computes something new: where one would store what is there already, the compiler leaves the store out, and
    with it the vectors (a ninth of the speed).
    """
    real = z.dtype.type
    zero, one, saturated = real(0), real(1), real(SATURATED)
    if activation == RELU:
        for i in range(z.size):
            z[i] = zero if z[i] < zero else z[i] + zero  # 0 for -0 too
    elif activation == LEAKY_RELU:
        for i in range(z.size):
            z[i] = z[i] * (slope if z[i] <= zero else one)
    elif activation == TANH:
        for i in range(z.size):
            z[i] = tanh(z[i])
    elif activation == SIGMOID:
        for i in range(z.size):
            z[i] = sigmoid(z[i])
    elif activation == SILU:
        for i in range(z.size):
            a = abs(z[i])
            e = decay(a)
            a = saturated if a > saturated else a
            z[i] = (zero if z[i] <= zero else z[i]) - a * (e / (one + e))


@jit(contract=True)
def activation_vjp(activation, slope, g, d):
    """d <- g f'(z), in place: on entry, d holds f(z) or z (see `from_output`). One array for both keeps the loops simple
    enough to be vectorised."""
    real = g.dtype.type
    zero, one, saturated = real(0), real(1), real(SATURATED)
    if activation == NONE:
        for i in range(g.size):
            d[i] = g[i]
    elif activation == RELU:
        for i in range(g.size):
            d[i] = zero if d[i] <= zero else g[i]
    elif activation == LEAKY_RELU:
        for i in range(g.size):
            d[i] = slope * g[i] if d[i] <= zero else g[i]
    elif activation == TANH:
        for i in range(g.size):
            d[i] = g[i] * (one - d[i] * d[i])
    elif activation == SIGMOID:
        for i in range(g.size):
            d[i] = g[i] * (d[i] * (one - d[i]))
    else:
        for i in range(g.size):
            a = abs(d[i])
            e = decay(a)
            s = e / (one + e)  # sigmoid(-|z|)
            a = saturated if a > saturated else a
            rest = a * (s - s * s) - s
            d[i] = g[i] * (-rest if d[i] <= zero else one + rest)
