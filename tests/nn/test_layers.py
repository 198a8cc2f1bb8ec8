"""Layers: shapes, what they compute, and what they refuse."""

import math

import numpy as np
import pytest

from minigen import Tensor, grad, no_grad
from minigen.nn import (
    BatchNorm,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    MultiHeadAttention,
    Sequential,
)
from minigen.random import Generator

RNG = Generator(0)


def normal(*shape):
    return Generator(1).normal(shape, mean=1.0, std=2.0)


LAYERS = {  # layer, shape in, shape out, shapes of its parameters
    "linear": (Linear(3, 5, rng=RNG), (4, 2, 3), (4, 2, 5), {"weight": (3, 5), "bias": (5,)}),
    "linear without bias": (Linear(3, 5, rng=RNG, bias=False), (4, 3), (4, 5), {"weight": (3, 5)}),
    "conv2d": (
        Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), groups=2, rng=RNG),
        (2, 8, 7, 4),
        (2, 4, 7, 6),
        {"weight": (3, 5, 2, 6), "bias": (6,)},
    ),
    "conv2d same": (
        Conv2d(1, 2, 3, padding="same", rng=RNG),
        (1, 5, 4, 1),
        (1, 5, 4, 2),
        {"weight": (3, 3, 1, 2), "bias": (2,)},
    ),
    "conv1d": (Conv1d(4, 6, 3, dilation=2, rng=RNG), (2, 9, 4), (2, 5, 6), {"weight": (3, 4, 6), "bias": (6,)}),
    "transposed": (
        ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2, rng=RNG),
        (2, 4, 3, 6),
        (2, 8, 6, 4),
        {"weight": (3, 3, 2, 6), "bias": (4,)},
    ),
    "transposed1d": (ConvTranspose1d(6, 4, 4, stride=2, bias=False, rng=RNG), (2, 3, 6), (2, 8, 4), {"weight": (4, 4, 6)}),
    "batch norm": (BatchNorm(3), (4, 2, 5, 3), (4, 2, 5, 3), {"weight": (3,), "bias": (3,)}),
    "layer norm": (LayerNorm((5, 3)), (4, 5, 3), (4, 5, 3), {"weight": (5, 3), "bias": (5, 3)}),
    "group norm": (GroupNorm(2, 6), (4, 5, 6), (4, 5, 6), {"weight": (6,), "bias": (6,)}),
    "instance norm": (InstanceNorm(3), (4, 5, 3), (4, 5, 3), {"weight": (3,), "bias": (3,)}),
    "attention": (
        MultiHeadAttention(6, 2, rng=RNG),
        (4, 5, 6),
        (4, 5, 6),
        {"qkv.weight": (6, 18), "qkv.bias": (18,), "out.weight": (6, 6), "out.bias": (6,)},
    ),
}


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
def test_shapes_names_and_that_every_parameter_is_trained(case):
    layer, shape, out_shape, parameters = case
    out = layer(Tensor(normal(*shape)))
    assert out.shape == out_shape
    assert out.dtype == np.float32
    assert {name: p.shape for name, p in layer.named_parameters()} == parameters
    weights = Generator(2).normal(out_shape)  # a plain sum is blind to what normalisation does
    for name, g in zip(parameters, grad((out * weights).sum(), layer.parameters()), strict=True):
        assert np.abs(g.data).max() > 1e-6, name


def test_linear_is_the_product_and_its_activation():
    layer, x = Linear(3, 4, rng=RNG, activation="leaky_relu", negative_slope=0.2), normal(5, 3)
    z = x @ layer.weight.data + layer.bias.data
    np.testing.assert_allclose(layer(Tensor(x)).data, np.where(z > 0, z, 0.2 * z), rtol=1e-5, atol=1e-6)


def test_a_transposed_convolution_is_the_adjoint_of_the_convolution_with_its_weight():
    """<conv(x), g> = <x, transposed(g)> for the same weight array: so they can share it."""
    down = Conv2d(4, 6, 4, stride=2, padding=1, bias=False, rng=RNG)
    up = ConvTranspose2d(6, 4, 4, stride=2, padding=1, bias=False, rng=RNG)
    assert up.weight.shape == down.weight.shape
    up.weight = down.weight
    x, g = normal(2, 8, 6, 4), normal(2, 4, 3, 6)
    with no_grad():
        left, right = (down(Tensor(x)).data * g).sum(dtype=float), (x * up(Tensor(g)).data).sum(dtype=float)
    assert math.isclose(left, right, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(4, 6, 3, groups=3, rng=RNG), "Conv2d: groups=3 does not divide 4 channels"),
        (lambda: ConvTranspose2d(4, 6, 3, groups=4, rng=RNG), "ConvTranspose2d: groups=4 does not divide 6 channels"),
        (lambda: Conv1d(4, 6, (3, 3), rng=RNG), r"Conv1d: kernel_size=\(3, 3\) must be an integer"),
        (lambda: GroupNorm(4, 6), "GroupNorm: num_groups=4 does not divide num_channels=6"),
        (lambda: MultiHeadAttention(6, 4, rng=RNG), "MultiHeadAttention: num_heads=4 does not divide dim=6"),
        (lambda: Dropout(1.0, rng=RNG), r"Dropout: p=1.0 is the probability of a zero and must be in \[0, 1\)"),
        (lambda: Linear(0, 3, rng=RNG), r"none of them empty, not shape \(0, 3\)"),
    ],
)
def test_what_cannot_be_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_embedding_rows_and_where_their_gradient_goes():
    layer = Embedding(5, 3, rng=RNG)
    out = layer(np.array([[1, 4], [1, 0]]))
    np.testing.assert_array_equal(out.data, layer.weight.data[[[1, 4], [1, 0]]])
    out.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.data[:, 0], [1, 2, 0, 0, 1])


