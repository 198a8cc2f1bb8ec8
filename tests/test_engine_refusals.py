"""What the engine refuses, and that it says what was wrong and what to do: misuse of grad, in-place writes, devices."""

from __future__ import annotations

import numpy as np
import pytest
from engine_helpers import leaf, temporary_ops  # noqa: F401 - a fixture

from minigen import Tensor, grad, no_grad, ops
from minigen.autograd import tape
from minigen.autograd.tape import Array, Op, op

# ---- grad and backward


def test_misuse_of_grad_is_explained() -> None:
    x, y, constant = leaf(1.0, 2.0), leaf(3.0), Tensor([1.0])
    cases = [
        (lambda: grad(x * x, x), r"output 0 has shape \(2,\): reduce it to a scalar"),
        (lambda: grad(constant, x), "output 0 has no history"),
        (lambda: grad((x * x).sum(), constant), "input 0 .*requires_grad=True"),
        (lambda: grad((x * x).sum(), [x, y]), r"do not depend on input 1 of shape \(1,\); allow_unused=True"),
        (lambda: grad(x * x, x, np.ones(3)), r"grad_outputs\[0\] is float64\(3,\), but output 0 is float64\(2,\)"),
        (lambda: grad(x * x, x, np.ones((1, 2))), r"grad_outputs\[0\] is float64\(1, 2\)"),
        (lambda: grad(x * x, x, Tensor(np.ones(2, np.float32))), r"grad_outputs\[0\] is float32\(2,\)"),
        (lambda: grad([x * x], [x], [np.ones(2), np.ones(2)]), "1 outputs but 2 grad_outputs"),
        (lambda: (x * x).backward(), "reduce it to a scalar"),
        (lambda: constant.backward(), "no history"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_unused_inputs_give_none_when_allowed() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0)
    gx, gy = grad((x * x).sum(), [x, y], allow_unused=True)
    assert gx is not None
    assert gy is None


def test_results_made_under_no_grad_have_no_history() -> None:
    x = leaf(1.0)
    with no_grad():
        y = (x * x).sum()
    with pytest.raises(ValueError, match="no_grad"):
        grad(y, x)


def test_an_op_without_rule_says_so() -> None:
    @op
    def _half(x: Array, index: Array) -> Array:
        return x * index

    _half.vjp(x=lambda g, index: g * index)
    x, i = leaf(1.0), leaf(2.0)
    assert grad(_half(x, i.detach()).sum(), x).item() == 2.0
    with pytest.raises(TypeError, match=r"half has no gradient with respect to 'index': pass index\.detach\(\)"):
        _half(x, i)


def test_faulty_definitions_of_ops_are_refused() -> None:
    @op
    def _first(x: Array, axis: int = 0) -> Array:
        return x

    with pytest.raises(ValueError, match="op 'first' is defined twice"):
        Op(_first.forward)
    with pytest.raises(TypeError, match=r"rules for \['y'\], but its inputs are \['x'\]"):
        _first.vjp(y=lambda g: g)
    with pytest.raises(TypeError, match="a gradient rule names 'z'"):
        _first.vjp(x=lambda g, z: g)


# ---- calls


def test_errors_name_the_op_and_what_it_was_given() -> None:
    x, y = leaf(1.0, 2.0), Tensor([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"add\(float64\(2,\), float32\(3,\)\): .*could not be broadcast"):
        ops.add(x, y)
    with pytest.raises(ValueError, match=r"reshape: 2 elements of shape \(2,\) do not fit shape \(3,\)"):
        ops.reshape(x, (3,))
    with pytest.raises((ValueError, IndexError), match=r"sum\(float64\(2,\)\): axis 4 is out of bounds"):
        ops.sum(x, axis=4)


def test_arguments_by_name_and_place() -> None:
    x = leaf(1.0, 2.0)
    for y in (ops.sum(x, 0), ops.sum(x, axis=0), ops.sum(x=x, axis=0), ops.sum(x, 0, keepdims=False)):
        assert y.item() == 3.0
    assert ops.add(x1=x, x2=1.0).data[0] == 2.0
    for call in (lambda: ops.add(x), lambda: ops.add(x, x, x), lambda: ops.sum(x, axes=0), lambda: ops.add(x, x1=x)):
        with pytest.raises(TypeError, match=r"add|sum"):
            call()


class FakeDeviceArray:
    """Stands for an array on a GPU: not a NumPy array, and NumPy cannot compute with it."""

    dtype, shape, ndim, size = np.dtype(np.float32), (2,), 1, 2
    __array_ufunc__ = None

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


@pytest.mark.parametrize("swap", [False, True])
def test_mixed_devices_are_refused(swap: bool) -> None:
    x = leaf(1.0, 2.0, dtype=np.float32)
    there = tape.wrap(FakeDeviceArray(), None, [0])
    assert there.device == "cuda"
    a, b = (there, x) if swap else (x, there)
    with pytest.raises(TypeError, match=r"multiply: inputs on different devices .*cpu.*cuda|cuda.*cpu.*\.to\(device\)"):
        _ = a * b


# ---- Tensor


def test_numpy_does_not_take_tensors_apart() -> None:
    x = leaf(1.0, 2.0)
    for call in (lambda: np.asarray(x), lambda: np.sin(x), lambda: np.add(np.ones(2), x), lambda: np.sum(x)):
        with pytest.raises(TypeError, match=r"Tensor|__array_ufunc__"):
            call()
    assert isinstance(np.ones(2) * x, Tensor), "operators with an array on the left stay with us"
    np.testing.assert_array_equal(grad((np.array([2.0, 3.0]) * x).sum(), x).data, [2.0, 3.0])


def test_numpy_method_says_how() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(TypeError, match=r"\.detach\(\)\.numpy\(\)"):
        x.numpy()
    assert x.detach().numpy() is x.data


def test_construction() -> None:
    assert Tensor(1.0).dtype == np.float32
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor([1, 2]).dtype.kind == "i"
    assert Tensor(np.ones(2)).dtype == np.float64
    assert Tensor([1.0], dtype=np.float64).dtype == np.float64
    with pytest.raises(TypeError, match="only float32 and float64 Tensors have gradients, this one is int64"):
        Tensor(np.arange(3), requires_grad=True)
    for dtype in (np.float16, np.longdouble, np.complex64):
        with pytest.raises(TypeError, match=r"only float32 and float64 Tensors have gradients, .* convert with \.astype"):
            Tensor(np.ones(3, dtype), requires_grad=True)
    with pytest.raises(TypeError, match="is a Tensor already"):
        Tensor(Tensor([1.0]))
    with pytest.raises(TypeError, match="cannot make an array of numbers"):
        Tensor([None])


def test_requires_grad_belongs_to_leaves() -> None:
    x = Tensor([1.0])
    x.requires_grad = True
    assert x.is_leaf
    y = x * 2.0
    assert not y.is_leaf
    with pytest.raises(ValueError, match="result of multiply cannot be set"):
        y.requires_grad = False
    with pytest.raises(ValueError, match="only leaves"):
        y.grad = None
    with pytest.raises(ValueError, match=r"\.grad must be float32\(1,\)"):
        x.grad = Tensor([1.0, 2.0])
    x.requires_grad = False
    assert (x * 2.0).node is None


def test_repr() -> None:
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.], dtype=float32)"
    assert repr(leaf(1.0)) == "Tensor([1.], leaf)"
    assert repr(leaf(1.0) * 2.0) == "Tensor([2.], from multiply)"
    assert repr(ops.add) == "<op add(x1, x2)>"
    assert repr(ops.sum) == "<op sum(x, axis, keepdims)>"


