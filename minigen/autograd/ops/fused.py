"""Fused ops: chains of operations that appear together in every model, in one pass over memory. Start at `linear`.

Each has a spec, the same thing as a composition of ops: its definition, the oracle of its tests, and the way to second
derivatives. (More fused ops: the normalisations in normalisation.py, the losses of logits in loss.py.)
"""

from __future__ import annotations

import math

import numpy as np

from ..kernels import fused as kernels
from ..kernels import linalg
from ..tape import Array, op
from .activation import sigmoid
from .elementwise import chain, exp, tanh
from .linalg import matmul
from .loss import kl_normal
from .normalisation import activate, check_activation, floats
from .reduction import sum


def linear_spec(
    input: Array, weight: Array, bias: Array | None = None, activation: str | None = None, negative_slope: float = 0.01
) -> Array:
    """What `linear` computes."""
    z = matmul(input, weight)
    return activate(z if bias is None else z + bias, activation, negative_slope)


@op(spec=linear_spec, aux=("z",))
def linear(
    input: Array, weight: Array, bias: Array = None, activation: str | None = None, negative_slope: float = 0.01
) -> tuple:
    """f(input @ weight + bias).

    input: (..., C_in)      weight: (C_in, C_out)      bias: (C_out,) or None      returns (..., C_out).
    The weight is that of a 1 x 1 convolution without its first two axes; PyTorch's is the transpose.
    activation: f, one of "relu", "leaky_relu" (of `negative_slope` >= 0), "tanh", "sigmoid", "silu"; None for none.
    Raises ValueError if the shapes do not fit, or for an unknown activation.
    """
    input, weight, bias = floats(input, weight, bias)
    _check_linear(input, weight, bias)
    check_activation(activation, negative_slope)
    z = linalg.matmul(_rows(input), weight)  # (rows, C_out)
    shape = (*input.shape[:-1], weight.shape[1])
    if bias is None and activation is None:
        return z.reshape(shape), (None,)
    keep = activation == "silu"  # its derivative needs z; that of the others needs only the result
    y = kernels.bias_act(z, _bias_like(bias, z), activation, negative_slope, out=None if keep else z)
    return y.reshape(shape), (z if keep else None,)


def _linear_vjp(g, input, weight, bias, out, z, activation, negative_slope, needs):
    g, input, weight, bias, out, z = floats(g, input, weight, bias, out, z)
    d, y = _rows(g), _rows(out)
    gbias = None
    if activation is not None or needs[2]:
        d, gbias = kernels.bias_act_vjp(d, y, y if z is None else z, _bias_like(bias, y), activation, negative_slope)
    gx = linalg.matmul(d, weight.T).reshape(input.shape) if needs[0] else None
    return gx, linalg.matmul(_rows(input).T, d) if needs[1] else None, gbias if needs[2] else None


linear.vjp(_linear_vjp)


def bias_act_spec(input: Array, bias: Array, activation: str | None = None, negative_slope: float = 0.01) -> Array:
    """What `bias_act` computes."""
    return activate(input + bias, activation, negative_slope)


@op(spec=bias_act_spec)
def bias_act(input: Array, bias: Array, activation: str | None = None, negative_slope: float = 0.01) -> Array:
    """f(input + bias): what follows a convolution.

    input: (..., C)      bias: (C,)      activation, negative_slope: as in `linear`.
    Raises ValueError if the shapes do not fit, or for an unknown activation.
    """
    input, bias = floats(input, bias)
    check_activation(activation, negative_slope)
    if input.ndim == 0 or bias.shape != input.shape[-1:]:
        raise ValueError(f"bias {bias.shape} must be (C,), the channels of input {input.shape}, its last axis")
    return kernels.bias_act(_rows(input), bias, activation, negative_slope).reshape(input.shape)


def _bias_act_vjp(g, input, bias, out, activation, negative_slope, needs):
    g, input, bias, out = floats(g, input, bias, out)
    gx, gbias = kernels.bias_act_vjp(_rows(g), _rows(out), _rows(input), bias, activation, negative_slope)
    return gx.reshape(input.shape), gbias if needs[1] else None


bias_act.vjp(_bias_act_vjp)


