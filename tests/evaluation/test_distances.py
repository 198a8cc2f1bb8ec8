"""Truths fid, mmd, sliced-w, neighbours and mig: metrics against closed forms, and mistakes in them that these see.

Monte Carlo values lie within 4 standard errors, which come from repetitions with seeds of their own.
"""

import inspect
import itertools
import math
import textwrap

import numpy as np
import pytest

from minigen.evaluation import disentanglement, distances, neighbours
from minigen.evaluation.score import FOR_FEATURES, FOR_POINTS, SCORES, Score, compare
from minigen.random import Generator

D, SHIFT = 4, np.array([1.0, -0.5, 0.0, 2.0])
M2 = float(SHIFT @ SHIFT)


def normal(seed, n, d=D, mean=0.0, std=1.0):
    return np.random.default_rng(seed).normal(size=(n, d)) * std + mean


def agrees(values, truth):
    """The mean of independent values with an expectation that is known."""
    values = np.asarray(values)
    assert abs(values.mean() - truth) < 4 * values.std(ddof=1) / math.sqrt(len(values)), (values.mean(), truth)


# ---- the checks


def exactly_moments(n, d, mean, covariance, seed=0):
    """n rows whose mean and covariance (with 1/(n-1)) are exactly these."""
    x = normal(seed, n, d)
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T).reshape(d, d))).T
    values, vectors = np.linalg.eigh(covariance)
    return x @ (vectors * np.sqrt(np.maximum(values, 0))).T + mean


def check_fid():
    """N(0, I_4) and N(1, 4 I_4): 4 + 4 (1 + 4 - 2·2) = 8. And a pair that does not commute, and singular covariances."""
    eye = np.eye(4)
    x, y = exactly_moments(50, 4, 0.0, eye), exactly_moments(70, 4, 1.0, 4 * eye, seed=1)
    assert math.isclose(distances.frechet_distance(x, y), 8, rel_tol=1e-9)
    a, b = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    product = a @ b  # 2 x 2: tr √P = √(tr P + 2 √det P)
    exact = np.trace(a + b) - 2 * math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    found = distances.frechet_distance(exactly_moments(40, 2, 0, a), exactly_moments(40, 2, 0, b, 1))
    assert math.isclose(found, exact, rel_tol=1e-9)
    flat = np.array([[1.0, 1.0], [1.0, 1.0]])  # along (1, 1), against (1, -1): nothing in common
    found = distances.frechet_distance(exactly_moments(40, 2, 0, flat), exactly_moments(40, 2, 0, 2 * np.eye(2) - flat, 1))
    assert math.isclose(found, 4, rel_tol=1e-6)
    few = distances.frechet_distance(normal(0, 5, 30), normal(1, 5, 30))  # rank 4 in 30 dimensions
    assert 0 < few < 200


def check_mmd():
    """N(0, I) and N(m, I): 2 (s²/(s² + 2))^(D/2) (1 - exp(-½ |m|²/(s² + 2))), s the width; and 0 on equal distributions."""
    width = 1.7
    s2 = width**2
    truth = 2 * (s2 / (s2 + 2)) ** (D / 2) * (1 - math.exp(-M2 / (2 * (s2 + 2))))
    agrees([distances.mmd(normal(i, 60), normal(1000 + i, 45, mean=SHIFT), width) for i in range(100)], truth)
    agrees([distances.mmd(normal(i, 40), normal(1000 + i, 60), width) for i in range(200)], 0)


def check_kid():
    """With the cubic kernel the same follows from the moments of a·b up to the third."""
    same = 1 + 3 / D  # E (s/D + 1)³ for s = a·b, both from N(0, I): E s = E s³ = 0, E s² = D
    across = 1 + 3 * (D + M2) / D**2  # one from N(m, I): E s² = D + |m|²
    third = M2**3 + 6 * M2**2 + 3 * M2 * D + 6 * M2
    shifted = 1 + 3 * M2 / D + 3 * (M2**2 + 2 * M2 + D) / D**2 + third / D**3  # both from N(m, I)
    agrees([distances.kid(normal(i, 60), normal(1000 + i, 45, mean=SHIFT)) for i in range(200)], same + shifted - 2 * across)
    agrees([distances.kid(normal(i, 8), normal(5000 + i, 6)) for i in range(1500)], 0)