def test_comparisons_are_plain_arrays_and_tensors_have_identity() -> None:
    x = leaf(1.0, 2.0)
    for mask in (x < 2, x <= 2, x > 2, x >= 2, x == 2, x != 2):
        assert isinstance(mask, np.ndarray)
        assert mask.dtype == bool
    assert len({x, x, leaf(1.0, 2.0)}) == 2


# ---- in-place writes


def test_writing_into_recorded_tensors_is_refused() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"a leaf that requires a gradient while recording; use `with no_grad\(\):`"):
        x[0] = 5.0
    y = x * 2.0
    with pytest.raises(ValueError, match="the result of multiply"):
        y[0] = 5.0
    with no_grad():
        x[0] = 5.0
    np.testing.assert_array_equal(x.data, [5.0, 2.0])


def write(t: Tensor) -> None:
    with no_grad():
        t[0] = 9.0


def test_a_changed_value_that_backward_needs_is_an_error() -> None:
    def changed_leaf() -> tuple:
        x = leaf(1.0, 2.0)
        y = x * x
        write(x)
        return y, x

    def changed_constant() -> tuple:
        x, c = leaf(1.0, 2.0), Tensor(np.ones(2))
        y = x * c
        write(c)
        return y, x

    def changed_through_a_view() -> tuple:
        x = leaf(1.0, 2.0)
        h = x * 1.0
        y = h * h
        write(ops.reshape(h, (2, 1)))
        return y, x

    def changed_base_of_a_view() -> tuple:
        x = leaf(1.0, 2.0)
        h = x * 1.0
        v = ops.reshape(h, (2, 1))
        y = ops.reshape(v * v, (2,))
        write(h)
        return y, x

    def changed_through_detach() -> tuple:
        x = leaf(1.0, 2.0)
        h = x * 1.0
        y = h * h
        write(h.detach())
        return y, x

    def changed_by_an_optimiser() -> tuple:
        x = leaf(1.0, 2.0)
        y = x * x
        x.data -= 0.1
        x.mark_written()
        return y, x

    for make in (
        changed_leaf,
        changed_constant,
        changed_through_a_view,
        changed_base_of_a_view,
        changed_through_detach,
        changed_by_an_optimiser,
    ):
        y, x = make()
        with pytest.raises(RuntimeError, match=r"backward of multiply: .*float64\(2.*changed in place after multiply"):
            grad(y.sum(), x)


