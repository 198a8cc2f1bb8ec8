"""Optimiser kernels: against numbers recorded from PyTorch, the papers' formulas, and each other bit for bit."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.autograd.kernels.optim import cpu, reference
from minigen.random import Generator

KERNELS = {"numpy": reference, "numba": cpu}
REALS = (np.float32, np.float64)
both_kernels = pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
both_reals = pytest.mark.parametrize("real", REALS)

PARAM = [0.5, -1.25, 2.0]
GRADS = [[0.1, -0.2, 0.3], [-0.4, 0.05, 0.0], [0.7, -0.6, 1e-9]]

# (param, first buffer, second buffer) after the three steps GRADS from PARAM, by torch.optim 2.13 in float64
ADAM_MOMENTS = (
    [0.042099999999999985, -0.07169999999999999, 0.024300000099999993],
    [0.006582010000000005, 0.004016790000000004, 0.0008820900000000007],
)
ADAM = [0.4923708250107645, -1.2282028754874672, 1.978175881605899]  # lr=.01, betas=(.9, .99), eps=1e-3
ADAMW = [0.4908865517311246, -1.2244811867499026, 1.9722084874062629]  # the same with weight_decay=.1
SGD = [0.46492468750000004, -1.1107418437499998, 1.8634089998999999]  # lr=.1, momentum=.9, weight_decay=.05
SGD_VELOCITY = [0.48887812499999983, -0.8826440625, 0.507910001]
NESTEROV = [0.42085210656250005, -1.0318334237812499, 1.81857324081]
NESTEROV_VELOCITY = [0.48956128125, -0.880478690625, 0.5042461010000001]


@both_kernels
@both_reals
@pytest.mark.parametrize(("weight_decay", "expected"), [(0.0, ADAM), (0.1, ADAMW)])
def test_adam_is_pytorchs(kernels, real, weight_decay, expected):
    param, m, v = np.array(PARAM, real), np.zeros(3, real), np.zeros(3, real)
    for step, grad in enumerate(GRADS, start=1):
        assert kernels.adam(param, np.array(grad, real), m, v, step, 0.01, 0.9, 0.99, 1e-3, weight_decay) is None
    tolerance = 8 * np.finfo(real).eps
    np.testing.assert_allclose(param, expected, rtol=tolerance)
    np.testing.assert_allclose(m, ADAM_MOMENTS[0], rtol=tolerance)
    np.testing.assert_allclose(v, ADAM_MOMENTS[1], rtol=tolerance)


@both_kernels
@both_reals
@pytest.mark.parametrize(
    ("nesterov", "expected", "velocities"), [(False, SGD, SGD_VELOCITY), (True, NESTEROV, NESTEROV_VELOCITY)]
)
def test_sgd_is_pytorchs(kernels, real, nesterov, expected, velocities):
    param, velocity = np.array(PARAM, real), np.zeros(3, real)
    for grad in GRADS:
        assert kernels.sgd_momentum(param, np.array(grad, real), velocity, 0.1, 0.9, 0.05, nesterov) is None
    tolerance = 8 * np.finfo(real).eps
    np.testing.assert_allclose(param, expected, rtol=tolerance)
    np.testing.assert_allclose(velocity, velocities, rtol=tolerance)


@both_kernels
@both_reals
def test_adams_first_step_is_the_sign_of_the_gradient(kernels, real):
    """Without eps, m̂ = g and v̂ = g²: every parameter moves by lr, however large or small its gradient."""
    grad = np.array([1e-12, -1e-3, 5.0, -1e8], real)
    param = np.zeros(4, real)
    kernels.adam(param, grad, np.zeros(4, real), np.zeros(4, real), 1, 0.5, 0.9, 0.999, 0.0, 0.0)
    np.testing.assert_allclose(param, -0.5 * np.sign(grad), rtol=4 * np.finfo(real).eps)


@both_kernels
def test_adam_counts_steps_from_one(kernels):
    with pytest.raises(ValueError, match="adam: step=0, but the first step is 1"):
        kernels.adam(*np.zeros((4, 2)), 0, 0.1, 0.9, 0.999, 1e-8, 0.0)


@both_kernels
@both_reals
def test_ema_keeps_a_constant_and_finds_it(kernels, real):
    """decay a + (1 - decay) new would leave the constant: in float32, its weights do not sum to 1."""
    rng = np.random.default_rng(0)
    constant = rng.standard_normal(50).astype(real)
    average = constant.copy()
    for _ in range(100):
        kernels.ema(average, constant, 0.999)
    np.testing.assert_array_equal(average, constant)
    average = np.zeros(50, real)
    for _ in range(20_000):
        kernels.ema(average, constant, 0.999)
    lost = 0.5 * np.finfo(real).eps / 0.001  # where the last steps are rounded away
    np.testing.assert_allclose(average, constant, rtol=1.01 * (lost + 0.999**20_000))
    kernels.ema(average, 2 * constant, 0.0)
    np.testing.assert_allclose(average, 2 * constant, rtol=2 * np.finfo(real).eps)


@both_kernels
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_langevin_stationary_variance(kernels, temperature):
    """For E(x) = x²/2, x' = (1 - h) x + √(2hT) z has the stationary variance T / (1 - h/2): exact for every step h."""
    h, n = 0.5, 1 << 16
    rng = Generator(3)
    x = np.zeros(n, np.float32)
    for _ in range(30):
        x = kernels.langevin_step(x, x, rng.normal(n), h, temperature)
    variance = temperature / (1 - h / 2)
    assert abs(np.var(x, dtype=np.float64) - variance) < 4.5 * variance * math.sqrt(2 / n)
    assert abs(np.mean(x, dtype=np.float64)) < 4.5 * math.sqrt(variance / n)


