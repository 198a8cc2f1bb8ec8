"""Softmax and normalisations: infinite entries, constants, running statistics, refusals.

What holds at ordinary numbers is tested for all ops alike, from their cards.
"""

import numpy as np
import pytest
from evaluate import everywhere, value_and_gradients, values

from minigen.autograd import Tensor, grad, set_backend
from minigen.autograd.ops.normalisation import (
    batch_norm,
    group_norm,
    group_norm_silu,
    instance_norm,
    layer_norm,
    log_softmax,
    softmax,
)
from minigen.autograd.ops.shape import permute_dims, reshape

INF, NAN = np.inf, np.nan


# ---- softmax


@everywhere
def test_softmax_of_infinite_entries_is_the_limit(backend, dtype):
    x = [[-INF, 0, 0], [INF, 0, -INF], [INF, 3, INF], [-INF, -INF, -INF], [NAN, 0, INF]]
    expected = [[0, 0.5, 0.5], [1, 0, 0], [0.5, 0, 0.5], [0, 0, 0], [NAN] * 3]
    p, gx = value_and_gradients(softmax, x, g=[[1, 2, 4]] * 5, backend=backend, dtype=dtype)
    assert np.array_equal(p, expected, equal_nan=True)
    jacobian_rows = [[0, -0.5, 0.5], [0, 0, 0], [-0.75, 0, 0.75], [0, 0, 0], [NAN] * 3]  # p (g - <g, p>)
    assert np.array_equal(gx, jacobian_rows, equal_nan=True)


@everywhere
def test_log_softmax_of_infinite_entries_is_the_limit(backend, dtype):
    x = [[-INF, 0, 0], [INF, 0, -INF], [INF, 3, INF], [-INF, -INF, -INF], [NAN, 0, INF]]
    half = -np.log(dtype(2))
    expected = [[-INF, half, half], [0, -INF, -INF], [half, -INF, half], [-INF] * 3, [NAN] * 3]
    log_p, gx = value_and_gradients(log_softmax, x, g=[[1, 2, 4]] * 5, backend=backend, dtype=dtype)
    assert np.array_equal(np.isfinite(log_p), np.isfinite(expected))
    np.testing.assert_allclose(log_p, expected, rtol=1e-6)
    np.testing.assert_allclose(gx[:3], [[1, -1.5, 0.5], [-6, 2, 4], [-2.5, 2, 0.5]], rtol=1e-6)  # g - p Σ g
    assert np.isnan(gx[4]).all()


@everywhere
def test_softmax_of_large_numbers_does_not_overflow(backend, dtype):
    top = np.finfo(dtype).max
    (p, gx), (log_p, _) = (
        value_and_gradients(f, [[top, -top, top]], g=[[1, 1, 3]], backend=backend, dtype=dtype)
        for f in (softmax, log_softmax)
    )
    assert p.tolist() == [[0.5, 0, 0.5]]
    assert gx.tolist() == [[-0.5, 0, 0.5]]
    np.testing.assert_allclose(log_p[0, ::2], -np.log(2), rtol=1e-6)
    assert log_p[0, 1] <= -top  # -2 top overflows


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_softmax_second_derivative_where_a_class_is_impossible(function):
    """The impossible class takes no part: derivatives are those without it."""
    x, g = [0.3, -1.2, 0.8], [0.5, 2.0, -1.0]
    with_it = value_and_gradients(function, [-INF, *x], g=[0.0, *g], order=2)[1]
    np.testing.assert_allclose(with_it, [0, *value_and_gradients(function, x, g=g, order=2)[1]], atol=1e-15)


# ---- normalisations


@everywhere
def test_a_constant_group_is_normalised_to_zero_even_if_it_is_large(backend, dtype):
    x = np.full((2, 5, 4), 1e4)
    for function in (lambda x: group_norm(x, 2), instance_norm, lambda x: layer_norm(x, 4)):
        y, gx = value_and_gradients(function, x, g=np.ones((2, 5, 4)), backend=backend, dtype=dtype)
        assert not y.any()
        assert not gx.any()


@everywhere
def test_normalisation_far_from_zero_keeps_its_digits(backend, dtype):
    """Statistics of float32 are float64: with a mean of 4096 and a deviation of 1, variances would be off by percents."""
    x = np.tile([4095.0, 4097.0], (3, 8, 8))  # (3, 8, 16), exact in float32
    for function in (lambda x: group_norm(x, 1, eps=0.0), lambda x: layer_norm(x, 16, eps=0.0)):
        (y,) = value_and_gradients(function, x, backend=backend, dtype=dtype)[:1]
        assert np.array_equal(y, x - 4096)


