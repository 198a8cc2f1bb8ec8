"""Elementwise ops and activations: values and gradients at extreme numbers, conventions, refusals. Start at `FUNCTIONS`.

What holds at ordinary numbers is tested for all ops alike, from their cards.
"""

import numpy as np
import pytest
from scipy import special

from minigen.autograd import Tensor, grad, set_backend
from minigen.autograd.ops import activation, elementwise
from minigen.autograd.ops.activation import elu, gelu, leaky_relu, log_sigmoid, relu, sigmoid, silu, softplus
from minigen.autograd.ops.elementwise import (
    astype,
    chain,
    chain_divide,
    clip,
    divide,
    exp,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    pow,
    sqrt,
    tanh,
    where,
)

INF, NAN = np.inf, np.nan


@pytest.fixture(params=["numba", "numpy"])
def backend(request):
    with set_backend(request.param):
        yield request.param


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return request.param


def value_and_gradients(function, *inputs, g=None, create_graph=False, dtype=np.float64):
    """The value, and the gradient of every input contracted with g (ones if None), as arrays."""
    tensors = [Tensor(np.array(x, dtype), requires_grad=True) for x in inputs]
    y = function(*tensors)
    gradients = grad(y, tensors, np.ones(y.shape, dtype) if g is None else np.asarray(g, dtype), create_graph=create_graph)
    return y.data, *[d.data for d in gradients]


# ---- one input: the mathematical limit, everywhere


def logistic(x):
    return special.expit(x)


def density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def gelu_tanh_slope(x):
    u, slope = 0.7978845608028654 * (x + 0.044715 * x**3), 0.7978845608028654 * (1 + 3 * 0.044715 * x**2)
    return logistic(2 * u) * (1 + 2 * x * slope * logistic(-2 * u))


# name: function, f(x) and f'(x) at finite x, then the limits f(-inf), f(inf), f'(-inf), f'(inf)
FUNCTIONS = {
    "negative": (elementwise.negative, np.negative, lambda x: -1 + 0 * x, (INF, -INF, -1, -1)),
    "square": (elementwise.square, np.square, lambda x: 2 * x, (INF, INF, -INF, INF)),
    "sqrt": (sqrt, np.sqrt, lambda x: 0.5 / np.sqrt(x), (NAN, INF, NAN, 0)),
    "abs": (elementwise.abs, np.abs, np.sign, (INF, INF, -1, 1)),
    "exp": (exp, np.exp, np.exp, (0, INF, 0, INF)),
    "expm1": (elementwise.expm1, np.expm1, np.exp, (-1, INF, 0, INF)),
    "log": (log, np.log, lambda x: 1 / x, (NAN, INF, NAN, 0)),
    "log1p": (log1p, np.log1p, lambda x: 1 / (1 + x), (NAN, INF, NAN, 0)),
    "sin": (elementwise.sin, np.sin, np.cos, (NAN, NAN, NAN, NAN)),
    "cos": (elementwise.cos, np.cos, lambda x: -np.sin(x), (NAN, NAN, NAN, NAN)),
    "tanh": (tanh, np.tanh, lambda x: 4 * logistic(2 * x) * logistic(-2 * x), (-1, 1, 0, 0)),
    "erf": (elementwise.erf, special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x), (-1, 1, 0, 0)),
    "sigmoid": (sigmoid, logistic, lambda x: logistic(x) * logistic(-x), (0, 1, 0, 0)),
    "log_sigmoid": (log_sigmoid, special.log_expit, lambda x: logistic(-x), (-INF, 0, 1, 0)),
    "softplus": (softplus, lambda x: -special.log_expit(-x), logistic, (0, INF, 0, 1)),
    "relu": (relu, lambda x: np.where(x > 0, x, 0), lambda x: 1.0 * (x > 0), (0, INF, 0, 1)),
    "leaky_relu": (
        leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01), (-INF, INF, 0.01, 1),
    ),
    "elu": (elu, lambda x: np.where(x > 0, x, np.expm1(x)), lambda x: np.where(x > 0, 1, np.exp(x)), (-1, INF, 0, 1)),
    "silu": (
        silu, lambda x: x * logistic(x), lambda x: logistic(x) + x * logistic(x) * logistic(-x), (0, INF, 0, 1),
    ),
    "gelu": (gelu, lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * density(x), (0, INF, 0, 1)),
    "gelu_tanh": (
        lambda x: gelu(x, approximate="tanh"),
        lambda x: x * logistic(2 * 0.7978845608028654 * (x + 0.044715 * x**3)),
        lambda x: np.where(np.abs(x) > 1e3, x > 0, gelu_tanh_slope(x)),
        (0, INF, 0, 1),
    ),
}

