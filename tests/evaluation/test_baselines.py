"""Baselines are likelihoods of real models: they sum to one, agree with brute force, and give the values that are known."""

import itertools
import math

import numpy as np
import pytest

from minigen.data import DataError, load
from minigen.evaluation import bernoulli_mixture, chow_liu_tree, histogram_bits_per_dim, independent_bernoulli

D = 4
ALL = np.array(list(itertools.product([0.0, 1.0], repeat=D)), np.float32)  # (16, 4): every binary image


def as_images(rows):
    """(N, D) -> (N, 2, 2, 1)"""
    return np.asarray(rows, np.float32).reshape(-1, 2, 2, 1)


GREY = as_images(np.random.default_rng(0).random((60, D)) ** 2)
BASELINES = {
    "independent": independent_bernoulli,
    "tree": chow_liu_tree,
    "mixture": lambda train, test: bernoulli_mixture(train, test, components=3, seed=0, iterations=5),
}


def probabilities(baseline, train):
    """p of every binary image, each as the likelihood of a test set of one."""
    return np.exp([-baseline(train, as_images(x)) for x in ALL])


@pytest.mark.parametrize("name", BASELINES)
def test_probabilities_of_all_images_sum_to_one(name):
    p = probabilities(BASELINES[name], GREY)
    assert (p > 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-6)  # float32 counts


@pytest.mark.parametrize("name", ["independent", "tree"])
def test_grey_test_images_stand_for_all_their_binarisations(name):
    """The closed form against the sum over all binary images, each with its probability under the grey one."""
    test = as_images(np.random.default_rng(1).random((5, D)))
    log_p = np.log(probabilities(BASELINES[name], GREY))
    rows = test.reshape(-1, 1, D).astype(np.float64)
    weights = np.prod(np.where(ALL == 1, rows, 1 - rows), axis=-1)  # (5, 16)
    assert BASELINES[name](GREY, test) == pytest.approx(-(weights @ log_p).mean(), rel=1e-7)


def test_independent_pixels_by_hand():
    train = as_images([[0, 1, 1, 0], [0, 1, 0, 0]])
    p = np.array([1, 3, 2, 1]) / 4  # (count + 1) / (n + 2)
    expected = -sum(math.log(q if x else 1 - q) for x, q in zip((1, 1, 0, 0), p, strict=True))
    assert independent_bernoulli(train, as_images([1, 1, 0, 0])) == pytest.approx(expected, rel=1e-7)


def chain(n, rng, flip=0.1):
    """Pixels 2 -> 0 -> 3 -> 1, each equal to the one before but for a flip. Entropy: ln 2 + 3 H(flip)."""
    x = np.empty((n, D), bool)
    x[:, 2] = rng.random(n) < 0.5
    for mother, child in ((2, 0), (0, 3), (3, 1)):
        x[:, child] = x[:, mother] ^ (rng.random(n) < flip)
    return as_images(x), math.log(2) - 3 * (flip * math.log(flip) + (1 - flip) * math.log(1 - flip))


def test_the_tree_finds_a_chain_whatever_the_order_of_pixels():
    rng = np.random.default_rng(2)
    train, entropy = chain(40_000, rng)
    test, _ = chain(40_000, rng)
    assert chow_liu_tree(train, test) == pytest.approx(entropy, abs=0.02)
    assert independent_bernoulli(train, test) == pytest.approx(4 * math.log(2), abs=0.001)  # each pixel alone is a fair coin
    assert bernoulli_mixture(train, test, components=8, seed=0) < 4 * math.log(2) - 0.3


