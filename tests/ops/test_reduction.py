"""Reductions: infinities and NaN, empty axes, ties, sums of leading axes, refusals. Start at `test_logsumexp_of_infinities`.

What holds at ordinary numbers is tested for all ops alike, from their cards.
"""

import numpy as np
import pytest

from minigen.autograd import Tensor, grad, set_backend
from minigen.autograd.ops import reduction as ops

INF, NAN = np.inf, np.nan


@pytest.fixture(params=["numba", "numpy"])
def backend(request):
    with set_backend(request.param):
        yield request.param


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return request.param


def value_and_gradient(function, x, create_graph=False, **kwargs):
    """The value, and the gradient contracted with 1, 2, 3 …"""
    x = Tensor(x, requires_grad=True)
    y = function(x, **kwargs)
    g = (1 + np.arange(y.data.size, dtype=y.dtype)).reshape(y.shape)
    return y.data, grad(y, x, g, create_graph=create_graph).data


# ---- logsumexp


@pytest.mark.parametrize("create_graph", [False, True])
def test_logsumexp_of_infinities(create_graph, backend, dtype):
    x = [
        [0, 0, -INF, 0],
        [-INF] * 4,
        [INF, 0, -INF, INF],
        [NAN, 0, 0, 0],
        [-INF, -INF, NAN, -INF],
        [INF, NAN, 0, 0],
        [1e30, -1e30, 1e30, 0],
        [-1000, -1000, -1000, -1000],
        [-INF, 5, -INF, -INF],
    ]
    y, d = value_and_gradient(ops.logsumexp, np.array(x, dtype), axis=1, create_graph=create_graph)
    np.testing.assert_allclose(y, [np.log(3), -INF, INF, NAN, NAN, NAN, 1e30, -1000 + np.log(4), 5], rtol=1e-6)
    expected = np.array(
        [
            [1 / 3, 1 / 3, 0, 1 / 3],
            [0, 0, 0, 0],
            [0.5, 0, 0, 0.5],
            [NAN] * 4,
            [NAN] * 4,
            [NAN] * 4,
            [0.5, 0, 0.5, 0],
            [0.25] * 4,
            [0, 1, 0, 0],
        ]
    )
    whole = [0, 1, 2, 7, 8]
    np.testing.assert_allclose(d[whole], (expected * np.arange(1, 10)[:, None])[whole], rtol=1e-5)
    assert np.isnan(d[[3, 4, 5]]).any(axis=1).all()
    assert y.dtype == d.dtype == dtype


def test_logsumexp_over_any_axes_and_of_nothing(backend):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    for axis in (0, 1, -1, (0, 2), (2, 0), None, ()):
        for keepdims in (False, True):
            y, d = value_and_gradient(ops.logsumexp, x, axis=axis, keepdims=keepdims)
            np.testing.assert_allclose(y, np.log(np.sum(np.exp(x), axis, keepdims=keepdims)))
            g = (1 + np.arange(y.size, dtype=float)).reshape(np.sum(x, axis, keepdims=True).shape)
            np.testing.assert_allclose(d, g * np.exp(x) / np.sum(np.exp(x), axis, keepdims=True))
    np.testing.assert_array_equal(ops.logsumexp(np.zeros((2, 0)), axis=1), [-INF, -INF])
    assert ops.logsumexp(np.zeros((0, 3)), axis=1).shape == (0,)
    assert ops.logsumexp(np.float32(2.0)).dtype == np.float32


# ---- largest and smallest