def test_sequential_runs_layers_and_functions_in_order():
    layers = Sequential(lambda x: x + 1, Linear(2, 2, rng=RNG), abs)
    x = normal(3, 2)
    expected = abs((x + 1) @ layers[1].weight.data + layers[1].bias.data)
    np.testing.assert_allclose(layers(Tensor(x)).data, expected, rtol=1e-5, atol=1e-6)
    assert len(layers) == 3


# ---- normalisation


def moments(x, axes):
    return x.mean(axes, dtype=np.float64), x.var(axes, dtype=np.float64)


@pytest.mark.parametrize(
    ("layer", "axes"),
    [(BatchNorm(6), (0, 1, 2)), (LayerNorm((4, 6)), (2, 3)), (InstanceNorm(6), (1, 2))],
    ids=["batch", "layer", "instance"],
)
def test_normalised_over_what_it_says(layer, axes):
    mean, var = moments(layer(Tensor(normal(3, 5, 4, 6))).data, axes)
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    np.testing.assert_allclose(var, 1, atol=1e-4)


def test_group_norm_over_positions_and_channels_of_a_group():
    out = GroupNorm(2, 6)(Tensor(normal(3, 5, 4, 6))).data.reshape(3, 20, 2, 3)
    mean, var = moments(out, (1, 3))
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    np.testing.assert_allclose(var, 1, atol=1e-4)
    x = Tensor(normal(2, 5, 4))
    silu = GroupNorm(2, 4, activation="silu")(x).data
    plain = GroupNorm(2, 4)(x).data
    np.testing.assert_allclose(silu, plain / (1 + np.exp(-plain)), rtol=1e-5, atol=1e-6)


def test_batch_norm_running_statistics():
    """running ← 0.9 running + 0.1 new, with the unbiased variance; in the state; used, and not moved, in evaluation."""
    layer, rng = BatchNorm(2), np.random.default_rng(0)
    mean, var = np.zeros(2), np.ones(2)
    for _ in range(3):
        x = rng.normal(3, 2, (5, 4, 2)).astype(np.float32)
        layer(Tensor(x))
        mean, var = 0.9 * mean + 0.1 * x.mean((0, 1)), 0.9 * var + 0.1 * x.var((0, 1), ddof=1)
    state = layer.state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var"]
    np.testing.assert_allclose(state["running_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["running_var"], var, rtol=1e-5)

    restored = BatchNorm(2)
    restored.load_state_dict(state)
    with no_grad():
        restored.weight[...], restored.bias[...] = 2.0, 0.5
    out = restored.eval()(Tensor(x)).data
    np.testing.assert_allclose(out, 2 * (x - mean) / np.sqrt(var + 1e-5) + 0.5, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(restored.running_mean.data, state["running_mean"])


# ---- attention


def attention(causal):
    return MultiHeadAttention(4, 2, rng=Generator(3), is_causal=causal)


def test_attention_is_the_formula():
    """Each head: softmax(q kᵀ / √d) v, concatenated and projected."""
    layer, x = attention(False), normal(1, 5, 4)
    q, k, v = np.split(x[0] @ layer.qkv.weight.data + layer.qkv.bias.data, 3, axis=1)  # (5, 4) each
    heads = []
    for h in range(2):
        part = slice(2 * h, 2 * h + 2)
        scores = q[:, part] @ k[:, part].T / math.sqrt(2)
        p = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(p / p.sum(1, keepdims=True) @ v[:, part])
    expected = np.concatenate(heads, axis=1) @ layer.out.weight.data + layer.out.bias.data
    np.testing.assert_allclose(layer(Tensor(x)).data[0], expected, rtol=1e-4, atol=1e-5)


def seen(layer, n=5):
    """(n, n) booleans: whether position i of the result depends on position j of the input."""
    x = Tensor(normal(1, n, 4), requires_grad=True)
    out = layer(x)
    rows = [grad(out[0, i].sum(), x).data[0] for i in range(n)]  # (n, 4) each
    return np.array([(row != 0).any(axis=1) for row in rows])


def test_causal_attention_does_not_look_ahead():
    np.testing.assert_array_equal(seen(attention(True)), np.tri(5, dtype=bool))
    assert seen(attention(False)).all()


def test_attention_with_a_mask():
    mask = np.eye(5, dtype=bool)
    layer = attention(False)
    np.testing.assert_array_equal(seen(lambda x: layer(x, mask)), mask)


# ---- dropout


def test_dropout_statistics():
    """A share p is dropped, the rest is scaled so that the mean stays; nothing happens in evaluation."""
    layer, n, p = Dropout(0.3, rng=Generator(5)), 100_000, 0.3
    x = Tensor(np.ones(n, np.float32), requires_grad=True)
    out = layer(x)
    assert set(np.unique(out.data)) == {0.0, np.float32(1 / 0.7)}
    assert abs((out.data == 0).mean() - p) < 4 * math.sqrt(p * (1 - p) / n)
    np.testing.assert_array_equal(grad(out.sum(), x).data, out.data)  # what was dropped has no gradient
    assert not np.array_equal(layer(x).data, out.data)  # drawn anew
    assert layer.eval()(x) is x
