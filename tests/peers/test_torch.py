"""Values and gradients beside PyTorch's, for everyone who knows those: skipped where PyTorch is not installed.

    python -m pip install 'torch>=2.6,<3' && python -m pytest tests/peers
"""

import numpy as np
import pytest

from minigen import Tensor, grad, ops

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minigen[peers]'")
F = torch.nn.functional

pytestmark = pytest.mark.peer

RNG = np.random.default_rng(0)


def array(*shape, low=-2.0, high=2.0):
    return RNG.uniform(low, high, shape)


def to_nchw(x):
    return x.permute(0, 3, 1, 2)


def to_nhwc(x):
    return x.permute(0, 2, 3, 1)


def to_oihw(w):
    return w.permute(3, 2, 0, 1)


X, Y, P = array(4, 5), array(4, 5), array(4, 5, low=0.1, high=3.0)
IMAGE, WEIGHT, BIAS = array(2, 7, 6, 4), array(3, 3, 4, 6), array(6)
SCALE, SHIFT = array(4), array(4)
LABELS = RNG.integers(0, 5, 4)

CASES = {
    "exp": (ops.exp, torch.exp, [X]),
    "log": (ops.log, torch.log, [P]),
    "tanh": (ops.tanh, torch.tanh, [X]),
    "sigmoid": (ops.sigmoid, torch.sigmoid, [X]),
    "log_sigmoid": (ops.log_sigmoid, F.logsigmoid, [X]),
    "softplus": (ops.softplus, F.softplus, [X]),
    "relu": (ops.relu, torch.relu, [X]),
    "leaky_relu": (lambda x: ops.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2), [X]),
    "elu": (ops.elu, F.elu, [X]),
    "silu": (ops.silu, F.silu, [X]),
    "gelu": (ops.gelu, F.gelu, [X]),
    "gelu-tanh": (lambda x: ops.gelu(x, approximate="tanh"), lambda x: F.gelu(x, approximate="tanh"), [X]),
    "erf": (ops.erf, torch.erf, [X]),
    "pow": (ops.pow, torch.pow, [P, Y]),
    "divide": (ops.divide, torch.divide, [X, P]),
    "maximum": (ops.maximum, torch.maximum, [X, Y]),
    "clip": (lambda x: ops.clip(x, -1.0, 1.0), lambda x: torch.clip(x, -1.0, 1.0), [X]),
    "var": (lambda x: ops.var(x, axis=1, correction=1.0), lambda x: torch.var(x, dim=1, correction=1), [X]),
    "max": (lambda x: ops.max(x, axis=1), lambda x: torch.amax(x, dim=1), [X]),
    "logsumexp": (lambda x: ops.logsumexp(x, axis=1), lambda x: torch.logsumexp(x, dim=1), [X]),
    "cumulative_sum": (lambda x: ops.cumulative_sum(x, axis=1), lambda x: torch.cumsum(x, dim=1), [X]),
    "matmul": (ops.matmul, torch.matmul, [array(3, 4, 5), array(5, 2)]),
    "einsum": (
        lambda a, b: ops.einsum("bij,bjk->bik", a, b),
        lambda a, b: torch.einsum("bij,bjk->bik", a, b),
        [array(2, 3, 4), array(2, 4, 5)],
    ),
    "slogdet": (lambda a: ops.slogdet(a)[1], lambda a: torch.linalg.slogdet(a)[1], [array(2, 4, 4) + 3 * np.eye(4)]),
    "inv": (ops.inv, torch.linalg.inv, [array(2, 4, 4) + 3 * np.eye(4)]),
    "softmax": (lambda x: ops.softmax(x, axis=-1), lambda x: F.softmax(x, dim=-1), [X]),
    "log_softmax": (lambda x: ops.log_softmax(x, axis=-1), lambda x: F.log_softmax(x, dim=-1), [X]),
    "layer_norm": (
        lambda x, w, b: ops.layer_norm(x, (4,), w, b),
        lambda x, w, b: F.layer_norm(x, (4,), w, b),
        [IMAGE, SCALE, SHIFT],
    ),
    "group_norm": (
        lambda x, w, b: ops.group_norm(x, 2, w, b),
        lambda x, w, b: to_nhwc(F.group_norm(to_nchw(x), 2, w, b)),
        [IMAGE, SCALE, SHIFT],
    ),
    "group_norm_silu": (
        lambda x, w, b: ops.group_norm_silu(x, 2, w, b),
        lambda x, w, b: to_nhwc(F.silu(F.group_norm(to_nchw(x), 2, w, b))),
        [IMAGE, SCALE, SHIFT],
    ),
    "conv2d": (
        lambda x, w, b: ops.conv2d(x, w, b, stride=2, padding=1),
        lambda x, w, b: to_nhwc(F.conv2d(to_nchw(x), to_oihw(w), b, stride=2, padding=1)),
        [IMAGE, WEIGHT, BIAS],
    ),
    "conv2d-dilated": (
        lambda x, w: ops.conv2d(x, w, dilation=2, padding=2),
        lambda x, w: to_nhwc(F.conv2d(to_nchw(x), to_oihw(w), dilation=2, padding=2)),
        [IMAGE, WEIGHT],
    ),
    "conv2d-grouped": (
        lambda x, w: ops.conv2d(x, w, groups=2),
        lambda x, w: to_nhwc(F.conv2d(to_nchw(x), to_oihw(w), groups=2)),
        [IMAGE, array(3, 3, 2, 6)],
    ),
    "conv_transpose2d": (
        lambda x, w: ops.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1),
        lambda x, w: to_nhwc(F.conv_transpose2d(to_nchw(x), to_oihw(w), stride=2, padding=1, output_padding=1)),
        [IMAGE, array(3, 3, 5, 4)],
    ),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 2), lambda x: to_nhwc(F.max_pool2d(to_nchw(x), 2)), [IMAGE]),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, 2), lambda x: to_nhwc(F.avg_pool2d(to_nchw(x), 2)), [IMAGE]),
    "attention": (
        lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        [array(2, 3, 5, 4), array(2, 3, 5, 4), array(2, 3, 5, 4)],
    ),
    "cross_entropy": (lambda x: ops.cross_entropy(x, LABELS), lambda x: F.cross_entropy(x, torch.as_tensor(LABELS)), [X]),
    "mse_loss": (ops.mse_loss, F.mse_loss, [X, Y]),
    "binary_cross_entropy_with_logits": (
        ops.binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
        [X, array(4, 5, low=0.0, high=1.0)],
    ),
    "gaussian_nll_loss": (ops.gaussian_nll_loss, F.gaussian_nll_loss, [X, Y, P]),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name):
    ours, theirs, inputs = CASES[name]
    xs = [Tensor(x, requires_grad=True) for x in inputs]
    ts = [torch.tensor(x, requires_grad=True) for x in inputs]
    y, z = ours(*xs), theirs(*ts)
    np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-10, atol=1e-12)
    g = array(*y.shape)
    for gx, gt in zip(grad(y, xs, g), torch.autograd.grad(z, ts, torch.as_tensor(g)), strict=True):
        np.testing.assert_allclose(gx.data, gt.numpy(), rtol=1e-9, atol=1e-11)
