"""Memory that two Tensors share, and memory that they only seem to share; and what no graph may hold on to."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from minigen import Tensor, grad, no_grad, ops
from minigen.autograd.tape import OPS, Op


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values, np.float64), requires_grad=True)


def test_an_index_that_is_changed_later_does_not_change_the_gradient() -> None:
    x, index = leaf(0, 1, 2, 3), Tensor(np.array([0, 1]))
    y = x[index]
    index[...] = 3
    np.testing.assert_array_equal(grad(y.sum(), x).data, [1, 1, 0, 0])


def test_gradients_have_memory_of_their_own() -> None:
    x, y, w, v = leaf(1, 1), leaf(1, 1), leaf(1, 1), np.ones(2)
    gx, gy = grad(((x + y) * 3).sum(), [x, y])
    h = (gx * w).sum()
    gy[...] = 100
    np.testing.assert_array_equal(grad(h, w).data, [3, 3])
    for g in (grad(x + 1, x, v), grad(ops.reshape(x, (2, 1)), x, v.reshape(2, 1))):
        assert not np.shares_memory(g.data, v)


def test_a_copy_that_numpy_gives_a_base_is_no_view() -> None:
    x = Tensor(np.ones((3, 4)), requires_grad=True)
    y = x[:, [0, 1]]
    assert y.data.base is not None
    z = y * y
    with no_grad():
        x[...] = 5
    np.testing.assert_array_equal(grad(z.sum(), x).data[0], [2, 2, 0, 0])
    part = x[1:]
    square = part * part
    with no_grad():
        x[...] = 7
    with pytest.raises(RuntimeError, match="changed in place"):
        grad(square.sum(), x)


def test_what_is_written_in_place_must_not_want_a_gradient() -> None:
    buffer = Tensor(np.zeros(3))
    with pytest.raises(ValueError, match=r"would lose the gradient .* where\(\)"):
        buffer[:2] = leaf(1, 1)
    with no_grad():
        buffer[:2] = leaf(1, 1)
    np.testing.assert_array_equal(buffer.data, [1, 1, 0])


def test_a_gradient_that_is_set_has_no_history() -> None:
    x = leaf(1, 2)
    x.grad = x * 2
    assert x.grad is not None
    assert x.grad.node is None
    np.testing.assert_array_equal(x.grad.data, [2, 4])


def test_a_refusal_is_not_its_own_cause() -> None:
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            with pytest.raises(ValueError, match="matmul") as caught:
                ops.matmul(np.ones(3), np.ones(4))
            assert caught.value.__cause__ is None
            del caught
        gc.collect()
        assert len(gc.get_objects()) < before + 200
    finally:
        gc.enable()


def test_no_grad_may_be_entered_again_and_decorates() -> None:
    off = no_grad()
    with off:
        with off:
            pass
        assert not (leaf(1) * 2).requires_grad
    assert (leaf(1) * 2).requires_grad

    @no_grad()
    def double(x: Tensor) -> Tensor:
        return x * 2

    assert not double(leaf(1)).requires_grad
    assert (leaf(1) * 2).requires_grad


def test_an_op_without_a_rule_does_not_pass_for_a_constant() -> None:
    scope: dict = {}
    code = "def cube(x: Array): return x**3"  # whose annotation is not kept as text
    exec(code, {"Array": Any}, scope)
    cube = Op(scope["cube"])
    try:
        assert cube.inputs == ["x"]
        with pytest.raises(TypeError, match=r"cube has no gradient rule: give it one by cube\.vjp"):
            cube(leaf(2))
        cube.vjp(x=lambda g, x: 3 * g * x * x)
        x = leaf(2)
        np.testing.assert_array_equal(grad(cube(x).sum(), x).data, [12])
    finally:
        del OPS["cube"]


def test_iteration_and_attention_by_position() -> None:
    assert [t.item() for t in Tensor([1.0, 2.0])] == [1.0, 2.0]
    with pytest.raises(TypeError, match=r"without dimensions; its value is \.item"):
        iter(Tensor(1.0))
    q = np.ones((2, 3, 4))
    with pytest.raises(TypeError, match="positional"):
        ops.scaled_dot_product_attention(q, q, q, None, 0.0, True)
