"""The engine's behaviour: gradients of any order, un-broadcasting, dtypes, recording, backward(). Start at the top.

What is refused: test_engine_refusals.py. Fused ops and ops with several results: test_engine_fused.py. Memory and depth:
test_engine_memory.py.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from engine_helpers import leaf, recorded_ops, scalar, temporary_ops  # noqa: F401 - a fixture

from minigen import Tensor, enable_grad, grad, no_grad, ops
from minigen.autograd import tape
from minigen.autograd.tape import Array, op

# ---- values of gradients


def test_gradient_by_hand() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 5.0)
    gx, gy = grad((x * y + ops.tanh(x)).sum(), [x, y])
    np.testing.assert_allclose(gx.data, y.data + 1 - np.tanh(x.data) ** 2, rtol=1e-15)
    np.testing.assert_array_equal(gy.data, x.data)
    assert isinstance(grad((x * y).sum(), x), Tensor), "a single Tensor gives a single Tensor"


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_powers_to_any_order(order: int) -> None:
    x = scalar(1.5)
    d = x * x * x * x
    for _ in range(order):
        d = grad(d, x, create_graph=True) if d.node is not None else Tensor(np.zeros(()))
    np.testing.assert_allclose(d.data, [4 * 1.5**3, 12 * 1.5**2, 24 * 1.5, 24, 0][order - 1], rtol=1e-14)


def test_tanh_to_order_four() -> None:
    x, t = scalar(0.7), np.tanh(0.7)
    s = 1 - t * t
    expected = [s, -2 * t * s, s * (6 * t * t - 2), s * t * (16 - 24 * t * t)]
    d = ops.tanh(x)
    for value in expected:
        d = grad(d, x, create_graph=True)
        np.testing.assert_allclose(d.data, value, rtol=1e-13)


def test_mixed_second_derivative_of_a_gradient_penalty() -> None:
    """p = |∂(w x²)/∂x|² = 4 w² x², so ∂p/∂w = 8 w x²."""
    w, x = scalar(3.0), scalar(0.5)
    g = grad(w * x * x, x, create_graph=True)
    assert grad(g * g, w).item() == pytest.approx(8 * 3.0 * 0.25, rel=1e-15)


def test_an_input_used_many_times_receives_the_sum() -> None:
    x = leaf(2.0, -1.0)
    y = x + x
    y = y * y + x * 3.0 - x
    np.testing.assert_allclose(grad(y.sum(), x).data, 8 * x.data + 2, rtol=1e-15)


def test_a_gradient_shared_by_two_inputs_is_not_written_to() -> None:
    """The rule of add hands one array to both inputs; adding to one of them must not change the other."""
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    total = (x + y).sum() + (x * 10.0).sum() + (x * 100.0).sum()
    gx, gy = grad(total, [x, y])
    np.testing.assert_array_equal(gx.data, [111.0, 111.0])
    np.testing.assert_array_equal(gy.data, [1.0, 1.0])


def test_grad_outputs_are_never_changed() -> None:
    x, g = leaf(1.0, 2.0), np.array([1.0, 10.0])
    np.testing.assert_array_equal(grad(x + x + x, x, g).data, [3.0, 30.0])
    np.testing.assert_array_equal(g, [1.0, 10.0])


def test_gradient_at_an_intermediate_result_and_of_an_output_by_itself() -> None:
    x = leaf(1.0, 2.0)
    h = x * 2.0
    y = (h * h).sum()
    np.testing.assert_array_equal(grad(y, h).data, 2 * h.data)
    assert grad(y, y).item() == 1.0
    gh, gx = grad(y, [h, x])
    np.testing.assert_array_equal(gx.data, 2 * gh.data)


def test_the_same_input_twice_and_several_outputs() -> None:
    x = leaf(1.0, 2.0)
    a, b = grad([(x * x).sum(), x], [x, x], [None, np.array([10.0, 20.0])])
    np.testing.assert_array_equal(a.data, 2 * x.data + [10.0, 20.0])
    np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.parametrize("constant", [(), (0,), (3,), (2, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_a_recorded_sum_of_cotangents_is_one_node(constant: tuple) -> None:
    """y = Σ a_k x, so dy/dx = Σ a_k. A constant a_k is in the sum and has no place in the graph."""
    x = leaf(2.0, 3.0)
    a = [Tensor(np.array([1.0, 10.0 * k]), requires_grad=k not in constant) for k in range(4)]
    y = (((a[0] * x + a[1] * x) + a[2] * x) + a[3] * x).sum()
    with recorded_ops() as names:
        g = grad(y, x, create_graph=True)
    np.testing.assert_array_equal(g.data, [4.0, 60.0])
    assert names.count("accumulate") == (len(constant) < 4)
    wanted = [ak for ak in a if ak.node is not None]
    for d in grad(g, wanted, np.array([5.0, 7.0])) if wanted else ():
        np.testing.assert_array_equal(d.data, [5.0, 7.0])


def test_the_terms_of_a_recorded_sum_are_not_written_to() -> None:
    """z = 3xw + xw² + xw through y = xw: several sums, of cotangents that they share."""
    x, w = scalar(2.0), scalar(5.0)
    y = x * w
    gx, gy, gw = grad(y * 3.0 + y * w + x * w, [x, y, w], create_graph=True)
    assert (gx.item(), gy.item(), gw.item()) == (15 + 25 + 5, 3 + 5, 2 * (3 + 2 * 5 + 1))
    assert (grad(gx, w).item(), grad(gw, x).item(), grad(gw, w).item()) == (14, 14, 2 * 2)
    assert grad(gy, w).item() == 1


def test_the_graph_can_be_walked_again() -> None:
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    np.testing.assert_array_equal(grad(y, x).data, grad(y, x).data)


def test_only_the_rules_on_the_way_to_the_inputs_run() -> None:
    ran = []

    @op
    def _watched(x: Array) -> Array:
        return x * 1.0

    _watched.vjp(x=lambda g: ran.append(1) or g)
    x, y = scalar(1.0), scalar(2.0)
    out = _watched(x) * y
    grad(out, y)
    assert not ran
    grad(out, x)
    assert ran == [1]


# ---- un-broadcasting and dtype


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (1, 3), (1, 1), (1, 2, 3), (4, 1, 1)])
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_broadcast_input_receives_the_sum(shape: tuple, create_graph: bool) -> None:
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=shape), requires_grad=True)
    other = rng.normal(size=(4, 2, 3))
    g = grad((x * other).sum(), x, create_graph=create_graph)
    assert g.shape == shape
    full = np.broadcast_to(x.data, other.shape)
    one = np.zeros(full.shape)
    for index in np.ndindex(shape):  # the derivative by one entry, by linearity
        unit = np.zeros(shape)
        unit[index] = 1.0
        one = np.broadcast_to(unit, full.shape)
        assert g.data[index] == pytest.approx(float((one * other).sum()), rel=1e-12)


def test_each_gradient_has_the_dtype_of_its_input() -> None:
    x, y = leaf(1.0, 2.0, dtype=np.float32), leaf(3.0, 4.0)
    product = x * y
    assert product.dtype == np.float64
    gx, gy = grad(product.sum(), [x, y])
    assert (gx.dtype, gy.dtype) == (np.float32, np.float64)
    gx, gy = grad(product.sum(), [x, y], create_graph=True)
    assert (gx.dtype, gy.dtype) == (np.float32, np.float64)


def test_python_numbers_do_not_change_the_dtype() -> None:
    x = leaf(1.0, 2.0, dtype=np.float32)
    for y in (x * 2.0, 2.0 * x, x + 1, 1 - x, x - 0.1, -x):
        assert y.dtype == np.float32
        assert grad(y.sum(), x).dtype == np.float32


def test_zero_dimensions_stay_arrays() -> None:
    x = Tensor(2.0, requires_grad=True)
    y = x * x
    assert isinstance(y.data, np.ndarray)
    assert y.shape == ()
    g = grad(y, x)
    assert isinstance(g.data, np.ndarray)
    assert g.dtype == np.float32
    assert isinstance(ops.sum(leaf(1.0, 2.0)).data, np.ndarray)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 4), (3, 1), (1, 3, 1), (3, 3, 2)])
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_rule_of_the_wrong_shape_is_refused(shape: tuple, create_graph: bool) -> None:
    """Also one that could be broadcast up to the input's shape: un-broadcasting only ever reduces."""

    @op
    def _faulty(x: Array) -> Array:
        return x * 1.0

    _faulty.vjp(x=lambda g: ops.broadcast_to(ops.sum(g), shape))
    x = leaf(1.0, 2.0, 3.0)
    message = re.escape(f"gradient rule of faulty returned shape {shape} for an input of shape (3,)")
    with pytest.raises(ValueError, match=message):
        grad(_faulty(x).sum(), x, create_graph=create_graph)