FINITE = [104.0, 89.0, 88.0, 20.0, 1.5, 1e-8]


def extreme_numbers(dtype):
    largest, tiny = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    positive = [INF, largest, *FINITE, tiny]
    return np.array([NAN, *positive, *[-x for x in positive], 0.0], dtype)  # 20: whole vectors, and single ones after


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
@np.errstate(all="ignore")
def test_value_and_gradient_are_the_mathematical_limit(name, create_graph, backend, dtype):
    function, value, slope, (low, high, slope_low, slope_high) = FUNCTIONS[name]
    x = extreme_numbers(dtype)
    exact = x.astype(np.float64)
    expected = np.select([np.isnan(x), x == INF, x == -INF], [NAN, high, low], value(exact))
    expected_slope = np.select([np.isnan(x), x == INF, x == -INF], [NAN, slope_high, slope_low], slope(exact))
    inside = ~np.isnan(expected)  # of the function's domain
    for order in (slice(None), slice(None, None, -1)):
        y, d = value_and_gradients(function, x[order], create_graph=create_graph, dtype=dtype)
        check(y, expected[order], dtype, name)
        check(d[inside[order]], expected_slope[order][inside[order]], dtype, f"{name}'")


def check(got, exact, dtype, what):
    """Within 8 roundings; in the tails of e^(-x²), which multiplies those of x² by x², within 512 (x is -20 at most there);
    for a derivative computed as 1 - y, within 2 roundings of 1."""
    exact = exact.astype(dtype)
    roundings = 512 if what.startswith(("erf", "gelu")) else 8
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    eps = np.finfo(dtype).eps
    atol = 2 * eps if what in ("tanh'", "sigmoid'", "elu'") else float(np.finfo(dtype).smallest_normal)
    with np.errstate(invalid="ignore", over="ignore"):
        close = np.abs(got.astype(np.float64) - exact) <= roundings * eps * np.abs(exact.astype(np.float64)) + atol
    wrong = ~(same | close)
    assert got.dtype == dtype
    assert not wrong.any(), f"{what}: got {got[wrong]}, expected {exact[wrong]}"


