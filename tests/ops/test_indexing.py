"""Indexing and its adjoint: refusals, repeated positions, the kernel against its reference, the same bits for any threads."""

import re

import numpy as np
import pytest

from minigen.autograd import Tensor, grad, set_backend
from minigen.autograd.kernels.indexing import cpu, reference
from minigen.autograd.kernels.indexing import scatter_add as kernel
from minigen.autograd.ops import indexing as ops


def test_positions_named_twice_receive_both_gradients():
    x = Tensor(np.zeros(3), requires_grad=True)
    picked = x[[0, 2, 0, -1]]
    np.testing.assert_array_equal(grad(picked, x, np.array([1.0, 10.0, 100.0, 1000.0])).data, [101, 0, 1010])


INDICES = {
    "mask": np.array([[True, False, True], [False, True, True]]),
    "mask and integer": (np.array([True, False]), 1),
    "arrays that broadcast": (np.array([[0], [1], [1]]), np.array([2, 0, 2])),
    "arrays apart": (np.array([0, 1, 1]), None, slice(None), np.array([1, 1, 2])),
    "integer and array apart": (0, slice(None), None, np.array([0, 0])),
    "array behind an ellipsis": (..., np.array([2, 2, 0])),
    "array behind a slice": (slice(None, None, -1), np.array([2, 2, 0])),
    "array before a slice": (np.array([1, 1]), slice(1, None)),
    "list": [1, 0, 1],
    "scalar array": np.array(1),
    "nothing": [],
    "unsigned": np.array([1, 1], np.uint8),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_every_kind_of_index_scatters_back(index):
    shape = (2, 3, 3) if index is INDICES["arrays apart"] or index is INDICES["integer and array apart"] else (2, 3)
    x = np.random.default_rng(0).standard_normal(shape)
    g = np.random.default_rng(1).standard_normal(x[index].shape)
    expected = np.zeros(shape)
    np.add.at(expected, index, g)
    t = Tensor(x, requires_grad=True)
    np.testing.assert_array_equal(t[index].data, x[index])
    np.testing.assert_allclose(grad(t[index], t, g).data, expected, rtol=1e-15)


def test_an_integer_tensor_is_an_index():
    x, i = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True), Tensor(np.array([1, 1, 0]))
    np.testing.assert_array_equal(x[i].data, x.data[[1, 1, 0]])
    np.testing.assert_array_equal(ops.take(x, i, axis=1).data, x.data[:, [1, 1, 0]])
    np.testing.assert_array_equal(grad(ops.embedding(i, x).sum(), x).data, [[1, 1, 1], [2, 2, 2]])
    np.testing.assert_array_equal(ops.one_hot(i, 2).data, [[0, 1], [0, 1], [1, 0]])


def test_one_hot_is_float32_unless_told():
    assert ops.one_hot(np.array([0]), 2).dtype == np.float32
    assert ops.one_hot(np.array([0]), 2, np.float64).dtype == np.float64


def test_searchsorted_takes_a_row_of_knots_and_any_values():
    knots = np.array([0.0, 1.0, 1.0, 2.0])
    values = np.array([[-1.0, 1.0], [3.0, np.nan]])
    for side in ("left", "right"):
        expected = np.searchsorted(knots, values, side)
        np.testing.assert_array_equal(ops.searchsorted(knots, values, side), expected)
        rows = ops.searchsorted(np.stack([knots, knots]), values, side)
        np.testing.assert_array_equal(rows, expected)
    with_nan = np.array([[0.0, np.nan]])
    assert ops.searchsorted(with_nan, np.array([[np.nan]])) == np.searchsorted(with_nan[0], np.nan)
    assert ops.searchsorted(with_nan, np.array([[5.0]])) == np.searchsorted(with_nan[0], 5.0)


