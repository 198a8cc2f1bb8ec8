"""minigen.random: shapes, streams, saved states and errors first, then whether the draws have their distribution.

Statistical checks have fixed seeds and bounds of 4.5 standard errors (once in 150,000 by chance, and then always).
"""

import copy
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from minigen.autograd.backend import set_backend
from minigen.autograd.kernels.philox import philox_bits
from minigen.random import Generator

REALS = (np.float32, np.float64)
MANY = 1 << 21
BOUND = 4.5  # standard errors

DRAWS = {
    "uniform": lambda rng, shape: rng.uniform(shape, -1.0, 3.0),
    "uniform float64": lambda rng, shape: rng.uniform(shape, dtype=np.float64),
    "normal": lambda rng, shape: rng.normal(shape, 1.0, 2.0),
    "normal float64": lambda rng, shape: rng.normal(shape, dtype="float64"),
    "integers": lambda rng, shape: rng.integers(-3, 2**63 - 2, shape),
    "bernoulli": lambda rng, shape: rng.bernoulli(0.25, shape),
}
shapes = st.one_of(st.integers(0, 70), st.tuples(), st.lists(st.integers(0, 5), max_size=4).map(tuple))


# -- shapes, dtypes, streams, states -----------------------------------------------------------------------------------


def test_seed_zero_starts_with_the_published_answer():
    assert [f"{word:08x}" for word in Generator(0).bits(4)] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@given(seed=st.integers(0, 2**128 - 1), shape=shapes)
def test_shape_dtype_and_backend(draw, seed, shape):
    draws = draw(Generator(seed), shape)
    assert draws.shape == (shape if isinstance(shape, tuple) else (shape,))
    names = {draw: name for name, draw in DRAWS.items()}
    wanted = {"integers": np.int64, "uniform float64": np.float64, "normal float64": np.float64}
    assert draws.dtype == wanted.get(names[draw], np.float32)
    assert draws.flags.c_contiguous
    assert draws.flags.writeable
    with set_backend("numpy"):
        assert draw(Generator(seed), shape).tobytes() == draws.tobytes()


@given(n=st.integers(0, 300), seed=st.integers(0, 2**64))
def test_permutation_has_every_number_once(n, seed):
    order = Generator(seed).permutation(n)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))
    with set_backend("numpy"):
        assert Generator(seed).permutation(n).tolist() == order.tolist()


@given(before=st.lists(st.tuples(st.sampled_from(list(DRAWS)), st.integers(0, 20)), max_size=4))
def test_state_continues_bit_for_bit(before):
    rng = Generator(2**90 + 17)
    for name, n in before:
        DRAWS[name](rng, n)
    rng.split(len(before))
    saved = json.loads(json.dumps(rng.state))
    assert all(isinstance(value, int | str) for value in saved.values())
    other = Generator(0)
    other.state = saved
    assert repr(other) == repr(rng)
    for name in DRAWS:
        assert DRAWS[name](other, 7).tobytes() == DRAWS[name](rng, 7).tobytes()
    assert other.split()[0].bits(3).tolist() == rng.split()[0].bits(3).tolist()


@pytest.mark.parametrize(
    ("draw", "digest"),
    [
        (lambda rng: rng.uniform(9999, -1.0, 3.0), "5a2f6250e19ab9d3"),
        (lambda rng: rng.uniform(9999, dtype=np.float64), "4c70c202ecd77171"),
        (lambda rng: rng.normal(9999), "e2370b16034b0a0b"),
        (lambda rng: rng.normal(9999, dtype=np.float64), "981caa3c96bb6f75"),
        (lambda rng: rng.integers(-3, 2**63 - 2, 999), "261c5eff6c91f7e2"),
        (lambda rng: rng.bernoulli(0.25, 9999), "ed3ac1a5b75383e8"),
        (lambda rng: rng.permutation(999), "6509742461e8951f"),
        (lambda rng: rng.split(3)[2].bits(9), "bfce83c7227555fc"),
    ],
)
def test_draws_are_those_of_every_version(draw, digest):
    """Saved runs continue only if these bits never change. If they must, `ALGORITHM` needs another name."""
    assert hashlib.sha256(draw(Generator(12345)).tobytes()).hexdigest()[:16] == digest


def test_calls_continue_the_stream_in_whole_blocks():
    rng = Generator(3)
    first, second = rng.normal((2, 2)), rng.normal(6)
    assert np.array_equal(np.concatenate([first.reshape(-1), second]), Generator(3).normal(10))
    rng.uniform(())  # one draw takes a block of four words
    rng.uniform(0)  # none takes none
    assert rng.state["block"] == 1 + 2 + 1
    assert rng.uniform(3, dtype=np.float64).shape == (3,)
    assert rng.state["block"] == 4 + 2