@everywhere
def test_large_finite_numbers_do_not_overflow(backend, dtype):
    """Squares of numbers above 1e19 overflow in float32. (In float64, those above 1e154 do.)"""
    x = np.array([[1.0, -1.0, 3.0, 0.0]]) * (1e30 if dtype == np.float32 else 1e100)
    for function in (lambda x: layer_norm(x, 4), lambda x: group_norm(x, 1)):
        (y,) = value_and_gradients(function, x, backend=backend, dtype=dtype)[:1]
        np.testing.assert_allclose(y, (x - x.mean()) / x.std(), rtol=1e-6)


def normalisations(x):
    """Each normalisation of a matrix by rows, or for batch_norm of its transpose by columns."""
    weight, bias = np.array([2, -1, 0.5, 1], x.dtype), np.array([1, 0, -1, 2], x.dtype)
    yield lambda t: layer_norm(t, 4, weight, bias)
    yield lambda t: group_norm(t, 1, weight, bias)
    yield lambda t: group_norm(t, 1, weight, bias, activation="silu")
    yield lambda t: instance_norm(reshape(t, (len(x), 4, 1)), weight[:1], bias[:1])
    yield lambda t: batch_norm(permute_dims(t, (1, 0)), None, None, training=True)


@everywhere
def test_numbers_whose_squares_overflow_give_what_smaller_ones_give(backend, dtype):
    """Values to the bit, and gradients of both orders; and the ordinary row beside them is not touched."""
    power = dtype(2.0 ** (np.finfo(dtype).maxexp - 60))
    for row in ([1, -1, 0.5, 0], [1.5, 1.5, -1.5, 1], [1.9, -1.9, 1.9, 1.9]):
        small = np.array([np.array(row) * 2.0**20, [1, 2, 3, 5]], dtype)
        factor = np.array([[power], [1]], dtype)
        v = np.arange(8, dtype=dtype).reshape(2, 4)
        for f in normalisations(small):
            results = []
            for scale in (factor, np.ones_like(factor)):
                x = Tensor(small * scale, requires_grad=True)
                y = f(x)
                g = np.cos(np.arange(8.0)).reshape(y.shape).astype(dtype)
                (d,) = grad(y, [x], g, create_graph=True)
                second = grad(d, x, v * scale)
                results.append([y.data, d.data * scale, second.data * scale])
            for huge, ordinary, rtol in zip(*results, (0, 1e-5, 1e-5), strict=True):
                np.testing.assert_allclose(huge, ordinary, rtol=rtol)
                assert np.abs(ordinary).max() > 0.05


@everywhere
def test_equal_numbers_whose_sum_overflows_are_normalised_to_zero(backend, dtype):
    x = Tensor(np.full((2, 4), np.finfo(dtype).max, dtype), requires_grad=True)
    y = layer_norm(x, 4)
    np.testing.assert_array_equal(y.data, 0)
    g = np.array([[1, 2, 4, 9], [0, 0, 0, 1]], dtype)
    (d,) = grad(y, [x], g, create_graph=True)
    np.testing.assert_allclose(d.data, (g - g.mean(1, keepdims=True)) / np.sqrt(1e-5), rtol=1e-5)
    np.testing.assert_array_equal(grad(d, x, g).data, 0)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("bad", [NAN, INF])
def test_nan_and_infinity_spoil_their_group_only(backend, bad):
    x = np.arange(24.0).reshape(2, 3, 4)
    x[1, 2, 0] = bad
    with set_backend(backend):
        y = group_norm(x, 2)
    assert np.isnan(y[1, :, :2]).all()
    assert np.isfinite(y[0]).all()
    assert np.isfinite(y[1, :, 2:]).all()


def test_group_norm_silu_is_silu_of_group_norm():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4))
    z = group_norm(x, 2)
    np.testing.assert_allclose(group_norm_silu(x, 2), z / (1 + np.exp(-z)), rtol=1e-12)


def test_weight_and_bias_may_be_left_out_one_by_one():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(3, 4, 6)), rng.normal(size=6), rng.normal(size=6)
    for f in (lambda x, w, b: group_norm(x, 3, w, b), lambda x, w, b: layer_norm(x, 6, w, b), instance_norm):
        full = value_and_gradients(f, x, weight, bias)
        only_weight = value_and_gradients(lambda x, w, f=f: f(x, w, None), x, weight)
        only_bias = value_and_gradients(lambda x, b, f=f: f(x, None, b), x, bias)
        np.testing.assert_allclose(only_weight[0] + bias, full[0], rtol=1e-12)
        np.testing.assert_allclose((only_bias[0] - bias) * weight + bias, full[0], rtol=1e-10)
        np.testing.assert_allclose(only_weight[2], full[2], rtol=1e-12)
        np.testing.assert_allclose(only_bias[2], full[3], rtol=1e-12)


def test_frozen_inputs_get_no_gradient():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(3, 4, 6)), rng.normal(size=6), rng.normal(size=6)
    full = value_and_gradients(lambda x, w, b: group_norm(x, 2, w, b), x, weight, bias)
    t = Tensor(weight, requires_grad=True)
    y = group_norm(x, 2, t, bias)
    assert np.array_equal(grad(y, t, np.ones(y.shape)).data, full[2])


