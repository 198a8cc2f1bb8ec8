"""Cards of ops/fused.py. Biases are larger than what they are added to, so that samples stay clear of the kinks at 0."""

from __future__ import annotations

import numpy as np
from scipy import special

from ..ops import fused as ops
from .card import Draw, Kink, OpCard
from .normalisation import ACTIVATIONS

Sample = tuple[tuple, dict]

RELU, LEAKY = {"activation": "relu"}, {"activation": "leaky_relu", "negative_slope": 0.25}


def _bias(draw: Draw, channels: int) -> np.ndarray:
    """Magnitudes between 1.1 and 2."""
    return draw.floats((channels,), 1.1, 2) * np.where(draw.rng().random(channels) < 0.5, 1, -1)


def _linear(draw: Draw) -> Sample:
    c_in, c_out = draw.count(4), draw.count(4)
    x = draw.floats((*draw.shape(max_dims=2), c_in), -0.5, 0.5)
    return (x, draw.floats((c_in, c_out), -0.5, 0.5), _bias(draw, c_out)), {"activation": draw.choice(list(ACTIVATIONS))}


def _bias_act(draw: Draw) -> Sample:
    channels = draw.count(4)
    x = draw.floats((*draw.shape(), channels), -1, 1)
    return (x, _bias(draw, channels)), {"activation": draw.choice(list(ACTIVATIONS))}


def _gated(draw: Draw) -> Sample:
    return (draw.floats((*draw.shape(), 2 * draw.count(3))),), {}


def _gated_reference(x: np.ndarray) -> np.ndarray:
    a, b = np.split(x, 2, axis=-1)
    return np.tanh(a) * special.expit(b)


def _sample(draw: Draw) -> Sample:
    shape = draw.shape(min_dims=1)
    return tuple(draw.floats(shape) for _ in range(3)), {}


def _sample_reference(mu: np.ndarray, logvar: np.ndarray, eps: np.ndarray) -> tuple:
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)
    return mu + np.exp(logvar / 2) * eps, kl.sum(tuple(range(1, mu.ndim)))


ZERO, ONE = np.zeros((1, 1)), np.ones((1, 1))

OpCard(
    "linear",
    ops.linear,
    _linear,
    wrt=(0, 1, 2),
    reference=lambda x, weight, bias, activation: ACTIVATIONS[activation](x @ weight + bias),
    kinks=[
        Kink((ZERO, ONE, np.zeros(1)), RELU, ONE, (ZERO, ZERO, np.zeros(1))),
        Kink((ZERO, ONE, np.zeros(1)), LEAKY, ONE, (0.25 * ONE, ZERO, np.full(1, 0.25))),
    ],
)
OpCard(
    "bias_act",
    ops.bias_act,
    _bias_act,
    wrt=(0, 1),
    reference=lambda x, bias, activation: ACTIVATIONS[activation](x + bias),
    kinks=[
        Kink((ZERO, np.zeros(1)), RELU, ONE, (ZERO, np.zeros(1))),
        Kink((ONE, np.full(1, -1.0)), LEAKY, ONE, (0.25 * ONE, np.full(1, 0.25))),
    ],
)
OpCard("gated_tanh", ops.gated_tanh, _gated, wrt=(0,), reference=_gated_reference)
OpCard("sample_normal_kl", ops.sample_normal_kl, _sample, wrt=(0, 1, 2), reference=_sample_reference)