def test_copies_go_their_own_ways():
    rng = Generator(1)
    twin = copy.deepcopy(rng)
    assert rng.bits(5).tolist() == twin.bits(5).tolist()
    rng.bits(5)
    assert rng.state != twin.state


def test_splitting_is_reproducible_and_leaves_the_draws_alone():
    plain, parent, other = Generator(9), Generator(9), Generator(9)
    children = parent.split(3) + parent.split(2)
    assert [c.state for c in children] == [c.state for c in other.split(5)]
    assert parent.bits(8).tolist() == plain.bits(8).tolist()
    assert Generator(9).split(0) == []
    assert len(Generator(9).split()) == 1


def test_seeds_of_children_are_no_draws_of_the_parent():
    """They are the blocks of purpose 255; a child seeded with a draw would repeat what its parent shows."""
    child = Generator(2**64 + 9).split(3)[2].state["seed"]
    words = philox_bits(9, 1, (255 << 56) + 2, 4).astype(object)
    assert child == sum(words << np.arange(4).astype(object) * 32)


def test_relatives_share_no_words():
    """Parent, children and grandchildren: 64-bit words all differ (by chance, two agree with probability 1e-8)."""
    parent = Generator(0)
    children = parent.split(40)
    grandchildren = [g for child in children[:4] for g in child.split(10)]
    family = [parent, *children, *grandchildren]
    assert len({g.state["seed"] for g in family}) == len(family)
    words = np.concatenate([g.bits(10_000).view(np.uint64) for g in family])
    assert np.unique(words).size == words.size


def test_bernoulli_broadcasts_p():
    p = np.array([[0.0], [1.0]])
    draws = Generator(0).bernoulli(p, (3, 2, 4))
    assert np.array_equal(draws, np.broadcast_to(p, (3, 2, 4)).astype(np.float32))
    assert Generator(0).bernoulli(p).shape == (2, 1)
    assert Generator(0).bernoulli(1).shape == ()
    assert Generator(0).bernoulli([True, False], dtype=np.float64).tolist() == [1.0, 0.0]
    assert Generator(0).bernoulli(np.zeros((0, 3), np.float32)).shape == (0, 3)
    strided = np.tile(np.array([0.0, 1.0], np.float32), 8)[::2]
    assert not Generator(0).bernoulli(strided).any()


def test_the_end_of_a_stream_is_an_error():
    rng = Generator(0)
    rng.state = {**rng.state, "block": (1 << 56) - 1}
    with pytest.raises(ValueError, match=r"5 draws do not fit: .* split off a new one"):
        rng.bits(5)
    assert rng.bits(4).shape == (4,)
    with pytest.raises(ValueError, match="do not fit"):
        rng.bits(1)


