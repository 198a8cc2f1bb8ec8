"""Initialisations: mean and variance within 4 standard errors, bounds, and the shapes that they are for."""

import math

import numpy as np
import pytest

from minigen.nn import Conv2d, ConvTranspose2d, Linear, init
from minigen.random import Generator

SHAPE = (3, 3, 40, 50)  # fan_in 360, fan_out 450
UNIFORM = {
    init.fan_in_uniform: 1 / math.sqrt(360),
    init.kaiming_uniform: math.sqrt(2) * math.sqrt(3 / 360),
    init.xavier_uniform: math.sqrt(6 / 810),
}
NORMAL = {init.kaiming_normal: math.sqrt(2 / 360), init.xavier_normal: math.sqrt(2 / 810), init.normal: 0.02}


def name(function):
    return function.__name__


@pytest.mark.parametrize("function", [*UNIFORM, *NORMAL], ids=name)
def test_mean_and_variance(function):
    w = function(SHAPE, Generator(1)).astype(np.float64)
    n = w.size
    variance = UNIFORM[function] ** 2 / 3 if function in UNIFORM else NORMAL[function] ** 2
    fourth = variance**2 * (9 / 5 if function in UNIFORM else 3)  # moment of the distribution
    assert abs(w.mean()) < 4 * math.sqrt(variance / n)
    assert abs((w**2).mean() - variance) < 4 * math.sqrt((fourth - variance**2) / n)


@pytest.mark.parametrize("function", UNIFORM, ids=name)
def test_uniform_ones_fill_their_range(function):
    w = function(SHAPE, Generator(1))
    assert w.dtype == np.float32
    assert 0.999 * UNIFORM[function] < w.max() <= UNIFORM[function] * (1 + 1e-6)
    assert 0.999 * UNIFORM[function] < -w.min() <= UNIFORM[function] * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (3, 3, 2, 30)])
def test_orthogonal(shape):
    w = init.orthogonal(shape, Generator(0), gain=2.0)
    assert w.shape == shape
    assert w.dtype == np.float32
    m = w.reshape(-1, shape[-1]).astype(np.float64)
    gram = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


def test_orthogonal_is_uniform_over_rotations():
    """Without the sign of R the first entry would always be negative."""
    first = np.array([init.orthogonal((2, 2), Generator(seed))[0, 0] for seed in range(200)])
    assert abs(first.mean()) < 4 * math.sqrt(0.5 / 200)
    assert abs((first**2).mean() - 0.5) < 4 * math.sqrt(1 / 8 / 200)  # cos² of a uniform angle


def test_fans():
    assert init.fans((784, 200)) == (784, 200)
    assert init.fans(SHAPE) == (360, 450)
    for shape in ((3,), (0, 3)):
        with pytest.raises(ValueError, match=r"the axes \(in, out\)"):
            init.fans(shape)


def test_layers_start_like_pytorch_unless_told_otherwise():
    """Weights and biases in ±1/√fan_in; the fan_in of a transposed convolution is that of its adjoint."""
    rng = Generator(0)
    for layer, fan_in in (
        (Linear(50, 400, rng=rng), 50),
        (Conv2d(8, 400, 5, groups=2, rng=rng), 5 * 5 * 4),
        (ConvTranspose2d(16, 400, 3, groups=4, rng=rng), 3 * 3 * 100),
    ):
        for p in (layer.weight.data, layer.bias.data):
            assert 0.95 / math.sqrt(fan_in) < abs(p).max() <= (1 + 1e-6) / math.sqrt(fan_in)


def test_a_weight_init_of_ones_own():
    layer = Linear(3, 4, rng=Generator(0), weight_init=init.zeros)
    assert not layer.weight.data.any()
    assert not layer.bias.data.any()
    layer = Conv2d(3, 64, 5, rng=Generator(0), weight_init=lambda shape, rng: init.normal(shape, rng, std=3.0))
    assert abs(layer.weight.data.std() - 3) < 4 * 3 / math.sqrt(2 * layer.weight.size)
    assert not layer.bias.data.any()
