"""Ops that rearrange, join and cut: what the generated property tests do not see. Views, refusals, dtypes."""

import re

import numpy as np
import pytest

from minigen.autograd import Tensor, grad, no_grad
from minigen.autograd.ops import shape as ops

VIEWS = {
    "reshape": lambda x: ops.reshape(x, (3, 2)),
    "permute_dims": lambda x: ops.permute_dims(x, (1, 0)),
    "expand_dims": lambda x: ops.expand_dims(x, 1),
    "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 0), 0),
    "flip": lambda x: ops.flip(x, 0),
    "getitem": lambda x: x[:, 1:],
    "mT": lambda x: x.mT,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_writing_into_a_view_is_writing_into_what_it_views(view):
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    y = x * 2.0
    square = y * y  # needs y for its gradient
    with no_grad():
        view(y)[...] = 7.0
    assert 7.0 in y.data
    with pytest.raises(RuntimeError, match=r"multiply: a value that it needs, float64\(2, 3\), was changed in place"):
        square.backward(np.ones((2, 3)))


@pytest.mark.parametrize("copy", [lambda x: ops.split(x, 2)[0], lambda x: ops.roll(x, 1), lambda x: ops.concat([x])])
def test_writing_into_a_copy_changes_nothing_else(copy):
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    y = x * 2.0
    square = y * y
    with no_grad():
        copy(y)[...] = 7.0
    square.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(x.grad.data, np.full((2, 3), 8.0))


def test_concat_gives_each_array_its_part_and_nothing_to_constants():
    x, y = Tensor(np.ones((2, 1)), requires_grad=True), Tensor(np.ones((2, 3)), requires_grad=True)
    constant = np.zeros((2, 2))
    joined = ops.concat([x, constant, y, x], axis=1)
    assert joined.shape == (2, 7)
    g = np.arange(14.0).reshape(2, 7)
    gx, gy = grad(joined, [x, y], g)
    np.testing.assert_array_equal(gx.data, g[:, :1] + g[:, 6:])
    np.testing.assert_array_equal(gy.data, g[:, 3:6])


def test_split_counts_and_sizes():
    x = np.arange(12).reshape(2, 6)
    for parts, sections in (([2, 2, 2], 3), ([1, 0, 5], [1, 0, 5])):
        result = ops.split(x, sections, axis=-1)
        assert [p.shape for p in result] == [(2, n) for n in parts]
        np.testing.assert_array_equal(np.concatenate(result, 1), x)


def test_unused_parts_of_a_split_count_as_zero():
    x = Tensor(np.ones((3, 2)), requires_grad=True)
    _, middle, _ = ops.split(x, 3)
    np.testing.assert_array_equal(grad(middle.sum(), x).data, [[0, 0], [1, 1], [0, 0]])


def test_pad_value_and_widths():
    x = np.ones((1, 2), np.float32)
    expected = np.array([[5, 5, 5, 5, 5], [5, 1, 1, 5, 5]], np.float32)
    for padded in (ops.pad(x, ((1, 0), (1, 2)), 5.0), ops.pad(Tensor(x), ((1, 0), (1, 2)), 5.0).data):
        np.testing.assert_array_equal(padded, expected)
        assert padded.dtype == np.float32
    assert ops.pad(x, 2).shape == (5, 6)
    assert ops.pad(x, (0, 1)).shape == (2, 3)


@pytest.mark.parametrize("joint", [ops.concat, ops.stack])
def test_joining_promotes_and_gradients_keep_their_dtype(joint):
    x, y = Tensor(np.ones(2, np.float32), requires_grad=True), Tensor(np.ones(2, np.float64), requires_grad=True)
    out = joint([x, y])
    assert out.dtype == np.float64
    gx, gy = grad(out.sum(), [x, y])
    assert (gx.dtype, gy.dtype) == (np.float32, np.float64)


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.reshape(X, (4, 2)), "reshape: 6 elements of shape (2, 3) do not fit shape (4, 2)"),
        (lambda: ops.permute_dims(X, (0, 0)), "permute_dims: axes (0, 0) of shape (2, 3): each of 0 to 1 must be named once"),
        (lambda: ops.squeeze(X, 1), "squeeze: axis 1 of shape (2, 3) is not of size 1"),
        (lambda: ops.broadcast_to(X, (2, 4)), "broadcast_to: shape (2, 3) cannot become (2, 4)"),
        (lambda: ops.concat([]), "concat: needs at least one array"),
        (lambda: ops.concat([X, np.ones((3, 2))]), "concat: shapes (2, 3), (3, 2) must be equal but for axis 0"),
        (lambda: ops.stack([X, np.ones((3, 2))]), "stack: needs at least one array, all of one shape, got [(2, 3), (3, 2)]"),
        (lambda: ops.stack([]), "stack: needs at least one array"),
        (lambda: ops.split(X, 2, axis=1), "split: axis 1 of shape (2, 3) cannot be cut into 2 equal parts"),
        (lambda: ops.split(X, 0), "split: axis 0 of shape (2, 3) cannot be cut into 0 equal parts"),
        (lambda: ops.split(X, [1, 1], axis=1), "split: sizes [1, 1] must be at least 0 and sum to 3, axis 1 of shape (2, 3)"),
        (lambda: ops.split(X, [4, -1], axis=1), "split: sizes [4, -1] must be at least 0"),
        (lambda: ops.split(X, 1, axis=2), "split: axis 2 is out of bounds for an x of shape (2, 3)"),
        (lambda: ops.pad(X, ((1, -1), (0, 0))), "pad: widths must be at least 0, got ((1, -1), (0, 0))"),
        (lambda: ops.pad(X, ((1, 1),) * 3), "pad: widths must be integers, ((before, after), ...) for each axis of (2, 3)"),
        (lambda: ops.pad(X, 0.5), "pad: widths must be integers"),
    ],
)
def test_refusals_name_the_op_and_the_shapes(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()
