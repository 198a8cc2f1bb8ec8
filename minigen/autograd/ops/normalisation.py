"""Normalisation: softmax along an axis, and layer, group, instance and batch normalisation. Start at `group_norm`.

Images are channels-last, (N, ..., C). The normalisations are fused ops: each `..._spec` is the definition, the kernels do
the same in two passes over memory, and an activation that follows comes at no further pass. A group that holds an
infinite number has no finite statistics; it gives NaN. Huge numbers, whose squares overflow, do not: see huge.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..backend import on_gpu
from ..kernels import normalisation as kernels
from ..kernels import softmax as softmax_kernels
from ..tape import Array, op
from .activation import leaky_relu, relu, sigmoid, silu
from .elementwise import exp, tanh
from .huge import in_range, standardised, vjp_in_range
from .reduction import sum
from .shape import reshape

ACTIVATIONS: dict[str, Callable[[Array, float], Array]] = {
    "relu": lambda z, slope: relu(z),
    "leaky_relu": lambda z, slope: leaky_relu(z, slope),
    "tanh": lambda z, slope: tanh(z),
    "sigmoid": lambda z, slope: sigmoid(z),
    "silu": lambda z, slope: silu(z),
}


def activate(z: Array, activation: str | None, negative_slope: float) -> Array:
    """f(z), for the activations that can be part of a fused op; z itself for None."""
    check_activation(activation, negative_slope)
    return z if activation is None else ACTIVATIONS[activation](z, negative_slope)


def check_activation(activation: str | None, negative_slope: float) -> None:
    """Raise ValueError for an unknown activation, or a negative slope, which fused backward passes could not undo."""
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: choose None or one of {', '.join(map(repr, ACTIVATIONS))}")
    if not negative_slope >= 0:
        raise ValueError(f"negative_slope={negative_slope}: the slope below 0 must not be negative")


def floats(*arrays: Array | None) -> list:
    """The arrays in one floating dtype, the widest of theirs, as kernels want them; None stays None.

    Raises TypeError for what is not an array, and for numbers other than float32 and float64 (complex ones are for
    gradient checks).
    """
    for a in arrays:
        if a is not None and not hasattr(a, "dtype"):
            raise TypeError(f"expected an array or a Tensor, got {type(a).__name__}")
        if a is not None and np.dtype(a.dtype).char not in "fdFD":
            raise TypeError(f"float32 or float64 needed, got {a.dtype}: convert with astype")
    dtype = np.result_type(*{a.dtype for a in arrays if a is not None})
    return [a if a is None or a.dtype == dtype else a.astype(dtype) for a in arrays]


# ---- softmax


@op
def softmax(x: Array, axis: int = -1) -> Array:
    """p_i = exp(x_i) / Σ_j exp(x_j) along `axis`.

    Infinite entries get the limit: -∞ has probability 0, and entries of +∞ share it evenly. Entries that are -∞ throughout
    have no limit; they give zeros, so that what is masked everywhere passes nothing on (nor any gradient back).
    """
    return _along(softmax_kernels.softmax, axis, x)


softmax.vjp(x=lambda g, out, axis: softmax_vjp(g, out, axis))


@op
def softmax_vjp(g: Array, p: Array, axis: int) -> Array:
    """p (g - <g, p>): the gradient of p = softmax(x)."""
    return _along(softmax_kernels.softmax_vjp, axis, g, p)


softmax_vjp.vjp(
    g=lambda v, p, axis: softmax_vjp(v, p, axis),  # the Jacobian is symmetric
    p=lambda v, g, p, axis: v * (g - sum(g * p, axis, True)) - g * sum(v * p, axis, True),
)


@op
def log_softmax(x: Array, axis: int = -1) -> Array:
    """log p_i = x_i - log Σ_j exp(x_j) along `axis`, without overflow; -∞ throughout where x is."""
    return _along(softmax_kernels.log_softmax, axis, x)


log_softmax.vjp(x=lambda g, out, axis: log_softmax_vjp(g, out, axis))


@op
def log_softmax_vjp(g: Array, log_p: Array, axis: int) -> Array:
    """g - p Σ g: the gradient of log p = log_softmax(x)."""
    return _along(softmax_kernels.log_softmax_vjp, axis, g, log_p)


log_softmax_vjp.vjp(
    g=lambda v, log_p, axis: v - sum(v * exp(log_p), axis, True),
    log_p=lambda v, g, log_p, axis: -(v * exp(log_p)) * sum(g, axis, True),
)


def _along(kernel: Callable, axis: int, *arrays: Array) -> Array:
    """Apply a kernel for rows along another axis."""
    raw = floats(*arrays)
    if not -raw[0].ndim <= axis < raw[0].ndim:
        shape = raw[0].shape
        raise np.exceptions.AxisError(f"axis {axis} of an x of shape {shape}: it must be below {len(shape)}")
    moved = [np.moveaxis(a, axis, -1) for a in raw]
    shape = moved[0].shape
    rows = (math.prod(shape[:-1]), shape[-1])
    return np.moveaxis(kernel(*(a.reshape(rows) for a in moved)).reshape(shape), -1, axis)


# ---- layer normalisation


def layer_norm(
    input: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise the last axes of each sample: (input - mean) / √(var + eps) · weight + bias   (Ba, Kiros & Hinton 2016).

    input: (..., *normalized_shape).      weight, bias: normalized_shape, or None for 1 and 0.      var is the biased one.
    Raises ValueError if the shapes do not fit.
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape:
        raise ValueError(f"layer_norm: input {tuple(input.shape)} does not end in normalized_shape {shape}")
    for name, a in (("weight", weight), ("bias", bias)):
        if a is not None and tuple(a.shape) != shape:
            raise ValueError(f"layer_norm: {name} {tuple(a.shape)} must have normalized_shape {shape}")
    return _layer_norm(input, weight, bias, axes=len(shape), eps=eps)


def layer_norm_spec(input: Array, weight: Array | None, bias: Array | None, axes: int, eps: float) -> Array:
    """What `layer_norm` computes over the last `axes` axes."""
    return _scale_shift(standardised(input, tuple(range(-axes, 0)), eps), weight, bias)


@op(spec=layer_norm_spec, aux=("mu", "std"))
def _layer_norm(input: Array, weight: Array, bias: Array, axes: int, eps: float) -> tuple:
    input, weight, bias = floats(input, weight, bias)
    rows, n = _row_shape(input.shape, axes)
    scale, shift = _affine(weight, bias, n, input)
    out, mu, std = in_range(partial(kernels.layer_norm, weight=scale, bias=shift), input.reshape(rows, n), eps)
    return out.reshape(input.shape), (mu, std)


def _layer_norm_vjp(g, input, weight, bias, mu, std, axes, eps, needs):
    g, input, weight, mu, std = floats(g, input, weight, mu, std)
    rows, n = _row_shape(input.shape, axes)
    scale, _ = _affine(weight, None, n, input)
    backward = partial(kernels.layer_norm_vjp, weight=scale)
    gx, gweight, gbias = vjp_in_range(backward, g.reshape(rows, n), input.reshape(rows, n), mu, std, eps)
    shape = input.shape[input.ndim - axes :]
    return gx.reshape(input.shape), *_affine_gradients(gweight.reshape(shape), gbias.reshape(shape), needs)


_layer_norm.vjp(_layer_norm_vjp)


# ---- group, instance and batch normalisation


def group_norm(
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Array:
    """Normalise groups of channels of each sample: f((input - mean) / √(var + eps) · weight + bias)   (Wu & He 2018).

    input: (N, ..., C), whose statistics are taken over the positions (...) and the C / num_groups channels of a group.
    weight, bias: (C,), or None for 1 and 0.      var is the biased one.
    activation: f, one of "relu", "leaky_relu" (of `negative_slope`), "tanh", "sigmoid", "silu"; None for none.
    Raises ValueError if num_groups does not divide C, if shapes do not fit, or for an unknown activation.
    """
    channels = _check_affine("group_norm", input, weight, bias)
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"group_norm: num_groups={num_groups} does not divide the {channels} channels of {tuple(input.shape)}")
    return _group_norm(input, weight, bias, groups=num_groups, eps=eps, activation=activation, negative_slope=negative_slope)


def group_norm_silu(
    input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """silu(group_norm(input, ...)) in one op, the pair in front of every convolution of a diffusion model's U-Net."""
    return group_norm(input, num_groups, weight, bias, eps, activation="silu")


