"""Convolution and its relatives: adjoints, groups, 'same', one dimension, closed under differentiation, refusals."""

import re

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from minigen.autograd import Tensor, grad, set_backend
from minigen.autograd.gradcheck import gradcheck
from minigen.autograd.ops import convolution as ops


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_conv2d_is_scipys_correlation():
    x, w, b = normal(2, 7, 6, 3), normal(3, 2, 3, 4, seed=1), normal(4, seed=2)
    expected = [[scipy.signal.correlate(image, w[..., o], "valid")[..., 0] for o in range(4)] for image in x]
    np.testing.assert_allclose(ops.conv2d(x, w, b), np.moveaxis(expected, 1, 3) + b, rtol=1e-12)


@given(st.data())
def test_conv_transpose2d_is_the_adjoint_for_the_same_weight(data):
    """<conv2d(x, w), g> = <x, conv_transpose2d(g, w)>, with any stride, padding, dilation, groups and size."""

    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups, kernel, stride, padding, dilation = data.draw(st.integers(1, 3)), pair(1, 3), pair(1, 3), pair(0, 2), pair(1, 2)
    smallest = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    hw = [n + data.draw(st.integers(0, 4)) for n in smallest]
    x = normal(2, *hw, groups * data.draw(st.integers(1, 2)))
    w = normal(*kernel, x.shape[3] // groups, groups * data.draw(st.integers(1, 2)), seed=1)
    y = ops.conv2d(x, w, None, stride, padding, dilation, groups)
    g = normal(*y.shape, seed=2)
    left_over = [
        (n + 2 * p - d * (k - 1) - 1) % s for n, k, s, p, d in zip(hw, kernel, stride, padding, dilation, strict=True)
    ]
    back = ops.conv_transpose2d(g, w, None, stride, padding, left_over, groups, dilation)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(y, g), np.vdot(x, back), rtol=1e-10, atol=1e-10)