def check_sliced():
    """A shift by m: |m|²/D, for every orthonormal set of directions, so without any spread."""
    x = normal(0, 30)
    for directions in (1, 4, 6):
        found = distances.sliced_wasserstein(x, x[::-1] + SHIFT, Generator(directions), directions)
        assert math.isclose(found, M2 / D, rel_tol=1e-9)
    wide = distances.sliced_wasserstein(x, 3 * x, Generator(0), 4)  # W₂² of u·x and 3 u·x is 4 E (u·x)²
    assert math.isclose(wide, 4 * (x**2).sum() / len(x) / D, rel_tol=1e-9)


def check_neighbours():
    """Equal distributions: density 1, coverage 1 - Π (N - i)/(N + M - i). By hand: one of two clusters missed."""
    for k, n, m in ((1, 40, 60), (5, 60, 45)):
        found = [neighbours.density_coverage(normal(i, n, 2), normal(5000 + i, m, 2), k) for i in range(150)]
        density, coverage = np.array(found).T
        agrees(density, 1)
        agrees(coverage, 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1)))
    left, right = normal(0, 30, 2, std=0.1), normal(1, 20, 2, mean=9.0, std=0.1)
    real, missing, astray = np.concatenate([left, right]), left + 1e-6, np.concatenate([left + 1e-6, right + 90])
    assert neighbours.precision_recall(real, missing) == (1.0, 0.6)
    assert neighbours.precision_recall(real, astray) == (0.6, 0.6)
    assert neighbours.precision_recall(astray, real) == (0.6, 0.6)
    assert neighbours.density_coverage(real, missing)[1] == 0.6
    line = np.arange(6.0)[:, None]  # reach of each with k = 2: 2 1 1 1 1 2
    np.testing.assert_array_equal(neighbours.radii(line, 2), [4, 1, 1, 1, 1, 4])
    assert neighbours.precision_recall(line, np.array([[-2.0], [-2.1], [3.5], [7.5]]), 2)[0] == 0.5
    density = neighbours.density_coverage(line, np.array([[-2.0], [3.5]]), 2)[0]  # in one ball, and in those of 3, 4 and 5
    assert density == 4 / (2 * 2)
    assert (neighbours.radii(np.zeros((5, 2)), 2) == 0).all()  # copies


def factors(n=4000):
    """Two independent factors of 5 and 4 values, evenly."""
    return np.array(list(itertools.product(range(5), range(4))) * (n // 20))


def check_mig():
    """1 for a code that is the factors, 0 for one turned by 45° (both dimensions know as much) and for noise."""
    v = factors()
    aligned = v / [4, 3]
    assert math.isclose(disentanglement.mig(aligned, v), 1, abs_tol=1e-9)
    among_noise = np.concatenate([normal(1, len(v), 3), aligned[:, ::-1]], axis=1)
    assert math.isclose(disentanglement.mig(among_noise, v), 1, abs_tol=0.1)
    twice = np.stack([v[:, 0], v[:, 0], v[:, 1]], axis=1)  # two dimensions know all of the first factor: its gap is 0
    assert math.isclose(disentanglement.mig(twice, v), 0.5, abs_tol=1e-9)
    square = np.array(list(itertools.product(range(5), range(5))) * 200)
    turned = square @ np.array([[1.0, 1.0], [-1.0, 1.0]]) / math.sqrt(2)
    assert abs(disentanglement.mig(turned, square)) < 1e-9
    assert abs(disentanglement.mig(normal(0, len(v), 5), v)) < 0.02
    half = np.where(v[:, :1] < 2, 0, 1) + 0.0  # one dimension that says whether the first factor is below 2: H(0.4) of ln 5
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6))
    found = disentanglement.mig(np.concatenate([half, np.zeros_like(half)], axis=1), v[:, :1])
    assert math.isclose(found, entropy / math.log(5), rel_tol=1e-9)


