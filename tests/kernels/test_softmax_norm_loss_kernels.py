"""Kernels of softmax, normalisation, losses and fused ops: NaN, threads at real sizes, buffers, accuracy of sums.

Values at ordinary numbers are tested for all kernels alike, from their cards (test_cards.py). Start at `CALLS`.
"""

import math

import numpy as np
import pytest

from minigen.autograd.backend import KERNELS
from minigen.autograd.kernels import fused, jit, loss, normalisation, softmax, threads
from minigen.autograd.kernels.fused.reference import ACTIVATIONS
from minigen.autograd.kernels.softmax import rows


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def call_all(r, c, dtype=np.float32):
    """The arguments of a call of every kernel, on about r rows of c channels."""
    x, g, w = draw(r, c, dtype=dtype), draw(r, c, seed=1, dtype=dtype), draw(c, seed=2, dtype=dtype)
    target = np.arange(r) % c
    image, g_image = draw(4, r // 4, c, dtype=dtype), draw(4, r // 4, c, seed=1, dtype=dtype)
    stats = np.full((4, c // 2), 0.25, dtype), np.full((4, c // 2), 1.5, dtype)
    per_row = draw(r, seed=3, dtype=dtype)
    return {
        "softmax": (x,),
        "softmax_vjp": (g, x),
        "log_softmax": (x,),
        "log_softmax_vjp": (g, x),
        "group_norm": (image, w, w, c // 2, 1e-5, "silu"),
        "group_norm_vjp": (g_image, image, w, w, *stats, 1e-5, "silu"),
        "layer_norm": (x, w, w, 1e-5),
        "layer_norm_vjp": (g, x, w, per_row, abs(per_row), 1e-5),
        "cross_entropy": (x, target, 0.1),
        "cross_entropy_vjp": (per_row, x, target, per_row, abs(per_row), 0.1),
        "bce_with_logits": (x, g),
        "bce_with_logits_vjp": (g, x, g),
        "bias_act": (x, w, "silu"),
        "bias_act_vjp": (g, x, x, w, "silu"),
        "gated_tanh": (x,),
        "gated_tanh_vjp": (g[:, : c // 2].copy(), x),
        "sample_normal_kl": (x, g, x),
        "sample_normal_kl_vjp": (g, per_row, x, g, x),
    }


CALLS = list(call_all(4, 2))


def results(name, args, backend="numba"):
    returned = KERNELS[name].implementation(backend)(*args)
    return returned if isinstance(returned, tuple) else (returned,)


def test_every_kernel_of_these_families_is_tested_here():
    families = {f"minigen.autograd.kernels.{f}" for f in ("softmax", "normalisation", "loss", "fused")}
    assert {k.name for k in KERNELS.values() if k.family in families} == set(CALLS)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", CALLS)
def test_nan_reaches_what_depends_on_it_and_nothing_else(name, backend):
    """A NaN in any floating-point argument spoils exactly the numbers that another value there would change."""
    args = call_all(8, 4)[name]
    plain = results(name, args, backend)
    for i, a in enumerate(args):
        if not (isinstance(a, np.ndarray) and a.dtype.kind == "f"):
            continue
        middle = tuple(n // 2 for n in a.shape)
        with_nan, moved = ([*args[:i], a.copy(), *args[i + 1 :]] for _ in range(2))
        with_nan[i][middle] = np.nan
        moved[i][middle] += 0.5
        for p, n, m in zip(plain, results(name, with_nan, backend), results(name, moved, backend), strict=True):
            changed = p != m
            assert np.isnan(n[changed]).all(), f"argument {i}: NaN was lost"
            assert not np.isnan(n[~changed]).any(), f"argument {i}: NaN went too far"


@pytest.mark.parametrize("name", CALLS)
def test_threads_do_not_change_a_bit_at_sizes_that_use_them(name):
    """1,000 rows of 300: several grains, chunks, samples. (On a machine with one core there is nothing to compare.)"""
    args = call_all(1000, 300)[name]
    assert max(a.size for a in args if isinstance(a, np.ndarray)) > threads.PARALLEL
    before = jit.get_threads()
    try:
        digests = []
        for count in range(1, jit.numba.config.NUMBA_NUM_THREADS + 1):
            jit.set_threads(count)
            digests.append([r.tobytes() for r in results(name, args)])
    finally:
        jit.set_threads(before)
    assert all(d == digests[0] for d in digests)


def test_one_large_sample_is_cut_into_chunks_that_do_not_change_a_bit():
    """Batch normalisation's case: one sample, worked on by all threads; the sums are those of the chunks, in order."""
    x, w = draw(1, 5000, 40), draw(40)
    y, mean, std = normalisation.group_norm(x, w, w, 40, 1e-5)
    vjp = normalisation.group_norm_vjp(draw(1, 5000, 40, seed=1), x, w, w, mean, std, 1e-5)
    before, threads.PARALLEL = threads.PARALLEL, 1 << 60  # never
    try:
        alone = normalisation.group_norm(x, w, w, 40, 1e-5)
        vjp_alone = normalisation.group_norm_vjp(draw(1, 5000, 40, seed=1), x, w, w, mean, std, 1e-5)
    finally:
        threads.PARALLEL = before
    for a, b in zip((y, mean, std, *vjp), (*alone, *vjp_alone), strict=True):
        assert np.array_equal(a, b)


# ---- accuracy


@pytest.mark.parametrize("n", [0, 1, 3, 7, 8, 9, 64, 1003])
def test_row_sums_are_exact_to_float64(n):
    x, y = draw(n), draw(n, seed=1)
    wide, other = x.astype(float), y.astype(float)
    assert rows.row_sum(x) == pytest.approx(math.fsum(wide), abs=1e-12)
    assert rows.row_dot(x, y) == pytest.approx(math.fsum(wide * other), abs=1e-12)
    assert rows.row_squares(x, 0.5) == pytest.approx(math.fsum((wide - 0.5) ** 2), abs=1e-12)
    assert rows.row_max(x) == (x.max() if n else -np.inf)


@pytest.mark.parametrize("where", range(9))
def test_the_largest_is_found_anywhere_in_a_row(where):
    x = -draw(9) ** 2
    x[where] = 1
    assert rows.row_max(x) == 1


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_statistics_of_float32_far_from_zero(offset):
    """The mean is within its rounding, and the deviation too, however large the mean is beside it."""
    x = (draw(2, 700, 24, dtype=np.float64) + offset).astype(np.float32)
    one = np.ones(24, np.float32)
    grouped = x.astype(np.float64).reshape(2, 700, 3, 8)
    for kernel in (normalisation.group_norm.implementation("numba"), normalisation.group_norm.implementation("numpy")):
        _, mean, std = kernel(x, one, one, 3, 1e-5)
        np.testing.assert_allclose(mean, grouped.mean((1, 3)), rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(std, grouped.std((1, 3)), rtol=1e-7)


def test_bias_gradients_of_many_rows_do_not_drift():
    """100,000 numbers near 1 per channel: a float32 sum one by one would be off in the fourth digit."""
    g = 1 + draw(100_000, 3) / 100
    exact = g.astype(np.float64).sum(0)
    _, gbias = fused.bias_act_vjp(g, g, g, np.zeros(3, np.float32))
    np.testing.assert_allclose(gbias, exact, rtol=1e-7)


def test_probabilities_add_up():
    p = softmax.softmax(draw(50, 1000) * 20)
    np.testing.assert_allclose(p.sum(1, dtype=np.float64), 1, rtol=3e-7)


def test_cross_entropy_is_never_negative():
    """Also where the target is all but certain."""
    x = draw(500, 10) * 30
    assert loss.cross_entropy(x, x.argmax(1))[0].min() >= 0


# ---- buffers


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bias_act_in_place_is_the_same(activation):
    x, bias = draw(50, 7), draw(7)
    expected = fused.bias_act(x, bias, activation, 0.2)
    assert fused.bias_act(x, bias, activation, 0.2, out=x) is x
    assert np.array_equal(x, expected)


def test_a_buffer_that_does_not_fit_is_refused():
    x = draw(4, 6)
    for out in (draw(6, 4), draw(4, 6, dtype=np.float64), draw(6, 4).T):
        with pytest.raises(ValueError, match="does not fit into out"):
            softmax.softmax(x, out=out)
    with pytest.raises(ValueError, match="argument"):
        normalisation.layer_norm(x, x[0], x[0], 1e-5, out=(draw(4, 6),))


def test_arguments_in_any_layout():
    for name, args in call_all(8, 4).items():
        strange = [np.array(a, order="F") if isinstance(a, np.ndarray) else a for a in args]
        for a, b in zip(results(name, args), results(name, strange), strict=True):
            assert np.array_equal(a, b), name
