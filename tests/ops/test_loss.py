"""Losses: infinite logits, conventions, reductions, refusals. What holds at ordinary numbers is tested from the cards."""

import numpy as np
import pytest
from evaluate import everywhere, value_and_gradients, values

from minigen.autograd import Tensor, grad
from minigen.autograd.gradcheck import gradcheck
from minigen.autograd.ops.loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    gaussian_nll_loss,
    kl_normal,
    l1_loss,
    mse_loss,
    nll_loss,
)

INF, NAN = np.inf, np.nan


def bce(input, target):
    return binary_cross_entropy_with_logits(input, target, reduction="none")


# ---- Bernoulli

LOGITS = [  # logit, target, loss, gradient by the logit
    (INF, 1.0, 0.0, 0.0),
    (INF, 0.0, INF, 1.0),
    (INF, 0.25, INF, 0.75),
    (-INF, 0.0, 0.0, 0.0),
    (-INF, 1.0, INF, -1.0),
    (-INF, 0.25, INF, -0.25),
    (0.0, 0.5, np.log(2), 0.0),
    (-0.0, 1.0, np.log(2), -0.5),
    (104.0, 1.0, 0.0, 0.0),  # e^-104 is 0 in float32
    (-104.0, 1.0, 104.0, -1.0),
    (20.0, 1.0, np.log1p(np.exp(-20)), -1 / (1 + np.exp(20))),  # neither is 0: nothing cancels
    (-20.0, 0.0, np.log1p(np.exp(-20)), 1 / (1 + np.exp(20))),
    (NAN, 0.0, NAN, NAN),
    (1.0, NAN, NAN, NAN),
]


@everywhere
@pytest.mark.parametrize(("logit", "target", "loss", "slope"), LOGITS)
def test_bce_at_extreme_logits(logit, target, loss, slope, backend, dtype):
    y, gx, _ = value_and_gradients(bce, [logit], [target], backend=backend, dtype=dtype)
    np.testing.assert_allclose(y, [loss], rtol=1e-6, atol=1e-40)
    np.testing.assert_allclose(gx, [slope], rtol=1e-6, atol=1e-40)


@everywhere
def test_bce_at_the_largest_logits(backend, dtype):
    top = np.finfo(dtype).max
    y, gx, gt = value_and_gradients(bce, [top, -top, top], [1, 1, 0.5], backend=backend, dtype=dtype)
    assert y.tolist() == [0, top, top / 2]
    assert gx.tolist() == [0, -1, 0.5]
    assert gt.tolist() == [-top, top, -top]


@everywhere
def test_bce_gradient_by_target_at_an_infinite_logit(backend, dtype):
    """-logit, but 0 where nothing is asked for: not 0 times infinity."""
    _, gx, gt = value_and_gradients(bce, [INF, INF, -INF], [1, 1, 0], g=[0, 1, 2], backend=backend, dtype=dtype)
    assert gt.tolist() == [0, -INF, INF]
    assert gx.tolist() == [0, 0, 0]


def test_bce_second_derivative_at_an_infinite_logit():
    assert values(bce, [INF, -INF, 0.0], [1, 1, 0.5], order=2)[1:] == [[0, 0, 0.25], [-1, -1, -1]]


