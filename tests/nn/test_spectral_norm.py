"""Layers of spectral norm 1: what is bounded, what is kept, and gradients of first and second order through them."""

import math

import numpy as np
import pytest

from minigen import Tensor, grad, no_grad, ops
from minigen.nn import Conv2d, Linear, SpectralConv2d, SpectralLinear
from minigen.random import Generator


def settled(layer, steps=200):
    """In float64, after so many iterations, in evaluation mode."""
    layer.astype("float64").train()
    with no_grad():
        for _ in range(steps):
            layer.norm(layer.weight)
    return layer.eval()


def operator_norm(layer, shape):
    """The largest stretch of a layer, bias apart, from its whole matrix: an image for each unit vector."""
    basis = np.eye(math.prod(shape)).reshape(-1, *shape)
    with no_grad():
        matrix = (layer(Tensor(basis)) - layer(Tensor(np.zeros((1, *shape))))).data
    return np.linalg.svd(matrix.reshape(len(basis), -1), compute_uv=False)[0]


def test_a_linear_layer_is_1_lipschitz():
    layer = settled(SpectralLinear(6, 4, rng=Generator(0)))
    assert abs(operator_norm(layer, (6,)) - 1) < 1e-9


def test_so_is_a_convolution_of_patches_that_do_not_overlap():
    layer = settled(SpectralConv2d(2, 5, 3, stride=3, rng=Generator(0)))
    assert abs(operator_norm(layer, (6, 6, 2)) - 1) < 1e-9


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 1), (3, 2)])
def test_where_patches_overlap_the_norm_is_bounded_and_can_be_above_1(kernel, stride):
    """The bound that the file states: √(⌈kh/s⌉ ⌈kw/s⌉). A kernel of ones comes near to it."""
    bound = math.ceil(kernel / stride)
    layer = SpectralConv2d(2, 3, kernel, stride=stride, padding=1, rng=Generator(0))
    assert operator_norm(settled(layer), (8, 8, 2)) <= bound
    layer.weight.data[...] = 1
    norm = operator_norm(settled(layer), (8, 8, 2))
    assert 0.6 * bound < norm <= bound


def test_the_scale_of_the_weight_does_not_matter():
    x = Generator(1).normal((3, 6, 6, 2))
    one, other = (SpectralConv2d(2, 5, 3, rng=Generator(0), bias=False) for _ in range(2))
    other.weight.data *= 7
    expected = one(x).data  # sums of numbers of this size, a few of which nearly cancel
    np.testing.assert_allclose(other(x).data, expected, rtol=0, atol=1e-6 * abs(expected).max())


def test_it_is_the_plain_layer_with_another_weight():
    """Strides, padding, bias and activation go through."""
    x = Generator(1).normal((3, 6, 6, 2))
    conv, plain = SpectralConv2d(2, 4, 4, stride=2, padding=1, rng=Generator(0)), Conv2d(2, 4, 4, 2, 1, rng=Generator(0))
    conv.eval()
    plain.weight.data[...] = conv.norm(conv.weight).data
    np.testing.assert_array_equal(conv(x).data, plain(x).data)
    assert conv(x).dtype == np.float32
    z = Generator(1).normal((3, 6))
    options = {"activation": "leaky_relu", "negative_slope": 0.2}
    linear, plain = SpectralLinear(6, 4, rng=Generator(0), **options).eval(), Linear(6, 4, rng=Generator(0), **options)
    plain.weight.data[...] = linear.norm(linear.weight).data
    np.testing.assert_array_equal(linear(z).data, plain(z).data)


def test_the_vector_is_state_and_moves_in_training_only():
    layer, x = SpectralLinear(6, 4, rng=Generator(0)), Generator(1).normal((3, 6))
    assert set(layer.state_dict()) == {"weight", "bias", "norm.u"}
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    before = layer.state_dict()["norm.u"]
    layer.eval()(x)
    np.testing.assert_array_equal(layer.state_dict()["norm.u"], before)
    layer.train()(x)
    moved = layer.state_dict()
    assert (moved["norm.u"] != before).any()
    other = SpectralLinear(6, 4, rng=Generator(2))
    other.load_state_dict(moved)
    np.testing.assert_array_equal(other(x).data, layer(x).data)


def test_two_passes_share_a_graph():
    """Real and generated samples: the second pass moves u, and leaves the first one's graph as it was."""
    layer, rng = SpectralLinear(5, 4, rng=Generator(0)).astype("float64"), Generator(1)
    a, b = (rng.normal((3, 5), dtype=np.float64) for _ in range(2))
    first = layer(a).sum()
    together = (first + layer(b).sum(), layer.weight)
    again = SpectralLinear(5, 4, rng=Generator(0)).astype("float64")
    apart = [grad(again(x).sum(), again.weight).data for x in (a, b)]
    np.testing.assert_allclose(grad(*together).data, apart[0] + apart[1], rtol=1e-12)


def test_a_penalty_on_the_slope_goes_through():
    """The gradient of ‖∇_x D‖² for the weight, D through a convolution of spectral norm: against differences."""
    x = Generator(1).normal((2, 4, 4, 1), dtype=np.float64)
    layer = settled(SpectralConv2d(1, 3, 3, padding=1, rng=Generator(0)))

    def penalty():
        at = Tensor(x, requires_grad=True)
        out = ops.square(ops.tanh(layer(at))).sum()
        return ops.square(grad(out, at, create_graph=True)).sum()

    g = grad(penalty(), layer.weight).data
    direction = Generator(2).normal(g.shape, dtype=np.float64)
    own, ends = layer.weight.data.copy(), []
    for sign in (1, -1):
        layer.weight.data[...] = own + sign * 1e-5 * direction
        settled(layer)  # the true norm of the moved weight
        ends.append(penalty().item())
    assert abs((g * direction).sum() - (ends[0] - ends[1]) / 2e-5) < 1e-6 * abs(ends[0])
