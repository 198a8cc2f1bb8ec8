"""The gradient checker is checked: it passes what is right, finds what is wrong, and says where."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import numpy as np
import pytest

from minigen import Tensor, grad, ops
from minigen.autograd import tape
from minigen.autograd.cards import CARDS, Draw, OpCard
from minigen.autograd.gradcheck import GradcheckError, check_all, check_op, gradcheck
from minigen.autograd.tape import Array, op

gradcheck_module = importlib.import_module("minigen.autograd.gradcheck")  # the package shows the function of that name


@pytest.fixture(autouse=True)
def temporary_ops():
    """Ops and cards that a test defines are forgotten after it."""
    before, cards = dict(tape.OPS), dict(CARDS)
    yield
    for table, old in ((tape.OPS, before), (CARDS, cards)):
        table.clear()
        table.update(old)


X = np.array([[0.3, -1.2, 0.7], [1.1, 0.4, -0.6]])
Y = np.array([0.9, -0.5, 1.3])


def cubed(rule: Callable) -> Callable:
    """x³, with the given gradient rule."""
    tape.OPS.pop("cubed", None)

    @op
    def _cubed(x: Array) -> Array:
        return x * x * x

    _cubed.vjp(x=rule)
    return _cubed


def right(g, x):
    return 3.0 * g * x * x


# ---- what is right passes


@pytest.mark.parametrize("analytic", [True, False])
def test_right_gradients_pass(analytic: bool) -> None:
    report = gradcheck(lambda x, y: ops.tanh(x * y) * x - y, [X, Y], analytic=analytic, order=3)
    assert set(report.errors) == {"order 1", "order 2", "order 3", "symmetry"}
    assert max(report.errors.values()) < (1e-13 if analytic else 1e-9)
    assert report.live == (True, True)
    assert report.entries > 9


def test_the_rule_of_a_cube_passes_both_ways() -> None:
    for analytic in (True, False):
        gradcheck(cubed(right), X, analytic=analytic)


def test_tensors_integers_scalars_and_several_outputs() -> None:
    index = np.array([2, 0])

    def function(x: Tensor, i: np.ndarray) -> tuple[Tensor, Tensor]:
        assert i is index, "integers are passed on as they are"
        return ops.tanh(x), ops.sum(x)

    assert gradcheck(function, [Tensor(X), index], analytic=True).live == (True,)
    assert gradcheck(lambda x: x * x, np.float64(0.5).reshape(()), analytic=True).entries > 0


def test_an_output_that_does_not_depend_on_the_input() -> None:
    report = gradcheck(lambda x: (x * x, Tensor(np.ones(2))), X, analytic=True)
    assert report.live == (True,)
    assert gradcheck(lambda x, y: x * 2.0, [X, Y]).live == (True, False)


def test_functions_of_several_scales() -> None:
    """Errors are relative: tiny and huge gradients are checked alike."""
    for scale in (1e-12, 1.0, 1e12):
        gradcheck(lambda x, scale=scale: ops.tanh(x) * scale, X)
        with pytest.raises(GradcheckError):
            gradcheck(lambda x, scale=scale: cubed(lambda g, x: -right(g, x))(x) * scale, X)


def test_empty_inputs_prove_nothing_and_say_so() -> None:
    report = gradcheck(lambda x: ops.tanh(x), np.zeros((0, 3)))
    assert report.entries == 0
    assert report.live == (False,)


# ---- what is wrong is found

WRONG: dict[str, Callable] = {
    "sign": lambda g, x: -right(g, x),
    "cotangent dropped": lambda g, x: 3.0 * x * x,
    "factor forgotten": lambda g, x: 3.0 * g * x,
    "relative error 1e-5": lambda g, x: right(g, x) * (1 + 1e-5),
    "relative error 1e-6": lambda g, x: right(g, x) * (1 - 1e-6),
    "one entry off": lambda g, x: right(g, x) + g * np.eye(2, 3) * 1e-5,
    "rows exchanged": lambda g, x: right(ops.reshape(ops.reshape(g, (3, 2)), (2, 3)), x) * np.array([[1.0], [0.0]]),
    "zero": lambda g, x: 0.0 * g,
}


@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.parametrize("fault", WRONG)
def test_wrong_rules_are_found(fault: str, analytic: bool) -> None:
    with pytest.raises(GradcheckError, match=r"order 1, input 0: relative error \S+ \(allowed") as caught:
        gradcheck(cubed(WRONG[fault]), X, analytic=analytic)
    error = caught.value
    assert (error.order, error.input) == (1, "input 0")
    assert error.error > 1e-7
    assert error.claimed != error.numerical


@pytest.mark.parametrize("analytic", [True, False])
def test_an_error_of_1e_5_is_always_found(analytic: bool) -> None:
    """Whatever the random directions and cotangents are."""
    faulty = cubed(WRONG["relative error 1e-5"])
    for seed in range(100):
        x = np.random.default_rng(seed).normal(size=(1 + seed % 4, 3))
        with pytest.raises(GradcheckError):
            gradcheck(faulty, x, analytic=analytic, seed=seed, order=1)


def test_the_message_names_the_worst_entry() -> None:
    def rule(g: Array, x: Array) -> Array:
        return right(g, x) + np.array([[0, 0, 0], [0, 0.5, 0]])

    with pytest.raises(GradcheckError, match=r"the worst entry is \[1, 1\], .* instead of"):
        gradcheck(cubed(rule), X)


def test_the_faulty_input_is_named() -> None:
    @op
    def _product(x: Array, y: Array) -> Array:
        return x * y

    _product.vjp(x=lambda g, y: g * y, y=lambda g, x: g * x * 1.001)
    with pytest.raises(GradcheckError, match="order 1, input 1"):
        gradcheck(_product, [X, X + 2], analytic=True)


@pytest.mark.parametrize("analytic", [True, False])
def test_wrong_second_derivatives_are_found(analytic: bool) -> None:
    """The first order is right; its gradient forgets that x is a variable, or is off by 1e-5."""

    @op
    def _triple_square(x: Array) -> Array:  # 3 x²
        return 3.0 * x * x

    def constant(x: Array) -> Array:
        return x.data if isinstance(x, Tensor) else x

    with pytest.raises(GradcheckError, match="order 2, input 0"):
        gradcheck(cubed(lambda g, x: 3.0 * g * constant(x) * constant(x)), X, analytic=analytic)
    _triple_square.vjp(x=lambda g, x: 6.0 * g * x * (1 + 1e-5))
    faulty = cubed(lambda g, x: g * _triple_square(x))
    gradcheck(faulty, X, analytic=analytic, order=1)
    with pytest.raises(GradcheckError, match="order 2, input 0"):
        gradcheck(faulty, X, analytic=analytic)
    with pytest.raises(GradcheckError, match="order 2, the cotangent of output 0"):
        gradcheck(cubed(lambda g, x: 3.0 * constant(g) * x * x), X, analytic=analytic)


def test_a_recorded_gradient_that_differs_from_the_raw_one_is_found() -> None:
    faulty = cubed(lambda g, x: right(g, x) * (1 + 1e-6 if isinstance(g, Tensor) else 1))
    with pytest.raises(GradcheckError, match="order 2, gradient 0: recorded and not recorded differ"):
        gradcheck(faulty, X, analytic=True)


def test_the_hessian_must_be_symmetric() -> None:
    """Given a field that is no gradient of anything, F(x) = (x₁², x₀) say, the check of <v, H w> = <w, H v> fails."""
    x = gradcheck_module._leaf(np.array([0.3, 0.7]))

    @op
    def _reversed(x: Array) -> Array:
        return x[::-1].copy()

    _reversed.vjp(x=lambda g: _reversed(g))
    for field, symmetric in ((_reversed(x), True), (_reversed(x * np.array([1.0, 1.001])), False)):
        run = gradcheck_module._Run(np.random.default_rng(0), True, 1e-10)
        w = [np.array([0.9, -0.4])]
        hw = [d.data for d in grad([field], [x], w)]
        if symmetric:
            run._symmetry(2, [field], [x], hw, w)
            assert run.errors["symmetry"] < 1e-14
        else:
            with pytest.raises(GradcheckError, match=r"symmetry of the Hessian: <v, H w> = .* but <w, H v>"):
                run._symmetry(2, [field], [x], hw, w)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda x: cubed(lambda g, x: right(g, x) * math.nan)(x), "the gradient has 6 NaN and 0 Inf"),
        (lambda x: cubed(lambda g, x: right(g, x) * math.inf)(x), "the gradient has 0 NaN and 6 Inf"),
        (lambda x: x * np.where(X > 1, np.nan, 1.0), "the value has 1 NaN"),
    ],
)
def test_nan_and_inf_anywhere_are_failures(function: Callable, what: str) -> None:
    with pytest.raises(GradcheckError, match=what):
        gradcheck(function, X, order=1)


def test_misuse_is_explained() -> None:
    with pytest.raises(TypeError, match="input 0 is float32; use float64"):
        gradcheck(ops.tanh, X.astype(np.float32))
    with pytest.raises(TypeError, match=r"no input of float64 to differentiate by, only \['int64'\]"):
        gradcheck(ops.tanh, np.arange(3))
    with pytest.raises(TypeError, match="must return Tensors, not float"):
        gradcheck(lambda x: [1.0], X)


def test_inputs_are_left_as_they_were() -> None:
    x = X.copy()
    gradcheck(ops.tanh, x)
    np.testing.assert_array_equal(x, X)


# ---- from cards


def card(name: str, function: Callable, sample: Callable, wrt: tuple = (0,)) -> OpCard:
    return OpCard(name, function, sample, wrt, reference=lambda x: x**3)


def numbers(draw: Draw) -> tuple:
    return (draw.floats((2, 3)),), {}


def test_check_all_prints_a_line_per_op_and_returns_the_failures() -> None:
    good = cubed(right)
    bad = cubed(WRONG["sign"])
    CARDS.clear()
    card("good", good, numbers)
    card("bad", bad, numbers)
    card("empty", good, lambda draw: ((draw.floats((0, 2)),), {}))
    card("none", good, numbers, wrt=())
    lines: list[str] = []
    failures = check_all(examples=3, print=lines.append)
    assert set(failures) == {"bad", "empty"}
    text = "\n".join(lines)
    assert "WRONG: order 1, input 0: relative error 2.0e+00" in text
    assert "in all 3 examples empty, or of gradient zero" in text
    assert "none                                 no gradient" in text
    assert "complex step" in text
    assert lines[-1] == "2 of 4 ops have the right gradients"
    assert check_all(["good"], examples=2, print=lines.append) == {}


def test_an_unknown_op_is_named_with_its_neighbours() -> None:
    card("softmax_test", cubed(right), numbers)
    with pytest.raises(ValueError, match="no op called 'softmax_tset'; did you mean softmax_test"):
        check_all(["softmax_tset"])
    with pytest.raises(ValueError, match="no op called 'qqq'; choose among"):
        check_op("qqq", Draw(lambda low, high: low))
