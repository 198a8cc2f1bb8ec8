"""Attention's masks, dropout's mask. What holds at ordinary numbers is tested for all ops alike, from their cards."""

import numpy as np
import pytest
from evaluate import everywhere, value_and_gradients

from minigen.autograd import Tensor
from minigen.autograd.gradcheck import gradcheck
from minigen.autograd.ops.attention import dropout, scaled_dot_product_attention
from minigen.random import Generator


def qkv(length=3, keys=4, features=5, values=2):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, length, features)), rng.normal(size=(2, keys, features)), rng.normal(size=(2, keys, values))


@everywhere
def test_a_query_that_may_look_nowhere_gets_zeros(backend, dtype):
    mask = np.ones((3, 4), bool)
    mask[1] = False
    for given in (mask, np.where(mask, 0, -np.inf).astype(dtype)):
        attend = lambda *a, m=given: scaled_dot_product_attention(*a, attn_mask=m)
        y, gq, gk, gv = value_and_gradients(attend, *qkv(), backend=backend, dtype=dtype)
        assert not y[:, 1].any()
        assert not gq[:, 1].any()
        rest = [a[:, [0, 2]] if i == 0 else a for i, a in enumerate(qkv())]
        without = value_and_gradients(scaled_dot_product_attention, *rest, backend=backend, dtype=dtype)
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-14}
        for a, b in zip((y[:, [0, 2]], gq[:, [0, 2]], gk, gv), without, strict=True):
            np.testing.assert_allclose(a, b, **tolerance)


def test_what_is_masked_has_no_influence():
    """The causal mask: query i sees keys 0 … i, whatever the others hold."""
    q, k, v = qkv()
    y = scaled_dot_product_attention(q, k, v, is_causal=True)
    for i in range(3):
        alone = scaled_dot_product_attention(q[:, i : i + 1], k[:, : i + 1], v[:, : i + 1])
        np.testing.assert_allclose(y[:, i : i + 1], alone, rtol=1e-13)


def test_gradient_by_an_additive_mask():
    mask = np.random.default_rng(1).normal(size=(3, 4))
    gradcheck(lambda q, k, v, m: scaled_dot_product_attention(q, k, v, m), [*qkv(), mask], analytic=True)


def test_a_boolean_mask_may_be_a_tensor():
    mask = np.tri(3, 4, dtype=bool)
    expected = scaled_dot_product_attention(*qkv(), is_causal=True)
    assert np.array_equal(scaled_dot_product_attention(*qkv(), attn_mask=Tensor(mask)).data, expected)


Q, K, V = qkv()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: scaled_dot_product_attention(Q[0, 0], K, V), ValueError, r"query \(5,\).*\(..., length, features\)"),
        (lambda: scaled_dot_product_attention(Q[..., :2], K, V), ValueError, "query and key must have equally many features"),
        (lambda: scaled_dot_product_attention(Q, K, V[:, :2]), ValueError, "key and value must have equally many rows"),
        (lambda: scaled_dot_product_attention(Q, K, np.ones((3, 4, 2))), ValueError, "leading axes do not broadcast"),
        (lambda: scaled_dot_product_attention(Q, K, V, np.ones((3, 4), int)), TypeError, "must be boolean .* not int64"),
        (lambda: scaled_dot_product_attention(Q, K, V, np.ones((4, 3))), ValueError, r"attn_mask \(4, 3\) does not broadcast"),
        (lambda: scaled_dot_product_attention(Q, K, V, np.ones((5, 2, 3, 4))), ValueError, r"to the scores \(2, 3, 4\)"),
        (lambda: scaled_dot_product_attention(Q, K, V, np.ones((3, 4)), is_causal=True), ValueError, "not both"),
        (lambda: dropout(Q, 1.0, Generator(0)), ValueError, r"p=1.0 .* must be in \[0, 1\)"),
        (lambda: dropout(Q, -0.1, Generator(0), training=False), ValueError, r"p=-0.1"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- dropout


def test_dropout_zeroes_a_fraction_p_and_scales_the_rest():
    x = Tensor(np.full((100, 200), 3.0, np.float32), requires_grad=True)
    y = dropout(x, 0.25, Generator(0))
    assert set(np.unique(y.data).tolist()) == {0.0, 4.0}
    assert abs((y.data == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / x.size)
    y.backward(np.ones(x.shape, np.float32))
    assert np.array_equal(x.grad.data, y.data / 3)


def test_dropout_depends_on_its_generator_only():
    x = np.ones(50)
    assert np.array_equal(dropout(x, 0.5, Generator(1)), dropout(x, 0.5, Generator(1)))
    assert not np.array_equal(dropout(x, 0.5, Generator(1)), dropout(x, 0.5, Generator(2)))


def test_dropout_outside_training_is_the_input():
    x = Tensor(np.ones(3))
    assert dropout(x, 0.5, None, training=False) is x
    assert dropout(x, 0.0, None) is x