@both_kernels
def test_langevin_step_writes_where_it_is_told(kernels):
    x, grad, noise = np.random.default_rng(0).standard_normal((3, 2, 3, 4))
    expected = x - 0.1 * grad + math.sqrt(0.2 * 0.5) * noise
    np.testing.assert_allclose(kernels.langevin_step(x, grad, noise, 0.1, 0.5), expected, rtol=0, atol=1e-15)
    out = np.empty_like(x)
    assert kernels.langevin_step(x, grad, noise, 0.1, 0.5, out=out) is out
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(kernels.langevin_step(x.copy(), grad, noise, 0.1, 0.0), x - 0.1 * grad)
    assert kernels.langevin_step(x, grad, noise, 0.1, 0.5, out=x) is x
    np.testing.assert_array_equal(x, out)


# -- NumPy and Numba, threads ------------------------------------------------------------------------------------------

fractions = st.floats(0, 1)
UPDATES = {
    "adam": lambda kernels, a, rate, part: kernels.adam(*a[:3], abs(a[3]), 7, rate, part * 0.99, 0.99, 1e-8, part),
    "sgd": lambda kernels, a, rate, part: kernels.sgd_momentum(*a[:3], rate, part, rate, False),
    "nesterov": lambda kernels, a, rate, part: kernels.sgd_momentum(*a[:3], rate, part, rate, True),
    "ema": lambda kernels, a, rate, part: kernels.ema(*a[:2], part),
    "langevin": lambda kernels, a, rate, part: kernels.langevin_step(*a[:3], rate, part, out=a[3]),
    "norm": lambda kernels, a, rate, part: np.array(kernels.global_norm_sq(a[0])),
}


