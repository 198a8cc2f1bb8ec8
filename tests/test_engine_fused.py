"""Ops with several results, and fused ops: kernels at first order, the spec for the orders above."""

from __future__ import annotations

import numpy as np
import pytest
from engine_helpers import leaf, recorded_ops, scalar, temporary_ops  # noqa: F401 - a fixture

from minigen import Tensor, grad, ops
from minigen.autograd.tape import Array, op

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
    wanted: list[list[bool]] = []

    def kernel(g: np.ndarray, a: np.ndarray, x: np.ndarray, needs: tuple) -> tuple:
        calls.append(type(g).__name__)
        wanted.append(list(needs))
        t = np.tanh(x)
        return (g * t if needs[0] else None, g * a * (1 - t * t) if needs[1] else None)

    @op(spec=lambda a, x: a * ops.tanh(x))
    def _scaled_tanh(a: Array, x: Array) -> Array:
        return a * np.tanh(x)

    _scaled_tanh.vjp(lambda g, a, x, needs: kernel(g, a, x, needs))
    _scaled_tanh.calls, _scaled_tanh.wanted = calls, wanted
    return _scaled_tanh


def test_a_fused_op_runs_its_kernel_at_first_order(fused) -> None:
    a, x = scalar(2.0), leaf(0.3, -0.4)
    with recorded_ops() as names:
        y = fused(a, x)
        grad(y.sum(), [a, x])
    assert names == ["scaled_tanh", "sum"]
    assert fused.calls == ["ndarray"]


def test_a_fused_op_records_one_op_per_backward_pass(fused) -> None:
    a, x = scalar(2.0), leaf(0.3, -0.4)
    y = fused(a, x).sum()
    with recorded_ops() as names:
        ga, gx = grad(y, [a, x], create_graph=True)
    assert [name for name in names if "tanh" in name] == ["scaled_tanh_vjp"]
    assert fused.calls == ["ndarray"], "under create_graph too, the kernel sees raw arrays"
    plain = [t.data for t in grad(y, [a, x])]
    np.testing.assert_array_equal(ga.data, plain[0])
    np.testing.assert_array_equal(gx.data, plain[1])


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_fused_op_computes_only_the_gradients_that_are_wanted(fused, create_graph: bool) -> None:
    """A gradient penalty asks for the gradient by x: the one by the weights would be work for nothing."""
    a, x = scalar(2.0), leaf(0.3, -0.4)
    g = grad(fused(a, x).sum(), x, create_graph=create_graph)
    assert fused.wanted == [[False, True]]
    if create_graph:
        t = np.tanh(x.data)
        ga, gx = grad(g.sum(), [a, x])
        np.testing.assert_allclose(ga.data, (1 - t * t).sum(), rtol=1e-14)
        np.testing.assert_allclose(gx.data, -4 * t * (1 - t * t), rtol=1e-14)


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