def test_a_rule_that_leaks_float64_is_refused() -> None:
    @op
    def _leaky(x: Array) -> Array:
        return x * 2

    _leaky.vjp(x=lambda g: g * np.float64(2.0))
    x = leaf(1.0, 2.0, dtype=np.float32)
    with pytest.raises(TypeError, match="gradient rule of leaky turned float32 into float64"):
        grad(_leaky(x).sum(), x)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_rule_of_an_op_with_several_results_that_leaks_float64_is_refused(count: int) -> None:
    @op(outputs=0)
    def _copies(x: Array) -> tuple[Array, ...]:
        return tuple(x * i for i in range(count))

    _copies.vjp(x=lambda g: g[-1] * np.float64(2.0))
    x = leaf(1.0, 2.0, dtype=np.float32)
    with pytest.raises(TypeError, match="gradient rule of copies turned float32 into float64"):
        grad(_copies(x)[-1].sum(), x)


# ---- recording


KINDS = {
    "leaf": lambda: leaf(0.5, 0.25),
    "constant": lambda: Tensor(np.array([0.5, 0.25])),
    "array": lambda: np.array([0.5, 0.25]),
    "number": lambda: 0.5,
}
STRAIGHT = [
    *itertools.product(("negative", "sin", "tanh"), ((kind,) for kind in KINDS)),
    *itertools.product(("add", "subtract", "multiply", "divide"), itertools.product(KINDS, KINDS)),
]