def instance_norm(input: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5) -> Array:
    """Normalise each channel of each sample over its positions (Ulyanov et al. 2016): group_norm with C groups.

    input: (N, ..., C) with more than one position, else ValueError: one number normalised is 0 whatever it was.
    """
    channels = _check_affine("instance_norm", input, weight, bias)
    if math.prod(input.shape[1:-1]) == 1:
        raise ValueError(f"instance_norm: input {tuple(input.shape)} has a single position per sample; nothing to normalise")
    return _group_norm(input, weight, bias, groups=max(channels, 1), eps=eps)


def batch_norm(
    input: Array,
    running_mean: np.ndarray | None,
    running_var: np.ndarray | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Array:
    """Normalise each channel over batch and positions: f((input - mean) / √(var + eps) · weight + bias).

    input: (N, ..., C).      weight, bias: (C,), or None for 1 and 0.      activation, negative_slope: as in `group_norm`.
    training: use the statistics of this batch (the biased variance), and update the running ones, which are plain arrays
        (C,), in place; None for no running statistics. PyTorch's formula, with the *unbiased* variance in `running_var`:
            running <- (1 - momentum) running + momentum new
    not training: use the running statistics, as constants.
    Raises ValueError if shapes do not fit, for training on a single number per channel, and without running statistics
    when not training.      Source: Ioffe & Szegedy 2015.
    """
    channels = _check_affine("batch_norm", input, weight, bias)
    for name, a in (("running_mean", running_mean), ("running_var", running_var)):
        if a is not None and (not (isinstance(a, np.ndarray) or on_gpu(a)) or a.shape != (channels,)):
            given = a.shape if isinstance(a, np.ndarray) or on_gpu(a) else type(a).__name__
            raise ValueError(f"batch_norm: {name} must be a plain array of shape ({channels},), not {given}")
    if training:
        if math.prod(input.shape[:-1]) < 2:
            raise ValueError(f"batch_norm: training needs more than one number per channel, input is {tuple(input.shape)}")
        options = {"eps": eps, "activation": activation, "negative_slope": negative_slope}
        return _batch_norm(input, weight, bias, running=(running_mean, running_var), momentum=momentum, **options)
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: needs running_mean and running_var when not training")
    rstd = (1 / np.sqrt(running_var.astype(np.float64) + eps)).astype(input.dtype)
    normalised = (input - running_mean.astype(input.dtype)) * rstd
    return activate(_scale_shift(normalised, weight, bias), activation, negative_slope)


def group_norm_spec(
    input: Array, weight: Array | None, bias: Array | None, groups: int, eps: float,
    activation: str | None = None, negative_slope: float = 0.01,
) -> Array:
    """What `group_norm` computes."""
    n, channels = input.shape[0], input.shape[-1]
    x = reshape(input, (n, math.prod(input.shape[1:-1]), groups, channels // groups))
    over = (1, 3)  # positions and channels of a group: statistics are (N, 1, groups, 1)
    return activate(_scale_shift(reshape(standardised(x, over, eps), input.shape), weight, bias), activation, negative_slope)


@op(spec=group_norm_spec, aux=("mu", "std"))
def _group_norm(
    input: Array, weight: Array, bias: Array, groups: int, eps: float,
    activation: str | None = None, negative_slope: float = 0.01,
) -> tuple:
    input, weight, bias = floats(input, weight, bias)
    return _normalise(input, weight, bias, _by_sample(input.shape), groups, eps, activation, negative_slope)


def _group_norm_vjp(g, input, weight, bias, mu, std, eps, activation, negative_slope, needs):
    shape = _by_sample(input.shape)
    return _normalise_vjp(g, input, weight, bias, mu, std, shape, eps, activation, negative_slope, needs)


_group_norm.vjp(_group_norm_vjp)


def batch_norm_spec(
    input: Array, weight: Array | None, bias: Array | None, running: tuple, momentum: float, eps: float,
    activation: str | None = None, negative_slope: float = 0.01,
) -> Array:
    """What `batch_norm` computes in training, apart from the running statistics."""
    over = tuple(range(input.ndim - 1))
    return activate(_scale_shift(standardised(input, over, eps), weight, bias), activation, negative_slope)


@op(spec=batch_norm_spec, aux=("mu", "std"))
def _batch_norm(
    input: Array, weight: Array, bias: Array, running: tuple, momentum: float, eps: float,
    activation: str | None = None, negative_slope: float = 0.01,
) -> tuple:
    input, weight, bias = floats(input, weight, bias)
    _, count, channels = shape = _as_one_sample(input.shape)
    out, (mu, std) = _normalise(input, weight, bias, shape, max(channels, 1), eps, activation, negative_slope)
    with np.errstate(over="ignore"):
        unbiased = std[0] ** 2 * (count / (count - 1))
    for old, new in zip(running, (mu[0], unbiased), strict=True):
        if old is not None:
            old += momentum * (new[:channels].real - old)  # (.real: gradient checks pass complex numbers through)
    return out, (mu, std)


def _batch_norm_vjp(g, input, weight, bias, mu, std, eps, activation, negative_slope, needs):
    shape = _as_one_sample(input.shape)
    return _normalise_vjp(g, input, weight, bias, mu, std, shape, eps, activation, negative_slope, needs)


_batch_norm.vjp(_batch_norm_vjp)


def _by_sample(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, ..., C) as (N, P, C), P positions: how group_norm's kernel sees an image."""
    return shape[0], math.prod(shape[1:-1]), shape[-1]


def _as_one_sample(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, ..., C) as (1, N P, C): the batch is a single sample with many positions."""
    return 1, math.prod(shape[:-1]), shape[-1]


def _normalise(input, weight, bias, shape, groups, eps, activation, slope):
    """Run the kernel on the input seen as (N, P, C); its statistics are kept for the gradient."""
    check_activation(activation, slope)
    scale, shift = _affine(weight, bias, shape[2], input)
    options = {"weight": scale, "bias": shift, "activation": activation, "slope": slope}
    out, mu, std = in_range(partial(kernels.group_norm, groups=groups, **options), input.reshape(shape), eps)
    return out.reshape(input.shape), (mu, std)


def _normalise_vjp(g, input, weight, bias, mu, std, shape, eps, activation, slope, needs):
    g, input, weight, bias, mu, std = floats(g, input, weight, bias, mu, std)
    scale, shift = _affine(weight, bias, shape[2], input)
    options = {"weight": scale, "bias": shift, "activation": activation, "slope": slope}
    backward = partial(kernels.group_norm_vjp, **options)
    gx, gweight, gbias = vjp_in_range(backward, g.reshape(shape), input.reshape(shape), mu, std, eps)
    return gx.reshape(input.shape), *_affine_gradients(gweight, gbias, needs)


# ---- what they share


def _scale_shift(x: Array, weight: Array | None, bias: Array | None) -> Array:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _affine(weight: Array | None, bias: Array | None, n: int, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias as the kernels want them: flat, and never None."""
    return (
        np.ones_like(like, shape=n) if weight is None else weight.reshape(n),
        np.zeros_like(like, shape=n) if bias is None else bias.reshape(n),
    )


def _affine_gradients(gweight: Array, gbias: Array, needs: Sequence[bool]) -> tuple:
    return gweight if needs[1] else None, gbias if needs[2] else None


def _row_shape(shape: tuple[int, ...], axes: int) -> tuple[int, int]:
    """(rows, numbers in a row) for statistics over the last `axes` axes."""
    return math.prod(shape[: len(shape) - axes]), math.prod(shape[len(shape) - axes :])


def _check_affine(name: str, input: Array, weight: Array | None, bias: Array | None) -> int:
    """The number of channels, if input is (N, ..., C) and weight and bias are (C,)."""
    if input.ndim < 2:
        raise ValueError(f"{name}: input must be (N, ..., C), not of shape {tuple(input.shape)}")
    channels = input.shape[-1]
    for what, a in (("weight", weight), ("bias", bias)):
        if a is not None and tuple(a.shape) != (channels,):
            shapes = f"{what} {tuple(a.shape)} must be ({channels},), as the last axis of input {tuple(input.shape)}"
            raise ValueError(f"{name}: {shapes}")
    return channels