CHECKS = (check_fid, check_mmd, check_kid, check_sliced, check_neighbours, check_mig)


@pytest.mark.parametrize("check", CHECKS)
def test_truth(check):
    check()


def test_bias_of_the_frechet_distance_falls_as_one_over_n():
    """On equal distributions: twice as many samples, half the distance."""
    own = lambda i, n: distances.frechet_distance(normal(i, n), normal(9000 + i, n))
    means = [np.mean([own(i, n) for i in range(150)]) for n in (50, 100, 200)]
    for more, fewer in itertools.pairwise(means):
        assert 1.85 < more / fewer < 2.25


# ---- the same, with mistakes


MISTAKES = {  # what it is: who catches it, the function, what is replaced, by what
    "no square root": (check_fid, distances.frechet_distance,
     "np.sqrt(np.maximum(np.linalg.eigvalsh", "(np.maximum(np.linalg.eigvalsh"),
    "roots multiplied": (check_fid, distances.frechet_distance,
     "root @ cy @ root", "root @ np.sqrt(np.abs(cy)) @ root"),
    "the cross term once": (check_fid, distances.frechet_distance, "- 2 * cross", "- cross"),
    "means not squared": (check_fid, distances.frechet_distance,
     "shift @ shift", "np.sqrt(shift @ shift)"),
    "root of the product as it is": (check_fid, distances.frechet_distance,
     "eigvalsh(root @ cy @ root)", "eigvalsh(cx @ cy)"),
    "biased": (check_mmd, distances._unbiased_mmd2,
     "off_diagonal=True", "off_diagonal=False"),
    "divided by n²": (check_mmd, distances._unbiased_mmd2, "(n * (n - 1))", "(n * n)"),
    "cross term once": (check_mmd, distances._unbiased_mmd2, "- 2 * between", "- between"),
    "width for variance": (check_mmd, distances.mmd, "width**2", "width"),
    "without the ½": (check_mmd, distances.mmd, "-0.5 / width", "-1 / width"),
    "squared, not cubed": (check_kid, distances.kid, "** 3", "** 2"),
    "not divided by D": (check_kid, distances.kid, " / a.shape[1]", ""),
    "biased kernel distance": (check_kid, distances._unbiased_mmd2, "(m * (m - 1))", "(m * m)"),
    "directions not orthonormal": (check_sliced, distances.sliced_wasserstein,
     "np.linalg.qr(rng.normal((d, d), dtype=np.float64))[0]", "rng.normal((d, d), dtype=np.float64)"),
    "not sorted": (check_sliced, distances.sliced_wasserstein,
     "np.sort(y @ u, axis=0)", "y @ u"),
    "sorted before projection": (check_sliced, distances.sliced_wasserstein,
     "np.sort(y @ u, axis=0)", "np.sort(y, axis=0) @ u"),
    "absolute, not squared": (check_sliced, distances.sliced_wasserstein,
     "np.square(np.sort", "np.abs(np.sort"),
    "itself as the nearest": (check_neighbours, neighbours.radii, "[:, k]", "[:, k - 1]"),
    "balls of the others": (check_neighbours, neighbours.precision_recall,
     "_counts(real, fake, radii(fake, k))", "_counts(fake, real, radii(real, k))"),
    "density without k": (check_neighbours, neighbours.density_coverage,
     "/ (k * len(fake))", "/ len(fake)"),
    "coverage of the fakes": (check_neighbours, neighbours.density_coverage,
     "held.mean()", "(_counts(fake, real, reach) > 0).mean()"),
    "not by the entropy": (check_mig, disentanglement.mig, "(first - second) / entropy", "first - second"),
    "the best alone": (check_mig, disentanglement.mig, "(first - second)", "first"),
    "first and last": (check_mig, disentanglement.mig,
     "reverse=True)[:2]", "reverse=True)[::len(cells) - 1]"),
    "joint of one": (check_mig, disentanglement._mutual_information,
     "a * (b.max() + 1) + b", "a + b"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_caught(mistake, monkeypatch):
    check, function, text, new = MISTAKES[mistake]
    module, source = inspect.getmodule(function), textwrap.dedent(inspect.getsource(function))
    assert text in source, f"{function.__name__} has no {text!r}: mend the mistake"
    scope = dict(vars(module))
    exec(compile(source.replace(text, new), f"<{mistake}>", "exec"), scope)
    monkeypatch.setattr(module, function.__name__, scope[function.__name__])
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check()


# ---- scores


def test_a_score_needs_the_value_of_real_data():
    assert str(Score("FID", 52.61, 0.95, 10_000, "mnist test")) == "FID 52.61 (n = 10000, mnist test); real against real 0.9500"
    assert str(Score("KID", -0.000123, 0.0, 10, "x")) == "KID -0.000123 (n = 10, x); real against real 0"
    for nothing in (None, math.nan):
        with pytest.raises(ValueError, match="KID means nothing alone"):
            Score("KID", 1.0, nothing, 10, "x")


def test_a_sample_of_the_data_scores_like_other_data_and_anything_else_worse():
    assert set(FOR_FEATURES) | set(FOR_POINTS) == set(SCORES)
    real, others = normal(0, 400, 2), normal(1, 300, 2)
    for names in (FOR_FEATURES, FOR_POINTS):
        good = {s.name: s for s in compare(normal(2, 300, 2), real, others, names, "points")}
        narrow = {s.name: s for s in compare(normal(2, 300, 2, std=0.4), real, others, names, "points")}
        astray = {s.name: s for s in compare(normal(2, 300, 2, mean=5.0), real, others, names, "points")}
        for score in (*good.values(), *narrow.values()):
            assert (score.n, score.data) == (300, "points")
        assert narrow["recall"].value < 0.8 * good["recall"].value
        assert narrow["precision"].value >= good["precision"].value
        assert astray["precision"].value < 0.1 < good["precision"].value
        for name, score in good.items():
            assert score.floor == narrow[name].floor
            if name not in ("precision", "recall", "density", "coverage"):
                assert astray[name].value > 20 * abs(score.value), name
                assert astray[name].value > narrow[name].value > score.value, name
    with pytest.raises(ValueError, match="300 samples against 200 real ones"):
        compare(normal(2, 300, 2), real[:200], others, FOR_POINTS, "points")


@pytest.mark.parametrize(("call", "said"), [
    (lambda: distances.frechet_distance(normal(0, 5), normal(0, 5, 3)), r"not \(5, 4\) and \(5, 3\)"),
    (lambda: distances.kid(normal(0, 5), normal(0, 1)), "at least 2"),
    (lambda: distances.mmd(normal(0, 5), normal(0, 5), 0), "must be above 0, not 0"),
    (lambda: distances.mmd(normal(0, 5), np.full((5, 4), np.nan), 1), "the second array holds NaN"),
    (lambda: distances.sliced_wasserstein(normal(0, 5), normal(0, 6), Generator(0)), "5 rows against 6"),
    (lambda: neighbours.radii(normal(0, 5), 5), "k = 5 neighbours among 5 rows"),
    (lambda: disentanglement.mig(normal(0, 5, 1), np.zeros((5, 1))), "D at least 2"),
    (lambda: disentanglement.mig(normal(0, 5, 2), np.zeros((5, 1))), "none of the factors varies"),
])  # fmt: skip
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_median_distance():
    assert distances.median_distance(np.array([[0.0], [1.0], [3.0]])) == 2.0
    assert distances.median_distance(np.array([[0.0], [1.0], [3.0]]), most=2) == 1.0
