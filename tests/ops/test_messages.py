"""What an op says when it is given something wrong: the op, the shapes or the value, and a way out. Start at `REFUSALS`."""

import numpy as np
import pytest

from minigen import Tensor, ops
from minigen.random import Generator

X = np.ones((2, 3, 4), np.float32)
M = np.ones((3, 3), np.float32)
IMAGE = np.ones((2, 4, 4, 3), np.float32)
WEIGHT = np.ones((2, 2, 3, 5), np.float32)
HALF = X.astype(np.float16)
CLASSES = np.zeros(3, np.int64)

# what is done, the error, and parts of the message in their order: the op, what was given, the way out
REFUSALS = [
    # shapes
    (lambda: ops.matmul(X, M), ValueError, "matmul", "(2, 3, 4)", "(3, 3)", "must be as long as"),
    (lambda: ops.matmul(X[0], np.float32(2)), ValueError, "matmul", "(3, 4)", "()", "must be as long as"),
    (lambda: ops.matmul(X.mT, np.ones((5, 3, 3))), ValueError, "matmul", "(2, 4, 3)", "(5, 3, 3)", "must be equal or 1"),
    (lambda: ops.einsum("ij,jk", X, M), ValueError, "einsum", "'ij,jk'", "(2, 3, 4)", "3"),
    (lambda: ops.einsum("...i,j", X, M), ValueError, "einsum", "'...i,j'", "(2, 3, 4)", "'j' names 1 axes", "2"),
    (lambda: ops.solve_triangular(X, M), ValueError, "solve_triangular", "square", "(2, 3, 4)"),
    (lambda: ops.solve_triangular(0 * M, M), np.linalg.LinAlgError, "solve_triangular", "(3, 3)", "unit_diagonal"),
    (lambda: ops.inv(X), ValueError, "inv", "square", "(2, 3, 4)"),
    (lambda: ops.inv(M), np.linalg.LinAlgError, "inv", "(3, 3)", "add a small multiple"),
    (lambda: ops.slogdet(X), ValueError, "slogdet", "square", "(2, 3, 4)"),
    (lambda: ops.diagonal(M[0]), ValueError, "diagonal", "(3,)", "expand_dims"),
    (lambda: ops.tril(M[0]), ValueError, "tril", "(3,)", "expand_dims"),
    (lambda: ops.triu(M, "a"), TypeError, "triu", "k must be an integer", "'a'"),
    (lambda: ops.reshape(X, (5, 5)), ValueError, "reshape", "(2, 3, 4)", "(5, 5)", "must multiply to 24"),
    (lambda: ops.reshape(X, (-1, -1)), ValueError, "reshape", "(2, 3, 4)", "(-1, -1)", "one of them may be -1"),
    (lambda: ops.permute_dims(X, (0, 1)), ValueError, "permute_dims", "(0, 1)", "(2, 3, 4)", "must be named once"),
    (lambda: ops.broadcast_to(X, (5,)), ValueError, "broadcast_to", "(2, 3, 4)", "(5,)", "equal, or 1"),
    (lambda: ops.squeeze(X, 0), ValueError, "squeeze", "axis 0", "(2, 3, 4)", "sum over it"),
    (lambda: ops.concat([X, M]), ValueError, "concat", "(2, 3, 4)", "(3, 3)", "must be equal but for axis 0"),
    (lambda: ops.concat([]), ValueError, "concat", "at least one array"),
    (lambda: ops.stack([X, M]), ValueError, "stack", "all of one shape", "(2, 3, 4)", "(3, 3)"),
    (lambda: ops.split(X, 5), ValueError, "split", "(2, 3, 4)", "5 equal parts", "give the sizes"),
    (lambda: ops.split(X, [1, 2]), ValueError, "split", "[1, 2]", "sum to 2"),
    (lambda: ops.pad(X, (1, 2, 3)), ValueError, "pad", "((before, after), ...)", "(2, 3, 4)", "(1, 2, 3)"),
    (lambda: ops.pad(X, -1), ValueError, "pad", "-1", "use slices"),
    (lambda: ops.conv2d(IMAGE, WEIGHT[:, :, :2]), ValueError, "conv2d", "(2, 2, 2, 5)", "C_in / groups"),
    (lambda: ops.conv2d(IMAGE, WEIGHT, M[0]), ValueError, "conv2d", "bias", "(5,)", "(3,)"),
    (lambda: ops.conv1d(IMAGE, WEIGHT), ValueError, "conv1d", "(N, L, C_in)", "(2, 4, 4, 3)"),
    (lambda: ops.conv_transpose2d(IMAGE, WEIGHT), ValueError, "conv_transpose2d", "(2, 4, 4, 3)", "C_out / groups"),
    (lambda: ops.max_pool2d(X, 2), ValueError, "max_pool2d", "(N, H, W, C)", "(2, 3, 4)"),
    (lambda: ops.upsample_nearest(X, 2), ValueError, "upsample_nearest", "(N, H, W, C)", "(2, 3, 4)"),
    (lambda: ops.space_to_depth(IMAGE, 3), ValueError, "space_to_depth", "(2, 4, 4, 3)", "3", "multiples of block"),
    (lambda: ops.depth_to_space(IMAGE, 2), ValueError, "depth_to_space", "(2, 4, 4, 3)", "2", "multiple of block²"),
    (lambda: ops.layer_norm(X, 7), ValueError, "layer_norm", "(2, 3, 4)", "normalized_shape (7,)"),
    (lambda: ops.group_norm(X, 3), ValueError, "group_norm", "num_groups=3", "(2, 3, 4)"),
    (lambda: ops.instance_norm(M), ValueError, "instance_norm", "(3, 3)", "single position"),
    (lambda: ops.batch_norm(X, None, None), ValueError, "batch_norm", "running_mean", "when not training"),
    (lambda: ops.scaled_dot_product_attention(X, M, M), ValueError, "attention", "(2, 3, 4)", "(3, 3)", "equally many"),
    (lambda: ops.mse_loss(X, M), ValueError, "mse_loss", "(2, 3, 4)", "(3, 3)", "reshape one"),
    (lambda: ops.cross_entropy(M, CLASSES[:2]), ValueError, "cross_entropy", "(3, 3)", "(2,)", "must be (...)"),
    (lambda: ops.linear(X, M), ValueError, "linear", "(2, 3, 4)", "(3, 3)", "(C_in, C_out)"),
    (lambda: ops.bias_act(X, M), ValueError, "bias_act", "(3, 3)", "must be (C,)"),
    (lambda: ops.gated_tanh(M), ValueError, "gated_tanh", "(3, 3)", "even number"),
    (lambda: ops.sample_normal_kl(X, X, M), ValueError, "sample_normal_kl", "(2, 3, 4)", "(3, 3)", "same shape"),
    (lambda: ops.take_along_axis(X, CLASSES, 0), ValueError, "take_along_axis", "(3,)", "as many axes", "(2, 3, 4)"),
    (lambda: ops.searchsorted(np.float32(1), X), ValueError, "searchsorted", "()", "(2, 3, 4)", "need an axis"),
    # axes and indices
    (lambda: ops.softmax(X, axis=9), np.exceptions.AxisError, "softmax", "axis 9", "(2, 3, 4)", "below 3"),
    (lambda: ops.sum(X, axis=(0, 0)), ValueError, "sum", "axis"),
    (lambda: ops.logsumexp(X, axis=(0, 0)), ValueError, "logsumexp", "(0, 0)", "name each once"),
    (lambda: ops.cumulative_sum(X), ValueError, "cumulative_sum", "(2, 3, 4)", "axis=0"),
    (lambda: ops.take(X, CLASSES), ValueError, "take", "(2, 3, 4)", "0 to 2"),
    (lambda: ops.take(X, CLASSES, axis=9), IndexError, "take", "axis 9", "(2, 3, 4)", "below 3"),
    (lambda: ops.split(X, 2, axis=9), ValueError, "split", "axis 9", "(2, 3, 4)", "below 3"),
    (lambda: ops.max(X[:, :0], axis=1), ValueError, "max", "axis 1", "(2, 0, 4)", "check x.size"),
    (lambda: ops.one_hot(CLASSES + 5, 3), IndexError, "one_hot", "index 5", "0 .. 2"),
    (lambda: ops.embedding(CLASSES + 5, M), IndexError, "embedding", "index 5", "0 .. 2", "rows of weight"),
    (lambda: ops.cross_entropy(M, CLASSES + 7), IndexError, "cross_entropy", "index 7", "0 .. 2"),
    (lambda: Tensor(X)[9], IndexError, "getitem", "float32(2, 3, 4)", "index 9", "size 2"),
    # dtypes
    (lambda: ops.exp(HALF), TypeError, "exp", "float16", "astype"),
    (lambda: ops.relu(HALF), TypeError, "relu", "float16", "astype"),
    (lambda: ops.logsumexp(HALF, axis=1), TypeError, "logsumexp", "float16", "astype"),
    (lambda: ops.softmax(HALF), TypeError, "softmax", "float16", "astype"),
    (lambda: ops.inv(HALF[:, :, :3]), TypeError, "inv", "float16", "astype"),
    (lambda: ops.slogdet(np.ones((2, 2), int)), TypeError, "slogdet", "int64", "astype"),
    (lambda: ops.conv2d(IMAGE, WEIGHT.astype(np.float64)), TypeError, "conv2d", "float64", "float32", "convert one"),
    (lambda: ops.max_pool2d(IMAGE.astype(np.float16), 2), TypeError, "max_pool2d", "float32 or float64", "float16"),
    (lambda: ops.where(X, X, X), TypeError, "where", "float32(2, 3, 4)", "must be boolean", "where(x > 0"),
    (lambda: ops.take(X, X, axis=0), TypeError, "take", "must be integers", "float32", "x[mask]"),
    (lambda: ops.one_hot(X, 3), TypeError, "one_hot", "must be integers", "float32"),
    (lambda: ops.nll_loss(M, M), TypeError, "nll_loss", "integers", "float32"),
    (lambda: ops.clip(X, Tensor(0.0), 1), TypeError, "clip", "min is of type Tensor", "maximum(x, min)"),
    (lambda: ops.clip(X, max="a"), TypeError, "clip", "max is of type str", "must be a number"),
    (lambda: ops.cross_entropy(M, [0, 0, 0]), TypeError, "cross_entropy", "target is a list", "np.asarray"),
    (lambda: ops.mse_loss(X, 1.0), TypeError, "mse_loss", "target is a float", "np.asarray"),
    # what NumPy says, and what is put behind it
    (lambda: ops.add(X, X[0, 0, :3]), ValueError, "add", "float32(2, 3, 4)", "(3,)", "must be equal, or 1"),
    (lambda: ops.where(X > 0, X, X[:, 0]), ValueError, "where", "(2, 3, 4)", "(2, 4)", "must be equal, or 1"),
    (lambda: ops.clip(X, np.zeros(5)), ValueError, "clip", "(2, 3, 4)", "must be equal, or 1"),
    (lambda: ops.add(X, "a"), TypeError, "add", "float32(2, 3, 4), 'a'", "arrays of numbers or Tensors"),
    (lambda: ops.sqrt(None), TypeError, "sqrt", "None", "arrays of numbers or Tensors"),
    (lambda: ops.var(X, correction="a"), TypeError, "var", "(2, 3, 4)", "give numbers"),
    (lambda: ops.sum(X, axis=5), np.exceptions.AxisError, "sum", "(2, 3, 4)", "axis 5", "at least -3 and less than 3"),
    (lambda: ops.logsumexp(X, axis=5), np.exceptions.AxisError, "logsumexp", "(2, 3, 4)", "axis 5", "less than 3"),
    (lambda: ops.flip(X, axis=-4), np.exceptions.AxisError, "flip", "(2, 3, 4)", "axis -4", "at least -3"),
    (lambda: ops.concat([X, X], axis=3), np.exceptions.AxisError, "concat", "(2, 3, 4)", "axis 3", "less than 3"),
    (lambda: ops.sum(np.float32(1), axis=1), np.exceptions.AxisError, "sum", "axis 1", "reshape it to (1,)"),
    (lambda: ops.sum(X, axis="a"), TypeError, "sum", "(2, 3, 4)", "'str'", "give an integer"),
    (lambda: ops.add(X, X, alpha=2), TypeError, "add", "'alpha'", "the parameters are x1, x2"),
    (lambda: ops.mean(X, dim=1), TypeError, "mean", "'dim'", "x, axis, keepdims"),
    (lambda: ops.take(X, CLASSES + 5, axis=0), IndexError, "take", "(2, 3, 4)", "index 5", "less than 2"),
    (lambda: Tensor(X)[0, 0, 0, 0], IndexError, "getitem", "(2, 3, 4)", "4 were indexed", "at most 3"),
    (lambda: ops.astype(X, "foo"), TypeError, "astype", "(2, 3, 4)", "'foo'", "float32 and float64"),
    (lambda: ops.astype(X, np.float16), TypeError, "astype", "(2, 3, 4)", "float32 and float64", "float16"),
    # parameters
    (lambda: ops.conv2d(IMAGE, WEIGHT, stride=0), ValueError, "conv2d", "stride", ">= 1", "(0, 0)"),
    (lambda: ops.conv2d(IMAGE, WEIGHT, padding="valid"), ValueError, "conv2d", "'valid'", "'same'"),
    (lambda: ops.conv2d(IMAGE, np.ones((9, 9, 3, 5))), ValueError, "conv2d", "size 9", "4 pixels"),
    (lambda: ops.max_pool2d(IMAGE, 0), ValueError, "max_pool2d", "kernel_size must be at least 1", "0"),
    (lambda: ops.avg_pool2d(IMAGE, 1.5), ValueError, "avg_pool2d", "kernel_size", "an integer", "1.5"),
    (lambda: ops.max_pool2d(IMAGE, 2, padding=2), ValueError, "max_pool2d", "padding (2, 2)", "half of the kernel"),
    (lambda: ops.upsample_nearest(IMAGE, 0), ValueError, "upsample_nearest", ">= 1", "(0, 0)"),
    (lambda: ops.one_hot(CLASSES, "a"), ValueError, "one_hot", "num_classes='a'", "must be an integer"),
    (lambda: ops.searchsorted(M[0], X, side="mid"), ValueError, "searchsorted", "'left' or 'right'", "'mid'"),
    (lambda: ops.group_norm(X, 2, activation="foo"), ValueError, "group_norm", "'foo'", "'relu'", "'silu'"),
    (lambda: ops.linear(M, M, activation="foo"), ValueError, "linear", "'foo'", "'relu'", "'silu'"),
    (lambda: ops.gelu(X, approximate="foo"), ValueError, "gelu", "'none' or 'tanh'", "'foo'"),
    (lambda: ops.softplus(X, beta=0), ValueError, "softplus", "beta must not be 0", "relu"),
    (lambda: ops.leaky_relu(X, negative_slope=-1), ValueError, "leaky_relu", "at least 0", "-1"),
    (lambda: ops.elu(X, alpha=-1), ValueError, "elu", "at least 0", "-1"),
    (lambda: ops.dropout(X, 1.5, Generator(0)), ValueError, "dropout", "p=1.5", "[0, 1)"),
    (lambda: ops.dropout(X, 0.5, None), TypeError, "dropout", "NoneType", "Generator(0)", "training=False"),
    (lambda: ops.dropout(X, 0.5, np.random.default_rng(0)), TypeError, "dropout", "minigen.random.Generator"),
    (lambda: ops.mse_loss(X, X, reduction="avg"), ValueError, "mse_loss", "'avg'", "'mean', 'sum' or 'none'"),
    (lambda: ops.kl_normal(X, X, reduction="avg"), ValueError, "kl_normal", "'avg'", "'mean', 'sum' or 'none'"),
    (lambda: ops.cross_entropy(M, CLASSES, label_smoothing=2), ValueError, "cross_entropy", "=2", "[0, 1]"),
    (lambda: ops.gaussian_nll_loss(M, M, -M), ValueError, "gaussian_nll_loss", "-1.0", "exp(logvar)"),
    (lambda: ops.to_device(X, "tpu"), ValueError, "to_device", "'tpu'", "'cpu' or 'cuda'"),
    (lambda: ops.exp(X, X, X), TypeError, "exp", "1 arguments", "3"),
    (lambda: ops.matmul(X), TypeError, "matmul", "x1, x2"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: f"{case[2]} {case[-1]}")
def test_a_refusal_names_the_op_what_it_was_given_and_the_way_out(case):
    call, error, *parts = case
    with pytest.raises(error) as caught:
        call()
    message, position = str(caught.value), 0
    for part in parts:
        assert part in message[position:], f"{part!r} is not in its place in: {message}"
        position = message.index(part, position) + len(part)


def test_most_public_ops_are_in_the_table():
    named = {case[2] for case in REFUSALS} | {"scaled_dot_product_attention"}
    elementwise = {
        "abs", "add", "astype", "cos", "divide", "erf", "expm1", "log", "log1p", "log_sigmoid", "maximum", "minimum",
        "multiply", "negative", "pow", "sigmoid", "silu", "sin", "sqrt", "square", "subtract", "tanh",
    }  # fmt: skip
    like_another = {
        "binary_cross_entropy_with_logits", "conv_transpose1d", "expand_dims", "flip", "getitem", "group_norm_silu",
        "l1_loss", "log_softmax", "mean", "min", "roll", "std", "var", "scatter_add",
    }  # fmt: skip
    missing = {n for n in ops.__all__ if callable(getattr(ops, n))} - named - elementwise - like_another
    assert not missing, f"say what these refuse, and how: {sorted(missing)}"
