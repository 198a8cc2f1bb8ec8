"""Batches: each sample once an epoch, resumed bit for bit; binarisation and dequantisation as their docstrings say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.data import BatchOrder, binarize, dequantize, minibatches, quantize
from minigen.random import Generator


@given(n=st.integers(1, 40), batch_size=st.integers(1, 40), drop_last=st.booleans())
def test_an_epoch(n, batch_size, drop_last):
    if drop_last and batch_size > n:
        with pytest.raises(ValueError, match=f"no full batch of {batch_size} in {n} samples"):
            BatchOrder(n, batch_size, Generator(0), drop_last)
        return
    batches = list(minibatches(n, batch_size, Generator(0), drop_last))
    sizes = [batch_size] * (n // batch_size) + ([n % batch_size] if n % batch_size and not drop_last else [])
    assert [len(batch) for batch in batches] == sizes
    seen = np.concatenate(batches)
    assert seen.dtype == np.int64
    assert len(set(seen.tolist())) == len(seen) == sum(sizes)
    assert set(seen.tolist()) <= set(range(n))


def test_epochs_differ_and_are_counted():
    order = BatchOrder(100, 30, Generator(1))
    assert (order.epoch, order.position, order.batches_per_epoch) == (0, 0, 3)
    first = np.concatenate([next(order) for _ in range(3)])
    assert (order.epoch, order.position) == (1, 90)
    second = np.concatenate([next(order) for _ in range(3)])
    assert (order.epoch, order.position) == (2, 90)
    assert not np.array_equal(first, second)
    assert set(first.tolist()) != set(second.tolist())  # the ten that are dropped change


@given(
    n=st.integers(1, 30), batch_size=st.integers(1, 30), drop_last=st.booleans(), cut=st.integers(0, 20), data=st.data()
)
def test_resume_is_exact(n, batch_size, drop_last, cut, data):
    batch_size = min(batch_size, n)
    order = BatchOrder(n, batch_size, Generator(2), drop_last)
    for _ in range(cut):
        next(order)
    state = order.state
    expected = [next(order).copy() for _ in range(12)]  # the state has to be a snapshot, untouched by this
    noise = order.rng.uniform((3,))

    resumed = BatchOrder(n, batch_size, Generator(data.draw(st.integers(0, 99))), drop_last)
    next(resumed)
    resumed.state = state
    for batch in expected:
        np.testing.assert_array_equal(next(resumed), batch)
    np.testing.assert_array_equal(resumed.rng.uniform((3,)), noise)
    assert (resumed.epoch, resumed.position) == (order.epoch, order.position)


def test_batches_and_states_are_the_callers():
    """Sorting a batch in place, or overwriting a state, changes nothing of what comes."""
    order, same = BatchOrder(12, 4, Generator(8)), BatchOrder(12, 4, Generator(8))
    for _ in range(7):
        np.testing.assert_array_equal(batch := next(order), next(same))
        batch[:] = 0
        order.state["permutation"][:] = 0
        order.state = order.state  # still a permutation, or this would be refused


def test_state_of_another_order_is_refused():
    order = BatchOrder(10, 3, Generator(3))
    next(order)
    good = order.state
    before = next(order)
    for change in (
        {"permutation": np.arange(9)},
        {"permutation": np.array([0] * 10)},
        {"position": 11},
        {"position": -1},
        {"epoch": 0},
        {"permutation": np.arange(0), "position": 0},
        {"epoch": -1},
    ):
        with pytest.raises(ValueError, match="BatchOrder: "):
            order.state = good | change
    with pytest.raises(ValueError, match="a state of 10 indices is no permutation of 11 samples"):
        BatchOrder(11, 3, Generator(3)).state = good
    order.state = good
    np.testing.assert_array_equal(next(order), before)


@pytest.mark.parametrize(("n", "batch_size"), [(0, 1), (5, 0), (5, -1), (-1, 1)])
def test_impossible_sizes(n, batch_size):
    with pytest.raises(ValueError, match="have to be at least 1"):
        BatchOrder(n, batch_size, Generator(0))


def test_binarize():
    x = np.repeat(np.array([0.0, 0.25, 0.9, 1.0], np.float32), 10_000).reshape(4, 100, 100, 1)
    rng = Generator(4)
    bits, again = binarize(x, rng), binarize(x, rng)
    assert bits.dtype == np.float32
    assert bits.shape == x.shape
    assert set(np.unique(bits)) == {0.0, 1.0}
    assert not np.array_equal(bits, again)
    means = bits.reshape(4, -1).mean(axis=1)
    assert means[0] == 0
    assert means[3] == 1
    assert abs(means[1] - 0.25) < 4 * (0.25 * 0.75 / 1e4) ** 0.5
    assert abs(means[2] - 0.9) < 4 * (0.9 * 0.1 / 1e4) ** 0.5


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, np.inf])
def test_unit_interval_is_required(bad):
    x = np.array([0.5, bad], np.float32)
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        binarize(x, Generator(0))
    with pytest.raises(ValueError, match=r"quantize: values from .* expected all in \[0, 1\]"):
        quantize(x, 17)


@pytest.mark.parametrize("levels", [2, 17, 65, 256, 1000])
def test_quantize_inverts_the_scaling_of_a_dataset(levels):
    k = np.arange(levels)
    q = quantize((k / (levels - 1)).astype(np.float32), levels)
    assert q.dtype == (np.uint8 if levels <= 256 else np.int64)
    np.testing.assert_array_equal(q, k)


def test_quantize_takes_the_nearest_level():
    x = np.array([0.0, 0.49, 0.51, 7.3, 7.7, 15.6, 16.0]) / 16
    np.testing.assert_array_equal(quantize(x, 17), [0, 0, 1, 7, 8, 16, 16])


@pytest.mark.parametrize("levels", [2, 17, 65, 256, 65_536])
def test_dequantize_stays_in_its_bin(levels):
    """Also for the largest u that a generator can give, which float32 would round into the next bin."""

    class Edge:
        uniform = staticmethod(lambda shape: np.full(shape, 1 - 2.0**-24, np.float32))

    k = np.arange(levels)
    for rng in (Edge(), Generator(5)):
        z = dequantize(k, levels, rng)
        assert z.dtype == np.float32
        assert z.min() >= 0
        assert z.max() < 1
        np.testing.assert_array_equal(np.floor(z.astype(np.float64) * levels), k)


def test_dequantize_is_uniform_in_its_bin():
    z = dequantize(np.full(20_000, 3, np.uint8), 8, Generator(6))
    u = np.sort(z.astype(np.float64) * 8 - 3)
    distance = np.abs(u - (np.arange(20_000) + 0.5) / 20_000).max()  # Kolmogorov-Smirnov
    assert distance < 1.95 / 20_000**0.5  # exceeded once in a thousand seeds


@pytest.mark.parametrize("P", [np.array([0.1, 0.2, 0.3, 0.4]), np.full(256, 1 / 256)], ids=["4 levels", "uniform"])
def test_dequantisation_is_tight_for_bin_constant_densities(P):
    """log P(k) = log p(z) - D ln(levels) for p(z) = levels^D prod P(floor(levels z)), as the docstring has it."""
    levels, D, rng = len(P), 3, Generator(7)
    k = rng.integers(0, levels, (50, D))  # (N, D)
    z = dequantize(k, levels, rng).astype(np.float64)
    log_p = np.log(levels * P[np.floor(levels * z).astype(int)]).sum(axis=1)  # (N,)
    np.testing.assert_allclose(log_p - D * np.log(levels), np.log(P[k]).sum(axis=1), rtol=1e-12)
    bits_per_dim = np.log2(levels) - log_p / (D * np.log(2))
    if levels == 256:
        np.testing.assert_array_equal(bits_per_dim, 8)


def test_levels_out_of_range():
    for k in (np.array([-1, 0]), np.array([0, 17]), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match=r"dequantize: levels from .*, expected integers in 0 .. 16"):
            dequantize(k, 17, Generator(0))
    for levels in (1, 0, 65_537):
        with pytest.raises(ValueError, match=f"levels = {levels}, expected 2 to 65,536"):
            dequantize(np.array([0]), levels, Generator(0))
        with pytest.raises(ValueError, match=f"levels = {levels}, expected 2 to 65,536"):
            quantize(np.array([0.0]), levels)
