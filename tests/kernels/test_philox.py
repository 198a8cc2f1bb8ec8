"""Philox kernels: published answers, an independent oracle in Python integers, and equal bits from NumPy and Numba."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.autograd.kernels.philox import cpu, reference
from minigen.autograd.kernels.philox.formats import FORMATS

KERNELS = {"numpy": reference, "numba": cpu}
REALS = (np.float32, np.float64)
BLOCKS = 1 << 56

keys = st.integers(0, 2**64 - 1)
blocks = st.one_of(
    st.integers(0, BLOCKS - 1000),
    st.integers(-300, 2).map(lambda k: 2**32 + k),  # the carry into the upper counter word, at any place of a call
    st.integers(-300, 2).map(lambda k: 2**40 + k),
)
sizes = st.one_of(st.integers(0, 9), st.integers(1000, 1100), st.integers(0, 2100))


def philox_oracle(key: int, stream: int, block: int, n: int) -> list[int]:
    """Philox4x32-10 in Python integers, written from the paper: one S-P network, ten times."""
    words: list[int] = []
    while len(words) < n:
        counter = [(block | stream << 64) >> 32 * k & 0xFFFFFFFF for k in range(4)]
        k0, k1 = key & 0xFFFFFFFF, key >> 32
        for _ in range(10):
            (high0, low0), (high1, low1) = (divmod(0xD2511F53 * counter[0], 2**32), divmod(0xCD9E8D57 * counter[2], 2**32))
            counter = [high1 ^ counter[1] ^ k0, low1, high0 ^ counter[3] ^ k1, low0]
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        words += counter
        block += 1
    return words[:n]


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # the vectors for philox4x32-10 that Salmon et al. publish with Random123
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_published_answers(kernels, counter, key, answer):
    c, k, words = ([int(word, 16) for word in text.split()] for text in (counter, key, answer))
    address = (k[0] | k[1] << 32, c[2] | c[3] << 32, c[0] | c[1] << 32)
    assert kernels.philox_bits(*address, 4).tolist() == words
    assert philox_oracle(*address, 4) == words


@given(key=keys, stream=keys, block=blocks, n=st.integers(0, 40))
def test_bits_follow_the_paper(key, stream, block, n):
    expected = np.array(philox_oracle(key, stream, block, n), np.uint32)
    assert_same_bits(reference.philox_bits(key, stream, block, n), expected)
    assert_same_bits(cpu.philox_bits(key, stream, block, n), expected)


CALLS = {
    "bits": lambda kernels, *at: kernels.philox_bits(*at),
    "uniform32": lambda kernels, *at: kernels.philox_uniform(*at, -1.5, 0.1, np.float32),
    "uniform64": lambda kernels, *at: kernels.philox_uniform(*at, -1.5, 0.1, np.float64),
    "normal32": lambda kernels, *at: kernels.philox_normal(*at, 0.1, 2.5, np.float32),
    "normal64": lambda kernels, *at: kernels.philox_normal(*at, 0.1, 2.5, np.float64),
    "integers": lambda kernels, *at: kernels.philox_integers(*at, -(2**61), 2**61),
    "integers, half rejected": lambda kernels, *at: kernels.philox_integers(*at, -3, 2**63 - 2),
    "integers, all": lambda kernels, *at: kernels.philox_integers(*at, -(2**63), 2**63),
    "bernoulli": lambda kernels, *at: kernels.philox_bernoulli(*at, np.array([0.3]), np.float64),
    "bernoulli of an array": lambda kernels, *at: kernels.philox_bernoulli(
        *at, np.linspace(0, 1, at[-1], dtype=np.float32), np.float32
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@given(key=keys, stream=keys, block=blocks, n=sizes)
def test_numpy_and_numba_give_the_same_bits(call, key, stream, block, n):
    assert_same_bits(call(cpu, key, stream, block, n), call(reference, key, stream, block, n))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_draw_depends_on_its_position_only(call):
    """A call that starts 3 blocks later returns the tail of the call, and a shorter one its head."""
    n = 3000
    if call is CALLS["bernoulli of an array"]:
        call = CALLS["bernoulli"]
    whole = call(cpu, 1, 2, 2**32 - 400, n)
    skipped = 3 * 16 // (4 if whole.dtype == np.uint32 or call is CALLS["bernoulli"] else whole.itemsize)
    assert_same_bits(call(cpu, 1, 2, 2**32 - 397, n - skipped), whole[skipped:])
    assert_same_bits(call(cpu, 1, 2, 2**32 - 400, 1025), whole[:1025])


@pytest.mark.parametrize("call", [CALLS[name] for name in ("uniform32", "uniform64", "normal32", "normal64")])
def test_any_number_of_threads_gives_the_same_bits(call, monkeypatch):
    n = 3 * cpu.CHUNK + 1027
    serial = call(cpu, 5, 6, 2**32 - 9000, n)
    monkeypatch.setattr(cpu, "PARALLEL", 0)
    threads = numba.get_num_threads()
    try:
        for count in range(1, threads + 1):
            numba.set_num_threads(count)
            assert_same_bits(call(cpu, 5, 6, 2**32 - 9000, n), serial)
            assert call(cpu, 5, 6, 0, 0).size == 0
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("real", REALS)
def test_box_muller_is_accurate_in_every_corner(real):
    """Against long double, for all orders of magnitude of the two integers at both ends of their range."""
    format = FORMATS[np.dtype(real)]
    unsigned = np.dtype(f"u{np.dtype(real).itemsize}").type
    rng = np.random.default_rng(0)
    u, v = rng.integers(0, 2**format.bits, (2, 60_000), dtype=unsigned)
    shift = rng.integers(0, format.bits, (2, 60_000), dtype=unsigned)
    corners = np.array([0, 1, 2, 3, 2**format.bits - 1, 2**format.bits - 2, 2 ** (format.bits - 1)], dtype=unsigned)
    u = np.concatenate([np.repeat(corners, 7), u, u >> shift[0], ~(u >> shift[0])])
    v = np.concatenate([np.tile(corners, 7), v, v >> shift[1], ~(v >> shift[1])])
    actual = reference.box_muller(u, v, format)

    long = np.longdouble
    one = long(2) ** format.bits
    odd = (u | unsigned(1)).astype(np.uint64)
    log_u = np.where(odd < one / 2, np.log(odd / one), np.log1p(-(one - odd) / one))
    quarter = (v >> unsigned(format.bits - 2)).astype(int)  # 0, 1 on the right side of the circle, 2, 3 on the left
    t = ((v << unsigned(2)) | unsigned(2)).view(type(format.swap)) / one
    angle = t * 2 * np.arctan(long(1))  # π/2 t
    radius = np.where(quarter < 2, 1, -1) * np.sqrt(-2 * log_u)
    cosine, sine = np.cos(angle), np.sin(angle)
    swapped = quarter % 2 == 1
    exact = radius * np.where(swapped, sine, cosine), radius * np.where(swapped, cosine, sine)
    budget = 3 if np.finfo(long).nmant > 60 else 5  # where long double is double, the oracle errs too
    for z, truth in zip(actual, exact, strict=True):
        assert z.dtype == real
        assert np.max(np.abs(z - truth) / np.abs(truth)) < budget * np.finfo(real).eps
        assert np.all(z != 0)
    largest = math.sqrt(2 * format.bits * math.log(2))  # of u = 1: 6.6604 and 9.4193
    assert max(np.abs(z).max() for z in actual) == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
def test_uniform_is_the_top_bits(kernels):
    words = np.array(philox_oracle(7, 8, 9, 1000), np.uint64)
    actual = kernels.philox_uniform(7, 8, 9, 1000, 0.0, 1.0, np.float32)
    np.testing.assert_array_equal(actual, (words >> 8) / 2**24)
    actual = kernels.philox_uniform(7, 8, 9, 500, 0.0, 1.0, np.float64)
    np.testing.assert_array_equal(actual, ((words[1::2] << 32 | words[::2]) >> 11) / 2**53)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("real", REALS)
def test_uniform_never_returns_high(kernels, real):
    """From [1, 1 + eps), half of the draws would round to the upper end."""
    draws = kernels.philox_uniform(0, 0, 0, 100, 1.0, 1.0 + np.finfo(real).eps, real)
    np.testing.assert_array_equal(draws, np.ones(100, real))
    draws = kernels.philox_uniform(0, 0, 0, 10_000, -4.0, -4.0 + 8 * np.finfo(real).eps, real)
    assert draws.min() == -4.0
    assert draws.max() < -4.0 + 8 * np.finfo(real).eps


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 10), (-7, -6), (-(2**63), 2**62), (0, 2**63), (-(2**63), 2**63), (0, 2**62 - 2**31 + 123)],  # the last: carries
)
def test_integers_are_lemires(kernels, low, high):
    """Multiply, and reject what would be drawn too often, in Python integers; the third interval rejects a quarter."""
    span, retries, expected = high - low, 0, []
    for i in range(200):
        block = 3 + i // 2
        while True:
            words = philox_oracle(11, 12, block, 4)
            result, rest = divmod((words[2 * (i % 2)] | words[2 * (i % 2) + 1] << 32) * span, 2**64)
            if rest >= 2**64 % span:
                break
            block, retries = block + BLOCKS, retries + 1
        expected.append(low + result)
    assert kernels.philox_integers(11, 12, 3, 200, low, high).tolist() == expected
    assert (retries > 30) == (span == 2**63 + 2**62)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("real", REALS)
def test_bernoulli_compares_words(kernels, real):
    words = np.array(philox_oracle(1, 1, 1, 400), np.uint64)
    at_word = (words // 2**8 * 2**8 / 2**32).astype(real)  # 24 bits: exact in float32
    p = np.concatenate([at_word[:200], np.zeros(100, real), np.ones(100, real)])
    expected = np.concatenate([words[:200] < words[:200] // 2**8 * 2**8, np.zeros(100), np.ones(100)])
    np.testing.assert_array_equal(kernels.philox_bernoulli(1, 1, 1, 400, p, real), expected)
    above = np.minimum(at_word + real(2.0**-24), real(1))
    assert kernels.philox_bernoulli(1, 1, 1, 400, above, real).all()
    for chance in (0.0, 1.0):
        draws = kernels.philox_bernoulli(1, 1, 1, 400, np.array([chance], real), real)
        np.testing.assert_array_equal(draws, np.full(400, chance, real))


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
def test_out_is_filled_and_checked(kernels):
    out = np.full(10, np.nan, np.float32)
    assert kernels.philox_normal(1, 2, 3, 10, 0.0, 1.0, np.float32, out=out) is out
    assert_same_bits(out, reference.philox_normal(1, 2, 3, 10, 0.0, 1.0, np.float32))
    for wrong in (np.empty(9, np.float32), np.empty(10, np.float64), np.empty(20, np.float32)[::2]):
        with pytest.raises(ValueError, match="10 values of float32"):
            kernels.philox_normal(1, 2, 3, 10, 0.0, 1.0, np.float32, out=wrong)


def test_bernoulli_refuses_a_wrong_number_of_probabilities():
    with pytest.raises(ValueError, match=r"shape \(3,\), but 5 draws"):
        cpu.philox_bernoulli(0, 0, 0, 5, np.full(3, 0.5), np.float32)