# ---- batch normalisation


def test_running_statistics_follow_the_batch():
    """running <- (1 - momentum) running + momentum new, with the variance over n - 1."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (5, 2, 3, 4)).astype(np.float32)
    mean, var = np.full(4, 1.0, np.float32), np.full(4, 2.0, np.float32)
    batch_norm(x, mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean, 0.75 + 0.25 * x.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, 1.5 + 0.25 * x.var((0, 1, 2), ddof=1), rtol=1e-6)
    assert mean.dtype == var.dtype == np.float32


def test_differentiating_does_not_move_the_running_statistics_again():
    x = Tensor(np.random.default_rng(0).normal(size=(6, 3)), requires_grad=True)
    mean, var = np.zeros(3), np.ones(3)
    y = batch_norm(x, mean, var, training=True)
    before = mean.copy(), var.copy()
    (first,) = grad(y, [x], np.ones((6, 3)), create_graph=True)
    grad(first, x, np.ones((6, 3)))
    assert np.array_equal((mean, var), before)


def test_without_training_running_statistics_are_constants():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    mean, var = np.array([1.0, 2.0, 3.0]), np.array([4.0, 1.0, 0.25])
    y, gx = value_and_gradients(lambda x: batch_norm(x, mean, var, eps=0.0), x, dtype=np.float32)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var), rtol=1e-6)
    assert np.array_equal(gx, np.tile(np.float32([0.5, 1, 2]), (5, 1)))
    assert np.array_equal(mean, [1, 2, 3])


def test_a_batch_is_a_group_of_its_own_for_each_channel():
    """Batch normalisation of (N, P, C) is instance normalisation of the one sample (1, N P, C)."""
    x = np.random.default_rng(0).normal(size=(4, 5, 3))
    y = batch_norm(x, None, None, training=True, activation="tanh")
    np.testing.assert_allclose(y, np.tanh(instance_norm(x.reshape(1, 20, 3)).reshape(4, 5, 3)), rtol=1e-12)


# ---- kinks and refusals


def test_kinks_inside_fused_activations():
    """A constant group is 0 before the bias: relu'(0) = 0, leaky_relu'(0) = its slope. Here as the gradient of the bias."""
    x, zero = np.ones((1, 2, 1)), np.zeros(1)
    relu = values(lambda b: group_norm(x, 1, None, b, activation="relu"), zero)
    leaky = values(lambda b: group_norm(x, 1, None, b, activation="leaky_relu", negative_slope=0.25), zero)
    assert relu == [[[[0.0], [0.0]]], [0.0]]
    assert leaky == [[[[0.0], [0.0]]], [0.5]]


IMAGE, SIX = np.zeros((2, 3, 6)), np.ones(6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: group_norm(IMAGE, 4), ValueError, "num_groups=4 does not divide the 6 channels"),
        (lambda: group_norm(IMAGE, 0), ValueError, "num_groups=0"),
        (lambda: group_norm(IMAGE, 2, np.ones(3)), ValueError, r"weight \(3,\) must be \(6,\)"),
        (lambda: group_norm(IMAGE, 2, None, np.ones((6, 1))), ValueError, r"bias \(6, 1\) must be \(6,\)"),
        (lambda: group_norm(SIX, 2), ValueError, r"must be \(N, ..., C\)"),
        (lambda: group_norm(IMAGE, 2, activation="swish"), ValueError, "unknown activation 'swish': choose"),
        (lambda: group_norm(IMAGE, 2, activation="leaky_relu", negative_slope=-0.1), ValueError, "negative_slope=-0.1"),
        (lambda: group_norm(IMAGE.astype(int), 2), TypeError, "group_norm.*float32 or float64 needed, got int64"),
        (lambda: layer_norm(IMAGE, 3), ValueError, r"input \(2, 3, 6\) does not end in normalized_shape \(3,\)"),
        (lambda: layer_norm(IMAGE, ()), ValueError, "normalized_shape"),
        (lambda: layer_norm(IMAGE, (3, 6), SIX), ValueError, r"weight \(6,\) must have normalized_shape \(3, 6\)"),
        (lambda: instance_norm(np.ones((4, 1, 6))), ValueError, "single position"),
        (lambda: batch_norm(IMAGE, None, None), ValueError, "needs running_mean and running_var when not training"),
        (lambda: batch_norm(np.ones((1, 6)), SIX, SIX, training=True), ValueError, "more than one number per channel"),
        (lambda: batch_norm(IMAGE, np.ones(5), SIX), ValueError, r"running_mean must be .* of shape \(6,\), not \(5,\)"),
        (lambda: batch_norm(IMAGE, SIX, Tensor(SIX)), ValueError, "running_var must be a plain array .* not Tensor"),
        (lambda: softmax(IMAGE, axis=3), ValueError, "softmax"),
        (lambda: softmax([1.0, 2.0]), TypeError, "softmax.*expected an array or a Tensor, got list"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