BAD = {
    "seed -1": (lambda rng: Generator(-1), ValueError, "seed must be at least 0 .* got -1"),
    "seed too big": (lambda rng: Generator(1 << 128), ValueError, "seed must be .* less than 3.4"),
    "seed 1.5": (lambda rng: Generator(1.5), TypeError, "seed must be an integer, got 1.5"),
    "seed None": (lambda rng: Generator(None), TypeError, "seed must be an integer, got None"),
    "seed True": (lambda rng: Generator(True), TypeError, "seed must be an integer, got True"),
    "low = high": (lambda rng: rng.uniform(3, 1, 1), ValueError, "low must be less than high"),
    "low > high": (lambda rng: rng.uniform(3, 2, 1), ValueError, r"low=2\.0, high=1\.0"),
    "equal in float32": (lambda rng: rng.uniform(3, 1, 1 + 1e-9), ValueError, "as float32 low=1.0, high=1.0"),
    "low NaN": (lambda rng: rng.uniform(3, math.nan), ValueError, "low must be finite in float32, got nan"),
    "high inf": (lambda rng: rng.uniform(3, 0, math.inf, np.float64), ValueError, "high must be finite in float64"),
    "too wide": (lambda rng: rng.uniform(3, -3e38, 3e38), ValueError, "exceeds the largest float32"),
    "too wide in float64": (lambda rng: rng.uniform(3, -1e308, 1e308, np.float64), ValueError, "largest float64"),
    "shape -1": (lambda rng: rng.uniform((2, -1)), ValueError, r"shape \(2, -1\) must be at least 0"),
    "shape 2.5": (lambda rng: rng.uniform(2.5), TypeError, "shape 2.5 must be an integer"),
    "shape None": (lambda rng: rng.normal(None), TypeError, "shape None must be an integer"),
    "std < 0": (lambda rng: rng.normal(3, 0, -1), ValueError, "std=-1.0 is negative"),
    "std NaN": (lambda rng: rng.normal(3, 0, math.nan), ValueError, "std must be finite"),
    "mean too big": (lambda rng: rng.normal(3, 1e39), ValueError, "mean must be finite in float32"),
    "mean an array": (lambda rng: rng.normal(3, np.zeros(3)), TypeError, "mean must be a number"),
    "float16": (lambda rng: rng.normal(3, dtype=np.float16), TypeError, "float32 or float64, got float16"),
    "int": (lambda rng: rng.uniform(3, dtype=int), TypeError, "float32 or float64, got int64"),
    "empty interval": (lambda rng: rng.integers(3, 3, 1), ValueError, "low must be less than high .* low=3, high=3"),
    "beyond int64": (lambda rng: rng.integers(0, (1 << 63) + 1, 1), ValueError, "high must be .* got 92233720368547758"),
    "real bounds": (lambda rng: rng.integers(0, 2.5, 1), TypeError, "high must be an integer, got 2.5"),
    "p > 1": (lambda rng: rng.bernoulli(1.5), ValueError, r"p must lie in \[0, 1\], got 1.5"),
    "p < 0": (lambda rng: rng.bernoulli([[0.5, -0.1]]), ValueError, r"got -0.1 at index \(0, 1\)"),
    "p NaN": (lambda rng: rng.bernoulli(np.array([0.5, np.nan])), ValueError, r"got nan at index \(1,\)"),
    "p text": (lambda rng: rng.bernoulli("half"), TypeError, "p must be float32 or float64"),
    "p misfit": (lambda rng: rng.bernoulli([0.1, 0.2], 3), ValueError, r"shape \(2,\) does not broadcast to .*\(3,\)"),
    "n < 0": (lambda rng: rng.permutation(-1), ValueError, "n must be at least 0"),
    "n real": (lambda rng: rng.bits(2.0), TypeError, "n must be an integer"),
    "split -1": (lambda rng: rng.split(-1), ValueError, "n must be at least 0"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_errors_name_the_argument_and_its_value_and_draw_nothing(call, error, message):
    rng = Generator(0)
    before = rng.state
    with pytest.raises(error, match=message):
        call(rng)
    assert rng.state == before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"algorithm": "mt19937"}, ValueError, "state is of the algorithm 'mt19937'"),
        ({"seed": "1"}, TypeError, r"state\['seed'\] must be an integer"),
        ({"seed": -1}, ValueError, r"state\['seed'\]"),
        ({"block": (1 << 56) + 1}, ValueError, r"state\['block'\]"),
        ({"children": 0.0}, TypeError, r"state\['children'\]"),
        ({"position": 1}, ValueError, "state must be a dict of algorithm, seed, block, children"),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(change, error, message):
    rng = Generator(5)
    rng.bits(3)
    before = rng.state
    with pytest.raises(error, match=message):
        rng.state = {**before, **change}
    with pytest.raises(ValueError, match="state must be a dict"):
        rng.state = None
    assert rng.state == before


# -- distributions -----------------------------------------------------------------------------------------------------


def chi_squared(counts: np.ndarray) -> float:
    """How far counts are from equal, in standard errors of chi²."""
    freedom = counts.size - 1
    expected = counts.sum() / counts.size
    return float((np.sum((counts - expected) ** 2) / expected - freedom) / math.sqrt(2 * freedom))


