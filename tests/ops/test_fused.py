"""Fused ops: extreme numbers, kinks, frozen inputs, refusals. What holds at ordinary numbers is tested from their cards."""

import numpy as np
import pytest
from evaluate import everywhere, value_and_gradients, values

from minigen.autograd import Tensor, grad
from minigen.autograd.ops.fused import bias_act, gated_tanh, linear, sample_normal_kl

INF, NAN = np.inf, np.nan

EXTREMES = [-INF, -1e30, -104, -89, -20, -1e-8, -0.0, 0.0, 1e-8, 20, 89, 104, 1e30, INF, NAN]

LIMITS = {  # activation -> its value and derivative in float64, and at ± ∞
    "relu": (lambda z: max(z, 0), lambda z: float(z > 0), (0, 0), (INF, 1)),
    "leaky_relu": (lambda z: z if z > 0 else 0.25 * z, lambda z: 1.0 if z > 0 else 0.25, (-INF, 0.25), (INF, 1)),
    "tanh": (np.tanh, lambda z: np.cosh(min(abs(z), 300)) ** -2.0, (-1, 0), (1, 0)),
    "sigmoid": (
        lambda z: np.exp(min(z, 0)) / (1 + np.exp(-abs(z))),
        lambda z: np.exp(-abs(z)) / (1 + np.exp(-abs(z))) ** 2,
        (0, 0),
        (1, 0),
    ),
    "silu": (
        lambda z: z * np.exp(min(z, 0)) / (1 + np.exp(-abs(z))),
        lambda z: np.exp(min(z, 0)) / (1 + np.exp(-abs(z))) + z * np.exp(-abs(z)) / (1 + np.exp(-abs(z))) ** 2,
        (0, 0),
        (INF, 1),
    ),
}


@everywhere
@pytest.mark.parametrize("activation", list(LIMITS))
def test_activations_at_extreme_numbers(activation, backend, dtype):
    """bias_act and linear, which keep different things for the derivative, give the mathematical limits."""
    value, slope, low, high = LIMITS[activation]
    expected = [low if z == -INF else high if z == INF else (NAN, NAN) if z != z else (value(z), slope(z)) for z in EXTREMES]
    options = {"activation": activation, "negative_slope": 0.25}
    x = np.array(EXTREMES)[:, None]
    one_by_one = value_and_gradients(lambda x: bias_act(x, np.zeros(1, dtype), **options), x, backend=backend, dtype=dtype)
    product = value_and_gradients(lambda x: linear(x, np.ones((1, 1), dtype), **options), x, backend=backend, dtype=dtype)
    tolerance = {"rtol": 2e-6, "atol": 1e-7} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-15}
    for y, gx in (one_by_one, product):
        np.testing.assert_allclose(y[:, 0], [e[0] for e in expected], **tolerance)
        nan_too = activation in ("relu", "leaky_relu")  # whose slope does not depend on z: the cotangent passes
        np.testing.assert_allclose(gx[:-1, 0], [e[1] for e in expected[:-1]], **tolerance)
        assert nan_too or np.isnan(gx[-1, 0])


@everywhere
def test_a_leaky_relu_without_slope_is_a_relu(backend, dtype):
    f = lambda x: bias_act(x, np.zeros(1, dtype), activation="leaky_relu", negative_slope=0.0)
    assert values(f, [[-INF], [-1], [2]], backend=backend, dtype=dtype) == [[[0], [0], [2]], [[0], [0], [1]]]


@everywhere
def test_gated_tanh_at_extreme_numbers(backend, dtype):
    x = [[INF, -INF, 0, 1, -INF, 1e30], [INF, INF, INF, -INF, 0, 1e30]]  # a ; b, transposed below
    y, gx = value_and_gradients(gated_tanh, np.array(x).T, backend=backend, dtype=dtype)
    assert y[:, 0].tolist() == [1, -1, 0, 0, -0.5, 1]
    assert gx[:, 0].tolist() == [0, 0, 1, 0, 0, 0]
    assert gx[:, 1].tolist() == [0, 0, 0, 0, -0.25, 0]
    assert np.isnan(value_and_gradients(gated_tanh, [[NAN, 0], [0, NAN]], backend=backend, dtype=dtype)[0]).all()