# name: f''(x) at finite x, f''(-inf), f''(inf); 0 everywhere for the names that are left out
SECOND_DERIVATIVES = {
    "square": (lambda x: 2 + 0 * x, 2, 2),
    "sqrt": (lambda x: -0.25 * x**-1.5, NAN, 0),
    "exp": (np.exp, 0, INF),
    "expm1": (np.exp, 0, INF),
    "log": (lambda x: -(x**-2.0), NAN, 0),
    "log1p": (lambda x: -((1 + x) ** -2.0), NAN, 0),
    "sin": (lambda x: -np.sin(x), NAN, NAN),
    "cos": (lambda x: -np.cos(x), NAN, NAN),
    "tanh": (lambda x: -8 * np.tanh(x) * logistic(2 * x) * logistic(-2 * x), 0, 0),
    "erf": (lambda x: -4 / np.sqrt(np.pi) * np.clip(x, -99, 99) * np.exp(-x * x), 0, 0),
    "sigmoid": (lambda x: -logistic(x) * logistic(-x) * np.tanh(x / 2), 0, 0),
    "log_sigmoid": (lambda x: -logistic(x) * logistic(-x), 0, 0),
    "softplus": (lambda x: logistic(x) * logistic(-x), 0, 0),
    "elu": (lambda x: np.where(x > 0, 0, np.exp(x)), 0, 0),
    "silu": (lambda x: logistic(x) * logistic(-x) * (2 - np.clip(x, -999, 999) * np.tanh(x / 2)), 0, 0),
    "gelu": (lambda x: (2 - np.clip(x, -99, 99) ** 2) * density(x), 0, 0),
    "gelu_tanh": (lambda x: np.where(np.abs(x) < 20, (2 - np.clip(x, -99, 99) ** 2) * density(x), 0), 0, 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@np.errstate(all="ignore")
def test_second_derivative_is_the_mathematical_limit(name, backend, dtype):
    exact_second, low, high = SECOND_DERIVATIVES.get(name, (lambda x: 0 * x, 0, 0))
    x = extreme_numbers(dtype)
    exact = x.astype(np.float64)
    expected = np.select([np.isnan(x), x == INF, x == -INF], [NAN, high, low], exact_second(exact)).astype(dtype)
    known = ~np.isnan(expected)  # inside the function's domain
    leaf = Tensor(x, requires_grad=True)
    first = grad(FUNCTIONS[name][0](leaf), leaf, np.ones_like(x), create_graph=True)
    again = grad(first, leaf, np.ones_like(x), allow_unused=True) if first.node is not None else None
    second = np.zeros_like(x) if again is None else again.data
    assert second.dtype == dtype
    np.testing.assert_array_equal(np.isinf(second[known]), np.isinf(expected[known]))
    tolerance = 4e-3 if name == "gelu_tanh" else 32 * np.finfo(dtype).eps  # (that one against the exact gelu)
    np.testing.assert_allclose(second[known], expected[known], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_cotangent_of_zero_gives_zero_at_every_number(name, backend, dtype):
    x = extreme_numbers(dtype)
    x = x[np.isfinite(x)]
    _, d = value_and_gradients(FUNCTIONS[name][0], x, g=np.zeros_like(x), dtype=dtype)
    np.testing.assert_array_equal(d, 0)


# ---- two inputs

MAX = float(np.finfo(np.float32).max)

# function, x1, x2, value, gradient with respect to x1 and to x2
PAIRS = [
    (divide, 1, 0.0, INF, INF, -INF),
    (divide, 1, -0.0, -INF, -INF, -INF),
    (divide, 0, 2, 0, 0.5, 0),
    (divide, 0, 0, NAN, INF, NAN),
    (divide, 3, INF, 0, 0, 0),
    (divide, INF, 2, INF, 0.5, -INF),
    (divide, 1e-30, 1e-30, 1, 1e30, -1e30),
    (divide, 1e30, 1e-30, INF, 1e30, -INF),
    (divide, NAN, 1, NAN, 1, NAN),
    (divide, 1, NAN, NAN, NAN, NAN),
    (pow, -2, 3, -8, 12, NAN),  # no real power of a negative number near an integer one
    (pow, -2, 2.5, NAN, NAN, NAN),
    (pow, 0, 3, 0, 0, 0),
    (pow, 0, 1, 0, 1, 0),
    (pow, 0, 0.5, 0, INF, 0),
    (pow, 0, 0, 1, 0, 0),
    (pow, 0, -1, INF, -INF, -INF),
    (pow, 2, 0, 1, 0, np.log(2)),
    (pow, 1, 5, 1, 5, 0),
    (pow, INF, 2, INF, INF, INF),
    (pow, INF, -1, 0, 0, 0),
    (pow, MAX, 2, INF, 2 * MAX, INF),
    (pow, NAN, 2, NAN, NAN, NAN),
    (pow, 2, NAN, NAN, NAN, NAN),
    (maximum, 1, 2, 2, 0, 1),
    (maximum, -INF, INF, INF, 0, 1),
    (maximum, INF, INF, INF, 0.5, 0.5),
    (maximum, 0.0, -0.0, 0, 0.5, 0.5),
    (maximum, NAN, 1, NAN, 1, 1),
    (minimum, 1, 2, 1, 1, 0),
    (minimum, -INF, INF, -INF, 1, 0),
    (minimum, -MAX, -MAX, -MAX, 0.5, 0.5),
    (minimum, 1, NAN, NAN, 1, 1),
    (multiply, INF, 2, INF, 2, INF),
    (multiply, INF, 0, NAN, 0, INF),
    (multiply, NAN, 1, NAN, 1, NAN),
    (elementwise.add, MAX, MAX, 2 * MAX, 1, 1),
    (elementwise.add, INF, -INF, NAN, 1, 1),
    (elementwise.subtract, INF, INF, NAN, 1, -1),
    (elementwise.subtract, -MAX, 1, -MAX, 1, -1),
]


@pytest.mark.parametrize(("function", "x1", "x2", "value", "d1", "d2"), PAIRS, ids=lambda v: getattr(v, "name", v))
@np.errstate(all="ignore")
def test_two_inputs_at_extreme_numbers(function, x1, x2, value, d1, d2, backend, dtype):
    alone = value_and_gradients(function, x1, x2, dtype=dtype)
    among_others = value_and_gradients(function, [1.0, x1, 1.0], [2.0, x2, 2.0], dtype=dtype)
    for got in (alone, [v[1] for v in among_others]):
        for v, exact in zip(got, (value, d1, d2), strict=True):
            check(np.asarray(v), np.asarray(exact, np.float64), dtype, function.name)
    if function in (divide, pow):  # where the cotangent is 0 nothing is added to what x2, which is broadcast, receives
        _, _, d = value_and_gradients(function, [x1] * 3, x2, g=[0, 1, 0], dtype=dtype)
        check(d, np.asarray(d2, np.float64), dtype, function.name)


@pytest.mark.parametrize("function", [divide, pow])
def test_a_cotangent_of_zero_gives_zero_for_two_inputs(function, backend, dtype):
    x1, x2 = np.meshgrid([0.0, -0.0, 2.0, -2.0, 1e30], [0.0, -1.0, 0.5, 3.0, 1e-30])
    _, d1, d2 = value_and_gradients(function, x1, x2, g=np.zeros(x1.shape), dtype=dtype)
    np.testing.assert_array_equal(d1, 0)
    np.testing.assert_array_equal(d2[np.isfinite(d2)], 0)
    assert np.isfinite(d2).all()


# ---- the branch not taken


@pytest.mark.parametrize(
    ("function", "x", "taken"),
    [
        (log, [0.0, -1.0, 4.0], lambda x: x > 0),
        (sqrt, [0.0, -1.0, 4.0], lambda x: x > 0),
        (exp, [1e4, 0.0, 1.0], lambda x: x < 10),
        (lambda x: 1 / x, [0.0, 1.0, 2.0], lambda x: x > 0),
        (lambda x: x**-0.5, [0.0, -1.0, 4.0], lambda x: x > 0),
        (lambda x: log1p(x) / x, [0.0, -1.0, 1.0], lambda x: x > 0),
    ],
    ids=["log", "sqrt", "exp", "divide", "pow", "log1p/x"],
)
def test_where_passes_nothing_into_the_branch_not_taken(function, x, taken, backend, dtype):
    x = np.array(x, dtype)
    chosen = taken(x)

    def safe(t):
        return where(taken(t), function(t), 0.0)

    y, d = value_and_gradients(safe, x, dtype=dtype)
    y_there, d_there = value_and_gradients(function, x[chosen], dtype=dtype)
    np.testing.assert_array_equal(d[~chosen], 0)
    np.testing.assert_array_equal(y[~chosen], 0)
    np.testing.assert_allclose(d[chosen], d_there)
    np.testing.assert_allclose(y[chosen], y_there)

    t = Tensor(x, requires_grad=True)
    (first,) = grad([safe(t)], [t], [np.ones_like(x)], create_graph=True)
    second = grad([first], [t], [np.ones_like(x)])[0].data
    np.testing.assert_array_equal(second[~chosen], 0)
    assert np.isfinite(second).all()
    assert (second[chosen] != 0).all()


def test_where_refuses_a_condition_of_numbers():
    with pytest.raises(TypeError, match=r"where.*must be boolean: compare"):
        where(np.array([1.0, 0.0]), 1.0, 2.0)


def test_where_takes_numbers_tensors_and_broadcasts():
    condition = Tensor(np.array([True, False]))
    x = Tensor(np.float32([[1.0], [2.0]]), requires_grad=True)
    y = where(condition, x, 5.0)
    np.testing.assert_array_equal(y.data, [[1, 5], [2, 5]])
    assert y.dtype == np.float32
    np.testing.assert_array_equal(grad(y.sum(), x).data, [[1], [1]])
    assert where(True, 1.0, 2.0) == 1.0


# ---- the chain rule's zero


def test_zero_times_anything_is_zero(backend, dtype):
    g = np.array([0, 0, -0.0, 2, 0, NAN], dtype)
    d = np.array([INF, NAN, 3, INF, 0, 1], dtype)
    np.testing.assert_array_equal(chain(g, d), np.array([0, 0, 0, INF, 0, NAN]))
    np.testing.assert_array_equal(chain_divide(g, d), np.array([0, 0, 0, 0, 0, NAN]))


def test_chain_broadcasts_and_takes_numbers(backend):
    g = np.float32([[0, 1], [2, 0]])
    d = np.float32([INF, 4])
    np.testing.assert_array_equal(chain(g, d), [[0, 4], [INF, 0]])
    np.testing.assert_array_equal(chain(g, np.float32([3, 4])), [[0, 4], [6, 0]])
    np.testing.assert_array_equal(chain(2.0, d), [INF, 8])
    np.testing.assert_array_equal(chain(0.0, d), [0, 0])
    np.testing.assert_array_equal(chain_divide(g, np.float32([0, 4])), [[0, 0.25], [INF, 0]])
    np.testing.assert_array_equal(chain_divide(g, 2.0), g / 2)
    np.testing.assert_array_equal(chain_divide(g, 0.0), [[0, INF], [INF, 0]])
    assert all(r.dtype == np.float32 for r in (chain(g, d), chain(2.0, d), chain_divide(g, d), chain_divide(g, 0.0)))


def test_second_derivatives_of_the_chain_rule_stop_at_zero_too():
    for op_, slope_g in ((chain, 5.0), (chain_divide, 0.2)):
        g = Tensor(np.array([0.0, 3.0]), requires_grad=True)
        d = Tensor(np.array([5.0, 5.0]), requires_grad=True)
        by_g, by_d = grad(op_(g, d).sum(), [g, d])
        np.testing.assert_allclose(by_g.data, [slope_g, slope_g])
        np.testing.assert_allclose(by_d.data, [0.0, 3.0 if op_ is chain else -3 / 25])


# ---- powers


def test_whole_powers_of_negative_numbers():
    x = np.array([-3.0, -0.5, 2.0])
    for n in (2, 3, -1, -2, 1, 0):
        y, d = value_and_gradients(lambda t, n=n: t**n, x)
        np.testing.assert_allclose(y, x ** float(n))
        np.testing.assert_allclose(d, n * x ** float(n - 1))


@pytest.mark.parametrize("base", [2, 2.0, 0, 1])
def test_powers_of_a_number_keep_the_dtype(base):
    y, d = value_and_gradients(lambda t: base**t, np.float32([1, 3]), dtype=np.float32)
    np.testing.assert_allclose(y, np.float32([base, base**3]))
    np.testing.assert_allclose(d, y * np.log(base) if base else [0, 0], rtol=1e-6)
    assert y.dtype == d.dtype == np.float32


# ---- clip, astype


def test_clip_without_bounds_and_with_arrays():
    x = [-2.0, 0.0, 2.0]
    for low, high, expected in ((None, None, [1, 1, 1]), (-1, None, [0, 1, 1]), (None, 1.0, [1, 1, 0])):
        y, d = value_and_gradients(lambda t, low=low, high=high: clip(t, low, high), x)
        np.testing.assert_array_equal(d, expected)
    y, d = value_and_gradients(lambda t: clip(t, min=np.array([-3.0, 1.0, 2.0]), max=5.0), x)
    np.testing.assert_array_equal(y, [-2, 1, 2])
    np.testing.assert_array_equal(d, [1, 0, 1])
    assert np.isnan(clip(np.array([NAN]), 0, 1)).all()


def test_astype_converts_and_converts_the_gradient_back():
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    y = astype(x, np.float64)
    assert y.dtype == np.float64
    d = grad((y * y).sum(), x)
    assert d.dtype == np.float32
    np.testing.assert_array_equal(d.data, [2, 4])


# ---- activations


def test_log_sigmoid_and_softplus_are_one_function():
    x = np.linspace(-5, 5, 21)
    np.testing.assert_array_equal(log_sigmoid(x), -softplus(-x))
    np.testing.assert_allclose(np.exp(log_sigmoid(x)), sigmoid(x))
    np.testing.assert_allclose(softplus(x, beta=2.0), softplus(2 * x) / 2)


def test_a_slope_of_zero_is_relu(backend, dtype):
    x = extreme_numbers(dtype)
    np.testing.assert_array_equal(leaky_relu(x, negative_slope=0.0), relu(x))
    np.testing.assert_array_equal(leaky_relu(x, negative_slope=0), relu(x))


def test_second_derivatives_at_the_kinks_of_smooth_functions():
    """softplus and silu are smooth at 0, where their pieces meet."""
    for function, second in ((softplus, 0.25), (silu, 0.5), (gelu, 2 / np.sqrt(2 * np.pi)), (log_sigmoid, -0.25)):
        x = Tensor(np.zeros(3), requires_grad=True)
        first = grad(function(x).sum(), x, create_graph=True)
        np.testing.assert_allclose(grad(first.sum(), x).data, second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: softplus(x, beta=0), "softplus.*beta must not be 0"),
        (lambda x: leaky_relu(x, -0.1), "leaky_relu.*negative_slope must be at least 0, not -0.1"),
        (lambda x: elu(x, alpha=NAN), "elu.*alpha must be at least 0, not nan"),
        (lambda x: gelu(x, approximate="yes"), "gelu.*'none' or 'tanh', not 'yes'"),
    ],
)
def test_impossible_parameters(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones(2))


def test_numbers_that_are_not_floating_are_refused_by_name():
    with pytest.raises(TypeError, match="silu works on float32 and float64, not on int64: convert with astype"):
        silu(np.arange(3))
    with pytest.raises(TypeError, match=r'exp works on .* set_backend\("numpy"\)'):
        exp(np.array([1j]))


def test_every_public_op_has_its_row_in_a_table():
    """So that a new one cannot be forgotten here."""
    helpers = {"chain", "chain_divide", "where", "clip", "astype"}
    ops = {v for m in (elementwise, activation) for v in vars(m).values() if type(v).__name__ == "Op"}
    names = {o.name for o in ops if not o.name.endswith("_vjp") and o.name != "sign"}
    assert names == (set(FUNCTIONS) - {"gelu_tanh", "log_sigmoid"}) | {row[0].name for row in PAIRS} | helpers