def kolmogorov_smirnov(p: np.ndarray) -> float:
    """√n times the largest distance of the distribution of p from the uniform one on [0, 1]."""
    p = np.sort(p)
    steps = np.arange(p.size + 1) / p.size
    return math.sqrt(p.size) * max(np.max(steps[1:] - p), np.max(p - steps[:-1]))


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Of standardised x and y, in standard errors."""
    return float(np.mean(x * y) * math.sqrt(x.size))


@pytest.mark.parametrize("real", REALS)
def test_normal_moments_and_distribution(real):
    z = Generator(2024).normal(MANY, dtype=real).astype(np.float64)
    error = 1 / math.sqrt(MANY)
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (5, 0, 945), (6, 15, 10170)]:
        assert abs(np.mean(z**power) - moment) < BOUND * math.sqrt(variance) * error
    assert kolmogorov_smirnov(ndtr(z)) < 2.2  # exceeded with probability 1e-4
    for limit in (3.0, 3.5, 4.0, 4.5):
        expected = 2 * ndtr(-limit) * MANY
        assert abs(np.sum(np.abs(z) > limit) - expected) < BOUND * math.sqrt(expected)
    assert np.all(z != 0)
    assert np.abs(z).max() < 6.7


def test_normal_pairs_and_neighbours_are_independent():
    z = Generator(77).normal(MANY)
    for lag in (1, 2, 3, 4, 5, 8, 1024):
        a, b = z[:-lag].astype(np.float64), z[lag:].astype(np.float64)
        assert abs(correlation(a, b)) < BOUND
        assert abs(correlation((a**2 - 1) / math.sqrt(2), (b**2 - 1) / math.sqrt(2))) < BOUND
    # the two of one Box-Muller pair: cells of equal probability in the plane
    cells = (ndtr(z.reshape(-1, 2)) * 32).astype(int)
    assert abs(chi_squared(np.bincount(cells[:, 0] * 32 + cells[:, 1], minlength=1024))) < BOUND


def test_normal_mean_and_std():
    z = Generator(5).normal(1000, dtype=np.float64)
    assert np.array_equal(Generator(5).normal(1000, -3.0, 0.25, np.float64), -3.0 + 0.25 * z)
    assert np.all(Generator(5).normal(10, 1.5, 0.0) == np.float32(1.5))


@pytest.mark.parametrize("real", REALS)
def test_uniform_is_uniform(real):
    u = Generator(4).uniform(MANY, dtype=real)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(chi_squared(np.bincount((u * 4096).astype(int), minlength=4096))) < BOUND
    assert kolmogorov_smirnov(u.astype(np.float64)) < 2.2
    low_digits = (u * 2.0**24).astype(np.int64) % 256
    assert abs(chi_squared(np.bincount(low_digits, minlength=256))) < BOUND
    x = Generator(4).uniform(MANY, -2.0, 6.0, real).astype(np.float64)
    assert abs(np.mean(x) - 2.0) < BOUND * 8 / math.sqrt(12 * MANY)
    assert abs(np.var(x) - 64 / 12) < BOUND * 64 / math.sqrt(180 * MANY)


def test_bits_are_fair_and_words_of_a_block_independent():
    words = Generator(12).bits(MANY)
    ones = np.array([np.sum(words >> k & 1) for k in range(32)])
    assert np.all(np.abs(ones - MANY / 2) < BOUND * math.sqrt(MANY / 4))
    block = (words >> 28).reshape(-1, 4)  # the top 4 bits of each of the four words
    assert abs(chi_squared(np.bincount(block @ [4096, 256, 16, 1], minlength=1 << 16))) < BOUND
    following = (words[:-4] >> 24 << 8 | words[4:] >> 24).astype(int)  # a word and its place in the next block
    assert abs(chi_squared(np.bincount(following, minlength=1 << 16))) < BOUND


def test_streams_are_independent():
    """Neighbouring seeds, parent and children, siblings, and streams of one key."""
    parent = Generator(1)
    generators = [parent, *parent.split(3), Generator(2), Generator(3), Generator(1 + (1 << 64)), Generator(1 + (2 << 64))]
    draws = [g.normal(MANY // 8).astype(np.float64) for g in generators]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert abs(correlation(a, b)) < BOUND
            assert abs(correlation(a[1:], b[:-1])) < BOUND
            assert abs(correlation((a**2 - 1) / math.sqrt(2), (b**2 - 1) / math.sqrt(2))) < BOUND
    difference = (generators[1].bits(MANY // 8) ^ generators[2].bits(MANY // 8)).astype(int)
    assert abs(chi_squared(np.bincount(difference >> 20, minlength=4096))) < BOUND


@pytest.mark.parametrize(("low", "high"), [(0, 2), (-5, 5), (0, 1000), (-(2**63), 2**62)])
def test_integers_are_equally_likely(low, high):
    draws = Generator(6).integers(low, high, MANY // 4)
    assert draws.min() >= low
    assert draws.max() < high
    cells = min(high - low, 1000)
    scaled = (draws.astype(np.float64) - low) / (high - low) * cells if high - low > cells else draws - low
    counts = np.bincount(scaled.astype(int), minlength=cells)
    assert counts.size == cells
    assert abs(chi_squared(counts)) < BOUND


def test_bernoulli_frequencies():
    p = np.linspace(0.0, 1.0, 11)
    n = MANY // 16
    ones = Generator(8).bernoulli(p, (n, 11)).sum(axis=0)
    assert np.all(np.abs(ones - n * p) <= BOUND * np.sqrt(n * p * (1 - p)))
    rare = Generator(8).bernoulli(1e-4, 4 * MANY).sum(dtype=np.float64)
    assert abs(rare - 4e-4 * MANY) < BOUND * math.sqrt(4e-4 * MANY)


def test_permutations_are_equally_likely():
    rng = Generator(10)
    weights = [64, 16, 4, 1]
    ranks = np.array([int(rng.permutation(4) @ weights) for _ in range(12_000)])
    counts = np.unique(ranks, return_counts=True)[1]
    assert counts.size == math.factorial(4)
    assert abs(chi_squared(counts)) < BOUND
    n = 200_000
    order = rng.permutation(n)
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < BOUND / math.sqrt(n)
    ascents = np.sum(order[1:] > order[:-1])  # equal keys, which keep their order, would add to them
    assert abs(ascents - (n - 1) / 2) < BOUND * math.sqrt((n + 1) / 12)
