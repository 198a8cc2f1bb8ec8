"""ModulatedConv2d: truth demodulate, mistakes that it names, gradients, and what it refuses."""

import numpy as np
import pytest

from minigen import Tensor, ops
from minigen.autograd.gradcheck import gradcheck
from minigen.nn import ModulatedConv2d
from minigen.random import Generator
from minigen.truths import TRUTHS, check


def verdict(cls):
    (found,) = check(cls, [TRUTHS["demodulate"]])
    return found


def test_it_is_the_convolution_with_modulated_weights():
    found = verdict(ModulatedConv2d)
    assert found.state == "holds", str(found)


class NotDemodulated(ModulatedConv2d):
    def _factors(self, style):
        return ops.broadcast_to(Tensor(np.ones((1, 1))), (len(style), self.weight.shape[3]))


class WithoutTheStyle(ModulatedConv2d):
    def _factors(self, style):
        return super()._factors(style / style)


class NotModulated(ModulatedConv2d):
    def forward(self, x, style):
        return super().forward(x, style / style)


class NoRoot(ModulatedConv2d):
    def _factors(self, style):
        return ops.square(super()._factors(style))


class MeanForSum(ModulatedConv2d):
    def _factors(self, style):
        return super()._factors(style) * np.sqrt(np.prod(self.weight.shape[:3]))


class OverTheOutputs(ModulatedConv2d):
    """The sum over the wrong axis, and so the factors at the inputs."""

    def forward(self, x, style):
        n = len(x)
        squares = ops.square(self.weight).sum(axis=(0, 1, 3)) * ops.square(style)  # (N, C_in)
        scaled = x * (style * squares**-0.5).reshape(n, 1, 1, -1)
        return ops.conv2d(scaled, self.weight, padding=self.padding)


MISTAKES = {
    NotDemodulated: "the weights are not demodulated",
    WithoutTheStyle: "the norm is that of the weights without the style",
    NotModulated: "the style does nothing",
    NoRoot: "by the sum of squares, without the root",
    MeanForSum: "the root of the mean square",
    OverTheOutputs: "over the output channels",
}


@pytest.mark.parametrize("mutant", MISTAKES, ids=lambda cls: cls.__name__)
def test_a_mistake_is_named(mutant):
    found = verdict(mutant)
    assert found.state == "fails"
    assert MISTAKES[mutant] in str(found)


def test_gradients_of_input_style_and_weight():
    layer = ModulatedConv2d(2, 3, 3, rng=Generator(0)).astype(np.float64)
    rng = np.random.default_rng(0)
    x, style = rng.normal(size=(2, 4, 4, 2)), rng.uniform(0.5, 2, (2, 2))

    def run(x, style, weight, bias):
        layer.weight, layer.bias = weight, bias
        return layer(x, style)

    gradcheck(run, [x, style, layer.weight.data, layer.bias.data])


def test_without_demodulation_and_what_it_refuses():
    layer = ModulatedConv2d(2, 3, 3, rng=Generator(0), demodulate=False)
    x, style = np.ones((2, 4, 4, 2), np.float32), np.ones((2, 2), np.float32)
    np.testing.assert_allclose(layer(Tensor(x), Tensor(3 * style)).data, 3 * layer(Tensor(x), Tensor(style)).data, rtol=1e-5)
    with pytest.raises(ValueError, match=r"style \(2, 3\) must be \(N, C_in\) = \(2, 2\)"):
        layer(Tensor(x), Tensor(np.ones((2, 3), np.float32)))