@pytest.mark.parametrize(("function", "sign"), [(ops.max, 1), (ops.min, -1)])
def test_ties_share_evenly_and_nan_propagates(function, sign, dtype):
    x = sign * np.array([[3, 1, 3], [0.0, -0.0, -1], [NAN, 1, NAN], [INF, -INF, INF], [-INF, -INF, -INF]], dtype)
    y, d = value_and_gradient(function, x, axis=1)
    np.testing.assert_array_equal(y, sign * np.array([3, 0, NAN, INF, -INF]))
    share = np.array([[0.5, 0, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(d, share * np.arange(1, 6)[:, None], rtol=1e-6)
    assert d.dtype == dtype


@pytest.mark.parametrize(("function", "name"), [(ops.max, "max"), (ops.min, "min")])
def test_nothing_to_choose_from(function, name):
    with pytest.raises(ValueError, match=rf"^{name}: there is nothing to choose from along axis 1 of shape \(2, 0\)"):
        function(np.zeros((2, 0)), axis=1)
    with pytest.raises(ValueError, match=f"^{name}: "):
        function(Tensor(np.zeros(0)))
    assert function(np.zeros((0, 3)), axis=1).shape == (0,)


# ---- moments


def test_moments_of_nothing_are_nan_without_a_warning():
    for function, kwargs in ((ops.mean, {}), (ops.var, {}), (ops.std, {}), (ops.var, {"correction": 1.0})):
        y, d = value_and_gradient(function, np.zeros((2, 0), np.float32), axis=1, **kwargs)
        assert np.isnan(y).all()
        assert d.shape == (2, 0)
    y, _ = value_and_gradient(ops.var, np.float32([[3.0]]), axis=1, correction=1)
    assert np.isnan(y).all()
    y, d = value_and_gradient(ops.mean, np.zeros((0, 3)), axis=1)
    assert y.shape == (0,)
    assert d.shape == (0, 3)


def test_variance_far_from_zero(dtype):
    """Deviations from the mean, not the mean of squares minus the squared mean."""
    x = (np.arange(1000) % 10 + 10_000).astype(dtype)
    np.testing.assert_allclose(ops.var(x), 8.25, rtol=1e-3 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(ops.std(x, correction=1), np.sqrt(8.25 * 1000 / 999), rtol=1e-3)


def test_moments_of_numbers_whose_sum_or_squares_overflow(dtype):
    """The same as of numbers a power of two smaller, to the bit; infinite only where the result itself is too large."""
    power = 2.0 ** (np.finfo(dtype).maxexp - 4)
    x = np.array([[15, 15, 15, 15], [1, -1, 0.5, 3], [15, -15, 15, -15], [2, 3, 5, 7]], dtype)
    huge = x * dtype(power)
    for kwargs in ({"axis": 1}, {"axis": 0}, {}, {"axis": 1, "keepdims": True}):
        np.testing.assert_array_equal(ops.mean(huge, **kwargs), ops.mean(x, **kwargs) * dtype(power))
        np.testing.assert_array_equal(ops.std(huge, **kwargs), ops.std(x, **kwargs) * dtype(power))
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(ops.var(huge, **kwargs), ops.var(x, **kwargs) * dtype(power) * dtype(power))
    mixed = np.concatenate([huge[1:2], x[1:2], np.full((1, 4), INF, dtype)])
    np.testing.assert_array_equal(ops.mean(mixed, axis=1), [ops.mean(huge[1]), ops.mean(x[1]), INF])
    np.testing.assert_array_equal(ops.std(mixed, axis=1), [ops.std(huge[1]), ops.std(x[1]), NAN])
    root = dtype(np.sqrt(np.finfo(dtype).max) * 0.9)  # squares that are finite, with a sum that is not
    np.testing.assert_allclose(ops.var(np.array([root, -root] * 4)), root * root, rtol=1e-6)
    _, d = value_and_gradient(ops.std, huge[1] / 4)
    np.testing.assert_allclose(d, value_and_gradient(ops.std, x[1])[1], rtol=1e-5)


def test_infinite_and_missing_numbers(dtype):
    x = np.array([[INF, 1], [NAN, 1], [INF, -INF]], dtype)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(ops.sum(x, axis=1), [INF, NAN, NAN])
        np.testing.assert_array_equal(ops.mean(x, axis=1), [INF, NAN, NAN])
        np.testing.assert_array_equal(ops.cumulative_sum(x, axis=1), [[INF, INF], [NAN, NAN], [INF, NAN]])
    assert np.isnan(ops.var(x, axis=1)).all()
    assert np.isnan(ops.std(x, axis=1)).all()


# ---- sums


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((200, 7, 5, 16), (0, 1, 2)),
        ((200, 7, 5, 16), (0, 1)),
        ((40, 31, 33), 1),
        ((40, 31, 33), (-2,)),
        ((40, 31, 33), (2, 1)),
        ((40, 31, 33), (0, 2)),
        ((40, 31, 33), ()),
        ((40, 31, 33), None),
        ((999, 15, 3), (1, 0)),
        ((40_000, 1), 0),
        ((3, 20_000, 1, 1), (0, 1)),
    ],
)
def test_large_sums(shape, axis, backend, dtype):
    """Large arrays take a kernel for leading axes, which must round less than NumPy's plain addition of rows."""
    x = np.random.default_rng(0).random(shape, dtype)
    exact = np.sum(x, axis=axis, dtype=np.float64)
    y, d = value_and_gradient(ops.sum, x, axis=axis)
    np.testing.assert_allclose(y, exact, rtol=1e-6 if backend == "numba" else 1e-4)
    g = (1 + np.arange(y.size, dtype=dtype)).reshape(np.sum(x, axis, keepdims=True).shape)
    np.testing.assert_array_equal(d, np.broadcast_to(g, shape))
    assert ops.sum(x, axis, keepdims=True).shape == g.shape
    np.testing.assert_allclose(ops.mean(x, axis), exact * y.size / x.size, rtol=1e-6 if backend == "numba" else 1e-4)
    assert y.dtype == dtype


def test_large_sums_of_other_layouts_and_integers():
    x = np.random.default_rng(0).random((40, 30, 33))
    for view in (x[::-1], x.transpose(2, 0, 1), x[:, :, ::2], np.asfortranarray(x)):
        np.testing.assert_allclose(ops.sum(view, axis=(0, 1)), np.sum(view, axis=(0, 1)))
    counts = np.ones((4000, 10), np.int32)
    np.testing.assert_array_equal(ops.sum(counts, axis=0), np.full(10, 4000))
    assert ops.sum(counts, axis=0).dtype == np.int64


# ---- cumulative_sum


def test_cumulative_sum_with_and_without_the_empty_one():
    x = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    y, d = value_and_gradient(ops.cumulative_sum, x, axis=1)
    np.testing.assert_array_equal(y, [[1, 3, 7], [8, 24, 56]])
    np.testing.assert_array_equal(d, [[6, 5, 3], [15, 11, 6]])
    y, d = value_and_gradient(ops.cumulative_sum, x, axis=-1, include_initial=True)
    np.testing.assert_array_equal(y, [[0, 1, 3, 7], [0, 8, 24, 56]])
    np.testing.assert_array_equal(d, [[9, 7, 4], [21, 15, 8]])
    np.testing.assert_array_equal(ops.cumulative_sum(np.zeros((0, 2)), axis=0, include_initial=True), [[0, 0]])


# ---- refusals


@pytest.mark.parametrize("function", [ops.sum, ops.mean, ops.var, ops.std, ops.max, ops.min, ops.logsumexp])
@pytest.mark.parametrize("shape", [(3, 4), (300, 400)])
def test_impossible_axes(function, shape):
    x = np.ones(shape, np.float32)
    with pytest.raises(ValueError, match=r"axis 2 is out of bounds|axis -3 is out of bounds"):
        function(x, axis=2)
    with pytest.raises(ValueError, match="out of bounds"):
        function(x, axis=(0, -3))
    with pytest.raises(ValueError, match=r"twice|duplicate"):
        function(x, axis=(1, -1))


def test_cumulative_sum_needs_an_axis():
    with pytest.raises(ValueError, match=r"cumulative_sum.*an axis is needed for an array of shape \(2, 3\)"):
        ops.cumulative_sum(np.ones((2, 3)))
    with pytest.raises(ValueError, match="out of bounds"):
        ops.cumulative_sum(np.ones((2, 3)), axis=2)
