"""Cards of ops/normalisation.py. Epsilons are large: a group of two numbers becomes ±1 without, and has no gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from ..ops import normalisation as ops
from .card import Draw, OpCard

Sample = tuple[tuple, dict]

ACTIVATIONS: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda z: z,
    "relu": lambda z: np.where(z > 0, z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "silu": lambda z: z * special.expit(z),
}


def _eps(draw: Draw) -> float:
    return draw.choice([1.0, 2.0])


def _affine(draw: Draw, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weights below 0.2 and biases above 1: normalised numbers, below 4 here, stay clear of the kinks at 0."""
    weight = draw.floats(shape, -0.2, 0.2, away_from=(0.0,))
    return weight, draw.floats(shape, 1, 2) * np.where(draw.boolean(), 1, -1)


# ---- softmax


def _along(draw: Draw) -> Sample:
    x = draw.floats(draw.shape(min_dims=1), -3.0, 3.0)
    return (x,), {"axis": draw.axis(x.ndim)}


def _scipy(function: Callable) -> Callable:
    """SciPy refuses the softmax of nothing."""
    return lambda x, axis: function(x, axis=axis) if x.size else x.copy()


OpCard("softmax", ops.softmax, _along, wrt=(0,), reference=_scipy(special.softmax))
OpCard("log_softmax", ops.log_softmax, _along, wrt=(0,), reference=_scipy(special.log_softmax))


# ---- statistics


def _normalised(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    if not x.size:
        return x.copy()
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def _layer(draw: Draw) -> Sample:
    shape = draw.shape(min_dims=1)
    normalized_shape = shape[draw.integer(0, len(shape) - 1) :]
    kwargs = {"normalized_shape": normalized_shape, "eps": _eps(draw)}
    return (draw.floats(shape), *_affine(draw, normalized_shape)), kwargs


OpCard(
    "layer_norm",
    lambda x, weight, bias, normalized_shape, eps: ops.layer_norm(x, normalized_shape, weight, bias, eps),
    _layer,
    wrt=(0, 1, 2),
    reference=lambda x, weight, bias, normalized_shape, eps: (
        _normalised(x, tuple(range(-len(normalized_shape), 0)), eps) * weight + bias
    ),
)


def _image(draw: Draw, min_dims: int, min_side: int, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """input (N, ..., C) with weight and bias. min_side: the least number of samples and positions."""
    shape = (*draw.shape(min_dims, 2, min_side=min_side, max_side=3), channels)
    return draw.floats(shape), *_affine(draw, (channels,))


def _group(draw: Draw, activation: bool) -> Sample:
    groups = draw.integer(1, 3)
    kwargs = {"num_groups": groups, "eps": _eps(draw)}
    if activation:
        kwargs["activation"] = draw.choice(list(ACTIVATIONS))
    return _image(draw, 1, 0, groups * draw.integer(0 if groups == 1 else 1, 2)), kwargs


def _group_reference(x, weight, bias, num_groups, eps, activation=None):
    grouped = x.reshape(x.shape[0], -1 if x.size else 0, num_groups, x.shape[-1] // num_groups)
    z = _normalised(grouped, (1, 3), eps).reshape(x.shape) * weight + bias
    return ACTIVATIONS[activation](z)


OpCard(
    "group_norm",
    lambda x, weight, bias, num_groups, **options: ops.group_norm(x, num_groups, weight, bias, **options),
    lambda draw: _group(draw, activation=True),
    wrt=(0, 1, 2),
    reference=_group_reference,
    note="group_norm and batch_norm: samples are clear of the kinks of relu and leaky_relu",
)
OpCard(
    "group_norm_silu",
    lambda x, weight, bias, num_groups, **options: ops.group_norm_silu(x, num_groups, weight, bias, **options),
    lambda draw: _group(draw, activation=False),
    wrt=(0, 1, 2),
    reference=lambda x, weight, bias, num_groups, eps: _group_reference(x, weight, bias, num_groups, eps, "silu"),
)


def _instance(draw: Draw) -> Sample:
    positions = draw.choice([(0,), (2,), (3,), (1, 3), (2, 2)])
    channels = draw.count(3)
    x = draw.floats((draw.count(3), *positions, channels))
    return (x, *_affine(draw, (channels,))), {"eps": _eps(draw)}


OpCard(
    "instance_norm",
    ops.instance_norm,
    _instance,
    wrt=(0, 1, 2),
    reference=lambda x, weight, bias, eps: _normalised(x, tuple(range(1, x.ndim - 1)), eps) * weight + bias,
)


def _batch(draw: Draw) -> Sample:
    training = draw.boolean()
    channels = draw.count(3)
    x, weight, bias = _image(draw, 1, 2 if training else 0, channels)
    options = {"training": training, "eps": _eps(draw), "activation": draw.choice(list(ACTIVATIONS))}
    return (x, weight, bias, draw.floats((channels,), -0.2, 0.2), draw.floats((channels,), 0.5, 2.0)), options


def _batch_reference(x, weight, bias, running_mean, running_var, training, eps, activation):
    constant = (x - running_mean) / np.sqrt(running_var + eps)
    normalised = _normalised(x, tuple(range(x.ndim - 1)), eps) if training else constant
    return ACTIVATIONS[activation](normalised * weight + bias)


OpCard(
    "batch_norm",
    lambda x, weight, bias, running_mean, running_var, **options: ops.batch_norm(
        x, running_mean.copy(), running_var.copy(), weight, bias, **options
    ),
    _batch,
    wrt=(0, 1, 2),
    reference=_batch_reference,
)
