"""The engine's behaviour: gradients of any order, what is refused, and with which words. Memory: test_engine_memory.py."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pytest

from minigen import Tensor, enable_grad, grad, no_grad, ops
from minigen.autograd import tape
from minigen.autograd.tape import Array, op

grad_module = importlib.import_module("minigen.autograd.grad")


@pytest.fixture(autouse=True)
def temporary_ops():
    """Ops that a test defines are forgotten after it."""
    before, fused = dict(tape.OPS), dict(grad_module._VJP_OPS)
    yield
    tape.OPS.clear()
    tape.OPS.update(before)
    grad_module._VJP_OPS.clear()
    grad_module._VJP_OPS.update(fused)


def leaf(*values: float, dtype: type = np.float64) -> Tensor:
    return Tensor(np.array(values, dtype), requires_grad=True)


def scalar(value: float) -> Tensor:
    return Tensor(np.array(value, np.float64), requires_grad=True)


class Recorder(tape.Observer):
    def __init__(self) -> None:
        self.nodes: list[str] = []

    def recorded(self, node: tape.Node) -> None:
        self.nodes.append(node.op.name)


@pytest.fixture
def recorder():
    watcher = Recorder()
    tape.OBSERVERS.append(watcher)
    yield watcher
    tape.OBSERVERS.remove(watcher)


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


# ---- ops with several results


@pytest.fixture
def halves():
    @op(outputs=2)
    def _halves(x: Array, factor: float = 1.0) -> tuple[Array, Array]:
        return x[: len(x) // 2] * factor, x[len(x) // 2 :] * factor

    @op
    def _join(a: Array, b: Array) -> Array:
        return np.concatenate([a, b])

    _halves.vjp(x=lambda g, factor: _join(g[0], g[1]) * factor)
    _join.vjp(a=lambda g, a_shape: _halves(g)[0], b=lambda g, a_shape: _halves(g)[1])
    return _halves


@pytest.mark.parametrize("create_graph", [False, True])
def test_several_results_used_in_part(halves, create_graph: bool) -> None:
    x = leaf(1.0, 2.0, 3.0, 4.0)
    a, b = halves(x, factor=3.0)
    np.testing.assert_array_equal(b.data, [9.0, 12.0])
    np.testing.assert_array_equal(grad(b.sum(), x, create_graph=create_graph).data, [0, 0, 3, 3])
    np.testing.assert_array_equal(grad((a * b).sum(), x, create_graph=create_graph).data, [27, 36, 9, 18])
    np.testing.assert_array_equal(grad(a.sum() + (a * 2.0).sum(), x, create_graph=create_graph).data, [9, 9, 0, 0])


def test_several_results_twice_differentiated(halves) -> None:
    x = leaf(1.0, 2.0, 3.0, 4.0)
    a, b = halves(x)
    g = grad((a * a * b).sum(), x, create_graph=True)  # (2 a b, a²)
    np.testing.assert_array_equal(grad(g.sum(), x).data, [2 * 3 + 2, 2 * 4 + 4, 2, 4])
    g = grad((a * a).sum(), x, create_graph=True)  # one result unused
    np.testing.assert_array_equal(grad(g.sum(), x).data, [2, 2, 0, 0])


def test_gradient_at_one_of_several_results(halves) -> None:
    x = leaf(1.0, 2.0, 3.0, 4.0)
    a, b = halves(x)
    ga, gb = grad((a * b).sum(), [a, b])
    np.testing.assert_array_equal(ga.data, b.data)
    np.testing.assert_array_equal(gb.data, a.data)


# ---- fused ops


@pytest.fixture
def fused():
    """scaled tanh, a·tanh(x), with a backward 'kernel', and a spec for the higher orders."""
    calls: list[str] = []

    def kernel(g: np.ndarray, a: np.ndarray, x: np.ndarray, needs: tuple) -> tuple:
        calls.append(type(g).__name__)
        t = np.tanh(x)
        return (g * t if needs[0] else None, g * a * (1 - t * t) if needs[1] else None)

    @op(spec=lambda a, x: a * ops.tanh(x))
    def _scaled_tanh(a: Array, x: Array) -> Array:
        return a * np.tanh(x)

    _scaled_tanh.vjp(lambda g, a, x, needs: kernel(g, a, x, needs))
    _scaled_tanh.calls = calls
    return _scaled_tanh


def test_a_fused_op_runs_its_kernel_at_first_order(fused, recorder) -> None:
    a, x = scalar(2.0), leaf(0.3, -0.4)
    y = fused(a, x)
    assert recorder.nodes == ["scaled_tanh"]
    grad(y.sum(), [a, x])
    assert fused.calls == ["ndarray"]


def test_a_fused_op_records_one_op_per_backward_pass(fused, recorder) -> None:
    a, x = scalar(2.0), leaf(0.3, -0.4)
    y = fused(a, x).sum()
    recorder.nodes.clear()
    ga, gx = grad(y, [a, x], create_graph=True)
    assert [name for name in recorder.nodes if "tanh" in name] == ["scaled_tanh_vjp"]
    assert fused.calls == ["ndarray"], "under create_graph too, the kernel sees raw arrays"
    plain = [t.data for t in grad(y, [a, x])]
    np.testing.assert_array_equal(ga.data, plain[0])
    np.testing.assert_array_equal(gx.data, plain[1])


@pytest.mark.parametrize("order", [2, 3, 4])
def test_a_fused_op_equals_its_spec_at_higher_orders(fused, order: int) -> None:
    a, x = leaf(2.0, -1.0), leaf(0.3, -0.4)
    results = []
    for function in (fused, fused.spec):
        d = function(a, x).sum()
        for _ in range(order):
            da, dx = grad(d, [a, x], create_graph=True)
            d = (da * 0.7 + dx * x).sum()
        results.append([t.data for t in grad(d, [a, x])])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-12)


def test_a_fused_op_with_a_constant_input(fused) -> None:
    x = leaf(0.3, -0.4)
    for a in (2.0, np.array([2.0, 2.0]), Tensor(np.array([2.0, 2.0]))):
        g = grad(fused(a, x).sum(), x, create_graph=True)
        t = np.tanh(x.data)
        np.testing.assert_allclose(grad(g.sum(), x).data, -4 * t * (1 - t * t), rtol=1e-13)


# ---- recording


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


def test_ops_on_arrays_and_constants_are_not_recorded(recorder) -> None:
    a = np.ones(3)
    assert isinstance(ops.add(a, a), np.ndarray)
    assert ops.add(Tensor(a), a).node is None
    assert recorder.nodes == []


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