def test_the_tree_is_the_best_of_all_sixteen():
    """Among the spanning trees of four pixels, with the same smoothed pair counts, none is better on the training images."""
    rng = np.random.default_rng(3)
    x = (rng.random((50, D)) < 0.5).astype(np.float64)
    x[:, 3] = np.where(rng.random(50) < 0.8, x[:, 0], x[:, 3])
    x[:, 1] = np.where(rng.random(50) < 0.7, x[:, 0], x[:, 1])
    n = len(x)

    def joint(i, j):
        counts = np.array([[((x[:, i] == a) & (x[:, j] == b)).sum() for b in (0, 1)] for a in (0, 1)])
        return (counts + 0.25) / (n + 1)

    def nll(edges):
        """The root is pixel 0; a tree's likelihood does not depend on it."""
        total, placed, left = -np.log(joint(0, 1).sum(axis=1))[x[:, 0].astype(int)].sum(), {0}, list(edges)
        while left:
            i, j = next(e for e in left if placed & set(e))
            left.remove((i, j))
            mother, child = (i, j) if i in placed else (j, i)
            placed.add(child)
            table = joint(mother, child)
            conditional = table / table.sum(axis=1, keepdims=True)
            total -= np.log(conditional[x[:, mother].astype(int), x[:, child].astype(int)]).sum()
        return total / n

    def spans(edges):
        reached = {0}
        for _ in edges:
            reached |= {b for e in edges if reached & set(e) for b in e}
        return len(reached) == D

    trees = [e for e in itertools.combinations(itertools.combinations(range(D), 2), D - 1) if spans(e)]
    assert len(trees) == 16
    assert chow_liu_tree(as_images(x), as_images(x)) == pytest.approx(min(map(nll, trees)), rel=1e-6)


def test_a_mixture_of_one_is_independent_pixels():
    binary = as_images(np.random.default_rng(4).random((200, D)) < [0.1, 0.5, 0.9, 0.3])
    alone = independent_bernoulli(binary, binary)
    assert bernoulli_mixture(binary, binary, components=1, seed=0, pseudo_count=1) == pytest.approx(alone, rel=1e-5)


def test_a_mixture_finds_two_clusters():
    rng = np.random.default_rng(5)
    p = np.array([[0.95] * 12 + [0.05] * 12, [0.05] * 12 + [0.95] * 12])
    x = (rng.random((4000, 24)) < p[rng.integers(0, 2, 4000)]).astype(np.float32)
    entropy = math.log(2) - 24 * (0.05 * math.log(0.05) + 0.95 * math.log(0.95))  # the clusters hardly overlap
    found = bernoulli_mixture(x[:2000], x[2000:], components=2, seed=0)
    assert found == pytest.approx(entropy, abs=0.15)
    assert found == bernoulli_mixture(x[:2000], x[2000:], components=2, seed=0)


def test_a_histogram_sums_to_one_and_knows_uniform_levels():
    rng = np.random.default_rng(6)
    train = rng.integers(0, 16, (500, 3))
    bits = [histogram_bits_per_dim(train[:, :1], np.array([[k]]), 16) for k in range(16)]
    assert sum(2.0**-b for b in bits) == pytest.approx(1, rel=1e-12)
    uniform = rng.integers(0, 256, (200_000, 2))
    assert histogram_bits_per_dim(uniform, uniform[:1000], 256) == pytest.approx(8, abs=0.01)
    constant = np.full((998, 3), 7)
    assert histogram_bits_per_dim(constant, constant[:5], 2**8) == pytest.approx(math.log2((998 + 256) / 999), rel=1e-12)


@pytest.mark.slow
def test_the_values_known_for_mnist():
    """Dynamically binarised MNIST in nats, and 8-bit MNIST in bits per dimension; needs the files, see MINIGEN_DATA."""
    try:
        train, test = load("mnist", "train").x, load("mnist", "test").x
    except DataError as error:
        pytest.skip(str(error))
    assert independent_bernoulli(train, test) == pytest.approx(205.78, abs=0.05)
    assert chow_liu_tree(train, test) == pytest.approx(134.9, abs=0.1)
    assert bernoulli_mixture(train, test, components=200, seed=0) == pytest.approx(130.9, abs=0.7)
    assert histogram_bits_per_dim(np.rint(train * 255), np.rint(test * 255), 256) == pytest.approx(1.689, abs=0.001)