def gated_tanh_spec(input: Array) -> Array:
    """What `gated_tanh` computes."""
    half = input.shape[-1] // 2
    return tanh(input[..., :half]) * sigmoid(input[..., half:])


@op(spec=gated_tanh_spec)
def gated_tanh(input: Array) -> Array:
    """tanh(a) σ(b), where a is the first half of the channels and b the second: the gate of the gated PixelCNN.

    input: (..., 2 C)      returns (..., C).      Raises ValueError for an odd number of channels.
    Source: van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders", eq. 2.
    """
    (input,) = floats(input)
    if input.ndim == 0 or input.shape[-1] % 2:
        raise ValueError(f"input {input.shape} must have an even number of channels, its last axis")
    return kernels.gated_tanh(_rows(input)).reshape(*input.shape[:-1], input.shape[-1] // 2)


def _gated_tanh_vjp(g, input):
    g, input = floats(g, input)
    return kernels.gated_tanh_vjp(_rows(g), _rows(input)).reshape(input.shape)


gated_tanh.vjp(input=_gated_tanh_vjp)


def sample_normal_kl_spec(mu: Array, logvar: Array, eps: Array) -> tuple:
    """What `sample_normal_kl` computes."""
    z = mu + exp(0.5 * logvar) * eps
    return z, sum(kl_normal(mu, logvar), tuple(range(1, mu.ndim)))


@op(spec=sample_normal_kl_spec, outputs=2)
def sample_normal_kl(mu: Array, logvar: Array, eps: Array) -> tuple:
    """A reparameterised sample of the normal variable N(mu, e^logvar), and its divergence from N(0, I).

        z = mu + e^(logvar / 2) eps        kl_n = ½ Σ (mu² + e^logvar - 1 - logvar), over all axes but the first, in nats

    mu, logvar: (N, ...)      eps: noise of the same shape, from `rng.normal(mu.shape)`      returns z (N, ...), kl (N,).
    Raises ValueError for unequal shapes, TypeError for unequal dtypes.
    Source: Kingma & Welling 2014, section 2.4 and appendix B.
    """
    if not mu.dtype == logvar.dtype == eps.dtype:
        found = f"mu {mu.dtype}, logvar {logvar.dtype}, eps {eps.dtype}"
        raise TypeError(f"{found} must be of one dtype: draw eps in that of mu")
    mu, logvar, eps = floats(mu, logvar, eps)
    if mu.ndim == 0 or not mu.shape == logvar.shape == eps.shape:
        raise ValueError(f"mu {mu.shape}, logvar {logvar.shape} and eps {eps.shape} must all be of the same shape (N, ...)")
    z, kl = kernels.sample_normal_kl(*(_samples(a) for a in (mu, logvar, eps)))
    return z.reshape(mu.shape), kl


def _sample_normal_kl_vjp(g, mu, logvar, eps, needs):
    gz, gkl, mu, logvar, eps = floats(*g, mu, logvar, eps)
    gmu, glogvar = kernels.sample_normal_kl_vjp(_samples(gz), gkl, *(_samples(a) for a in (mu, logvar, eps)))
    geps = chain(gz, exp(0.5 * logvar)) if needs[2] else None
    return gmu.reshape(mu.shape), glogvar.reshape(mu.shape), geps


sample_normal_kl.vjp(_sample_normal_kl_vjp)


# ---- what they share


def _rows(x: Array) -> np.ndarray:
    """(..., C) as (rows, C)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _samples(x: Array) -> np.ndarray:
    """(N, ...) as (N, D)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _bias_like(bias: Array | None, z: np.ndarray) -> np.ndarray:
    """The bias, or zeros in its place."""
    return np.zeros_like(z, shape=z.shape[1]) if bias is None else bias


def _check_linear(input: Array, weight: Array, bias: Array | None) -> None:
    if input.ndim == 0 or weight.ndim != 2 or input.shape[-1] != weight.shape[0]:
        raise ValueError(f"input {input.shape} and weight {weight.shape} do not fit: (..., C_in) and (C_in, C_out) do")
    if bias is not None and bias.shape != weight.shape[1:]:
        raise ValueError(f"bias {bias.shape} must be (C_out,), here {weight.shape[1:]}, for weight {weight.shape}")