@pytest.mark.parametrize("fused", [False, True])
def test_a_constant_that_was_changed_after_a_recorded_backward_pass_is_an_error(fused: bool) -> None:
    """The gradient u c depends on the constant c; whoever differentiates it by u needs c as it was."""

    @op(spec=(lambda x, c: x * c) if fused else None)
    def _scaled(x: Array, c: Array) -> Array:
        return x * c

    _scaled.vjp(lambda g, x, c, needs: (g * c if needs[0] else None, g * x if needs[1] else None))
    x, u, c = leaf(1.0, 2.0), leaf(1.0, 1.0), Tensor(np.ones(2))
    g = grad(_scaled(x, c), x, u, create_graph=True)
    write(c)
    with pytest.raises(RuntimeError, match="changed in place"):
        grad(g.sum(), u)


def test_a_changed_result_that_backward_needs_is_an_error() -> None:
    x = leaf(1.0, 2.0)
    y = ops.tanh(x)  # its rule uses the result
    write(y)
    with pytest.raises(RuntimeError, match="backward of tanh"):
        grad(y.sum(), x)


def test_no_alarm_for_what_backward_does_not_need() -> None:
    x, c = leaf(1.0, 2.0), Tensor(np.ones(2))
    y = x + c
    z = ops.tanh(x)
    total = (y + z).sum()
    expected = 1 + 1 - np.tanh(x.data) ** 2
    write(c)
    write(x)  # tanh keeps its result, not x
    write(y)  # and add keeps nothing
    np.testing.assert_allclose(grad(total, x).data, expected, rtol=1e-15)


def test_a_write_before_use_is_no_error() -> None:
    x, c = leaf(1.0, 2.0), Tensor(np.ones(2))
    write(x)
    write(c)
    np.testing.assert_array_equal(grad((x * c).sum(), x).data, [9.0, 1.0])