def test_grouped_transposed_channels_stay_in_their_group():
    """weight (kh, kw, C_out / groups, C_in): input channels 0, 1 reach outputs 0, 1, 2 only."""
    x, w = np.zeros((1, 1, 1, 4)), np.ones((1, 1, 3, 4))
    x[..., :2] = 1
    np.testing.assert_array_equal(ops.conv_transpose2d(x, w, groups=2).ravel(), [2, 2, 2, 0, 0, 0])
    np.testing.assert_array_equal(ops.conv_transpose2d(x, w, groups=2, bias=np.arange(6.0)).ravel(), [2, 3, 4, 3, 4, 5])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_three_convolutions_are_closed_under_differentiation(backend):
    """Third derivatives by any path: gradcheck of order 3."""
    x, w, b = normal(1, 4, 3, 2), normal(2, 2, 1, 2, seed=1), normal(2, seed=2)
    with set_backend(backend):
        gradcheck(lambda x, w, b: ops.conv2d(x, w, b, (2, 1), (1, 0), (1, 2), 2), [x, w, b], order=3)
        gradcheck(lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1, 1, 2), [x, w, b], order=3)
        g = normal(1, 5, 4, 2, seed=3)
        gradcheck(lambda x, g: ops.conv2d_weight(x, g, (2, 2), 1, 1), [x, g], order=3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_average_of_a_window_whose_sum_overflows(backend, dtype):
    power = dtype(2.0 ** (np.finfo(dtype).maxexp - 2))
    x = np.array([[3, 3, 1, 2], [3, 3.5, 2, 1]], dtype).reshape(1, 2, 4, 1)
    x_huge = np.concatenate([x[:, :, :2] * power, x[:, :, 2:]], axis=2)
    with set_backend(backend):
        np.testing.assert_array_equal(ops.avg_pool2d(x_huge, 2).ravel(), np.array([3.125 * power, 1.5], dtype))
        x_huge[0, 0, 0, 0] = np.inf
        np.testing.assert_array_equal(ops.avg_pool2d(x_huge, 2).ravel(), np.array([np.inf, 1.5], dtype))


def test_max_pool_is_linear_in_its_cotangent_at_every_order():
    x = Tensor(np.random.default_rng(0).permutation(32).astype(float).reshape(1, 4, 4, 2), requires_grad=True)
    g = Tensor(normal(1, 2, 2, 2), requires_grad=True)
    first = grad(ops.max_pool2d(x, 2), x, g, create_graph=True)
    v = Tensor(normal(*x.shape, seed=1), requires_grad=True)
    second = grad(first, g, v, create_graph=True)  # v at the largest value of each window
    largest = x.data == np.kron(ops.max_pool2d(x, 2).data, np.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(second.data, ops.avg_pool2d(np.where(largest, v.data, 0) * 4, 2))
    np.testing.assert_array_equal(grad(second, v, g.data).data, first.data)


def test_padding_same_keeps_the_size():
    x = normal(1, 5, 6, 2)
    for kernel, dilation in (((3, 5), 1), ((1, 3), 1), ((2, 3), 2)):
        w = normal(*kernel, 2, 3, seed=1)
        assert ops.conv2d(x, w, padding="same", dilation=dilation).shape == (1, 5, 6, 3)
        t = Tensor(x, requires_grad=True)
        assert grad(ops.conv2d(t, w, padding="same", dilation=dilation).sum(), t).shape == x.shape
    w = normal(3, 2, 3, seed=1)
    np.testing.assert_array_equal(ops.conv1d(x[0], w, padding="same"), ops.conv1d(x[0], w, padding=1))


def test_one_dimension_is_two_with_one_row():
    x, w, b = normal(2, 7, 4), normal(3, 2, 6, seed=1), normal(6, seed=2)
    y = ops.conv1d(x, w, b, stride=2, padding=1, dilation=2, groups=2)
    row = ops.conv2d(x[:, None], w[None], b, (1, 2), (0, 1), (1, 2), 2)
    np.testing.assert_array_equal(y, row[:, 0])
    back = ops.conv_transpose1d(y, w, None, 2, 1, 0, 2, 2)
    np.testing.assert_array_equal(back, ops.conv_transpose2d(row, w[None], None, (1, 2), (0, 1), 0, 2, (1, 2))[:, 0])


def test_float32_stays_float32():
    x, w, b = (Tensor(a.astype(np.float32), requires_grad=True) for a in (normal(1, 4, 4, 2), normal(3, 3, 2, 2), normal(2)))
    for y in (ops.conv2d(x, w, b), ops.conv_transpose2d(x, w, b, 2)):
        assert y.dtype == np.float32
        assert all(d.dtype == np.float32 for d in grad(y, [x, w, b], np.ones(y.shape, np.float32)))


def test_channels_of_space_to_depth_are_the_pixels_of_a_block_in_order():
    x = np.arange(16).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(ops.space_to_depth(x, 2)[0, 1, 0], [8, 9, 12, 13])
    two = np.stack([x, x + 100], -1)[..., 0, :]  # channels c of a pixel stay together
    np.testing.assert_array_equal(ops.space_to_depth(two, 2)[0, 0, 0], [0, 100, 1, 101, 4, 104, 5, 105])


@given(st.integers(1, 3), st.tuples(*[st.integers(1, 3)] * 4))
def test_space_to_depth_and_depth_to_space_undo_each_other(block, sides):
    n, h, w, c = sides
    x = normal(n, h * block, w * block, c * block**2)
    np.testing.assert_array_equal(ops.depth_to_space(ops.space_to_depth(x, block), block), x)
    np.testing.assert_array_equal(ops.space_to_depth(ops.depth_to_space(x, block), block), x)


X, W = np.ones((2, 5, 6, 4)), np.ones((3, 3, 4, 6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.conv2d(X[..., :3], W), r"^conv2d: .* 3 .*\(3, 3, 4, 6\)"),
        (lambda: ops.conv2d(X[0], W), r"^conv2d: images must have shape \(N, H, W, C\), got \(5, 6, 4\)"),
        (lambda: ops.conv2d(X, W[0]), r"^conv2d: weights must have shape .* got \(3, 4, 6\)"),
        (lambda: ops.conv2d(X[:, :2], W), r"^conv2d: a kernel of size 3 .* does not fit into 2 pixels padded by 0"),
        (lambda: ops.conv2d(X, W, padding=-1), r"^conv2d: padding must be two integers >= 0, got \(-1, -1\)"),
        (lambda: ops.conv2d(X, W, stride=(1, 0)), r"^conv2d: stride must be two integers >= 1, got \(1, 0\)"),
        (lambda: ops.conv2d(X, W, dilation=0), r"^conv2d: dilation must be two integers >= 1, got \(0, 0\)"),
        (lambda: ops.conv2d(X, W, stride=1.5), r"^conv2d: stride must be an integer or two, got 1\.5"),
        (lambda: ops.conv2d(X, W, padding=(1, 1, 1)), r"^conv2d: padding must be an integer or two, got \(1, 1, 1\)"),
        (lambda: ops.conv2d(X, W[:, :, :2], groups=4), r"^conv2d: .* 4 groups"),
        (lambda: ops.conv2d(X, W[:, :, :1, :5], groups=4), r"^conv2d: .* 4 groups"),
        (lambda: ops.conv2d(X, W, groups=0), r"^conv2d: .* 0 groups"),
        (lambda: ops.conv2d(X, W, np.ones(4)), r"^conv2d: bias must have shape \(6,\), got \(4,\)"),
        (lambda: ops.conv2d(X, W, padding="valid"), r"^conv2d: padding 'valid' .* the only word is 'same'"),
        (lambda: ops.conv2d(X, W, padding="same", stride=2), r"^conv2d: padding 'same' .* stride \(2, 2\)"),
        (lambda: ops.conv2d(X, W[:2], padding="same"), r"^conv2d: padding 'same' with a kernel of \(2, 3\).* ops\.pad"),
        (lambda: ops.conv_transpose2d(X, W), r"^conv_transpose2d: input \(2, 5, 6, 4\) and weight \(3, 3, 4, 6\) do not"),
        (lambda: ops.conv_transpose2d(X, W[..., :4], groups=3), r"^conv_transpose2d: .* do not fit with 3 groups"),
        (lambda: ops.conv_transpose2d(X, W[0]), r"^conv_transpose2d: input must be \(N, H, W, C_in\) and weight .*\(3, 4, 6\)"),
        (
            lambda: ops.conv_transpose2d(X, W[..., :4], stride=2, output_padding=2),
            r"^conv_transpose2d: output_padding \(2, 2\) must be at least 0 and less than the stride \(2, 2\)",
        ),
        (lambda: ops.conv_transpose2d(X, W[..., :4], padding=4), r"^conv_transpose2d: .* give an output of -1 x 0 pixels"),
        (lambda: ops.conv1d(X, W), r"^conv1d: input must be \(N, L, C_in\) and weight \(k, C_in / groups, C_out\)"),
        (lambda: ops.conv1d(X[0], W[0], groups=2), r"^conv1d: .* 2 groups"),
        (lambda: ops.conv_transpose1d(X, W), r"^conv_transpose1d: input must be \(N, L, C_in\) and weight \(k, C_out / groups"),
        (lambda: ops.conv_transpose1d(X[0], W[0]), r"^conv_transpose1d: .*\(1, 3, 4, 6\) do not fit with 1 groups"),
        (lambda: ops.max_pool2d(X, 2, padding=2), r"^max_pool2d: padding \(2, 2\) is more than half of the kernel \(2, 2\)"),
        (lambda: ops.max_pool2d(X, 6), r"^max_pool2d: a kernel of size 6 .* does not fit into 5 pixels"),
        (lambda: ops.avg_pool2d(X, 2, 0), r"^avg_pool2d: stride must be two integers >= 1, got \(0, 0\)"),
        (lambda: ops.upsample_nearest(X, 0), r"^upsample_nearest: scale must be two integers >= 1, got \(0, 0\)"),
        (lambda: ops.upsample_nearest(X, 1.5), r"^upsample_nearest: scale_factor must be an integer or two, got 1\.5"),
        (lambda: ops.space_to_depth(X, 2), r"^space_to_depth: x \(2, 5, 6, 4\) with block 2: .* height and width must"),
        (lambda: ops.depth_to_space(X, 3), r"^depth_to_space: x \(2, 5, 6, 4\) with block 3: .* C must be a multiple"),
        (lambda: ops.space_to_depth(X, 0), r"^space_to_depth: x \(2, 5, 6, 4\) with block 0"),
    ],
)
def test_refusals_name_the_op_the_shapes_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_mixed_dtypes_are_refused():
    for call in (ops.conv2d, ops.conv_transpose2d):
        with pytest.raises(TypeError, match=re.escape(call.name)):
            call(X, np.ones((3, 3, 4, 4), np.float32))
    with pytest.raises(TypeError, match="conv2d: bias is float32"):
        ops.conv2d(X, W, np.ones(6, np.float32))