def test_bce_gradient_of_a_mean_and_of_single_losses_agree():
    """The cotangent of a mean is one number in every place, which the kernel treats on its own."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 5)), rng.random((3, 5))
    mean = value_and_gradients(binary_cross_entropy_with_logits, x, y)
    single = value_and_gradients(bce, x, y, g=np.full((3, 5), 1 / 15))
    for a, b in zip(mean[1:], single[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


# ---- classes


@everywhere
def test_cross_entropy_with_infinite_logits_is_the_limit(backend, dtype):
    x = [[-INF, 0, 0], [-INF, 0, 0], [INF, 0, 0], [INF, 0, 0], [INF, INF, 0], [-INF, -INF, -INF], [NAN, 0, 0]]
    target = np.array([0, 1, 0, 1, 0, 1, 1])
    loss, gx = value_and_gradients(
        lambda x: cross_entropy(x, target, reduction="none"), x, g=np.full(7, 2), backend=backend, dtype=dtype
    )
    np.testing.assert_allclose(loss, [INF, np.log(2), 0, INF, np.log(2), INF, NAN], rtol=1e-6)
    expected = [[-2, 1, 1], [0, -1, 1], [0, 0, 0], [2, -2, 0], [-1, 1, 0], [0, -2, 0], [NAN] * 3]
    assert np.array_equal(gx[:, :2], np.array(expected)[:, :2], equal_nan=True)
    assert np.array_equal(gx[:6, 2], np.array(expected)[:6, 2])


@everywhere
def test_cross_entropy_of_large_logits(backend, dtype):
    """Logits far from 0 lose nothing that their differences have; the largest numbers do not overflow on the way."""
    target = np.array([1, 0, 2])
    top = np.finfo(dtype).max
    x = [[4096, 4097, 4095], [-104, 0, -89], [top, 0, top]]
    loss, gx = value_and_gradients(lambda x: cross_entropy(x, target, "none"), x, backend=backend, dtype=dtype)
    np.testing.assert_allclose(loss, [np.log(1 + np.exp(-1) + np.exp(-2)), 104, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(gx[2], [0.5, 0, -0.5])


def test_cross_entropy_of_probabilities():
    """-Σ target log softmax. One-hot probabilities are classes; a class without weight may be impossible."""
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(4, 3)), np.array([0, 2, 1, 1])
    for smoothing in (0.0, 0.3):
        soft = value_and_gradients(lambda x, s=smoothing: cross_entropy(x, np.eye(3)[target], label_smoothing=s), x)
        hard = value_and_gradients(lambda x, s=smoothing: cross_entropy(x, target, label_smoothing=s), x)
        np.testing.assert_allclose(soft[0], hard[0], rtol=1e-12)
        np.testing.assert_allclose(soft[1], hard[1], atol=1e-15)
    impossible = values(lambda x: cross_entropy(x, np.array([[0.0, 0.5, 0.5]])), [[-INF, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(impossible[0], np.log(2), rtol=1e-6)
    assert impossible[1] == [[0, 0, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_gradient_by_probabilities(smoothing):
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), 4)
    gradcheck(lambda x, t: cross_entropy(x, t, label_smoothing=smoothing), [x, target], analytic=True)


def test_nll_loss_of_log_softmax_is_cross_entropy():
    from minigen.autograd.ops.normalisation import log_softmax

    x, target = np.random.default_rng(0).normal(size=(2, 5, 4)), np.random.default_rng(1).integers(0, 4, (2, 5))
    for reduction in ("mean", "sum", "none"):
        composed = value_and_gradients(lambda x, r=reduction: nll_loss(log_softmax(x), target, r), x)
        fused = value_and_gradients(lambda x, r=reduction: cross_entropy(x, target, r), x)
        for a, b in zip(composed, fused, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_classes_may_be_tensors_of_any_integer_type():
    x = np.random.default_rng(0).normal(size=(3, 4))
    expected = cross_entropy(x, np.array([0, 3, 1]))
    for dtype in (np.uint8, np.int32):
        assert cross_entropy(Tensor(x), Tensor(np.array([0, 3, 1], dtype))).item() == expected


# ---- normal variables


def test_gaussian_nll_below_eps_has_the_gradient_at_eps():
    """PyTorch's convention: a variance that has become too small can grow again."""
    f = lambda var: gaussian_nll_loss(np.array([1.0, 1.0]), np.array([2.0, 2.0]), var, eps=0.5, reduction="none")
    tiny, at_eps = (value_and_gradients(f, [v, 4.0]) for v in (0.0, 0.5))
    assert np.array_equal(tiny, at_eps)
    np.testing.assert_allclose(tiny[1], [0.5 / 0.5 - 0.5 / 0.25, 0.5 / 4 - 0.5 / 16])


