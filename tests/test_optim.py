"""Optimisers: hand-written recursions, closed forms, the one flat buffer, and what is refused."""

import math

import numpy as np
import pytest

from minigen import Tensor, grad, ops
from minigen.nn import Linear, parameter
from minigen.optim import EMA, SGD, Adam, AdamW, FlatParameters, constant, cosine, inverse_sqrt, linear
from minigen.random import Generator

SHAPES = [(2, 3), (), (4,)]


def parameters(dtype=np.float64):
    rng = np.random.default_rng(0)
    return [parameter(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]


def flat(arrays):
    return np.concatenate([np.reshape(a, -1) for a in arrays])


def gradients(step):
    rng = np.random.default_rng(100 + step)
    return [rng.normal(size=shape) for shape in SHAPES]


# ---- the recursions, written as in the papers: (θ, gradients, steps of lr) -> θ


def sgd(theta, steps, momentum, weight_decay, nesterov):
    v = np.zeros_like(theta)
    for g, lr in steps:
        g = g + weight_decay * theta
        v = momentum * v + g
        theta = theta - lr * (g + momentum * v if nesterov else v)
    return theta


def adam(theta, steps, betas, eps, weight_decay):
    (b1, b2), m, v = betas, np.zeros_like(theta), np.zeros_like(theta)
    for t, (g, lr) in enumerate(steps, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        theta = theta - lr * weight_decay * theta - lr * m_hat / (np.sqrt(v_hat) + eps)
    return theta


CASES = {
    "sgd": (SGD, sgd, {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False}),
    "momentum": (SGD, sgd, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": False}),
    "nesterov": (SGD, sgd, {"momentum": 0.8, "weight_decay": 0.1, "nesterov": True}),
    "adam": (Adam, adam, {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0}),
    "adam of gans": (Adam, adam, {"betas": (0.0, 0.9), "eps": 0.1, "weight_decay": 0.0}),
    "adamw": (AdamW, adam, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.3}),
}


@pytest.mark.parametrize("lr", [0.1, cosine(0.1, steps=15, warmup=4)], ids=["constant", "schedule"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_twenty_steps_follow_the_recursion(case, lr):
    kind, recursion, options = case
    params = parameters()
    optimizer = kind(params, lr, **options)
    steps = [(flat(gradients(t)), lr(t) if callable(lr) else lr) for t in range(20)]
    expected = recursion(flat(p.data for p in params), steps, **options)
    for t in range(20):
        optimizer.step([Tensor(g) for g in gradients(t)])
    np.testing.assert_allclose(flat(p.data for p in params), expected, rtol=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_float32_stays_float32(case):
    kind, _, options = case
    params = parameters(np.float32)
    optimizer = kind(params, 0.1, **options)
    optimizer.step([Tensor(g.astype(np.float32)) for g in gradients(0)])
    assert {p.dtype for p in params} == {a.dtype for a in optimizer.state.values()} == {np.dtype(np.float32)}


def quadratic(kind, steps, theta=3.0, curvature=0.5, **options):
    """θ after some steps on ½ · curvature · θ²."""
    p = parameter(np.array([theta]))
    optimizer = kind([p], **options)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * curvature * ops.square(p)).sum().backward()
        optimizer.step()
    return p.data[0]


def test_closed_forms_on_a_quadratic():
    """Plain: θ_t = (1 - lr c)^t θ_0. With momentum (θ, v) turns by a fixed matrix. Adam's first step is lr · sign(g)."""
    assert math.isclose(quadratic(SGD, 50, lr=0.1), 3 * (1 - 0.05) ** 50, rel_tol=1e-12)
    turn = np.array([[1 - 0.05, -0.09], [0.5, 0.9]])  # of (θ, v): v' = .9 v + .5 θ, θ' = θ - .1 v'
    assert math.isclose(quadratic(SGD, 50, lr=0.1, momentum=0.9), (np.linalg.matrix_power(turn, 50) @ [3, 0])[0], rel_tol=1e-10)
    assert math.isclose(quadratic(Adam, 1, lr=0.1, eps=1e-15), 3 - 0.1, rel_tol=1e-12)
    assert math.isclose(quadratic(Adam, 1, lr=0.1, eps=1e-15, weight_decay=0.5), 3 - 0.1 - 0.1 * 0.5 * 3, rel_tol=1e-12)


# ---- the flat buffer


def test_parameters_and_gradients_are_views_of_one_buffer():
    params = parameters()
    before = [p.data.copy() for p in params]
    buffer = FlatParameters(params)
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.data, old)
        assert np.shares_memory(p.data, buffer.data)
        assert np.shares_memory(p.grad.data, buffer.grad)
    buffer.data[:] = np.arange(11.0)
    np.testing.assert_array_equal(params[0].data, [[0, 1, 2], [3, 4, 5]])
    assert params[1].data == 6
    params[2].grad.data[0] = 5
    assert buffer.grad[7] == 5


def test_backward_adds_and_zero_grad_clears():
    params = parameters()
    optimizer = SGD(params, lr=0.1)
    for _ in range(2):
        (2 * params[0].sum() + params[1]).backward()
    np.testing.assert_array_equal(optimizer.flat.grad, [4] * 6 + [2] + [0] * 4)
    optimizer.zero_grad()
    assert not optimizer.flat.grad.any()
    assert not params[0].grad.data.any()


def test_gradients_from_before_the_optimiser_are_kept():
    params = parameters()
    (3 * params[1]).backward()
    optimizer = SGD(params, lr=0.1)
    assert optimizer.flat.grad[6] == params[1].grad.data == 3


def test_backward_and_gradients_given_to_step_do_the_same():
    results = []
    for functional in (True, False):
        layer = Linear(3, 2, rng=Generator(0))
        optimizer = Adam(layer.parameters())
        for seed in range(3):
            loss = ops.square(layer(Tensor(Generator(seed).normal((4, 3))))).sum()
            if functional:
                optimizer.step(grad(loss, layer.parameters()))
            else:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        results.append(optimizer.flat.data)
    np.testing.assert_array_equal(*results)


def test_a_step_is_known_to_what_backward_needs():
    layer = Linear(2, 2, rng=Generator(0))
    optimizer = SGD(layer.parameters(), lr=0.1)
    loss = layer(layer(Tensor(np.ones((1, 2), np.float32)))).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="linear"):
        loss.backward()


def test_two_optimisers_of_one_parameter():
    """The newer one has it; the older one says so before it changes anything."""
    params = parameters()
    older, newer = SGD(params, lr=0.1), SGD(params[1:2], lr=0.1)
    newer.step([Tensor(np.array(1.0))])
    before = older.flat.data.copy()
    for change in (older.step, lambda: older.step([Tensor(g) for g in gradients(0)]), EMA(older.flat).applied().__enter__):
        with pytest.raises(RuntimeError, match=r"parameter 1 of shape \(\) has left this optimiser's buffer"):
            change()
    np.testing.assert_array_equal(older.flat.data, before)
    assert older.steps == 0


def test_a_gradient_that_was_replaced_would_be_missed():
    params = parameters()
    optimizer = SGD(params, lr=0.1)
    params[2].grad = None  # PyTorch's way of clearing it
    with pytest.raises(RuntimeError, match=r"\.grad of parameter 2 of shape \(4,\) was replaced.*zero_grad"):
        optimizer.step()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: FlatParameters([]), ValueError, "are the layers attributes of the model"),
        (lambda p: FlatParameters([p[0], p[0]]), ValueError, "given twice"),
        (lambda p: FlatParameters([p[0], Tensor(np.ones(2))]), ValueError, r"parameter 1 of shape \(2,\) is not a leaf"),
        (lambda p: FlatParameters([p[0], p[1] * 2]), ValueError, r"parameter 1 of shape \(\) is not a leaf"),
        (lambda p: FlatParameters([p[0], parameter(np.ones(2, np.float32))]), ValueError, "float32 and float64.*astype"),
        (lambda p: SGD(p, lr=-1.0), ValueError, "lr must be a finite number >= 0, not -1"),
        (lambda p: SGD(p, lr=math.nan), ValueError, "lr must be"),
        (lambda p: SGD(p, lr=lambda step: -step - 1.0), ValueError, "lr at step 0 must be"),
        (lambda p: SGD(p, lr=1.0, momentum=1.0), ValueError, "momentum must be"),
        (lambda p: SGD(p, lr=1.0, nesterov=True), ValueError, "nesterov=True needs a momentum"),
        (lambda p: Adam(p, betas=(0.9, 1.0)), ValueError, r"betas\[1\] must be"),
        (lambda p: Adam(p, eps=0.0), ValueError, "eps must be"),
        (lambda p: AdamW(p, weight_decay=-1.0), ValueError, "weight_decay must be"),
        (lambda p: EMA(FlatParameters(p), decay=1.0), ValueError, "decay must be"),
        (lambda p: SGD(p, lr=1.0).clip_grad_norm(0.0), ValueError, "max_norm must be"),
        (lambda p: SGD(p, lr=1.0).step([Tensor(np.ones(()))]), ValueError, r"gradients of shapes \[\(\)\] do not fit"),
        (lambda p: cosine(0.1, steps=10, warmup=10), ValueError, "steps must be more than warmup=10"),
        (lambda p: linear(0.1, steps=10, floor=2.0), ValueError, "floor must be"),
        (lambda p: constant(-1.0), ValueError, "lr must be"),
        (lambda p: inverse_sqrt(1.0, 0), ValueError, "warmup must be"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make(parameters())


def test_a_schedule_that_goes_wrong_is_stopped_before_the_step():
    params = parameters()
    optimizer = SGD(params, lr=lambda step: 0.1 if step < 1 else math.nan)
    optimizer.step([Tensor(g) for g in gradients(0)])
    before = optimizer.flat.data.copy()
    with pytest.raises(ValueError, match="lr at step 1 must be"):
        optimizer.step([Tensor(g) for g in gradients(1)])
    np.testing.assert_array_equal(optimizer.flat.data, before)


# ---- clipping


def test_clipping_by_the_global_norm():
    params = parameters()
    optimizer = SGD(params, lr=0.1)
    optimizer.flat.gather([Tensor(g) for g in gradients(0)])
    before = optimizer.flat.grad.copy()
    norm = np.linalg.norm(before)
    assert math.isclose(optimizer.clip_grad_norm(norm * 1.001), norm, rel_tol=1e-14)
    np.testing.assert_array_equal(optimizer.flat.grad, before)  # below: untouched
    assert math.isclose(optimizer.clip_grad_norm(0.25), norm, rel_tol=1e-14)
    assert math.isclose(np.linalg.norm(optimizer.flat.grad), 0.25, rel_tol=1e-14)
    np.testing.assert_allclose(optimizer.flat.grad, before * 0.25 / norm, rtol=1e-14)  # the direction is kept


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clipping_refuses_gradients_that_are_not_finite(bad):
    params = parameters()
    optimizer = SGD(params, lr=0.1)
    params[2].grad.data[1] = bad
    before = optimizer.flat.grad.copy()
    with pytest.raises(FloatingPointError, match=r"not finite: see parameter 2 of shape \(4,\).*anomaly_mode"):
        optimizer.clip_grad_norm(1.0)
    np.testing.assert_array_equal(optimizer.flat.grad, before)


# ---- state


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_resuming_is_bit_exact(case):
    kind, _, options = case

    def run(optimizer, ema, steps):
        for t in steps:
            optimizer.step([Tensor(g.astype(np.float32)) for g in gradients(t)])
            ema.update()

    def fresh():
        params = parameters(np.float32)
        optimizer = kind(params, cosine(0.1, steps=15), **options)
        return params, optimizer, EMA(optimizer.flat, 0.5)

    _, whole, whole_ema = fresh()
    run(whole, whole_ema, range(20))

    params, first, first_ema = fresh()
    run(first, first_ema, range(10))
    saved = [p.data.copy() for p in params], first.state_dict(), first_ema.state_dict()
    run(first, first_ema, range(10, 12))  # what was saved is a copy

    params, second, second_ema = fresh()
    for p, data in zip(params, saved[0], strict=True):
        p.data[...] = data
    second.load_state_dict(saved[1])
    second_ema.load_state_dict(saved[2])
    run(second, second_ema, range(10, 20))
    np.testing.assert_array_equal(second.flat.data, whole.flat.data)
    np.testing.assert_array_equal(second_ema.average, whole_ema.average)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("m"), "state of Adam needs steps, m, v; got steps, v"),
        (lambda s: s.update(x=1), "got m, steps, v, x"),
        (lambda s: s.update(v=np.zeros(3)), r"v is float64\(11,\), given float64\(3,\)"),
        (lambda s: s.update(v=np.zeros(11, np.float32)), r"v is float64\(11,\), given float32\(11,\)"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    optimizer = Adam(parameters())
    state = {"steps": 5, "m": np.ones(11), "v": np.ones(11)}
    change(state)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert optimizer.steps == 0
    assert not optimizer.state["m"].any()


# ---- truth ema


def test_truth_ema():
    """The average with warm-up follows its recursion, and is a convex combination: constant parameters stay."""
    p = parameter(np.array([1.0]))
    ema = EMA(FlatParameters([p]), decay=0.9)
    expected = 1.0
    for t in range(200):
        p.data[0] = math.sin(t)
        ema.update()
        d = min(0.9, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * math.sin(t)
        assert math.isclose(ema.average[0], expected, rel_tol=1e-12)
    assert (1 + 79) / (10 + 79) < 0.9 < (1 + 81) / (10 + 81)  # both regimes were seen


def test_the_average_of_a_constant_is_that_constant_in_float32():
    p = parameter(np.array([0.1, 3.0], np.float32))
    ema = EMA(FlatParameters([p]), decay=0.9999)
    for _ in range(1000):
        ema.update()
    np.testing.assert_array_equal(ema.average, p.data)


def test_applied_puts_the_average_in_and_the_own_parameters_back():
    p = parameter(np.array([0.1, 0.7]))
    ema = EMA(FlatParameters([p]), decay=0.5)
    p.data[...] = [1 / 3, 5.0]
    ema.update()
    own, version = p.data.copy(), p.version[0]
    with ema.applied():
        np.testing.assert_allclose(p.data, [0.1 * 0.1 + 0.9 / 3, 0.1 * 0.7 + 0.9 * 5])
        assert p.version[0] > version  # and backward would notice
    np.testing.assert_array_equal(p.data, own)
    with pytest.raises(KeyError), ema.applied():
        raise KeyError
    np.testing.assert_array_equal(p.data, own)


def test_ema_states():
    ema, other = (EMA(FlatParameters(parameters()), 0.9) for _ in range(2))
    ema.flat.data[...] = 7
    ema.update()
    other.load_state_dict(ema.state_dict())
    np.testing.assert_array_equal(other.average, ema.average)
    assert other.steps == 1
    with pytest.raises(ValueError, match=r"state of EMA: average is float64\(11,\), given float64\(3,\)"):
        ema.load_state_dict({"steps": 0, "average": np.zeros(3)})


# ---- schedules


def test_schedules():
    assert [constant(2.0, warmup=4)(t) for t in (0, 1, 3, 4, 99)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert [inverse_sqrt(2.0, warmup=4)(t) for t in (0, 3, 15, 63)] == [0.5, 2.0, 1.0, 0.5]
    assert [linear(2.0, steps=12, warmup=4, floor=0.5)(t) for t in (3, 4, 8, 12, 99)] == [2.0, 2.0, 1.5, 1.0, 1.0]
    curve = cosine(2.0, steps=12, warmup=4, floor=0.5)
    expected = [2.0, 2.0, 1 + 0.5 + 0.5 * math.cos(math.pi / 4), 1.5, 1.0, 1.0]
    np.testing.assert_allclose([curve(t) for t in (3, 4, 6, 8, 12, 99)], expected)