@both_reals
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
@given(n=st.one_of(st.integers(0, 70), st.integers(4000, 9000)), seed=st.integers(0, 99), rate=fractions, part=fractions)
def test_numpy_and_numba_give_the_same_bits(update, real, n, seed, rate, part):
    results = []
    for kernels in (reference, cpu):
        arrays = np.random.default_rng(seed).standard_normal((4, n)).astype(real)
        if n > 3 and seed % 2:
            arrays[:, n // 2] = np.nan
            arrays[0, 0] = 0
        returned = update(kernels, arrays, rate, part)
        results.append(arrays.tobytes() + (b"" if returned is None else np.asarray(returned).tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("update", [UPDATES["adam"], UPDATES["norm"]], ids=["adam", "norm"])
def test_any_number_of_threads_gives_the_same_bits(update, monkeypatch):
    n = 3 * 65536 + 4097
    arrays = np.random.default_rng(0).standard_normal((4, n)).astype(np.float32)

    def run() -> bytes:
        updated = arrays.copy()
        returned = update(cpu, updated, 0.1, 0.9)
        return updated.tobytes() + (b"" if returned is None else returned.tobytes())

    serial = run()
    monkeypatch.setattr(cpu, "PARALLEL", 0)
    threads = numba.get_num_threads()
    try:
        for count in range(1, threads + 1):
            numba.set_num_threads(count)
            assert run() == serial
    finally:
        numba.set_num_threads(threads)


# -- the norm ----------------------------------------------------------------------------------------------------------


@both_kernels
@both_reals
@pytest.mark.parametrize("n", [0, 1, 5, 2047, 2049, 4096, 4097, 100_001])
def test_global_norm_sq(kernels, real, n):
    grad = np.random.default_rng(n).standard_normal(n).astype(real)
    norm_sq = kernels.global_norm_sq(grad)
    assert type(norm_sq) is float
    exact = math.fsum(float(g) ** 2 for g in grad)
    assert norm_sq == pytest.approx(exact, rel=4 * np.finfo(np.float64).eps, abs=0)
    assert norm_sq == reference.global_norm_sq(grad)  # the same order of additions


@both_kernels
def test_global_norm_sq_of_extreme_values(kernels):
    assert kernels.global_norm_sq(np.array([3e38, 4e38 / 2], np.float32)) == pytest.approx(9e76 + 4e76, rel=1e-6)
    assert kernels.global_norm_sq(np.array([1e-30, 0], np.float32)) == pytest.approx(1e-60, rel=1e-6)
    assert kernels.global_norm_sq(np.array([1.0, -np.inf], np.float32)) == math.inf
    assert math.isnan(kernels.global_norm_sq(np.array([1.0, np.nan, np.inf])))


# -- which arrays are taken --------------------------------------------------------------------------------------------


@both_kernels
def test_strided_gradients_are_read_and_left_alone(kernels):
    memory = np.random.default_rng(0).standard_normal(20)
    before = memory.copy()
    for strided in (memory[::2], memory[::-2]):
        param, velocity = np.zeros(10), np.zeros(10)
        kernels.sgd_momentum(param, strided, velocity, 1.0, 0.0, 0.0, False)
        np.testing.assert_array_equal(param, -strided)
        assert kernels.global_norm_sq(strided) == kernels.global_norm_sq(strided.copy())
    np.testing.assert_array_equal(memory, before)


@both_kernels
def test_arrays_that_do_not_fit_are_refused(kernels):
    one, two = np.zeros(3), np.zeros(3)
    with pytest.raises(ValueError, match=r"ema: arrays must have one shape, got average \(3,\), param \(1,\)"):
        kernels.ema(one, np.zeros(1), 0.9)
    with pytest.raises(TypeError, match="ema: arrays must have one dtype, got average float64, param float32"):
        kernels.ema(one, np.zeros(3, np.float32), 0.9)
    with pytest.raises(TypeError, match="must be float32 or float64, got int64"):
        kernels.global_norm_sq(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="sgd_momentum: velocity is updated in place, so it must be contiguous"):
        kernels.sgd_momentum(one, two, np.zeros(6)[::2], 0.1, 0.9, 0.0, False)
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="adam: v is updated in place, so it must be contiguous and writeable"):
        kernels.adam(one, two, one.copy(), frozen, 1, 0.1, 0.9, 0.999, 1e-8, 0.0)
    with pytest.raises(ValueError, match=r"langevin_step: arrays must have one shape, .* out \(2,\)"):
        kernels.langevin_step(one, one, one, 0.1, 1.0, out=np.zeros(2))