def test_gaussian_nll_full_is_a_log_density():
    x, mean, var = 0.3, -0.4, 1.7
    loss = gaussian_nll_loss(np.array([mean]), np.array([x]), np.array([var]), full=True)
    assert np.exp(-loss) == pytest.approx(np.exp(-((x - mean) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var))


@everywhere
def test_kl_normal_at_extremes(backend, dtype):
    kl, gmu, glogvar = value_and_gradients(kl_normal, [0, 0, 0, INF, 0], [0, INF, -INF, 0, 200], backend=backend, dtype=dtype)
    assert kl[:4].tolist() == [0, INF, INF, INF]
    assert gmu.tolist() == [0, 0, 0, INF, 0]
    assert glogvar[:4].tolist() == [0, INF, -0.5, 0]
    assert kl[4] == glogvar[4] == (INF if dtype == np.float32 else np.exp(200) / 2)


def test_kl_normal_near_the_prior_keeps_its_digits():
    """½ logvar² to leading order. e^x - 1 - x from e^x would be off in the third digit."""
    kl = kl_normal(np.zeros(2), np.array([1e-5, -1e-6]))
    np.testing.assert_allclose(kl, [0.25e-10, 0.25e-12], rtol=1e-4)


def test_kl_normal_is_the_integral():
    """∫ q log(q / p), by a Riemann sum over ± 12 deviations."""
    mu, logvar, prior_mu, prior_logvar = 0.7, -0.6, -0.3, 0.9
    x = np.linspace(-12, 12, 20001)
    log_q, log_p = (
        -0.5 * ((x - m) ** 2 / np.exp(s) + s + np.log(2 * np.pi)) for m, s in ((mu, logvar), (prior_mu, prior_logvar))
    )
    integral = (np.exp(log_q) * (log_q - log_p)).sum() * (x[1] - x[0])
    exact = kl_normal(*(np.array([v]) for v in (mu, logvar, prior_mu, prior_logvar)))
    np.testing.assert_allclose(exact, [integral], rtol=1e-10)
    only_mean = kl_normal(*(np.array([v]) for v in (mu, logvar, prior_mu)))
    np.testing.assert_allclose(only_mean, kl_normal(np.array([mu - prior_mu]), np.array([logvar])), rtol=1e-12)


# ---- conventions and refusals


def test_l1_loss_has_gradient_zero_where_equal():
    assert values(lambda x, y: l1_loss(x, y, "sum"), [1, 2, 3], [1, 3, 1]) == [3, [0, -1, 1], [0, 1, -1]]


def test_reductions():
    x, y = np.array([[1.0, 2.0], [3.0, 5.0]]), np.zeros((2, 2))
    assert mse_loss(x, y) == 39 / 4
    assert mse_loss(x, y, "sum") == 39
    assert mse_loss(x, y, "none").tolist() == [[1, 4], [9, 25]]
    assert kl_normal(x, y).shape == (2, 2)
    assert kl_normal(x, y, reduction="sum") == 39 / 2


def test_target_gets_a_gradient_too():
    x, y = np.array([1.0, 2.0]), Tensor(np.array([3.0, 3.0]), requires_grad=True)
    assert grad(mse_loss(x, y, "sum"), y).data.tolist() == [4, 2]


COLUMN, ROW, LOGIT = np.ones((4, 1)), np.ones(4), np.zeros((4, 3))


@pytest.mark.parametrize("loss", [mse_loss, l1_loss, binary_cross_entropy_with_logits, kl_normal])
def test_unequal_shapes_are_refused(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: .* \(4, 1\), .* \(4,\): shapes must be equal"):
        loss(COLUMN, ROW)
    with pytest.raises(ValueError, match="shapes must be equal"):
        loss(Tensor(COLUMN, requires_grad=True), Tensor(np.ones((1, 1))))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gaussian_nll_loss(COLUMN, ROW, ROW), ValueError, r"input \(4, 1\), target \(4,\)"),
        (lambda: gaussian_nll_loss(LOGIT, LOGIT, ROW), ValueError, r"var \(4,\) must be like input \(4, 3\), or end in 1"),
        (lambda: gaussian_nll_loss(ROW, ROW, -ROW), ValueError, r"negative entries, down to -1.0"),
        (lambda: kl_normal(ROW, ROW, ROW, COLUMN), ValueError, r"prior_mu \(4,\), prior_logvar \(4, 1\)"),
        (lambda: cross_entropy(LOGIT, np.zeros(3, int)), ValueError, r"input \(4, 3\), target \(3,\).*classes must be \(...\)"),
        (lambda: cross_entropy(LOGIT, ROW), ValueError, r"input \(4, 3\), target \(4,\): shapes must be equal"),
        (lambda: cross_entropy(LOGIT, np.array([0, 1, 3, 0])), IndexError, "cross_entropy: index 3 is outside 0 .. 2"),
        (lambda: cross_entropy(LOGIT, np.array([0, 1, -1, 0])), IndexError, "cross_entropy: index -1 is outside 0 .. 2"),
        (lambda: cross_entropy(LOGIT, np.zeros(4, bool)), TypeError, "target must hold classes, integers, not bool"),
        (lambda: cross_entropy(LOGIT, np.zeros(4, int), label_smoothing=1.5), ValueError, "label_smoothing=1.5"),
        (lambda: nll_loss(LOGIT, ROW), TypeError, "integers, not float64"),
        (lambda: nll_loss(LOGIT, np.array([0, 1, 2, 3])), IndexError, "nll_loss: index 3 is outside 0 .. 2"),
        (lambda: mse_loss(ROW, ROW, "average"), ValueError, "unknown reduction 'average': choose 'mean', 'sum' or 'none'"),
        (lambda: bce(ROW, ROW.astype(int)), TypeError, "binary_cross_entropy_with_logits.*got int64: convert with astype"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