@pytest.mark.parametrize(("name", "kinds"), STRAIGHT, ids=lambda part: part if type(part) is str else " ".join(part))
def test_small_ops_take_a_straight_path_to_the_same_place(name: str, kinds: tuple) -> None:
    """`of_one` and `of_two` record what `of_any` does."""
    this, args = tape.OPS[name], tuple(KINDS[kind]() for kind in kinds)
    assert this.short == len(kinds)
    straight, around = this(*args), this.of_any(args, {})
    assert type(straight) is type(around)
    if not isinstance(straight, Tensor):
        np.testing.assert_array_equal(straight, around)
        return
    np.testing.assert_array_equal(straight.data, around.data)
    assert (straight.node is None) == (around.node is None) == ("leaf" not in kinds)
    if straight.node is None:
        return
    a, b = straight.node, around.node
    assert list(a.parents) == list(b.parents) == [getattr(x, "node", None) for x in args]
    for field in ("op", "plan", "params", "shape", "dtype"):
        assert getattr(a, field) == getattr(b, field)
    for t, node in ((straight, a), (around, b)):
        for value, cell, x in zip(node.saved, node.cells, (*args, t), strict=False):
            assert value is None or value is (x.data if isinstance(x, Tensor) else x)
            assert cell is (None if value is None else getattr(x, "version", None))
    assert [value is None for value in a.saved] == [value is None for value in b.saved]


def test_no_grad_and_enable_grad_nest() -> None:
    x = scalar(2.0)
    with no_grad():
        assert (x * x).node is None
        with enable_grad():
            assert (x * x).requires_grad
            with no_grad():
                assert not (x * x).requires_grad
            assert (x * x).requires_grad
        assert not (x * x).requires_grad
    assert (x * x).requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert tape.is_recording(), "an exception must not leave recording off"


def test_grad_works_inside_no_grad() -> None:
    x = scalar(2.0)
    y = x * x * x
    with no_grad():
        g = grad(y, x, create_graph=True)
        assert grad(g, x).item() == 12.0
        assert not tape.is_recording()


def test_ops_on_arrays_and_constants_are_not_recorded() -> None:
    a = np.ones(3)
    with recorded_ops() as names:
        assert isinstance(ops.add(a, a), np.ndarray)
        assert ops.add(Tensor(a), a).node is None
    assert names == []


def test_detach_cuts_and_shares_memory() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    d = y.detach()
    assert d.node is None
    assert d.data is y.data
    np.testing.assert_array_equal(grad((d * x).sum(), x).data, y.data)


# ---- backward()


def test_backward_adds_into_leaves() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    assert x.grad is None
    (x * y).sum().backward()
    np.testing.assert_array_equal(x.grad.data, y.data)
    (x * y).sum().backward()
    np.testing.assert_array_equal(x.grad.data, 2 * y.data)
    np.testing.assert_array_equal(y.grad.data, 2 * x.data)
    assert x.grad.node is None
    x.grad = None
    (x + y).backward(np.array([1.0, 5.0]))
    np.testing.assert_array_equal(x.grad.data, [1.0, 5.0])


def test_leaves_do_not_share_the_memory_of_their_gradients() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    g = np.ones(2)
    (x + y).backward(g)
    x.grad.data[0] = 7.0
    np.testing.assert_array_equal(y.grad.data, [1.0, 1.0])
    np.testing.assert_array_equal(g, [1.0, 1.0])


def test_grad_leaves_the_leaves_alone() -> None:
    x = leaf(1.0, 2.0)
    grad((x * x).sum(), x)
    assert x.grad is None