X = np.ones((2, 3))
ONE = np.array([1])
REFUSED = {
    IndexError: [
        (lambda: Tensor(X)[5], "getitem(float64(2, 3)): index 5 is out of bounds for axis 0 with size 2"),
        (lambda: Tensor(X)[:, [0, -4]], "getitem(float64(2, 3)): index -4 is out of bounds for axis 1 with size 3"),
        (lambda: ops.take(X, 3 * ONE, 1), "take(float64(2, 3), int64(1,)): index 3 is out of bounds for axis 1"),
        (lambda: ops.take(X, ONE, 2), "take: axis 2 is out of bounds for an x of shape (2, 3)"),
        (
            lambda: ops.take_along_axis(X, np.array([[7]]), 0),
            "take_along_axis(float64(2, 3), int64(1, 1)): index 7 is out of bounds for axis 0 with size 2",
        ),
        (lambda: ops.take_along_axis(X, np.array([[0]]), 2), "take_along_axis: axis 2 is out of bounds"),
        (lambda: ops.embedding(2 * ONE, X), "embedding: index 2 is outside 0 .. 1 (2 rows of weight)"),
        (lambda: ops.embedding(-ONE, X), "embedding: index -1 is outside 0 .. 1 (2 rows of weight)"),
        (lambda: ops.one_hot(np.array([0, 9]), 4), "one_hot: index 9 is outside 0 .. 3 (4 classes)"),
        (lambda: ops.scatter_add(X[:1], 5 * ONE, (4, 3)), "scatter_add: index 5 is out of bounds for an axis of size 4"),
    ],
    ValueError: [
        (lambda: ops.take(X, ONE), "take: an x of shape (2, 3) needs an axis"),
        (lambda: ops.take_along_axis(X, ONE, 0), "take_along_axis: indices of shape (1,) need as many axes"),
        (
            lambda: ops.scatter_add(X, ONE, (4, 3)),
            "scatter_add: values have shape (2, 3), but the index names elements of shape (1, 3)",
        ),
        (lambda: ops.scatter_add(X, slice(0, 1), (4, 3)), "scatter_add: values have shape (2, 3), but the index"),
        (lambda: ops.searchsorted(X, X, "middle"), "searchsorted: side must be 'left' or 'right', not 'middle'"),
        (lambda: ops.searchsorted(X, np.array(1.0)), "searchsorted: x1 (2, 3) and x2 () need an axis"),
    ],
    TypeError: [
        (lambda: ops.take(X, ONE > 0, 1), "take(float64(2, 3), bool(1,)): indices must be integers, not bool"),
        (lambda: ops.embedding(0.5 * ONE, X), "embedding(float64(1,), float64(2, 3)): indices must be integers"),
    ],
}


@pytest.mark.parametrize(("kind", "call", "message"), [(k, *row) for k, rows in REFUSED.items() for row in rows])
def test_refusals_name_the_op_the_value_and_the_bound(kind, call, message):
    with pytest.raises(kind, match="^" + re.escape(message)):
        call()


# ---- the kernel


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernel_has_the_bits_of_its_reference(dtype):
    for args, _ in kernel.card.cases(np.random.default_rng(0), dtype):
        expected = reference.scatter_add(*args)
        assert expected.dtype == dtype
        for run in (cpu.scatter_add, reference.scatter_add):
            out = np.full_like(expected, np.nan)
            assert run(*args, out=out) is out
            np.testing.assert_array_equal(out, expected)
        exact = reference.scatter_add(args[0].astype(np.float64), *args[1:])
        budget = kernel.card.ulp * np.finfo(dtype).eps * kernel.card.scale(args[0].astype(np.float64), *args[1:])
        assert (abs(expected - exact) <= budget).all()
        assert kernel.card.flops(*args) == args[0].size
        assert kernel.card.bytes(*args) == args[0].nbytes + args[1].nbytes + expected.nbytes


def test_parallel_kernel_has_the_bits_of_the_serial_one():
    values = np.random.default_rng(0).standard_normal((3, 500, 97)).astype(np.float32)
    rows = np.random.default_rng(1).integers(-7, 7, 500)
    serial, parallel = np.empty((3, 7, 97), np.float32), np.empty((3, 7, 97), np.float32)
    cpu._serial(values, rows, serial)
    cpu._parallel(values, rows, parallel)
    np.testing.assert_array_equal(serial, parallel)
    assert values.size >= cpu.PARALLEL_ELEMENTS  # so a call with two threads takes the second path
    np.testing.assert_array_equal(kernel(values, rows, 7), serial)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("row", [4, -5])
def test_kernel_never_writes_outside(backend, row):
    message = f"scatter_add: index {row} is out of bounds for an axis of size 4"
    with set_backend(backend), pytest.raises(IndexError, match=message):
        kernel(np.ones((1, 1, 2)), np.array([row]), 4)