@everywhere
def test_sample_normal_kl_at_extreme_variances(backend, dtype):
    """A deviation of 0 gives the mean; an infinite one an infinite divergence, and no NaN where eps or a cotangent is 0."""
    mu, logvar, eps = [[1.0], [2.0], [3.0]], [[-INF], [INF], [INF]], [[5.0], [5.0], [0.0]]

    def run(function):
        return value_and_gradients(function, mu, logvar, eps, backend=backend, dtype=dtype)

    z, gmu, glogvar, geps = run(lambda *a: sample_normal_kl(*a)[0])
    assert z.tolist() == [[1], [INF], [3]]
    assert gmu.tolist() == [[1], [1], [1]]
    assert glogvar.tolist() == [[0], [INF], [0]]
    assert geps.tolist() == [[0], [INF], [INF]]
    kl, gmu, glogvar, _ = run(lambda *a: sample_normal_kl(*a)[1])
    assert kl.tolist() == [INF] * 3
    assert gmu.tolist() == mu
    assert glogvar.tolist() == [[-0.5], [INF], [INF]]


def test_sample_normal_kl_near_the_prior_keeps_its_digits():
    logvar = np.array([[1e-5, -2e-5]])
    np.testing.assert_allclose(sample_normal_kl(np.zeros((1, 2)), logvar, np.zeros((1, 2)))[1], [1.25e-10], rtol=1e-4)


def test_sample_normal_kl_sums_over_all_axes_but_the_first():
    mu, logvar, eps = np.random.default_rng(0).normal(size=(3, 2, 3, 4))
    z, kl = sample_normal_kl(mu, logvar, eps)
    np.testing.assert_allclose(z, mu + np.exp(logvar / 2) * eps)
    np.testing.assert_allclose(kl, 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum((1, 2)))


def test_either_result_of_sample_normal_kl_may_go_unused():
    mu, logvar, eps = np.random.default_rng(0).normal(size=(3, 2, 3))
    both = value_and_gradients(lambda *a: sample_normal_kl(*a)[0].sum() + sample_normal_kl(*a)[1].sum(), mu, logvar, eps)
    parts = [value_and_gradients(lambda *a, i=i: sample_normal_kl(*a)[i].sum(), mu, logvar, eps) for i in (0, 1)]
    for whole, z, kl in zip(both, *parts, strict=True):
        np.testing.assert_allclose(whole, z + kl, rtol=1e-12)


# ---- linear


def test_linear_without_bias():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 5, 3)), rng.normal(size=(3, 4))
    for activation in (None, "tanh", "silu"):
        plain = value_and_gradients(lambda *a, f=activation: linear(*a, activation=f), x, weight)
        zero = value_and_gradients(lambda *a, f=activation: linear(*a, np.zeros(4), activation=f), x, weight)
        for a, b in zip(plain, zero, strict=True):
            assert np.array_equal(a, b)


def test_linear_computes_only_the_gradients_that_are_wanted():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)
    full = value_and_gradients(lambda *a: linear(*a, activation="tanh"), *arrays)
    for i in range(3):
        inputs = [Tensor(a, requires_grad=i == j) for j, a in enumerate(arrays)]
        y = linear(*inputs, activation="tanh")
        assert np.array_equal(grad(y, inputs[i], np.ones((5, 4))).data, full[1 + i])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_result_that_backward_needs_is_protected(backend):
    """The derivative of tanh is computed from the result: writing into it is noticed."""
    from minigen.autograd import no_grad

    x = Tensor(np.ones((2, 3)), requires_grad=True)
    y = linear(x, np.ones((3, 4)), activation="tanh")
    with no_grad():
        y[0] = 0
    with pytest.raises(RuntimeError, match="backward of linear: a value that it needs"):
        grad(y, x, np.ones((2, 4)))


ROW, WEIGHT = np.ones((2, 3)), np.ones((3, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linear(ROW, WEIGHT.T), ValueError, r"input \(2, 3\) and weight \(4, 3\) do not fit.*\(C_in, C_out\)"),
        (lambda: linear(ROW, np.ones(3)), ValueError, r"weight \(3,\) do not fit"),
        (lambda: linear(ROW, WEIGHT, np.ones(3)), ValueError, r"bias \(3,\) must be \(C_out,\), here \(4,\)"),
        (lambda: linear(ROW, WEIGHT, activation="gelu"), ValueError, "unknown activation 'gelu': choose None or one of 'relu'"),
        (lambda: linear(ROW, WEIGHT, activation="leaky_relu", negative_slope=-1.0), ValueError, "negative_slope=-1.0"),
        (lambda: linear(ROW.astype(int), WEIGHT), TypeError, "linear.*float32 or float64 needed, got int64"),
        (lambda: bias_act(ROW, np.ones(2)), ValueError, r"bias \(2,\) must be \(C,\), the channels of input \(2, 3\)"),
        (lambda: bias_act(ROW, np.ones(3), activation="x"), ValueError, "unknown activation 'x'"),
        (lambda: gated_tanh(ROW), ValueError, r"input \(2, 3\) must have an even number of channels"),
        (lambda: sample_normal_kl(ROW, ROW, np.ones((2, 1))), ValueError, r"eps \(2, 1\) must all be of the same shape"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
