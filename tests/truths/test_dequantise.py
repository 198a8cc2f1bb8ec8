"""Truth dequantise, for `data.dequantize` and any density: from grey levels by way of a density to bits per dimension.

The image flows, whose dequantisation may be learned, are held to it in tests/models/test_glow.py.
"""

import math

import numpy as np
import pytest

from minigen import ops
from minigen.data import dequantize
from minigen.evaluation import NLL, histogram_bits_per_dim
from minigen.nn import Module, parameter
from minigen.random import Generator

LEVELS = 256


def dequantised_nll(model, k, levels):
    """-log P(k) ≤ -log p(z) + D log(levels), z = (k + u) / levels; k: (N, ...) -> (N,) nats."""
    return math.prod(k.shape[1:]) * math.log(levels) - model(dequantize(k, levels, Generator(0)))


def bits_per_dim(model, k, levels=LEVELS):
    nll, dims = dequantised_nll(model, k, levels), math.prod(k.shape[1:])
    return NLL(nll.mean(), 0.0, len(k), "dequantised", "test", dims, baseline=("uniform", dims * math.log(levels))).bits_per_dim


class Logistic(Module):
    """Independent logistic variables, cut to the unit cube only by their parameters: almost all mass is inside."""

    def __init__(self):
        self.mean, self.log_scale = parameter(np.full((), 0.4)), parameter(np.full((), math.log(0.03)))

    def forward(self, z):
        u = (z - self.mean) * ops.exp(-self.log_scale)
        return (-u - self.log_scale - 2 * ops.softplus(-u)).sum(axis=(1, 2, 3)).data


@pytest.mark.parametrize(("levels", "bits"), [(256, 8), (32, 5), (2, 1)])
def test_the_uniform_density_has_as_many_bits_as_the_levels(levels, bits):
    k = np.arange(levels).repeat(4).reshape(-1, 2, 2, 1)
    assert bits_per_dim(lambda z: np.zeros(len(z)), k, levels) == pytest.approx(bits, rel=1e-14)


def test_a_density_constant_on_levels_is_tight():
    """A histogram of levels, as a density: 256 times the probability of its level. No noise is left, nothing is lost."""
    train = np.random.default_rng(0).binomial(255, 0.3, (5000, 1))
    p = (np.bincount(train[:, 0], minlength=LEVELS) + 1) / (len(train) + LEVELS)
    k = np.random.default_rng(1).binomial(255, 0.3, (1000, 1))
    density = lambda z: np.log(LEVELS * p[np.floor(z * LEVELS).astype(int)]).sum(axis=1)
    assert bits_per_dim(density, k) == pytest.approx(histogram_bits_per_dim(train, k, LEVELS), rel=1e-12)


def test_any_other_density_gives_an_upper_bound():
    """The probability of a level is an integral of the density, known for a logistic: σ(upper edge) - σ(lower edge)."""
    model = Logistic()
    k = np.random.default_rng(2).integers(80, 125, (500, 3, 2, 1))
    edge = lambda k: 1 / (1 + np.exp(-(k / LEVELS - 0.4) / 0.03))
    exact = -np.log(edge(k + 1) - edge(k)).mean() / math.log(2)
    found = bits_per_dim(model, k)
    assert exact < found < exact + 0.01  # levels are narrow beside this density: little is lost


@pytest.mark.parametrize(
    "mutant",
    [
        lambda model, k: dequantised_nll(model, k, 255).mean() / math.log(2),  # 255 levels
        lambda model, k: -np.mean(model(((k + 0.5) / LEVELS).astype(np.float32))) / math.log(2),  # no Jacobian of the scale
    ],
)
def test_mutants_are_noticed(mutant):
    k = np.arange(255).reshape(-1, 1)
    uniform = lambda z: np.zeros(len(z))
    assert abs(mutant(uniform, k) - 8) > 1e-3
    assert bits_per_dim(uniform, k) == pytest.approx(8, rel=1e-14)
